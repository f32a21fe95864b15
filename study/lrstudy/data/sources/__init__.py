"""Sources of examples, one kind a file."""

"""Tasks: what a model learns, with its loss and its metrics."""

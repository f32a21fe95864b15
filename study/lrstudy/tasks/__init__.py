"""Tasks: what is learnt, with its loss and its metrics."""

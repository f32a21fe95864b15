"""Data, model, device and numerics of a study, resolved."""

"""What a study trains and on what: data, model, device and numerics, resolved from the study file."""

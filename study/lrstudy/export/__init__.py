"""What a study has found, taken out of it: a trained model with its preprocessing, and a study that trains it on new data."""

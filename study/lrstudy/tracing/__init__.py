"""`lrstudy trace`: what policies do, without training."""

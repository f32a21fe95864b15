"""`lrstudy init`: examines a user's data and writes a first study file for it."""

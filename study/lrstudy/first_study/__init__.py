"""`lrstudy init`: a look at somebody's data, and a first study file for it."""

"""lrstudy: which learning-rate or batch-size policy gives the most accuracy per GPU-hour, and is it real?

Importing this package imports neither torch nor ray.
"""

__version__ = "0.1.0"

"""One image at a time in NumPy: the readable definition of every layer."""

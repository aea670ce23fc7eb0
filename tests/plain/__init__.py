"""A step of the real training path against an independent implementation with loops, row by row."""

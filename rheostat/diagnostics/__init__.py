"""A closer look at one update: the gradient microscope, and one batch through several methods."""

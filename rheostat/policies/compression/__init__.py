"""Controllers that decide over the layers of a network."""

"""Methods that compress networks."""

"""The documentation: its examples run, and its generated pages lose nothing."""

"""Methods for control policies, one file per published system."""

"""Methods for language models, one file per published system."""

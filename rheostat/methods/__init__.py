"""One file per published system, plus the baselines they are compared with; ``table.py`` lists them."""

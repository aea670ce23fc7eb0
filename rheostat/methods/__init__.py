"""One file per published system, plus the baselines they are compared with; ``table`` lists them all."""

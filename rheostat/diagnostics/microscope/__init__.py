"""The gradient microscope: estimators against exact values, on problems small enough to list every outcome."""

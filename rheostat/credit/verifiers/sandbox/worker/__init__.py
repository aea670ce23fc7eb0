"""What runs in the grading process."""

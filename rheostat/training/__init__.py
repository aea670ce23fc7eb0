"""Runs: the loop around a learner, the directory, exact checkpoints, progress, logs."""

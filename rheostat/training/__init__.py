"""The loop, the run directory, exact checkpoints, progress, logs, seeds and the meter."""

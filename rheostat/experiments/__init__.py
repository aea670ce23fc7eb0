"""What starts runs: grids of jobs, comparisons, sweeps, studies."""

MOST_SEEDS, MOST_JOBS = 1_000, 1_024
"""Most runs of one method or setting, and most runs at a time."""

"""What starts runs: grids of jobs, comparisons, sweeps, studies."""

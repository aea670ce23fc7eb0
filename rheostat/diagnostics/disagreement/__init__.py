"""Same data, different method: the frozen batch of a run, replayed through any set of methods."""

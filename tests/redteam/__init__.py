"""Hostile completions and a range to try them on: ``python -m tests.redteam [LEVEL ...]`` prints what gets out at each level."""

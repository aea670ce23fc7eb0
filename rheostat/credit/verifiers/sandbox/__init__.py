"""Graders behind walls: what a completion can look like, and what the process that reads it may do."""

"""Architectures that a controller draws, and what each of them is worth."""

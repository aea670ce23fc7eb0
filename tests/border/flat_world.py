"""Registers an environment, as a module of a user's does."""

import gymnasium

from tests.border.worlds import Line

if "Line-v0" not in gymnasium.registry:
    gymnasium.register("Line-v0", Line)

"""The ids of our own worlds, made known to Gymnasium when they are first needed."""

from __future__ import annotations


def register() -> None:
    """Register every ``rheostat/...`` id with Gymnasium; calling it again does nothing."""

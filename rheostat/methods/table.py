"""The table of methods: one explicit list, nothing found by magic.

Method modules are imported when they are asked for, so that listing them is instant.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from rheostat.errors import unknown

Domain = Literal["control", "language"]


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    path: str
    """``module:Class`` of the method."""
    domain: Domain
    title: str
    paper: str
    verified: str
    """What has been checked, for ``rheostat list``."""

    def load(self) -> Any:
        """The method class."""
        module, name = self.path.split(":")
        return getattr(importlib.import_module(module), name)

    @property
    def module(self) -> Any:
        """The module, whose docstring holds the paper, the equations and what differs."""
        return importlib.import_module(self.path.split(":")[0])


METHODS: dict[str, Entry] = {
    "a2c": Entry("rheostat.methods.a2c:A2C", "control", "Advantage actor-critic", "1602.01783", "vectors (SB3), probes, resume"),
    "ppo": Entry(
        "rheostat.methods.ppo:PPO", "control", "Proximal policy optimisation", "1707.06347", "vectors (SB3, CleanRL), probes, resume"
    ),
    "ppo-buffer": Entry(
        "rheostat.methods.ppo_buffer:PPOBuffer", "control", "PPO reusing the last batches", "2311.08290", "vectors, probes, resume, study"
    ),
    "props": Entry(
        "rheostat.methods.props:PROPS", "control", "Proximal robust on-policy sampling", "2311.08290", "vectors, probes, resume, study"
    ),
    "robust-acting": Entry(
        "rheostat.methods.robust_acting:RobustActing", "control", "Robust on-policy acting", "2111.14552", "probes, resume"
    ),
    "ros": Entry("rheostat.methods.ros:ROS", "control", "Robust on-policy sampling", "2111.14552", "vectors, probes, resume, study"),
}


def entry(name: str) -> Entry:
    """The row of a method.

    Raises:
        RheostatError: unknown name, with the nearest known ones.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]

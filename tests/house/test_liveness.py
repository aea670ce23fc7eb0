"""Every option of every method changes a weight or a metric, or is refused; what by nature changes neither is named with the reason.

PPO and SAC are tried here and all others in the nightly tests: first four methods whose parts most others share, then what only others
have, then what they share.
"""

from __future__ import annotations

import functools

import pytest

from rheostat.methods import table
from tests.house.liveness import IDLE, REFUSED, TOGETHER, Case, cases, dead, lacking, outcome

FIRST = ("grpo", "ppo", "sac", "iql")
"""Methods that speak for those that share their parts."""
FAST = ("ppo",)
"""Those of them that are tried outside of the nightly tests, too."""


def alive(method: str, tried: list[Case]) -> None:
    """No option does nothing."""
    assert not (before := outcome(method, {})).startswith(REFUSED), before
    assert [said for case in tried for said in dead(method, case)] == []


@functools.cache
def spoken_for() -> frozenset[tuple[str, tuple[str, str]]]:
    """The options of the first methods, by domain and by the class that declares them."""
    return frozenset((table.entry(method).domain, case.owner) for method in FIRST for case in cases(method))


@pytest.mark.parametrize("method", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FIRST])
def test_every_option_acts(method: str) -> None:
    earlier = [each for each in FIRST[: FIRST.index(method)] if table.entry(each).domain == table.entry(method).domain]
    known = {case.owner for each in earlier for case in cases(each)}
    alive(method, [case for case in cases(method) if case.owner not in known])


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in table.METHODS if name not in FIRST])
def test_every_own_option_acts(method: str) -> None:
    alive(method, [case for case in cases(method) if (table.entry(method).domain, case.owner) not in spoken_for()])


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in table.METHODS if name not in FIRST])
def test_every_shared_option_acts(method: str) -> None:
    alive(method, [case for case in cases(method) if (table.entry(method).domain, case.owner) in spoken_for()])


def test_what_is_declared_exists() -> None:
    """A method has the option and everything that it is tried among, too: what an old name says is left out in silence."""
    having: dict[str, list[str]] = {}
    known: dict[str, set[str]] = {}
    for method in table.METHODS:
        for case in cases(method):  # those of other kinds of its parts, too
            having.setdefault(case.option.path, []).append(method)
            known.setdefault(method, set()).update({case.option.path, case.option.short})
    assert set(TOGETHER) | set(IDLE) <= set(having) and all(IDLE.values())
    asked = [(path, together) for path, several in TOGETHER.items() for together in several]
    assert [
        (path, together) for path, together in asked if all(set(lacking(method, together)) - known[method] for method in having[path])
    ] == []


def test_an_option_that_does_nothing_is_seen() -> None:
    folder = next(case for case in cases("sac") if case.option.path == "replay.folder")
    assert outcome("sac", {"replay.folder": None}) == outcome("sac", {})
    assert dead("sac", folder) == [] and outcome("sac", {"gamma": 0.5}) != outcome("sac", {})

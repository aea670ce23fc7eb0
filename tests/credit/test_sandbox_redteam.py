"""The red team: what hostile completions get out of a grader that executes them. ``python -m tests.redteam`` prints the whole table."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from rheostat.errors import RheostatError
from tests.redteam.attacks import ATTACKS, Attack
from tests.redteam.target_range import at, outside

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the range watches processes through /proc")

LIMIT = 0.4
KNOWN = {"kernel": {"stat the file"}, "namespaces": set()}
"""Landlock guards what files hold, not that they exist (landlock(7)); without a mount namespace their names and sizes can be probed."""


def effects(level: str, attacks: Sequence[Attack] = ATTACKS) -> dict[str, list[str]]:
    try:
        with at(level, LIMIT) as ground:
            fired = {f"{attack.kind}: {attack.name}": ground.fire(attack) for attack in attacks}
    except RheostatError as error:
        pytest.skip(str(error))
    return {name: outside(found) for name, found in fired.items() if outside(found)}


def test_the_list_is_long_and_names_are_distinct():
    assert len(ATTACKS) >= 150 and len({(attack.kind, attack.name) for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.parametrize("level", ["namespaces", "kernel"])
def test_nothing_gets_out(level):
    assert {name for name in effects(level) if name.partition(": ")[2] not in KNOWN[level]} == set()


def test_what_the_level_process_promises():
    """No process outlives its grading, and no completion changes another's grade. (It can kill the grading process, and lose its row.)"""
    promised = {"outlive the grading", "change another's grade"}
    assert effects("process", [attack for attack in ATTACKS if attack.kind in promised and not attack.parent]) == {}


def test_the_range_sees_what_gets_out():
    """Without a sandbox these very attacks succeed, so that their failure elsewhere means something."""
    with at("off", LIMIT) as ground:
        names = {
            "open the file", "the environment", "list the folder", "write", "system", "TCP", "UDP", "an abstract UNIX socket", "kill",
            "fork into a session", "the grader's class", "exec", "three gigabytes, mapped",
        }  # fmt: skip
        seen = {attack.name: outside(ground.fire(attack)) for attack in ATTACKS if attack.name in names}
    assert len(seen) == len(names) and all(seen.values()), seen

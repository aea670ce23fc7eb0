"""Every golden run gives the numbers of the table; and the comparison sees what it is there to see."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from rheostat.methods import table
from tests.golden import run as harness
from tests.golden.cases import CASES, setting

EVERY = [pytest.param(name, id=name, marks=pytest.mark.slow if setting(name).slow else ()) for name in CASES]


@pytest.mark.parametrize("name", EVERY)
def test_the_numbers_are_those_of_the_table(name: str) -> None:
    assert harness.check(name) == []


def test_every_method_has_a_case_and_every_case_a_row() -> None:
    assert {setting(name).method for name in CASES} == set(table.METHODS)
    assert set(harness.read()["cases"]) == set(CASES)


def row(name: str = "ppo/plain") -> harness.Record:
    """A row of the table."""
    found: harness.Record = harness.read()["cases"][name]
    return copy.deepcopy(found)


def test_a_row_equals_itself() -> None:
    assert harness.differences(row(), row(), exact=True) == harness.differences(row(), row(), exact=False) == []


def test_one_bit_is_seen_where_hashes_are_compared_and_not_elsewhere() -> None:
    changed = row()
    hashed, value = changed["columns"]["policy_loss"]
    changed["columns"]["policy_loss"] = [hashed[::-1], value * (1 + 1e-7)]
    changed["metrics"] = changed["metrics"][::-1]
    said = harness.differences(changed, row(), exact=True)
    assert len(said) == 2 and said[0].startswith("policy_loss differs") and said[1] == "the hash of metrics differs"
    assert harness.differences(changed, row(), exact=False) == []
    changed["weights"] = changed["weights"][::-1]
    assert "the hash of the weights differs" in harness.differences(changed, row(), exact=True)


def test_a_thousandth_is_seen_everywhere() -> None:
    changed = row()
    changed["columns"]["value_loss"][1] *= 1.001
    changed["roles"]["policy"][1] *= 1.001
    said = harness.differences(changed, row(), exact=False)
    assert [text.split(" differ")[0] for text in said] == ["value_loss", "weights of policy"]


def test_metrics_and_roles_that_come_or_go_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = row()
    changed["columns"]["entropy_of_old"] = changed["columns"].pop("entropy")
    changed["roles"]["critic"] = changed["roles"].pop("value")
    said = harness.differences(changed, row(), exact=False)
    assert said == ["metrics are gone: entropy", "metrics are new: entropy_of_old", "roles are gone or new: critic, value"]
    monkeypatch.setattr(harness, "REMOVED", {"entropy"})
    assert harness.differences(changed, row(), exact=False)[0] == "metrics are new: entropy_of_old"


def test_declared_names_are_undone_before_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = harness.columns_of([{"b": 1.0, "a": 2.0}, {"a": 3.0}])
    assert before == {"a": [[0, 2.0], [1, 3.0]], "b": [[0, 1.0]]}
    monkeypatch.setattr(harness, "RENAMED", {"a": "z"})
    monkeypatch.setattr(harness, "ADDED", {"new"})
    assert harness.columns_of([{"b": 1.0, "z": 2.0, "new": 0.0}, {"z": 3.0}]) == before


def test_the_hash_of_weights_follows_roles_and_bits_and_not_the_order() -> None:
    first: list[tuple[str, Any]] = [("policy", torch.ones(2, 3)), ("policy", torch.zeros(3)), ("value", torch.ones(2))]
    found = harness.digest_weights(first)
    assert found == harness.digest_weights(first[::-1])
    swapped = [("value", first[0][1]), *first[1:]]
    nudged = [("policy", torch.ones(2, 3) + torch.finfo(torch.float32).eps), *first[1:]]
    turned = [("policy", torch.ones(3, 2)), *first[1:]]
    assert len({found, *(harness.digest_weights(each) for each in (swapped, nudged, turned))}) == 4


def test_the_fingerprint_is_the_same_twice() -> None:
    assert harness.numerics() == harness.numerics()

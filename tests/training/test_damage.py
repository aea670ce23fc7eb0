"""No damage to a file of a run continues silently or ends in a traceback."""

from __future__ import annotations

import pytest

from tests.damage import KINDS, damages, damages_of_files


@pytest.mark.parametrize("mutations", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_damage_is_healed_or_said(mutations: int) -> None:
    counts, bad = damages(mutations, seed=0)
    assert bad == [] and sum(counts.values()) == mutations and min(counts["same"], counts["sentence"]) > 0


@pytest.mark.parametrize("mutations", [80, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_to_files_of_every_kind_is_said(mutations: int) -> None:
    counts, bad = damages_of_files(mutations, seed=0)
    assert bad == [] and sum(counts.values()) == mutations >= 10 * len(KINDS) and counts["sentence"] > mutations / 3

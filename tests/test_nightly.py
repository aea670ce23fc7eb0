"""The list of nightly tests names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import NIGHTLY


@pytest.mark.parametrize("name", sorted(NIGHTLY))
def test_a_listed_test_exists(name: str) -> None:
    file, _, test = name.partition("::")
    text = (Path(__file__).parent / file).read_text()
    assert re.search(rf"^def {re.escape(test.partition('[')[0])}\(", text, re.MULTILINE), name

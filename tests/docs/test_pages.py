"""The parts that pages are generated from: docstrings taken apart without loss, and vectors that exist and pass."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.methods.table import METHODS
from tests.vectors.runner import find_adapter, load, run_case

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"
LABELS = {"what", "differs", "from", "checked", "against", "paper", "papers", "source", "moves"}
"""Words that become a heading or the name of a row."""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``hook(name)`` imports one of the site's hooks."""
    monkeypatch.syspath_prepend(str(HOOKS))
    return importlib.import_module


def words(text: str) -> list[str]:
    """Letters and digits alone: markup, links and labels do not matter."""
    return re.findall(r"[a-z0-9]+", text.lower())


@pytest.mark.parametrize("method", METHODS)
def test_docstrings_lose_nothing(method: str, hook: Any) -> None:
    docstring = METHODS[method].module.__doc__
    text = hook("docstrings").read(docstring)
    parts = [text.title, text.paper, *text.equations, text.differs_from, text.differs, text.checked, *text.notes]
    parts += [f"{question} {answer}" for question, answer in text.answers]
    missing = set(words(docstring)) - set(words(" ".join(parts))) - LABELS
    assert not missing, missing
    assert text.title
    assert text.equations or method == "ppo-buffer"


def test_docstring_parts(hook: Any) -> None:
    docstring = """X: a method.

Paper: Somebody 2020, arXiv 2001.00001.

Equations (G of them)
    a   = b
      + c
    d   = E[x_i]

WHO ACTS   the policy,
           again.
KEPT, WORTH   as in ppo.
What differs from ppo: nothing, see
``y_z`` | w.
Checked against: z.

A word <more>.
"""
    text = hook("docstrings").read(docstring)
    assert text.equations == ["Equations (G of them)\na   = b\n  + c\nd   = E[x_i]"]
    assert text.answers == [("WHO ACTS?", "the policy, again."), ("WHAT IS KEPT? WHAT IS IT WORTH?", "as in ppo.")]
    assert text.paper == "Somebody 2020, [arXiv 2001.00001](https://arxiv.org/abs/2001.00001)."
    assert (text.differs_from, text.differs) == ("ppo", "Nothing, see `y_z` | w.")
    assert text.checked == "z." and text.notes == ["A word &lt;more>."]


def test_vectors_are_named_and_pass(hook: Any) -> None:
    evidence = hook("evidence")
    assert set(evidence.CASES) <= set(METHODS)
    named = {
        (group.file, case) for name, entry in METHODS.items() for group in evidence.vectors(name, entry.verified) for case in group.names
    }
    said = [who for name, entry in METHODS.items() for group in evidence.vectors(name, entry.verified) for who in group.sources]
    assert [who for who in said if who.endswith(" of ")] == []  # a file's own source stands for cases without one
    for file in {file for file, _ in named}:
        content = load(file)
        adapter = find_adapter(content)
        assert adapter is not None
        for case in content["cases"]:
            if (file, case["name"]) in named:
                assert run_case(adapter, case).outcome == "passed", case["name"]


def test_vectors_must_be_named(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = hook("evidence")
    with pytest.raises(RheostatError, match="name its cases"):
        evidence.vectors("new-method", "vectors (theirs), resume")
    monkeypatch.setitem(evidence.CASES, "ppo", {"props": ("no such case*",)})
    with pytest.raises(RheostatError, match=r"no case of props\.json"):
        evidence.vectors("ppo", "vectors")


def test_arms_are_recognised(hook: Any) -> None:
    evidence = hook("evidence")
    assert [evidence.name_of_arm(arm) for arm in ("PROPS m=64", "PPO-Buffer", "REINFORCE++")] == ["props", "ppo-buffer", "reinforce-pp"]
    assert any(study == "props" for study, _ in evidence.claims("ppo-buffer", "2311.08290"))


def test_a_damaged_result_stops_the_build(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs", reason="the hooks of the documentation need the extra docs")
    pages, evidence = hook("pages"), hook("evidence")
    whole = (evidence.RESULTS / "nft.png").read_bytes()
    picture = tmp_path / "nft.png"
    picture.write_bytes(whole)
    pages.require_whole(picture)
    for damaged in (whole[: len(whole) // 2], whole[:5000] + bytes([whole[5000] ^ 4]) + whole[5001:], b""):
        picture.write_bytes(damaged)
        with pytest.raises(RheostatError, match=r"The picture .*nft\.png is damaged"):
            pages.require_whole(picture)
    (tmp_path / "nft.json").write_text((evidence.RESULTS / "nft.json").read_text().replace('"undecided"', '"supported"', 1))
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    with pytest.raises(RheostatError, match="it does not match its own digest"):
        evidence.studies.__wrapped__()

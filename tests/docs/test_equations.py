"""Equations of docstrings are typeset without losing a word or a letter, as markup that every browser reads."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rheostat.methods.table import METHODS

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``hook(name)`` imports one of the site's hooks."""
    monkeypatch.syspath_prepend(str(HOOKS))
    return importlib.import_module


def shown(html: str) -> str:
    """What a reader sees, without spaces; also a proof that the markup is well formed."""
    return "".join("".join(ElementTree.fromstring(f"<p>{html}</p>").itertext()).split())


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("y = r + gamma Qbar_k(s', a*)", "y=r+γQ¯k(s′,a∗)"),
        ("loss = -mean log pi(a|s),      a Gaussian around tanh of its mean", "loss=−meanlogπ(a|s),aGaussianaroundtanhofitsmean"),
        ("c_high += 0.05 up to 3e-4", "chigh+=0.05upto3·10−4"),
        ("sum_{(s,a) in D} x", "∑(s,a)∈Dx"),
        ("``gate_every`` steps, policy_delay-th", "gate_everysteps,policy_delay-th"),
        ("an unbalanced ) or ( stays < & >", "anunbalanced)or(stays<&>"),
        ("max Φ^T over Π", "maxΦToverΠ"),
    ],
)
def test_what_a_line_looks_like(text: str, seen: str, hook: Any) -> None:
    assert shown(hook("equations").typeset(text)) == seen


def test_fractions_have_the_right_parts(hook: Any) -> None:
    equations = hook("equations")

    def fractions(text: str) -> list[tuple[str, str]]:
        tree = ElementTree.fromstring(f"<p>{equations.typeset(text)}</p>")
        return [(*("".join("".join(part.itertext()).split()) for part in each),) for each in tree.iter("mfrac")]  # type: ignore[misc]

    assert fractions("pi(y_it | x) / pi_old(y_it | x)") == [("π(yit|x)", "πold(yit|x)")]
    assert fractions("A_i = (R_i - mean_g R) / (std_g R + eps)") == [("Ri−meangR", "stdgR+ε")]
    assert fractions("1/|y_i| sum_t L") == [("1", "|yi|")]
    assert fractions("alpha / mean |Q_1(s)|") == []  # over the mean of all that follows: it stays as it is written
    assert fractions("sum over tokens / T") == []


def test_formulas_of_pages(hook: Any) -> None:
    equations = hook("equations")
    page = "Costs $5 or `$HOME`; the mean $m_1$.\n```sh\necho $a $b$\n```\n"
    made = equations.in_prose(page)
    assert made.count("<math") == 1 and "echo $a $b$" in made and "Costs $5 or `$HOME`" in made
    for path in sorted((HOOKS.parent).rglob("*.md")):
        for formula in equations.INLINE.findall(path.read_text()):
            assert "\\" not in formula, f"{path.name} writes {formula} in another notation than docs/hooks/equations.py reads"


@pytest.mark.parametrize("method", METHODS)
def test_no_word_of_a_method_is_lost(method: str, hook: Any) -> None:
    equations = hook("equations")
    signs = equations.GREEK | equations.LARGE | {"x": "×", "in": "∈"}
    for block in hook("docstrings").read(METHODS[method].module.__doc__).equations:
        lines = block.partition("\n")[2]
        html = equations.block(lines)
        seen = shown(html)
        assert not set("`_^") & set(re.sub(r"<code>.*?</code>", "", html))
        for name in re.findall(r"[A-Za-z]+|\d+", lines):
            base = name.removesuffix("bar")
            forms = {name, signs.get(name, name), signs.get(base, base)}
            power = (re.fullmatch(r"e", name) and "·" in seen) or "10" in seen
            assert any(each in seen for each in forms) or (name == "sqrt" and "<msqrt>" in html) or power, name


def test_a_line_that_begins_with_a_formula_does_not_end_the_sentence(hook: Any) -> None:
    """Markdown reads ``<math`` at the beginning of a line as a block of its own."""
    markdown = pytest.importorskip("markdown", reason="the extra 'docs' is not installed")
    page = hook("equations").in_prose("It holds the true value\n$Q_pi$. Between them lies\n\n$beta = 1$, where it is complete.\n")
    made = markdown.markdown(page)
    assert made.count("<p>") == 2 and "</p>\n<math" not in made and made.endswith("where it is complete.</p>")

"""Every part of every method refuses what it cannot do, in one sentence and before anything is spent.

What a part reads and writes beyond the shared vocabulary it declares; here the declarations of every method's parts are held to what they
really touch while it trains, and to what a composition without the writer says.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import rheostat
from rheostat.buffers.retainers import RecentGroups
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import PerStep
from rheostat.learner.rhythm import Delayed
from rheostat.learner.stages import Staged
from rheostat.methods import table
from rheostat.methods.control.awac import AWAC
from rheostat.methods.language.dpo import DPO
from rheostat.methods.language.grpo import GRPO
from rheostat.methods.language.process_reward import ProcessReward
from rheostat.objectives.terms import Likelihood
from rheostat.parts import Batch, Weighted
from rheostat.training.building import build_method
from tests.golden.inputs import given
from tests.house.test_looking import plainest

SHARED = {"graded", "size", "full", "bounds", "rare_below", "gated", "kl_baseline"}
"""Facts of a batch that collectors and retainers leave for whoever looks, and not for a part after them; and what a term found for the
whole gradient step, which it reads itself."""


def compositions(method: str) -> list[Composition]:
    """Of a method with its defaults: one, or one per stage."""
    found = table.entry(method).load()().compose()
    found = getattr(found, "member", found)  # of several policies, all are composed alike
    if isinstance(found, Staged):
        for stage in found.stages:
            stage.composition.models = found.models
        return [stage.composition for stage in found.stages]
    return [found]


class Hushed:
    """A part that says nothing of one of the columns that it writes."""

    def __init__(self, part: Any, name: str) -> None:
        self.part, self.name = part, name
        self.inner = hushed(getattr(part, "inner", None), name)  # of a collector around another

    @property
    def writes(self) -> list[str]:
        return [each for each in getattr(self.part, "writes", ()) if each != self.name]

    def __call__(self, *values: Any) -> Any:
        return self.part(*values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)


def hushed(part: Any, name: str) -> Any:
    """A part, and those inside it, without one of the columns."""
    if isinstance(part, PerStep):
        return replace(part, credit=[hushed(each, name) for each in part.credit], updates=[hushed(each, name) for each in part.updates])
    if isinstance(part, Delayed):
        return replace(part, updates=[hushed(each, name) for each in part.updates])
    return Hushed(part, name) if hasattr(part, "inner") or name in getattr(part, "writes", ()) else part


def read_by(composition: Composition) -> set[str]:
    """Every column that a part asks for."""
    outer = [*composition.credit, *composition.improve, *composition.terms()]
    inner = [each for part in outer if isinstance(part, PerStep) for each in part.inner()]
    return {name for part in [*outer, *inner] for name in getattr(part, "reads", ())}


@pytest.mark.parametrize("method", table.METHODS)
def test_what_is_read_must_be_written(method: str) -> None:
    """Without the part that writes it, every column that a part reads is asked for by name."""
    for composition in compositions(method):
        composition.check(method)
        for name in read_by(composition):
            lists = (composition.retain, composition.credit, composition.improve)
            retain, credit, improve = ([hushed(part, name) for part in parts] for parts in lists)
            collect = hushed(composition.collect, name)
            poorer = replace(composition, collect=collect, retain=retain, credit=credit, improve=improve)
            with pytest.raises(RheostatError, match=rf"\w+ reads (.*, )?{name}(, .*)?, which no part before it writes") as error:
                poorer.check(method)
            assert "\n" not in str(error.value)


# --- what parts really touch -------------------------------------------------------------------------------------------------------------


class Watched(dict[str, Any]):
    """Columns or facts that tell who asks for them and who brings them."""

    def __init__(self, content: dict[str, Any], told: Callable[[str, str], None]) -> None:
        super().__init__(content)
        self.told = told

    def __getitem__(self, name: str) -> Any:
        self.told("reads", name)
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.told("writes", name)
        super().__setitem__(name, value)


class Spy:
    """A part that is watched while it works."""

    def __init__(self, part: Any, watching: list[Any]) -> None:
        self.part, self.watching = part, watching

    def __call__(self, *values: Any) -> Any:
        return self._watched(self.part, *values)

    def step(self, *values: Any) -> Any:
        return self._watched(self.part.step, *values)

    def _watched(self, call: Callable[..., Any], *values: Any) -> Any:
        self.watching.append(self.part)
        try:
            return call(*values)
        finally:
            self.watching.pop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)


def watch(learner: Any, watching: list[Any]) -> None:
    """Put spies in the places of annotations, inner updates and terms."""

    def spied(part: Any) -> Any:
        if isinstance(part, PerStep):
            return replace(part, credit=[spied(each) for each in part.credit], updates=[spied(each) for each in part.updates])
        if hasattr(part, "terms") and hasattr(part, "of"):
            return replace(part, terms=tuple(replace(each, term=Spy(each.term, watching)) for each in part.terms))
        if isinstance(part, Delayed):
            return replace(part, updates=[spied(each) for each in part.updates])
        return Spy(part, watching) if callable(part) or hasattr(part, "step") else part

    for one in getattr(learner, "learners", [learner]):
        composition = one.composition
        if not isinstance(composition, Composition):  # of several policies, whose parts are those of one
            continue
        composition.credit = [spied(part) for part in composition.credit]
        composition.improve = [spied(part) if isinstance(part, PerStep) or hasattr(part, "of") else part for part in composition.improve]


@pytest.mark.parametrize("method", table.METHODS)
def test_parts_declare_what_they_touch(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    touched: set[tuple[str, str, str]] = set()
    wrong: set[tuple[str, str, str]] = set()
    watching: list[Any] = []
    original = Batch.__init__

    def told(how: str, name: str) -> None:
        if watching and name not in SHARED:
            part = watching[-1]
            touched.add((type(part).__name__, how, name))
            if name not in getattr(part, how, ()):
                wrong.add((type(part).__name__, how, name))

    def init(self: Batch, *values: Any, **named: Any) -> None:
        original(self, *values, **named)
        self.columns, self.facts = Watched(self.columns, told), Watched(self.facts, told)

    monkeypatch.setattr(Batch, "__init__", init)
    case = plainest(method)
    own = given({"task": case.task, "policy": case.options.get("policy")})
    options = given({name: value for name, value in case.options.items() if name not in ("policy", "preset")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner = build_method(rheostat.api.settings_for(method, own["task"], **options), own["task"], own["policy"])
        watch(learner, watching)
        for _ in range(2 if table.entry(method).domain == "language" else 40):
            learner.turn()
    learner.close()
    assert wrong == set()
    if any(isinstance(part, PerStep) and part.credit for each in compositions(method) for part in each.improve):
        assert touched  # the spies are awake


# --- the bad inputs, through both doors --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Margins(Likelihood):
    """A term that reads what nobody writes."""

    reads: ClassVar[tuple[str, ...]] = ("margin",)


@dataclass(frozen=True)
class Unread(GRPO):
    """A term whose column nobody writes."""

    def compose(self) -> Composition:
        whole = super().compose()
        return replace(whole, improve=[whole.improve[0].of(Weighted(Margins()))])


@dataclass(frozen=True)
class Torn(DPO):
    """Pairs in a buffer that mixes rows."""

    def compose(self) -> Composition:
        whole = super().compose()
        return replace(whole, retain=[*whole.retain, RecentGroups(2, 0.5)])


@dataclass(frozen=True)
class Conflicting(ProcessReward):
    """Two updates of a reward model that disagree about its optimiser."""

    def compose(self) -> Composition:
        whole = super().compose()
        first = whole.improve[0]
        return replace(whole, improve=[replace(first, learning_rate=2 * first.learning_rate), *whole.improve])


@dataclass(frozen=True)
class Missing(ProcessReward):
    """An update of a model that is not there."""

    def compose(self) -> Composition:
        whole = super().compose()
        return replace(whole, models={name: model for name, model in whole.models.items() if name != "reward"})


@dataclass(frozen=True)
class Endless(AWAC):
    """A stage that never ends before another one."""

    def compose(self) -> Staged:
        whole = super().compose()
        return replace(whole, stages=[replace(whole.stages[0], until=None), *whole.stages[1:]])


@dataclass(frozen=True)
class Twice(AWAC):
    """Two stages of one name."""

    def compose(self) -> Staged:
        whole = super().compose()
        return replace(whole, stages=[whole.stages[0], *whole.stages])


@dataclass(frozen=True)
class Targetless(AWAC):
    """Critics whose target nobody computes."""

    def compose(self) -> Staged:
        whole = super().compose()
        stage = whole.stages[0]
        (step,) = stage.composition.improve
        poorer = replace(stage.composition, improve=[replace(step, credit=[])])
        return replace(whole, stages=[replace(stage, composition=poorer), *whole.stages[1:]])


BAD: dict[type, str] = {
    Unread: r"mine: Margins reads margin, which no part before it writes",
    Torn: r"mine: RecentGroups cannot keep whole the units that \w+ makes: leave it out\.",
    Conflicting: r"mine has two updates of the model 'reward' with different optimisers",
    Missing: r"mine (asks for|updates) the model 'reward', which it does not have: it has policy\.",
    Endless: r"mine: the stage 'offline' never ends, so 'online' is never reached: say until when\.",
    Twice: r"mine has two stages of one name among offline, offline, online",
    Targetless: r"CriticStep reads target, which no part before it writes",
}


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.__name__.lower())
@pytest.mark.parametrize("door", ["python", "command line"])
def test_bad_compositions_are_one_sentence_before_anything_is_spent(
    kind: type, door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    domain, task = ("control", "Pendulum-v1") if issubclass(kind, AWAC) else ("language", "chain-sum")
    entry = table.Entry(path=f"{__name__}:{kind.__name__}", domain=domain, title="Mine", paper="-", verified="never")
    monkeypatch.setitem(table.METHODS, "mine", entry)
    monkeypatch.chdir(tmp_path)
    if door == "python":
        with pytest.raises(RheostatError) as error:
            rheostat.train("mine", task, progress=False)
        said = str(error.value)
    else:
        with pytest.raises(SystemExit) as stopped:
            main(["train", "mine", task])
        assert stopped.value.code == 2
        said = capsys.readouterr().err.strip()
    assert re.search(BAD[kind], said), said
    assert "\n" not in said and list(tmp_path.iterdir()) == []

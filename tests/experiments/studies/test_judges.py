"""The hash of a judge: moved by what can change a verdict, and by nothing else."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.experiments.studies.declaration import declared
from rheostat.experiments.studies.judges import code_of
from rheostat.experiments.studies.results import load_study, study_names

SOURCE = '''
import importlib

from rheostat.experiments.studies import above, reaches

BOUND = 0.5
UNUSED = 1
HALF = importlib.import_module("{package}.other")


def judge(result):
    """Words."""
    return [above("x", values(result), BOUND), HALF.half(1.0)]


def values(result):
    return {0: result(0)}


def nobody(result):
    return 0


def make(margin, cells):
    def inner(result):
        return [margin, cells, values(result)]

    return inner


class Called:
    def __call__(self, result):
        return values(result)


first, room = make(0.1, {0: object()}), reaches("A", {}, least=0.1).value
short = lambda result: BOUND
'''
OTHER = "def half(x):\n    return x / 2\n"


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Callable[..., ModuleType]]:
    """Modules of a package of their own, with parts of their source replaced."""
    made: list[str] = []

    def build(changes: tuple[str, str] = ("", ""), other: str = OTHER) -> ModuleType:
        package = "judged"
        folder = tmp_path / str(len(made)) / package
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "other.py").write_text(other)
        (folder / "trial.py").write_text(SOURCE.replace("{package}", package).replace(*changes))
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]
        sys.path.insert(0, str(folder.parent))
        try:
            found = importlib.import_module(f"{package}.trial")
        finally:
            sys.path.pop(0)
        made.append(package)
        return found

    yield build
    for name in [name for name in sys.modules if name.split(".")[0] in made]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "changes",
    [
        ("BOUND = 0.5", "BOUND = 0.6"),
        ('above("x"', 'above("y"'),
        ("{0: result(0)}", "{0: result(1)}"),
    ],
)
def test_moved_by_constants_its_own_code_and_what_it_calls(module: Callable[..., ModuleType], changes: tuple[str, str]) -> None:
    assert code_of(module().judge) != code_of(module(changes).judge)


def test_moved_by_a_function_of_another_module_of_the_study(module: Callable[..., ModuleType]) -> None:
    assert code_of(module().judge) != code_of(module(other=OTHER.replace("/ 2", "/ 3")).judge)


@pytest.mark.parametrize(
    "changes",
    [
        ("UNUSED = 1", "UNUSED = 2"),
        ("return 0\n", "return 1\n"),
        ('"""Words."""', '"""Other."""'),
        ("def values", "# why\ndef values"),
    ],
)
def test_not_moved_by_words_and_by_what_it_does_not_use(module: Callable[..., ModuleType], changes: tuple[str, str]) -> None:
    before, after = module(), module(changes)
    assert code_of(before.judge) == code_of(after.judge)


def test_closures_count_by_what_is_plain_in_them(module: Callable[..., ModuleType]) -> None:
    made = module().make
    assert code_of(made(0.1, {0: object()})) == code_of(made(0.1, {1: object()})) != code_of(made(0.2, {0: object()}))


def test_partials_methods_objects_and_lambdas(module: Callable[..., ModuleType]) -> None:
    before, after = module(), module(("{0: result(0)}", "{0: result(1)}"))
    assert code_of(before.Called()) != code_of(after.Called())
    assert code_of(before.Called().__call__) != code_of(after.Called().__call__)
    assert code_of(functools.partial(before.judge, 1)) != code_of(functools.partial(before.judge, 2))
    assert code_of(functools.partial(before.judge, 1)) != code_of(functools.partial(after.judge, 1))
    assert code_of(before.short) != code_of(module(("lambda result: BOUND", "lambda result: -BOUND")).short)
    assert code_of(before.room) == code_of(after.room) != code_of(module(('reaches("A"', 'reaches("B"')).room)


def test_source_that_is_in_no_file_is_refused() -> None:
    space: dict[str, Any] = {}
    exec("def judge(result): return 0", space)
    with pytest.raises(RheostatError, match="source of judge is in no file"):
        code_of(space["judge"])


@pytest.mark.parametrize("slug", study_names())
def test_every_look_and_the_pilot_declare_the_same(slug: str) -> None:
    study = load_study(slug)
    if not study.seeded:
        assert declared(study.claims(study.full)) == declared(study.claims(study.full))
        return
    forms = [study.sizes(seeds=seeds) for seeds in (8, 12, 24)] + [study.sizes(pilot=True)]
    first, *others = [declared(study.claims(sizes)) for sizes in forms]
    assert all(other == first for other in others)

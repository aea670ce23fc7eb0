"""Options: their names, their kinds, their domains, and that a configuration is the same after it has been written down and read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import pytest

from rheostat.errors import RheostatError, unknown
from rheostat.methods import table
from rheostat.options import field_documentation, having, kind_of, nested, option, options_of, resolve, short_names, with_options
from rheostat.training.settings import configure, plain, shown_options
from rheostat.training.settings_from_options import SETTINGS

LANGUAGE = [name for name, row in table.METHODS.items() if row.domain == "language"]
PRESETS = [(name, preset) for name in LANGUAGE for preset in table.METHODS[name].load().presets]


@dataclass(frozen=True)
class Wheel:
    kind: ClassVar[str] = "wheel"
    size: float = option(1.0, above=0)
    """Across."""
    spokes: int = option(8, short="spoke_count", at_least=0)
    """How many."""


@dataclass(frozen=True)
class Sled:
    kind: ClassVar[str] = "sled"
    size: float = option(2.0, above=0)
    """Along."""
    wax: Literal["none", "warm"] = option("none")
    """On it."""
    inner: Any = None


@dataclass(frozen=True)
class Load:
    size: float = option(3.0)
    """Of it."""
    parts: tuple[float, ...] = option((1.0,), share=True)
    """Of the whole."""


@dataclass(frozen=True)
class Flag:
    kind: ClassVar[str] = "cloth"
    height: float = option(1.0)
    """Up."""


@dataclass(frozen=True)
class Cart:
    """Something with parts."""

    under: Wheel | Sled = Wheel()
    """What it moves on."""
    flag: Flag | None = None
    """Or none."""
    load: Load = Load()
    slow: bool = option(False)
    """Whether."""
    span: tuple[float, int] = option((0.5, 2))
    """Two."""
    top: int | None = option(None, at_least=1, at_most=9)
    """At most."""


def changed(overrides: dict[str, Any]) -> Cart:
    found: Cart = with_options(Cart(), overrides, "cart")
    return found


def refused(sentence: str, overrides: dict[str, Any], config: Any = None, who: str = "cart") -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        with_options(config or Cart(), overrides, who)
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "?"))


# --- names -------------------------------------------------------------------------------------------------------------------------------


def test_paths_short_names_joined_names_and_nesting_are_one() -> None:
    expected = replace(Cart(), under=Wheel(spokes=3))
    for overrides in (
        {"under.spokes": 3}, {"spoke_count": 3}, {"spoke-count": 3}, {"under_spokes": 3}, {"under": {"spokes": 3}}
    ):  # fmt: skip
        assert changed(overrides) == expected
    assert changed({}) == Cart() and changed({"slow": True}).slow
    assert resolve("under_size", options_of(Cart()), "cart") == "under.size"


def test_mu_by_all_its_names() -> None:
    found = [
        configure("chord", overrides).mu for overrides in ({"mu_valley": 0.4}, {"mu.valley": 0.4}, {"mu": {"valley": 0.4}}, {"valley": 0.4})
    ]
    assert {mu.valley for mu in found} == {0.4} and len(set(found)) == 1


def test_a_short_name_that_is_not_unique_asks_which() -> None:
    refused(r"cart has more than one option 'size': say which, under\.size or load\.size\.", {"size": 2.0})
    assert "size" not in short_names(options_of(Cart()))
    refused(
        r"chord has more than one option 'warmup': say which, mu\.warmup or update\.warmup", {"warmup": 3}, configure("chord", {}), "chord"
    )
    assert configure("chord", {"update.warmup": 3}).update.warmup == 3


def test_unknown_names_come_with_the_nearest() -> None:
    refused(r"Unknown option of cart 'spoke_cuont': did you mean spoke_count", {"spoke_cuont": 3})
    refused(r"Unknown option of cart 'load\.sise': did you mean load\.size", {"load": {"sise": 3}})
    refused("Unknown option of grpo 'group_sise': did you mean group_size", {"group_sise": 3}, configure("grpo", {}), "grpo")


def test_a_name_in_other_capitals_is_the_nearest() -> None:
    assert str(unknown("method", "PPO", ["ppo", "ppo-lm", "a2c"])) == "Unknown method 'PPO': did you mean ppo?"


def test_what_is_given_twice_is_refused() -> None:
    refused(r"under\.spokes is given twice, as under\.spokes and as spoke_count: leave one out", {"under.spokes": 3, "spoke_count": 3})
    refused(r"under\.spokes is given twice, as spoke_count and as spoke-count", {"spoke_count": 3, "spoke-count": 3})
    refused(r"under\.spokes is given twice, nested and by its path", {"under.spokes": 3, "under": {"spokes": 3}})
    refused(r"under\.kind is given twice, as under and as under_kind", {"under": "sled", "under_kind": "wheel"})
    refused(r"under\.kind is given twice, nested and by its path", {"under.kind": "sled", "under": {"kind": "sled"}})


def test_joined_and_nested_names_of_kinds() -> None:
    for name in ("under", "under.kind", "under_kind", "under-kind"):
        assert changed({name: "sled"}).under == Sled(), name
    for name in ("tree.branching", "tree.branching.kind", "tree_branching_kind"):
        assert kind_of(configure("treepo", {name: "probability"}).tree.branching) == "probability", name


# --- kinds -------------------------------------------------------------------------------------------------------------------------------


def test_a_kind_brings_its_own_options_and_defaults() -> None:
    assert changed({"under": "sled"} | {"wax": "warm"}).under == Sled(wax="warm")
    assert changed({"under.kind": "sled"}).under == Sled() and changed({"under": {"kind": "sled", "size": 5}}).under == Sled(5.0)
    assert changed({"wax": "warm", "under.kind": "sled"}).under.wax == "warm"  # in any order
    assert changed({"under.kind": "wheel", "under.spokes": 2}).under == Wheel(spokes=2)
    refused("Unknown option of cart 'wax'", {"wax": "warm"})
    refused("Unknown option of cart 'spoke_count'", {"under": "sled", "spoke_count": 3})
    refused(r"cart: under\.kind is 'keel'; it must be one of wheel, sled", {"under": "keel"})


def test_a_part_may_be_none() -> None:
    assert kind_of(Cart().flag) == "none" and not [each for each in options_of(Cart()) if each.path.startswith("flag.h")]
    flagged = changed({"flag": "cloth", "height": 2})
    assert flagged.flag == Flag(2.0) and with_options(flagged, {"flag": "none"}, "cart") == Cart()
    refused("Unknown option of cart 'height'", {"height": 2.0})
    refused(r"cart: flag\.kind is 'on'; it must be one of cloth, none", {"flag": "on"})


# --- values ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"under.size": 0.0}, r"cart: under\.size is 0\.0; it must be above 0"),
        ({"load.parts": [0.5, 1.5]}, r"cart: load\.parts is 1\.5; it must be at least 0 and at most 1"),
        ({"load.parts": "half"}, r"cart: load\.parts is 'half'; it must be a list"),
        ({"span": [0.5]}, r"cart: span is \[0\.5\]; it must be a list of 2 values"),
        ({"span": [0.5, 1, 2]}, r"cart: span is \[0\.5, 1, 2\]; it must be a list of 2 values"),
        ({"span": [0.5, 1.5]}, r"cart: span is 1\.5; it must be of type int"),
        ({"span": ["a", 1]}, r"cart: span is 'a'; it must be of type float"),
        ({"top": 10}, r"cart: top is 10; it must be at least 1 and at most 9"),
        ({"top": True}, r"cart: top is True; it must be of type int"),
        ({"top": 1.5}, r"cart: top is 1\.5; it must be of type int"),
        ({"slow": 1}, r"cart: slow is 1; it must be of type bool"),
        ({"load.size": math.nan}, r"cart: load\.size is nan; it must be a finite number"),
        ({"load.size": -math.inf}, r"cart: load\.size is -inf; it must be a finite number"),
        ({"load.size": None}, r"cart: load\.size is None; it must be of type float"),
        ({"load.size": "big"}, r"cart: load\.size is 'big'; it must be of type float"),
        ({"under": "sled", "wax": "cold"}, r"cart: under\.wax is 'cold'; it must be one of none, warm"),
    ],
)
def test_values_outside_their_domain(overrides: dict[str, Any], sentence: str) -> None:
    refused(sentence, overrides)


def test_values_as_their_types() -> None:
    assert changed({"span": [1, 1]}).span == (1.0, 1)
    found = changed({"load.size": 3, "top": 3, "load.parts": [1, 0.5]})
    assert (found.load.size, found.top, found.load.parts) == (3.0, 3, (1.0, 0.5)) and isinstance(found.load.size, float)
    assert changed({"top": None}).top is None


def test_fields_that_are_no_options_cannot_be_set() -> None:
    refused(r"Unknown option of cart 'under\.inner'", {"under": "sled", "under.inner": 3})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", LANGUAGE)
def test_no_number_of_a_method_may_be_infinite(method: str, value: float) -> None:
    config = configure(method, {})
    numbers = [each.path for each in options_of(config) if isinstance(each.value, float)]
    assert "update.learning_rate" in numbers
    for path in numbers:
        refused(f"{method}: {path.replace('.', '[.]')} is {value}; it must be ", {path: value}, config, method)


# --- there and back ----------------------------------------------------------------------------------------------------------------------


def test_there_and_back() -> None:
    config = changed({"under": "sled", "wax": "warm", "top": 4, "load.parts": [0.5]})
    assert nested(config)["under"] == {"kind": "sled", "size": 2.0, "wax": "warm"}
    assert with_options(Cart(), json.loads(json.dumps(nested(config))), "cart") == config


@pytest.mark.parametrize("method", LANGUAGE)
def test_every_method_is_the_same_after_it_was_written_down(method: str) -> None:
    config = configure(method, {})
    assert config == table.METHODS[method].load()() == configure(method, json.loads(json.dumps(plain(config))))


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_every_preset_is_the_same_after_it_was_written_down(method: str, preset: str) -> None:
    config = configure(method, {}, preset=preset)
    assert config == configure(method, json.loads(json.dumps(plain(config))))


@pytest.mark.parametrize("method", LANGUAGE)
def test_every_option_is_documented_and_named_once(method: str) -> None:
    options = shown_options(method, configure(method, {}))
    paths = [each.path for each in options]
    assert len(set(paths)) == len(paths) and all(each.documentation for each in options)
    shorts = short_names(options)
    assert not set(shorts) & set(paths)
    for name, path in shorts.items():
        assert resolve(name, options, method) == path == resolve(path, options, method)


@pytest.mark.parametrize("method", LANGUAGE)
def test_every_option_of_a_method_can_be_set_to_what_it_is(method: str) -> None:
    config = configure(method, {})
    for each in options_of(config):
        assert configure(method, {each.path: each.value}) == config, each.path


def test_shared_options_reach_those_that_have_them() -> None:
    assert having(Cart(), {"slow": True, "wax": "warm", "sails": 3}, "cart") == {"slow": True}
    assert having(Cart(), {"under": "sled", "wax": "warm"}, "cart") == {"under": "sled", "wax": "warm"}


def test_documentation_of_bases_is_kept() -> None:
    from rheostat.credit.annotations import MixedAdvantage

    found = field_documentation(MixedAdvantage)
    assert found["form"].startswith("What a completion's reward") and found["statistics"].startswith("Whose rewards")


@pytest.mark.parametrize("method", table.METHODS)
def test_no_option_is_called_like_a_setting_of_every_run(method: str) -> None:
    """The command line would give one of the two what is meant for the other."""
    for each in options_of(table.entry(method).load()()):
        assert not SETTINGS & {each.short, each.path.replace(".", "_")}, each.path

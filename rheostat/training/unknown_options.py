"""What is said about an option that a method does not have: where it is now, what it goes with, or who has it."""

from __future__ import annotations

from typing import Any

from rheostat.errors import RheostatError, unknown
from rheostat.methods import table
from rheostat.options import KIND, Option, find, kinds_at, options_of, short_names, with_options
from rheostat.training import version_0_1

NAMED = 3
"""Methods that are named where several have an option."""


def no_such_option(method: str, config: Any, name: str, value: Any = None, *, beside: tuple[str, ...] = ()) -> RheostatError:
    """The sentence for a name that no option of a method has.

    Args:
        method: its name.
        config: its configuration, with the kinds that were chosen.
        name: as it was given, in any form.
        value: that was given with it.
        beside: other names that would have been right in its place, for the nearest.
    """
    options = options_of(config)
    said = (
        version_0_1.moved(method, name, value, options)
        or _goes_with(method, config, name)
        or version_0_1.gone(method, name)
        or _others_have(method, name)
    )
    return RheostatError(said) if said else unknown(f"option of {method}", name, [*names(options), *beside])


def names(options: list[Option]) -> list[str]:
    """Paths and unique short names."""
    return [*(each.path for each in options), *short_names(options)]


def _goes_with(method: str, config: Any, name: str) -> str | None:
    """An option of a part's other kind."""
    for each in options_of(config):
        if not each.path.endswith("." + KIND):
            continue
        for kind in kinds_at(config, each.path):
            if kind != each.value and find(name, options_of(with_options(config, {each.path: kind}, method)), method) is not None:
                return f"{method}: the option {name} goes with {each.path} {kind}; now it is {each.value}."
    return None


def _others_have(method: str, name: str) -> str | None:
    """An option of other methods of the domain."""
    if method not in table.METHODS:
        return None
    domain = table.entry(method).domain
    others = [
        other
        for other, row in table.METHODS.items()
        if row.domain == domain and other != method and any(name.replace("-", "_") in _all_names(each) for each in options_of(row.load()()))
    ]
    if not others:
        return None
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return f"Unknown option of {method} {name!r}: {', '.join(others[:NAMED])}{more} have it, and nothing in {method} would read it."


def _all_names(each: Option) -> tuple[str, str, str]:
    return each.path, each.path.replace(".", "_"), each.short

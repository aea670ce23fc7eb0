"""The error message for an option that a method does not have: its name here, what it belongs to, or which methods have it.

An option is refused by the first of these that has a reason:

1. its name, here: the method has none that is called so;
2. its value, in :func:`rheostat.options.checked`: it is of the wrong type or outside its domain;
3. the other options, in :func:`rheostat.options.refuse_idle`: with them it would have no effect, as its part states;
4. the method, in ``composition_of`` of its learner: the parts cannot work together, or cannot honour the dial.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from rheostat.errors import RheostatError, unknown
from rheostat.methods import table
from rheostat.options import KIND, Option, find, kinds_at, options_of, short_names, with_options
from rheostat.training import version_0_1
from rheostat.training.peer_words import word_of

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
        or _is_a_part(method, name, options)
        or _of_a_peer(method, name, options, beside)
        or _elsewhere(method, name)
    )
    nearest = [*(each.path for each in options), *short_names(options), *beside]
    return RheostatError(said) if said else unknown(f"option of {method}", name, nearest, lists=f"rheostat train {method} --help")


def _goes_with(method: str, config: Any, name: str) -> str | None:
    """An option of a part's other kind."""
    for each in options_of(config):
        if not each.path.endswith("." + KIND):
            continue
        for kind in kinds_at(config, each.path):
            if kind != each.value and find(name, options_of(with_options(config, {each.path: kind}, method)), method) is not None:
                mend = f"choose {kind}, or leave {name} out"
                return f"{method}: the option {name} goes with {each.path} {kind}, and that is {each.value}: {mend}."
    return None


def _is_a_part(method: str, name: str, options: list[Option]) -> str | None:
    """The name of a part."""
    inside = [each.path for each in options if each.path.startswith(name.replace("-", "_") + ".")]
    return f"{method}: {name} is a part with options: say which, {' or '.join(inside)}." if inside else None


def _of_a_peer(method: str, name: str, options: list[Option], beside: tuple[str, ...]) -> str | None:
    """A name that another library has for an option of this method, or for a setting of its runs."""
    from rheostat.training.settings import Settings

    domain = table.entry(method).domain if method in table.METHODS else "control"
    said = word_of(name, options, beside or tuple(item.name for item in dataclasses.fields(Settings)), domain)
    return said and f"{method}: {said}"


def _elsewhere(method: str, name: str) -> str | None:
    """An option of other methods of the domain, or one that the method had in version 0.1."""
    if method not in table.METHODS:
        return None
    plain, domain = name.replace("-", "_"), table.entry(method).domain
    others = [
        other
        for other, row in table.METHODS.items()
        if row.domain == domain and other != method and any(plain in each.names for each in options_of(row.load()()))
    ]
    if not others and plain not in version_0_1.defaults().get(method, {}):
        return None
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    where = f" ({', '.join(others[:NAMED])}{more} {'has' if len(others) == 1 else 'have'} one)" if others else ""
    return f"{method} has no option {name}{where}: nothing in this method depends on it, so leave it out."

"""Options and metrics of version 0.1: their new names, so that its runs and settings are read, or refused with the new name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from rheostat.errors import RheostatError
from rheostat.options import Option, options_of, resolve, with_options

KINDS: dict[str, tuple[str, dict[Any, Any]]] = {
    "limit": ("clip.kind", {}),
    "kl_in_reward": ("kl.kind", {True: "reward", False: "loss"}),
    "dynamic_sampling": ("dynamic.kind", {True: "on", False: "none"}),
}
"""Old names that are another option now, and their values there where those changed too."""
RENAMED = {"warmup": "update.warmup", "limit": "objective.clip_kind", "objective.limit": "objective.clip_kind"}
"""Old names of options that no rule of :func:`rheostat.options.resolve` finds; they hold in the methods that have the new one."""
METRICS = {"limited_share": "clip_fraction", "behaviour_limited_share": "behaviour_clip_fraction"}
"""Old names of metrics, without the prefix (``meter/``, ``meter/fresh/``)."""
SUMMARY = {"remarks": "warnings"}
"""Old names of entries of ``summary.json``."""
SEARCH = frozenset({"search", "target", "clip_low_end", "clip_low_step", "clip_high_end", "clip_high_step"})
"""Old names of the searched limit."""


@cache
def defaults() -> dict[str, dict[str, Any]]:
    """``{method: {option: default}}`` of version 0.1."""
    text = (resources.files("rheostat.training") / "version_0_1.json").read_text(encoding="utf-8")
    return json.loads(text)


def current_metric(key: str) -> str:
    """Today's name of a metric of a log."""
    prefix, slash, name = key.rpartition("/")
    return prefix + slash + METRICS.get(name, name)


def current_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The final evaluation of a run, under today's names."""
    return {SUMMARY.get(name, name): value for name, value in summary.items()}


def is_old(method: str, config: Mapping[str, Any]) -> bool:
    """Whether a run's configuration was written by version 0.1: every option on one level."""
    known = defaults().get(method)
    return known is not None and set(config) == set(known)


def moved(method: str, name: str, value: Any, options: list[Option]) -> str | None:
    """The sentence for an option of version 0.1 that is another one now; None for any other name.

    Args:
        method: its name.
        name: that no option has today.
        value: that was given with it; text of a command line is parsed.
        options: of the method.
    """
    old, paths = name.replace("-", "_"), {each.path for each in options}
    path, values = KINDS.get(old, ("", {}))
    if path not in paths:
        path, values = RENAMED.get(old, ""), {}
    if path not in paths:
        return None
    spoken = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
    what = f"say {path} {values.get(spoken, spoken)}" if spoken not in (None, "") else f"choose {path}"
    since = "" if "." in name else " of version 0.1"
    return f"{method}: the option {name}{since} is now {path}: {what}."


def translated(method: str, config: Mapping[str, Any], today: Any) -> dict[str, Any]:
    """A configuration of version 0.1 in today's options; options that had no effect are left out.

    Args:
        method: its name.
        config: every option on one level, the dial's nested.
        today: the method's configuration now, with its defaults.

    Raises:
        RheostatError: an option that acted and has no counterpart.
    """
    before = defaults()[method]
    paths = {each.path: each.value for each in options_of(today)}
    found = {path: values.get(config[name], config[name]) for name, (path, values) in KINDS.items() if path in paths}
    chosen = {path.removesuffix("kind") for path, kind in found.items() if kind != paths[path]}
    options = options_of(with_options(today, found, method))
    left_out = idle(config)
    for name, value in config.items():
        if name in left_out or (name in KINDS and KINDS[name][0] in paths):
            continue
        if name == "dial":
            found |= {f"dial.{inner}": each for inner, each in value.items() if each != before["dial"][inner]}
            continue
        path = RENAMED.get(name)
        if path not in paths:
            try:
                path = resolve(name, options, method)
            except RheostatError as error:
                if value == before[name]:
                    continue  # the method's own, then and now
                raise RheostatError(f"This run of version 0.1 set {name} to {value!r}, which {method} no longer has: {error}") from error
        if value != before[name] or path.startswith(tuple(chosen)):  # a part of another kind does not begin with the method's own values
            found[path] = value
    return found


def idle(config: Mapping[str, Any]) -> set[str]:
    """Options of version 0.1 that have no effect with the others of the configuration."""
    found: set[str] = set()
    limit = config.get("limit", "clip")
    if limit != "searched":
        found |= SEARCH
    if limit not in ("clip", "searched"):
        found.add("dual_clip")
    if limit == "none":
        found |= {"clip_low", "clip_high"}
    if not config.get("dynamic_sampling"):
        found.add("max_sampling_rounds")
    if config.get("sampler_correction", "none") == "none":
        found.add("sampler_cap")
    if config.get("kl_in_reward") or not config.get("kl_coefficient"):
        found.add("kl_estimator")
    return found

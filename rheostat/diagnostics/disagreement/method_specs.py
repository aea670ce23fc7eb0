"""The requested methods with settings of their own, as in ``grpo:clip_high=0.28,kl_coefficient=0``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rheostat.diagnostics.microscope.gradients import NO_REWARD, looked_at
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.options import options_of, with_options
from rheostat.training.language_setup import automatic_preset
from rheostat.training.settings import CUSTOM, Settings, by_path, changed, configure, merged
from rheostat.training.specs import read_spec

OF_THE_BATCH = {
    "language": ("prompts_per_batch", "group_size", "max_new_tokens", "temperature", "top_k", "top_p"),
    "control": (
        "num_envs", "batch_steps", "behaviour_steps", "window", "hidden", "activation", "tanh_mean", "normalise_observations",
        "normalise_rewards",
    ),
}  # fmt: skip
"""Settings that describe the batch or the policy: the run fixes them."""
OF_THE_STEP = ("epochs", "minibatches", "max_grad_norm", "evaluate_every", "max_sampling_rounds", "sampling_error_every")
"""Settings that would cut the one gradient step in pieces, or clip it."""


@dataclass(frozen=True)
class Spec:
    """A method to replay the batch through."""

    label: str
    """Its text on the command line."""
    method: str
    """Its name."""
    settings: dict[str, Any]
    """Its own options and those shared by all, by path."""

    @property
    def row(self) -> table.Entry:
        """Of the table of methods."""
        return table.entry(self.method)


def read_specs(names: Sequence[str], options: Mapping[str, Any]) -> list[Spec]:
    """Methods from their names; ``options`` are settings for every one of them.

    Raises:
        RheostatError: fewer than two, one of them twice, unknown or unsuitable methods, or settings that are not given as NAME=VALUE.
    """
    specs = [_read(name, options) for name in names]
    if len(specs) < 2:
        raise RheostatError("Name at least two methods to compare, for example `rheostat disagree RUN grpo rloo cispo`.")
    for spec in specs:
        if sum(each.label == spec.label for each in specs) > 1:
            other = "clip_kind=none" if spec.row.domain == "control" else "clip=none"
            raise RheostatError(f"{spec.label} is named twice: give one of them other settings, for example {spec.method}:{other}.")
    return specs


def _read(label: str, options: Mapping[str, Any]) -> Spec:
    method, own = read_spec(label)
    row = table.entry(method)
    if method in NO_REWARD:
        raise RheostatError(f"{method} cannot replay the batch of another method: {NO_REWARD[method]}.")
    if not looked_at(method):
        raise RheostatError(f"{method} is no policy-gradient method built on grpo or ppo: its gradient cannot be recorded.")
    config = row.load()()
    found = merged(method, config, options, own)
    settings = by_path(method, config, found.values | found.unknown | found.lacking)
    shorts = {each.path: each.short for each in options_of(with_options(config, settings, method))}
    for path in settings:
        name = shorts[path]
        if name in OF_THE_BATCH.get(row.domain, ()):
            raise RheostatError(f"{label}: {name} is the run's, because it describes the batch or the policy; leave it out.")
        if name in OF_THE_STEP:
            raise RheostatError(
                f"{label}: {name} is left alone, because one whole gradient step is looked at (--steps makes moves before it)."
            )
        if path.startswith("dial."):
            raise RheostatError(f"{label}: the dial says where data come from, and the batch is frozen; leave {path} out.")
    return Spec(label, method, settings)


def require_domain(specs: Sequence[Spec], run: Settings) -> None:
    """Refuse methods that cannot read the run's data.

    Raises:
        RheostatError: another domain.
    """
    domain = table.entry(run.method).domain
    for spec in specs:
        if spec.row.domain != domain:
            raise RheostatError(
                f"{spec.method} is a {spec.row.domain} method and the run is one of {run.method}, which is for {domain}: "
                f"name {domain} methods."
            )


def config_of(spec: Spec, run: Settings, given: dict[str, Any]) -> Any:
    """The configuration a method replays with: its own defaults (the run's settings where it is the run's method), the options fixed by the
    batch, and those given.

    Args:
        spec: the method.
        run: settings of the run.
        given: options fixed by the batch and the single gradient step, as far as the method has them.

    Raises:
        RheostatError: settings that do not exist or do not fit.
    """
    cls = spec.row.load()
    if spec.method == run.method:
        base, preset = replace(configure(spec.method, run.config), dial=cls().dial), None
    else:
        named_task = None if run.task.startswith(CUSTOM) or run.prompts else run.task
        base, preset = cls(), automatic_preset(spec.method, named_task, run.model) if spec.row.domain == "language" else None
    values = merged(spec.method, base, given, spec.settings).values
    return changed(spec.method, base, values) if preset is None else configure(spec.method, values, preset=preset)

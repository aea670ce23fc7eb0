"""What defines a run: the method and its configuration, the task, the seed and the budget."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from rheostat import options
from rheostat.errors import RheostatError, shown_error, unknown
from rheostat.methods import table
from rheostat.options import by_type, check_domains, check_fields, field_documentation, option, options_of, type_hints, whole, with_options
from rheostat.training import version_0_1
from rheostat.training.unknown_options import no_such_option

MOST_THREADS = 1_024


@dataclass(frozen=True)
class Settings:
    """Everything needed to start a run again from nothing; saved as ``config.json``."""

    method: str
    """Name of the method, see `rheostat list`."""
    task: str
    """Name of the task: an EnvPool or Gymnasium id, a language task, or a set of images."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of every random stream of the run."""
    steps: int = option(100_000, at_least=0)
    """Budget in the method's unit: environment steps for control, updates (or generated tokens, or epochs) for language, and epochs of the
    search for compression."""
    checkpoint_every: int = option(0, at_least=0)
    """Steps between checkpoints; 0 chooses a tenth of the budget. It changes nothing but how much a crash can lose."""
    evaluation_episodes: int = option(10, at_least=0)
    """Episodes of the final evaluation; 0 for none. Compression measures on all test images, whatever the number."""
    save_best: bool = False
    """Keep the policy of the best measurement while training (see evaluate_every) in the folder ``best`` of the run."""
    stop_at: tuple[str, float] | None = option(None)
    """End the run when a metric of such a measurement reaches a value, for example evaluation_return 450; None spends the whole budget."""
    from_run: str | None = None
    """Begin with the weights of another run: its directory takes its newest policy, the folder ``best`` in it its best one. The networks
    must be the same; optimisers, data and counters begin anew."""
    backend: Literal["auto", "envpool", "gymnasium"] = "auto"
    """Control: the simulator: EnvPool where it has the id, else Gymnasium."""
    compute: Literal["plain", "auto", "fast"] = "plain"
    """Control: who makes the gradient steps: PyTorch (plain), compiled kernels where they know every option in use and else PyTorch (auto),
    or kernels and nothing else (fast); they need the extra ``fast``. Part of the definition, because last digits differ."""
    environment_options: dict[str, Any] = field(default_factory=dict)
    """Options passed to the environment, as JSON."""
    threads: int = option(1, at_least=1, at_most=MOST_THREADS)
    """Torch threads: 1 is fastest for small control networks. Part of the definition, because sums are split differently over threads."""
    offline: str | None = None
    """Control: a data set to learn from: its folder, or the id of a local Minari data set."""
    repair: dict[str, Any] = field(default_factory=dict)
    """Control: what is done about faults of the data set: ``unknown_end``, ``outside``, ``final_observation``, ``split_after_success``."""
    online_steps: int = option(0, at_least=0)
    """Control: environment steps after the data set, for methods that begin with one; their ``steps`` are gradient steps on it, which may
    then be 0."""
    model: str | None = None
    """Language: a Hugging Face folder or hub name, or the name of a base-model recipe; None takes the task's own tiny base."""
    prompts: str | None = None
    """Language: a file of prompts (JSON lines or parquet) that takes the place of the task's own."""
    preferences: str | None = None
    """Language: a file of preference data (JSON lines or parquet), which is the file of prompts then: pairs, ranked or scored answers, or
    labelled ones."""
    unusable: Literal["error", "drop"] = "error"
    """Language: a row of the preferences whose two answers are equal, or that is longer than a completion may be, is an error, or is left
    out and counted (drop)."""
    reference: str | None = None
    """Language: a Hugging Face folder with the model that log-ratios and KLs are measured to, in place of the starting model."""
    rewards: tuple[str, ...] = ()
    """Language: reward functions as FILE.py:NAME, in the form of TRL or verl; empty takes the task's own verifier."""
    judge: str | None = None
    """Language: a judge of pairs as FILE.py:NAME, a reward function that is given the other answer in the column ``other`` and returns how
    likely the completion is the better one; it is asked in both orders."""
    reward_needs: tuple[str, ...] = ()
    """Language: what those functions opt out of: environment, network, files, programs, state (each but the first takes the sandbox down
    to the level process)."""
    sandbox: Literal["best", "require", "off", "process", "kernel", "namespaces"] = "best"
    """Language: the sandbox of graders: best takes the strongest level that passes its measurement here, require refuses less than
    kernel, a name takes that level or refuses."""
    reward_weights: tuple[float, ...] = option(())
    """Language: one weight for each reward, of their sum; empty weighs every one 1, and 0 only watches."""
    reward_timeout: float | None = option(None, above=0)
    """Language: seconds a reward may take, for a sample or for a call with a whole batch; None allows 30 and 300."""
    reward_calls: Literal["batch", "single"] = "batch"
    """Language: a function of lists is asked for the whole batch at once and never for a part of it (batch), or for one completion at a
    time (single), so that one it fails on costs that row alone."""
    reward_text: Literal["plain", "special"] = "plain"
    """Language: rewards read completions without special tokens, or with them (tags that are tokens; the end token is left out). A TRL
    function that takes raw_completions, and rollout.raw, have the special tokens whatever is chosen."""
    long: Literal["error", "drop"] = "error"
    """Language: a prompt that is longer than prompts may be is an error before training, or is left out and counted (drop)."""
    device: str = "cpu"
    """Language: device of the model, cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Language: precision of the model's weights."""
    adapter_rank: int = option(0, at_least=0)
    """Language: train LoRA adapters of this rank instead of the whole model (needs peft); 0 trains everything, or continues the adapters
    that the model's folder holds."""
    adapter_alpha: float | None = option(None, above=0)
    """Language: scale of new adapters, which add alpha / rank times their product; None takes twice the rank."""
    adapter_targets: tuple[str, ...] = ()
    """Language: modules that get new adapters, by the end of their names; empty takes every linear one but the head."""
    adapter_dropout: float = option(0.0, at_least=0, below=1)
    """Language: share of what adapters read that is dropped while gradients are computed, and never while the policy samples or is scored.
    The adapters of the model's folder have it only where it is set here."""
    export: Literal["merged", "adapters"] = "merged"
    """Language: the exported model has its adapters merged into it, or is a folder of the adapters alone."""
    recompute: bool = False
    """Language: keep only each layer's input and compute the layer again in the backward pass (gradient checkpointing, Llama family)."""
    engine: Literal["embedded", "continuous"] = "embedded"
    """Language: the sampler: Rheostat's own engine, or transformers' continuous batching (whose runs do not repeat exactly)."""
    experts: str | None = None
    """Control: the directory of a run whose policy is the expert of ``dial.expert_share``. Language: a file of expert rows (JSON lines or
    parquet), each a prompt and its completion, as text or chat messages; None takes the completions of the prompts' own rows, or the task's
    expert."""
    expert_missing: Literal["error", "skip", "task"] = "error"
    """Language: a prompt without an expert row is an error, is never drawn (skip), or is answered by the task's own expert (task)."""
    expert_long: Literal["error", "drop"] = "error"
    """Language: an expert row that is longer than a completion may be is an error, or is left out and counted (drop)."""
    expert_least_reward: float | None = option(None)
    """Language: leave out expert rows to which the verifier gives less than this reward; None keeps wrong ones too."""
    teacher: str = "plain"
    """Compression: the network to compress: a built-in one (plain, residual, small), a module of yours as FILE.py:NAME (or a function that
    makes one), or the folder of a saved network."""
    rollouts_kept: int = option(64, at_least=0)
    """Language: completions stored per update, for inspection; 0 stores none."""
    config: dict[str, Any] = field(default_factory=dict)
    """The method's own configuration, completed with its defaults."""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            object.__setattr__(self, each.name, by_type(each.name, getattr(self, each.name), type_hints(Settings)[each.name]))
        check_fields(self)
        if not self.online_steps:
            whole("steps", self.steps, at_least=1)
        for name in ("environment_options", "repair", "config"):
            try:
                json.dumps(getattr(self, name), allow_nan=False)
            except (TypeError, ValueError, RecursionError) as error:
                said = f"{name} holds what JSON cannot say ({shown_error(error)})"
                raise RheostatError(f"{said}: give finite numbers, texts and lists of them.") from error

    @property
    def checkpoint_interval(self) -> int:
        """Steps between checkpoints."""
        return self.checkpoint_every or max(1, self.budget // 10)

    @property
    def budget(self) -> int:
        """The whole budget: ``steps`` and, after a data set, ``online_steps``."""
        return self.steps + self.online_steps

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, which is what comes back from ``config.json``: tuples are lists."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


CUSTOM = "custom:"
"""Prefix of the name of a Python object."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "control": {},
    "language": {"steps": 100, "evaluation_episodes": 500, "threads": 2},
    "compression": {"steps": 200, "evaluation_episodes": 1},
}
"""Settings that a new run has instead of the defaults of :class:`Settings`, by domain: from Python, files and the command line alike."""


def default_of(item: Any) -> Any:
    """The default of a dataclass's field; None where it has none."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return None if item.default is dataclasses.MISSING else item.default


def usual_steps(methods: Iterable[str]) -> int:
    """The budget of a run for which none is given, in the methods' unit: the smallest where they are of several domains.

    Raises:
        RheostatError: unknown method.
    """
    return min(DEFAULTS[table.entry(method).domain].get("steps", Settings.steps) for method in methods)


@cache
def applies_to(name: str, domain: str) -> bool:
    """Whether a setting is for runs of a domain: its documentation says so where it is not for all."""
    said = re.findall(r"\b(Control|Language|Compression): ", field_documentation(Settings)[name])
    return not said or domain.capitalize() in said


def configure(method: str, overrides: Mapping[str, Any], *, preset: str | None = None, below: Mapping[str, Any] | None = None) -> Any:
    """The method's configuration with a named preset, the options of a configuration file and overrides applied, in this order.

    Args:
        method: its name.
        overrides: options by any of their names.
        preset: a named configuration of the method.
        below: options that the overrides replace.

    Raises:
        RheostatError: unknown method, preset or field (with the nearest), or a value of the wrong kind.
    """
    cls = table.entry(method).load()
    if below:
        given = merged(method, cls(), below, overrides)
        overrides = given.values | given.unknown
    return composed(method, cls, overrides, preset)


@dataclass(frozen=True)
class Merged:
    """The options of a method, its own and those shared with others."""

    values: dict[str, Any]
    """By path, kinds first."""
    unknown: dict[str, Any]
    """Its own options with unknown names."""
    shared: dict[str, Any]
    """Shared options that the method has and does not set itself, by the names that were given."""
    lacking: dict[str, Any]
    """Shared options that the method does not have."""


def merged(who: str, config: Any, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Merged:
    """Merge a method's own options with those shared by several methods; its own take precedence.

    Args:
        who: the method's name, for error messages.
        config: its dataclass object.
        shared, own: options by any of their names.

    Raises:
        RheostatError: as :func:`rheostat.options.named`.
    """
    mine = options.named(config, own, who)
    known, said = options_of(mine.config), mine.kinds | mine.values
    beside = {name: value for name, value in options.flatten(shared) if options.find(name, known, who) not in said}
    theirs = options.named(mine.config, beside, who)
    used = {name: value for name, value in beside.items() if name not in theirs.unknown}
    return Merged(theirs.kinds | theirs.values | said, mine.unknown, used, theirs.unknown)


def shared_by(methods: Iterable[tuple[str, Mapping[str, Any]]], shared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of each of several methods, by the names that were given: the shared options that it has, and its own.

    Args:
        methods: names, with options of their own.
        shared: options of methods, for all that have them.

    Raises:
        RheostatError: a shared option that none of the methods has.
    """
    found: list[dict[str, Any]] = []
    missing = dict(options.flatten(shared))
    last = ""
    for last, own in methods:
        given = merged(last, table.entry(last).load()(), shared, own)
        found.append(given.shared | dict(own))
        missing = {name: value for name, value in missing.items() if name in given.lacking}
    if last and missing:
        configure(last, missing)  # refuses it
    return found


def by_path(who: str, config: Any, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Options by path, whatever name was given; their values are not checked.

    Raises:
        RheostatError: an option that the method does not have, or as :func:`rheostat.options.named`.
    """
    found = options.named(config, overrides, who)
    for name, value in found.unknown.items():
        raise no_such_option(who, found.config, name, value)
    return found.kinds | found.values


def composed(method: str, cls: Any, overrides: Mapping[str, Any], preset: str | None) -> Any:
    """The configuration of a method that is a composition of parts, see :func:`configure`."""
    config = cls()
    if version_0_1.is_old(method, overrides):
        overrides = version_0_1.translated(method, overrides, config)
    if preset is not None:
        presets: dict[str, dict[str, Any]] = getattr(cls, "presets", {})
        if preset not in presets:
            raise unknown(f"preset of {method}", preset, presets)
        chosen = by_path(method, config, presets[preset])
        whole = with_options(config, chosen, method)
        given = by_path(method, whole, overrides)
        idle = options.idle_options(with_options(whole, given, method))
        # A preset's value that has no effect with the given options was not chosen by the user: it is dropped.
        config = with_options(config, {path: value for path, value in chosen.items() if path in given or path not in idle}, method)
    return changed(method, config, overrides)


def changed(method: str, config: Any, overrides: Mapping[str, Any]) -> Any:
    """A configuration of parts with some options changed, checked as a whole.

    Raises:
        RheostatError: as :func:`configure`.
    """
    config = with_options(config, by_path(method, config, overrides), method)
    check_domains(config, method)
    derived(method, config)
    return config


def derived(method: str, config: Any) -> dict[str, int | str]:
    """Numbers that follow from a configuration, for printing.

    Raises:
        RheostatError: an impossible combination, and what to change.
    """
    found: dict[str, int | str] = learner_of(method).derived(config, method)
    return found


def learner_of(method: str) -> Any:
    """The module of the learner of a method's domain: ``derived(config, who)`` and ``hidden_options(config, who)`` among others."""
    domain = table.entry(method).domain
    if domain == "language":
        from rheostat.learner import language

        return language
    if domain == "compression":
        from rheostat.learner import compression

        return compression
    from rheostat.learner import control

    return control


def shown_options(method: str, config: Any) -> list[options.Option]:
    """The options of a method that have an effect in it: what help, ``show`` and the documentation list."""
    hidden = learner_of(method).hidden_options(config, method)
    return [each for each in options_of(config) if each.path not in hidden]


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON."""
    return options.nested(config)

"""Whether an option does something: a tiny run with it changed, beside the run without.

Runs are those of the golden cases ``METHOD/plain``. An option that only acts together with others is looked at among them
(:data:`TOGETHER`), the options of a part's other kinds with that kind chosen. Nothing is written to disk.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import typing
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.options import KIND, Option, having, is_part, kinds_at, options_of, with_options
from rheostat.parts import NonFinite
from rheostat.training.run import Run
from rheostat.training.settings import applies_to, merged, shown_options
from rheostat.training.settings_from_options import SETTINGS, settings_for
from tests.golden.accessor import weights
from tests.golden.cases import ABSENT, CASES, COMPARED, FAMILIES, LANGUAGE, LONGER, OWN, PASSES_BY_DIAL, STALE
from tests.golden.inputs import given
from tests.golden.run import digest, digest_weights

Options = dict[str, Any]
REFUSED = "refused: "

STEPS: Options = {"epochs": 2, "minibatches": 2, "learning_rate": 0.05}
"""Ratios move away from 1."""
SEARCHED: Options = STEPS | {"clip_low": 0.4, "target": 1.0}
"""A search for bounds begins, and goes on."""
TAGGED: Options = {"tags": "1", "prune": "none"}
"""Some replies have the tag, and all are kept."""
BUSHY: Options = {"group_size": 8, "max_new_tokens": 24}
"""Trees whose paths end at different lengths and are filled up again."""
FALLING: Options = {"mu.peak": 0.5, "mu.decay": 3, "steps": 4}
"""A weight of imitation that falls within the run."""
MIXED: Options = LONGER | {"switch_after": 0}
"""Stale groups in every batch."""
MEASURED: Options = {"choice.by": "return", "choice.among": 2, "choice.episodes": 1, "online_steps": 440}
"""Members are measured online, and steps are left."""
NARROW: Options = STALE | LONGER | {"rejection_high": 1e-4}
"""Some tokens are too far from their sampler."""
PUSHES: list[Options] = [{"loss.negative_gradient": push, "loss.negative_weight": 0.3} for push in ("worst", "sum-of-worse")]
"""Some sample is pushed down."""
HELD: Options = {"judge_every": 1, "judge_cities": 1, "learning_rate": 0.05, "steps": 96}
"""Evaluations of a fleet fail, so that its distance to the best policy counts."""
ASKED: list[Options] = [{"experts": None, "most_solved": 1.0}]
"""The task's own expert is the teacher."""
FAR: list[Options] = [{"per_question": count, "most_solved": 1.0, "least_reward": 0.0} for count in (1, 2, 3)]
"""All of a question's answers are there to be chosen from."""
BY_TOKEN: Options = {"ratio": "token"}
"""Where a method has another ratio by default."""
SINGLE: Options = STEPS | {"task": "@easy", "max_new_tokens": 12, "environment_options": ABSENT}
"""Steps of several tokens."""
TOGETHER: dict[str, list[Options]] = {
    "ratio": [STEPS, SINGLE],
    "advantage.granularity": [SINGLE | {"ratio": "token"}],
    "clip.kind": [STEPS],
    "clip.low": [STEPS],
    "clip.high": [STEPS],
    "clip.dual": [STEPS | {"clip_low": 0.02, "clip_high": 0.02}, SEARCHED | {"epochs": 4}],
    **{f"clip.{name}": [SEARCHED] for name in ("low_end", "low_step", "high_end", "high_step", "target", "search")},
    "clip.upper": [STEPS],
    "clip.share": [STEPS | {"covariance_share": 0.5}, STEPS | {"covariance_share": 0.5, "covariance_low": 0.0, "covariance_high": 9.0}],
    "clip.least": [STEPS | {"covariance_share": 1.0}],
    "clip.most": [STEPS | {"covariance_share": 1.0, "covariance_low": 0.0}],
    "clip.coefficient": [STEPS | {"covariance_share": 0.5}],
    "correction.level": [STALE | LONGER, STALE | LONGER | BY_TOKEN],
    "correction.centring": [STALE | LONGER, STALE | LONGER | {"ratio": "token"}],
    "correction.cap": [{"sampler_correction": "token"} | STALE | LONGER | ratio for ratio in ({}, BY_TOKEN)],
    "correction.rejection.reach": [
        NARROW | {"correction.rejection.reach": reach} | ratio for ratio in ({}, BY_TOKEN) for reach in ("token", "sum")
    ],
    "correction.rejection.statistic": [
        NARROW | {"rejection": "token", "correction.rejection.statistic": kind} | ratio for ratio in ({}, BY_TOKEN) for kind in ("k1", "k3")
    ],
    "correction.rejection.low": [NARROW | {"rejection": "token", "rejection_statistic": "k1"} | ratio for ratio in ({}, BY_TOKEN)],
    "correction.rejection.high": [
        STALE | LONGER | {"rejection": "token", "correction.rejection.high": 1e-4} | ratio for ratio in ({}, BY_TOKEN)
    ],
    "aggregate.mode": [BY_TOKEN],
    "aggregate.constant": [{"aggregation": "constant"}, {"aggregation": "constant"} | BY_TOKEN],
    "advantage.epsilon": [{"advantage": "grpo"}, {"advantage": "grpo", "kl_coefficient": 0.0}],
    "advantage.form": [{"advantage_epsilon": None}],
    "dynamic.max_rounds": [{"task": "@hard"}],
    "kl.coefficient": [{"advantage": "rloo"}],
    "kl.estimator": [{"kl_coefficient": 0.1} | STEPS, {"kl_coefficient": 0.1, "learning_rate": 0.05} | LONGER],
    "kl.kind": [{"advantage": "rloo", "kl_coefficient": 0.04}],
    "grading.max_invalid_share": [
        {"task": "@ungraded"},
        {"data.kind": "sampled", "task": "@ungraded", "preferences": None, "prompts": None, "pairs_per_batch": ABSENT},
        {"data.kind": "sampled", "task": "@ungraded", "preferences": None, "answers_per_batch": ABSENT},
    ],
    "sampling.max_new_tokens": [{"preferences": name, "unusable": "drop"} for name in ("@margins", "@zoo")],
    "dial.lag": [LONGER],
    "dial.refresh_every": [LONGER],
    "start.compare": [{"evaluate": 2}],
    "data.kind": [
        {"answers_per_batch": ABSENT, "rewards": ["exact"]},
        {"pairs_per_batch": ABSENT, "rewards": ["exact"]},
        {"prompts_per_batch": ABSENT, "group_size": ABSENT, "task": "prompts", "preferences": "@scores"},
    ],
    "data.separator": [{"data.separator": token} for token in "#:"],
    "data.join": [{"data.join": token} for token in "#:"],
    "penalty_weight": [{"penalty": "l2"}],
    "data.by": [{"judge": "@judge", "group_size": 2}, {"judge": "@judge"}],
    "data.missing_end_penalty": [{"ties": "first"}],
    "epsilon": [STEPS],
    "clip": [STEPS],
    "strength.by": [{"judge": "@judge"}],
    "strength.clip": [{"judge": "@judge", "compare_by": "judge"}],
    "strength.refresh": [LONGER],
    "strength.floor": [
        {"task": "prompts", "preferences": "@pairs", "environment_options": COMPARED, "evaluate_every": 1, "evaluation_prompts": 8}
    ],
    "margins": [{"preferences": "@margins"}],
    "dial.replay_share": [LONGER, {"window": 1}],
    "dial.replay_age": [LONGER | {"dial.replay_share": 0.5}, {"dial.replay_share": 0.5}, {"window": 1, "dial.replay_share": 0.5}],
    "dial.updates_per_batch": [PASSES_BY_DIAL, PASSES_BY_DIAL | {"accumulated_minibatches": ABSENT, "num_envs": 8}],
    "dial.expert_share": [
        {"max_new_tokens": 48, "group_size": 4},
        *({"experts": each, "dial.expert_share": 0.25} for each in ("@expert", "@pendulum-expert")),
    ],
    "gae.bootstrap_on_truncation": [
        {"task": "rheostat/GridWorld5x5-v0"},
        {"task": "@quarry"},
        {"task": "rheostat/Probe-TimeLimit-Continuous-v0"},
    ],
    "network.tanh_mean": [{"task": "Pendulum-v1"}, {"task": "@quarry"}],
    "sampler.correction": [STALE],
    "sampler.cap": [{"sampler_correction": "token"} | STALE, {"sampler_correction": "token"}],
    "objective.clip_kind": [STEPS],
    "objective.ratio_to": [STALE],
    "stop.when": [{"target_kl": 1e-3, "epochs": 4}, {"target_kl": 1e-6}],
    "log.evaluate_episodes": [{"evaluate_every": 40}],
    "data.best_share": [{"offline": "@long-data"}],
    "rewards.returns_to": [{"offline": "@long-data", "replay_capacity": 500}],
    "replay.capacity": [{"online_steps": 200}],
    "replay.priority": [{"offline_share": None}],
    "log.every": [{"log.every": 1000}],
    "schedule.anneal": [{"online_steps": 0, "update_to_data": 1.0}, {"online_steps": 0}],
    "penalty.initial_multiplier": [{"gap_threshold": 0.8}],
    "double": [{"learning_rate": 0.1}],
    "mixture.deterministic": [{"evaluate": 2}],
    "mixture.gumbel_temperature": [{"mixture_gradient": "gumbel"}],
    "selection": [{"micro_batch_rows": 3}],
    "verification.rewards": [{"task": "@spoken"}],
    "rehearse": [{"rehearsal_coefficient": 0.5}],
    "mixture.window": [MIXED],
    "correction": [MIXED],
    "collect.quantiles": [{"task": "Pendulum-v1"}],
    "link": [{"label_smoothing": 0.1}],
    "hints.separator": [{"hint_place": "question"}],
    **{f"mu.{name}": [FALLING] for name in ("peak", "decay", "decay_form")},
    **{f"tree.{name}": [BUSHY] for name in ("branching.kind", "branching.prefer", "branching.statistic", "refill")},
    "format_mask.mode": [TAGGED],
    "tree.prune": [TAGGED],
    "tags": [{"tags": "1", "prune": "none"}],
    "tree.root_random": [{"root_branches": 4}],
    "tree.repetition_count": [{"repetition_window": 1}],
    "tree.repetition_window": [{"repetition_count": 2}],
    "critics.expectile": [{"critics": "iql"}],
    "model.patience": [{"model_part": 10.0, "model_learning_rate": 0.0}],
    "cloning.dimensions": [{"task": "rheostat/TwoGoals-v0", "offline": "@goals-data"}],
    "update.clip.dual": [{"learning_rate": 0.5, "updates_per_turn": 20}],
    **{f"update.{name}": [HELD] for name in ("beta", "gate", "direction")},
    **{f"judgement.{name}": [HELD | {"judgement.patience": 1, "judgement.least_turns": 0}] for name in ("patience", "least_turns")},
    "advantage.standardise": [{"advantage": "to-go"}],
    "advantage.gae_lambda": [{"advantage": "critic"}],
    "student.patience": [{"student_epochs": 12}],
    "rollouts.strided": [{"teacher": "@blocks"}],
    "worth.horizon": [{"most_parameters": 1_000}],
    "choice.among": [MEASURED],
    **dict.fromkeys(("teacher.questions", "teacher.answers"), ASKED),
    **dict.fromkeys(("rows.among", "rows.normalise"), FAR),
    **dict.fromkeys(("loss.negative_gradient", "loss.negative_weight", "loss.least_ratio"), PUSHES),
    "normalise": [{"loss": "reinforce"}],
    "baseline": [{"loss": "reinforce"}],
    "choice.episodes": [MEASURED],
    "imagination.share_steps": [{"imagined_mixing": "rows", "batch_size": 200}],
    "imagination.end": [{"task": "InvertedPendulum-v5"}],
}
"""What an option acts with, by its path: beside the plain run, these are tried. Here the option itself is named by its path too."""
WITH_KIND: dict[tuple[str, str], Options] = {
    ("clip.kind", "searched"): {"sampler_correction": "none", "ratio": "token"},
    ("clip.kind", "clip-cov"): {"ratio": "token"},
    ("clip.kind", "kl-cov"): {"ratio": "token"},
    ("kl.kind", "reward"): {"advantage": "rloo"},
    ("data.kind", "sampled"): {
        "task": "@easy",
        "preferences": None,
        "prompts": None,
        "answers_per_batch": ABSENT,
        "pairs_per_batch": ABSENT,
    },
    ("data.kind", "taught"): {
        "task": "@easy",
        "preferences": None,
        "prompts": None,
        "pairs_per_batch": ABSENT,
        "max_new_tokens": 48,
    },
    ("data.kind", "file"): {"task": "prompts", "preferences": "@scores", "prompts_per_batch": ABSENT, "group_size": ABSENT},
}
"""What a kind of a part cannot be without; the options of this kind are tried with it."""
LEFT_OUT: dict[str, tuple[str, ...]] = {
    "": ("stop", "checkpoint_every"),
    **dict.fromkeys(("dqn", "iql", "pmoe", "sac"), ("stop", "checkpoint_every", "evaluate_every", "evaluate_episodes")),
}
"""Options of the golden runs that tell nothing here and take time."""
IDLE: dict[str, str] = {
    "advantage.source": "it acts where a task knows how far it is from its end; tests/methods/test_oprl.py",
    "tree.topic": "it acts where an environment says how much it has understood; tests/methods/test_dialtree_rpo.py",
    "keep.folder": "the name of a folder",
    "replay.folder": "the name of a folder",
    "clamp_log_ratio": "it acts where a token's probability has changed by a factor of e to the 20, which no tiny run reaches; "
    "tests/objectives/test_clamped_ratios.py",
    "flat.rule": "it acts where a whole batch has earned the same; tests/methods/test_oorl.py",
    "representations.file": "the name of a file",
    "gate.max_rounds": "it acts where a policy has solved all prompts; tests/methods/test_self_curation.py",
    "hints.unit": "the tokens of the tiny model are characters; tests/methods/test_ghpo.py has others",
    "rows.unit": "the tokens of the tiny model are characters; tests/methods/test_ded.py has others",
    "update.micro_batch_rows": "memory alone: the sum over a minibatch does not depend on how it is cut",
}
"""Options that change neither a weight nor a metric of a tiny run, and why."""
AS_BEFORE: dict[str, tuple[Any, ...]] = {"dial.updates_per_batch": (0, 1)}
"""Values of an option that say what is done without it: they are taken where the option is hidden, too."""
BESIDE = ("task", "evaluate", "stop")
"""What stands beside options in :func:`outcome`, and a key of the golden runs that nothing here needs."""


class Case(NamedTuple):
    """An option of a method, and the kinds of parts with which it exists."""

    option: Option
    kinds: Options
    owner: tuple[str, str]
    """The class that declares it and its name there; of a method's own options the domain and the short name."""


# --- runs -------------------------------------------------------------------------------------------------------------------------------


def base(method: str) -> tuple[str, Options]:
    """Task and options of a method's tiny run."""
    options = FAMILIES.get(method, LANGUAGE) | OWN.get(method, {}) | CASES[f"{method}/plain"]
    options = {name: value for name, value in options.items() if value is not ABSENT and name not in LEFT_OUT.get(method, LEFT_OUT[""])}
    return options.pop("task"), options


def starting_point(method: str) -> Any:
    """The configuration of a method's tiny run."""
    config = table.entry(method).load()()
    _, options = base(method)
    return with_options(config, having(config, {name: value for name, value in options.items() if name not in SETTINGS}, method), method)


def chosen(method: str, kinds: Options) -> Any:
    """The configuration of a method's tiny run with other kinds of parts, as far as it has them."""
    config, given = starting_point(method), {name: value for name, value in kinds.items() if value is not ABSENT}
    return with_options(config, having(config, given, method), method)


def lacking(method: str, changes: Options) -> list[str]:
    """Which of some options neither a method nor its runs have, so that :func:`outcome` leaves them out."""
    own = {name: value for name, value in changes.items() if name not in (*SETTINGS, *BESIDE)}
    domain = table.entry(method).domain
    elsewhere = [name for name in changes if name in SETTINGS and not applies_to(name, domain)]
    return [*elsewhere, *sorted(own.keys() - having(starting_point(method), own, method).keys())]


def outcome(method: str, changes: Options) -> str:
    """A digest over the weights and the metrics of a tiny run; :data:`REFUSED` and why where it is refused before anything is spent.

    Args:
        method: its name.
        changes: options beside those of :func:`base`, as far as the method or its runs have them; ``task`` is another task, and
            ``evaluate`` adds an evaluation over so many episodes. What is :data:`~tests.golden.cases.ABSENT` is left to the method.
    """
    absent = tuple(sorted(name for name, value in changes.items() if value is ABSENT))
    return _outcome(method, json.dumps({name: value for name, value in changes.items() if name not in absent}, sort_keys=True), absent)


@functools.lru_cache(maxsize=256)
def _outcome(method: str, spoken: str, absent: tuple[str, ...]) -> str:
    changes, (task, options) = json.loads(spoken), base(method)
    options = {name: value for name, value in options.items() if name not in absent}
    evaluate, task = changes.pop("evaluate", 0), changes.pop("task", task)
    domain = table.entry(method).domain
    general = {name: value for name, value in (options | changes).items() if name in SETTINGS and applies_to(name, domain)}
    mine, own = ({name: value for name, value in each.items() if name not in SETTINGS} for each in (options, changes))
    torch.set_num_threads(1)
    try:
        values = merged(method, table.entry(method).load()(), mine, own).values
        where = given({"task": task})["task"]
        run = Run(Path("nowhere"), settings_for(method, where, **given(general), **values), None if isinstance(where, str) else where)
        _ = run.method
    except RheostatError as error:
        return f"{REFUSED}{error}"
    try:
        return _trained(run, evaluate)
    finally:
        run.close()


def _trained(run: Run, evaluate: int) -> str:
    method: Any = run.method
    rows: list[Any] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while method.steps < run.settings.budget and not method.ended:
                rows.append({name: value for name, value in method.turn().items() if "second" not in name})
            if evaluate:
                rows.append(method.evaluate(evaluate))
    except (NonFinite, RheostatError) as error:  # it ends otherwise
        rows.append(str(error))
    return digest([digest_weights(weights(method)), json.dumps(rows, sort_keys=True, default=str)])


# --- options ----------------------------------------------------------------------------------------------------------------------------


def cases(method: str) -> list[Case]:
    """Every option of a method, those of its parts' other kinds too."""
    config = starting_point(method)
    found = [Case(each, {}, owner) for each, owner in _owned(method, config)]
    known = {case.option.path for case in found}
    for case in list(found):
        path = case.option.path
        for kind in kinds_at(config, path) if path.endswith("." + KIND) else ():
            if kind == case.option.value:
                continue
            kinds = {path: kind} | WITH_KIND.get((path, kind), {})
            other = chosen(method, kinds)
            part = path.removesuffix(KIND)
            found += [
                Case(each, kinds, owner)
                for each, owner in _owned(method, other)
                if each.path.startswith(part) and (each.path not in known or owner not in {one.owner for one in found})
            ]
    return found


def _owned(method: str, config: Any) -> list[tuple[Option, tuple[str, str]]]:
    owners = _owners(config, table.entry(method).domain)
    return [(each, owners[each.path.removesuffix("." + KIND)]) for each in options_of(config)]


def _owners(config: Any, domain: str, prefix: str = "") -> dict[str, tuple[str, str]]:
    """The class that declares each field, by path."""
    found: dict[str, tuple[str, str]] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        first = next(each for each in reversed(type(config).__mro__) if item.name in getattr(each, "__dataclass_fields__", {}))
        found[prefix + item.name] = (first.__name__ if prefix else domain, item.name)
        if is_part(value):
            found |= _owners(value, domain, f"{prefix}{item.name}.")
    return found


def each_value(option: Option) -> list[Any]:
    """Values that must each do something: every other choice, or the other truth values; none for numbers and texts."""
    types = _types(option.hint)
    if typing.get_origin(option.hint) is Literal:
        return [value for value in types if value != option.value]
    if bool in types:
        return [value for value in (True, False, *([None] if type(None) in types else [])) if value != option.value]
    return []


def some_values(option: Option) -> list[Any]:
    """Values of which one must do something: numbers moved up and down inside their domain, other texts."""
    types, value = _types(option.hint), option.value
    if tuple in (typing.get_origin(each) for each in (option.hint, *types)):
        return [[4], *_moved_lists(value or (8,)), [0]]
    if int in types or float in types:
        return _moved_numbers(option, whole=int in types)
    return ["#", "chosen", "right", None] if str in types else []


def _moved_numbers(option: Option, *, whole: bool) -> list[Any]:
    value = option.value
    centre = value if isinstance(value, int | float) else 1
    ints = (centre + 1, centre * 2, centre // 2, centre - 1, 0, 1, 2, 3, 5, 20)
    floats = (centre / 2, centre * 2 + 0.1, 0.5, 0.1, 0.0, 0.01, 0.9, 1.01, 2.0, centre * 10)
    moved = dict.fromkeys(int(each) if whole else float(each) for each in (ints if whole else floats))
    found: list[Any] = [each for each in moved if each != value and option.domain.holds(each) and math.isfinite(each)]
    return [*found, *([None] if type(None) in _types(option.hint) and value is not None else [])]


def _moved_lists(value: Any) -> list[list[Any]]:
    if all(isinstance(each, int) for each in value):
        return [[*value[:-1], value[-1] + 1], [each + 1 for each in value]]
    return [[*value[:-1], value[-1] + 1], [each / 2 for each in value], [value[0], value[0] / 2]]


def _types(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) or (hint,)


# --- the question -----------------------------------------------------------------------------------------------------------------------


def dead(method: str, case: Case) -> list[str]:
    """What of an option does nothing, as words.

    An option that a method shows acts with some value, and every choice acts or is refused; one that it hides is refused whatever it is.
    """
    option, kinds = case.option, case.kinds
    every, some = each_value(option), some_values(option)
    if option.path in IDLE:
        return []
    if is_hidden(method, case):
        tried = [value for value in every + some if value not in AS_BEFORE.get(option.path, ())]
        said = [f"{value} of a hidden option" for value in tried if _answer(method, option, value, kinds) != "refused"]
    else:
        contexts, why = contexts_of(method, case)
        said = [str(value) for value in every if not any(_answer(method, option, value, each) for each in contexts)]
        if not any(_answer(method, option, value, each) == "differs" for each in contexts for value in every + some):
            said = [" and ".join(map(str, every + some or ["no value to try"])) + why]
    return [f"{option.path} with {kinds}: {each}" if kinds else f"{option.path}: {each}" for each in said]


def is_hidden(method: str, case: Case) -> bool:
    """Whether help does not show an option, because every value but the default is refused."""
    return case.option.path not in {each.path for each in shown_options(method, chosen(method, case.kinds))}


def contexts_of(method: str, case: Case) -> tuple[list[Options], str]:
    """What an option is tried among, and why the rest of what is declared is refused."""
    asked = [case.kinds, *(together | case.kinds for together in TOGETHER.get(case.option.path, []))]
    found = {index: outcome(method, each) for index, each in enumerate(asked)}
    why = [f"; {asked[index]}: {said}" for index, said in found.items() if said.startswith(REFUSED)]
    return [asked[index] for index, said in found.items() if not said.startswith(REFUSED)], "".join(why)


def _answer(method: str, option: Option, value: Any, context: Options) -> str:
    """ "differs", "refused", or nothing where the run is the same."""
    found = outcome(method, context | {option.path: value})
    return "refused" if found.startswith(REFUSED) else "differs" if found != outcome(method, context) else ""

"""Answers that language methods share, and building a language method's learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch

from rheostat.buffers.retainers import SamplerHead, Valid
from rheostat.collect.language.language_collectors import Dynamic, ExpertsInside, Groups
from rheostat.collect.language.prompt_groups import LanguageSetup
from rheostat.credit.annotations import GroupAdvantage, LengthReward, ModelScores, OldScores, OverlongPenalty
from rheostat.errors import RheostatError
from rheostat.learner import dial
from rheostat.learner.context import LanguageContext
from rheostat.learner.learner import Composition, Learner
from rheostat.learner.models import Frozen, Trainable
from rheostat.learner.starting_weights import StartingWeights
from rheostat.learner.update import Update
from rheostat.objectives.kl import KLEstimator
from rheostat.objectives.terms import Entropy, ReferenceKL
from rheostat.options import option, refuse_idle
from rheostat.parts import Aggregate, Tokens, Weighted
from rheostat.streams import Streams


@dataclass(frozen=True)
class LossKL:
    """A KL to the starting model inside the loss."""

    kind: ClassVar[str] = "loss"
    coefficient: float = option(0.0, short="kl_coefficient", at_least=0)
    """Weight beta of the KL to the starting model; 0 keeps no reference model."""
    estimator: KLEstimator = option("k3", short="kl_estimator")
    """Estimator of that KL."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.coefficient else {"estimator": "kl_coefficient is 0, so raise it, or leave this alone"}

    @property
    def penalty(self) -> float:
        """Its weight in the reward: none."""
        return 0.0

    @property
    def annotations(self) -> list[Any]:
        """What it must know of the rows."""
        return [ModelScores()] if self.coefficient else []

    def terms(self, tokens: Tokens) -> Sequence[Weighted]:
        """Its summand of the loss."""
        return [Weighted(ReferenceKL(tokens, self.estimator), self.coefficient, "")] if self.coefficient else []


@dataclass(frozen=True)
class RewardKL:
    """A KL to the starting model as a part of the reward."""

    kind: ClassVar[str] = "reward"
    coefficient: float = option(0.05, short="kl_coefficient", at_least=0)
    """Weight beta of the k1 estimate of the KL to the starting model, which is subtracted from the reward; 0 keeps no reference model."""

    @property
    def penalty(self) -> float:
        """Its weight in the reward."""
        return self.coefficient

    @property
    def annotations(self) -> list[Any]:
        """What it must know of the rows."""
        return [ModelScores()] if self.coefficient else []

    def terms(self, tokens: Tokens) -> Sequence[Weighted]:
        """Nothing in the loss."""
        return []


class Regularised(Protocol):
    """Options of methods that may hold the policy near the starting model, or its entropy up."""

    @property
    def kl(self) -> LossKL | RewardKL: ...
    @property
    def entropy_coefficient(self) -> float: ...


class GroupMethod(Regularised, Protocol):
    """Options that the methods of GRPO's family share, under these names."""

    @property
    def groups(self) -> Groups: ...
    @property
    def keep(self) -> Valid: ...
    @property
    def advantage(self) -> GroupAdvantage: ...
    @property
    def aggregate(self) -> Aggregate: ...
    @property
    def update(self) -> Update: ...


def group_policy_gradient(
    method: GroupMethod, *terms: Weighted, collect: Any = None, overlong: OverlongPenalty | LengthReward | None = None
) -> Composition:
    """What the methods of GRPO's family share: graded groups, credited relative to each other and learned from at once.

    Args:
        method: its options; its regularisers are on everybody's tokens.
        terms: what it minimises beside them.
        collect: other rows than the method's groups.
        overlong: what the length of a completion adds to its reward, or makes of it.
    """
    return Composition(
        collect=method.groups if collect is None else collect,
        retain=[method.keep],
        credit=[
            OldScores(),
            *method.kl.annotations,
            *([] if overlong is None else [overlong]),
            method.advantage.with_kl(method.kl.penalty),
        ],
        improve=[method.update.of(*terms, *regularisers(method, Tokens(method.aggregate)))],
        models=policy_models(method.update, method.kl),
    )


def regularisers(method: Regularised, tokens: Tokens) -> list[Weighted]:
    """A KL to the starting model and an entropy bonus on some tokens, where the method's options ask for them."""
    bonus = entropy_bonus(method.entropy_coefficient, tokens)
    return [*method.kl.terms(tokens), *([] if bonus is None else [bonus])]


def with_experts_inside(groups: Groups, count: int) -> ExpertsInside:
    """Groups of which an expert writes ``count`` members.

    Raises:
        RheostatError: no member is left for the policy.
    """
    if not 1 <= count < groups.size:
        raise RheostatError(
            f"expert_rows is {count} of a group of {groups.size}: at least 1, and at least one of the group must be the policy's own."
        )
    return ExpertsInside(replace(groups, size=groups.size - count), count)


def entropy_bonus(coefficient: float, tokens: Tokens) -> Weighted | None:
    """A bonus on the entropy; None where its weight is 0."""
    return Weighted(Entropy(tokens), -coefficient, "") if coefficient else None


def dynamic(wrapper: Dynamic | None, groups: Any) -> Any:
    """Groups, or only those that carry a signal."""
    return groups if wrapper is None else wrapper.over(groups)


def policy_models(update: Update, kl: LossKL | RewardKL | None = None) -> dict[str, Any]:
    """The policy that the update trains, and the starting model where a KL is measured to it."""
    models: dict[str, Any] = {"policy": Trainable(update.learning_rate, update.weight_decay, update.max_grad_norm)}
    return models | ({"reference": Frozen()} if kl is not None and kl.coefficient else {})


def composition_of(config: Any, who: str) -> Composition:
    """A language method's parts with its dial, checked.

    Raises:
        RheostatError: an option that cannot act, parts that cannot work together, or a dial that they cannot honour.
    """
    refuse_idle(config, who)
    composition = config.dial.rewrite(config.compose(), who)
    if tokens := max((getattr(term, "head_tokens", 0) for term in composition.terms()), default=0):
        composition = replace(composition, retain=[SamplerHead(tokens), *composition.retain])
        if not config.sampling.whole:
            raise RheostatError("score_centring is about every token: with top_k or top_p some have no probability, so leave both off.")
    composition.check(who)
    if others_wrote(composition) and not config.sampling.whole:
        raise RheostatError(
            "Tokens that the policy did not write may lie outside top_k and top_p, where their probability is 0: leave both off."
        )
    for update in composition.improve:
        rows = getattr(composition.collect, "rows", None)
        if rows is not None and getattr(update, "minibatches", 1) > rows:
            raise RheostatError(f"{update.minibatches} minibatches cannot be cut from {rows} completions: use at most {rows}.")
    return composition


def derived(config: Any, who: str) -> dict[str, int | str]:
    """Derived numbers of a configuration, for printing.

    Raises:
        RheostatError: an impossible combination, and what to change.
    """
    composition = composition_of(config, who)
    rows = composition.collect.rows
    update = composition.improve[-1]
    found: dict[str, int | str] = {
        "completions per batch": rows,
        "rows per gradient step": -(-rows // update.minibatches),
        "gradient steps per batch": update.gradient_steps,
    }
    for part in [*composition.parts().values(), *(getattr(term, "clip", None) for term in composition.terms())]:
        if hasattr(part, "describe"):
            found |= part.describe()
    return found


def hidden_options(config: Any, who: str) -> frozenset[str]:
    """Paths of options that every value but the default is refused for in this method; help and documentation hide them.

    Parts tell which of the dial's, and the method's ``fixed`` names those that it refuses itself.
    """
    composition = composition_of(config, who)
    outside = {"sampling.top_k", "sampling.top_p"} if others_wrote(composition) else set()
    return dial.hidden_options(dial.refused(composition)) | outside | getattr(config, "fixed", frozenset())


def others_wrote(composition: Composition) -> bool:
    """Whether the policy learns from tokens that it cannot have sampled: an expert's, or annotated answers."""
    parts = [*composition.parts().values(), *composition.terms()]
    experts = [part for part in parts if getattr(part, "uses_experts", False) and not getattr(part, "beside_the_loss", False)]
    return bool(experts) or composition.any("annotated")


def build(
    config: Any,
    who: str,
    setup: LanguageSetup,
    streams: Streams,
    total_steps: int,
    *,
    composition: Composition | None = None,
    weights: StartingWeights | None = None,
) -> Learner:
    """A language method's learner.

    Args:
        config: the method's dataclass object.
        who: its name.
        setup: task, policy, engine and verifier.
        streams: the run's random streams.
        total_steps: the budget, in ``config.budget.unit``.
        composition: other parts in the place of the method's own.
        weights: of another run, to begin with.

    Raises:
        RheostatError: what :func:`composition_of` refuses, or a budget in which something would never happen.
    """
    composition = composition or composition_of(config, who)
    if config.budget.unit == "updates":
        config.dial.check_budget(total_steps)
        for part in composition.parts().values():
            if hasattr(part, "check_budget"):
                part.check_budget(total_steps)
    context = LanguageContext(
        setup,
        streams,
        total_steps,
        sampling=config.sampling,
        evaluation=config.evaluation,
        unit=config.budget.unit,
        max_invalid_share=config.grading.max_invalid_share if hasattr(config, "grading") else 1.0,
        value_head=composition.any("needs_value_head"),
    )
    context.begins_with = weights
    context.acting = "acting" if "acting" in composition.models else "policy"
    with torch.random.fork_rng(devices=[]):  # heads of further models draw weights from the global generator before ours replace them
        learner = Learner(config, composition, context)
    if config.budget.unit == "epochs" and not context.collector.stream.epoch:
        learner.close()
        raise RheostatError(f"{setup.task.name} makes prompts without end, so a budget of epochs has none: count updates or tokens.")
    return learner

"""The plain tests are tested: a method with any of its parts slightly wrong must leave the plain steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rheostat.credit import flow_rewards, proxy_scores, token_returns
from rheostat.credit import group_advantages as groups
from rheostat.credit import preference_strength as strength
from rheostat.credit.token_rewards import reward_at_last_token
from rheostat.credit.turns import per_step
from rheostat.objectives import clipping, flow_matching, group_preference, kl, preference, ratio
from rheostat.objectives.weights import rejection_mask
from tests.plain.cases import CASES, METHODS, Sums
from tests.plain.following import Case, departure, follow
from tests.plain.real_path import Weights, settings_of, watch_turns

BY_NAME = {case.name: case for case in CASES}
FULLER = ["chord/searched", "remix/two anchors", "self-curation/rehearsed"]
SPOILED = [BY_NAME[name] for name in [*METHODS, *FULLER] if name not in ("remix", "rise")]
"""One case of every method, and those that have further parts; that of remix has them all, and rise has the parts of ppo-lm."""
IDLE = {"entropy", "process_reward", "flow_reward", "step_reward"}
"""Columns that are only told."""
NOBODY_ASKS = {(method, "learner_logp") for method in ("ded", "sft", "rft", "bapo", "chord/searched")}
"""Where the policy at the start of the update is in no ratio: imitation, and a ratio to whoever sampled."""
Change = Callable[[Any], None]


@dataclass
class Right:
    """What an untouched run of a case is made of."""

    settings: Any
    plain: list[Weights] = field(default_factory=list)
    written: list[tuple[str, int, str]] = field(default_factory=list)
    """What every annotation fills in: its class, its place in the composition, and the field."""
    terms: set[type] = field(default_factory=set)


def strays(known: Right, case: Case, change: Change = lambda method: None) -> bool:
    """Whether a run of a case leaves the plain steps; it stops where it does."""
    watch = watch_turns(known.settings, (case.task or Sums)(), case.turns, change, lambda watch: bool(departure(known.plain, watch.steps)))
    return bool(departure(known.plain, watch.steps)) or len(watch.steps) != len(known.plain)


@pytest.fixture(scope="module")
def right(tiny: str) -> Callable[[Case], Right]:
    """The untouched run of a case, which takes the plain steps."""

    @functools.cache
    def of(case: Case) -> Right:
        task = (case.task or Sums)()
        found = Right(settings_of(case.method, tiny, task, case.turns, case.options))

        def listen(method: Any) -> None:
            credit = method.composition.credit
            credit[:] = [Shifted(part, place, found.written) for place, part in enumerate(credit)]

        watch = watch_turns(found.settings, task, case.turns, listen)
        found.plain, _ = follow(case, watch)
        found.terms = {type(term) for term in watch.method.composition.terms()}
        assert not departure(found.plain, watch.steps) and len(watch.steps) == len(found.plain)
        return found

    return of


class Shifted:
    """An annotation with one thing that it writes wrong: up by 0.02 in every second row, down by 0.01 in the others.

    Args:
        part: the annotation.
        place: in the composition.
        written: takes what it writes.
        field: what is wrong; None for nothing.
    """

    def __init__(self, part: Any, place: int, written: list[tuple[str, int, str]], field: str | None = None) -> None:
        self.part, self.place, self.written, self.field = part, place, written, field

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)

    def __call__(self, context: Any, batch: Any) -> Any:
        before = numbers(batch)
        batch = self.part(context, batch)
        for name, value in numbers(batch).items():
            if name in before and torch.equal(before[name].nan_to_num(), value.nan_to_num()):
                continue
            self.written.append((type(self.part).__name__, self.place, name))
            if name == self.field:
                wrong = value.clone()
                wrong[1::2] += 0.02
                wrong[::2] -= 0.01
                if name in batch.columns:
                    batch.columns[name] = wrong
                else:
                    setattr(batch.rows, name, wrong)
        return batch


def numbers(batch: Any) -> dict[str, Tensor]:
    """Every column and field of real numbers of a batch."""
    every = {name: value for name, value in batch.rows.items() if value is not None} | batch.columns
    return {name: value for name, value in every.items() if value.is_floating_point()}


def shift(place: int, field: str) -> Change:
    """Spoil an annotation of a method."""

    def change(method: Any) -> None:
        method.composition.credit[place] = Shifted(method.composition.credit[place], place, [], field)

    return change


def scaled(call: Callable[..., Any]) -> Callable[..., Any]:
    """A term with two per cent too much."""

    def more(self: Any, *given: Any) -> Any:
        loss, report = call(self, *given)
        return 1.02 * loss, report

    return more


def night(name: str) -> Any:
    """Cases of GRPO run always, the others at night: these tests are about tests."""
    return () if name.partition("/")[0] == "grpo" else pytest.mark.slow


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case), marks=night(str(case))) for case in SPOILED])
def test_every_annotation_and_every_term_is_in_the_plain_steps(
    case: Case, right: Callable[[Case], Right], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unnoticed = right(case), list[str]()
    for part, place, name in dict.fromkeys(known.written):
        if name not in IDLE and (case.name, name) not in NOBODY_ASKS and not strays(known, case, shift(place, name)):
            unnoticed.append(f"{part}: {name}")
    for kind in known.terms:
        with monkeypatch.context() as patch:
            patch.setattr(kind, "__call__", scaled(kind.__call__))
            if not strays(known, case):
                unnoticed.append(kind.__name__)
    assert not unnoticed


def biased(*given: Any, **options: Any) -> Tensor:
    """GRPO's advantage with the population's deviation."""
    return groups.grpo_advantage(*given, **options | {"unbiased": False})


def first_bounds(*given: Any, **options: Any) -> Any:
    """BAPO without a search."""
    from rheostat.objectives.searched_bounds import search_bounds

    return search_bounds(*given, **options | {"target": 0.0})


def changed(function: Callable[..., Any], **wrong: Any) -> Callable[..., Any]:
    """A function with an argument of another value."""
    return lambda *given, **options: function(*given, **options | wrong)


WRONG: list[tuple[str, str, Any]] = [
    ("grpo", "rheostat.credit.token_advantages.grpo_advantage", biased),
    ("grpo", "rheostat.objectives.terms.kl_estimate", lambda logp, base, _, mask: kl.kl_estimate(logp, base, "k2", mask=mask)),
    ("grpo", "rheostat.objectives.policy_gradient.masking.masked_mean", lambda x, mask, dim=None: padded_mean(x, mask, dim)),
    ("grpo/no grade", "rheostat.buffers.retainers.Valid.retain", lambda self, context, batch: batch),
    ("dapo", "rheostat.credit.annotations.overlong_penalty", lambda length, **_: torch.zeros(len(length))),
    ("dapo", "rheostat.objectives.clipping._clamp", lambda x, low, high: x.clamp(0.8, 1.2)),
    ("dr-grpo", "rheostat.credit.token_advantages.grpo_advantage", changed(groups.grpo_advantage, scale="group")),
    ("gspo", "rheostat.objectives.policy_gradient.combine_log_ratio", lambda x, kind, mask: ratio.combine_log_ratio(x, "token", mask)),
    ("gmpo", "rheostat.objectives.clipping.LogClip.log_ratio", lambda self, x, advantage: x),
    ("cispo", "rheostat.objectives.clipping.DetachedClip.loss", lambda self, r, a, logp: -r.detach() * a * logp),
    ("tis", "rheostat.objectives.terms.importance_weight", lambda old, sampled, **_: (old - sampled).exp()),
    ("tis/sequence", "rheostat.objectives.terms.importance_weight", lambda old, sampled, **_: (old - sampled).exp().clamp(max=1.2)),
    ("grpo/rejected tokens", "rheostat.objectives.terms.rejection_mask", lambda old, sampled, mask, **_: mask),
    ("tis/rejected completions", "rheostat.objectives.terms.rejection_mask", changed(rejection_mask, reach="token")),
    ("rloo", "rheostat.credit.token_advantages.rloo_advantage", changed(groups.grpo_advantage, scale="none")),
    ("rloo", "rheostat.credit.token_advantages.kl_penalised_outcome", lambda reward, *_, **__: reward),
    ("reinforce", "rheostat.credit.token_advantages.grpo_advantage", lambda reward, *_, **__: reward),
    ("reinforce-pp", "rheostat.credit.token_returns.standardise", lambda x, mask, **_: x),
    ("reinforce-pp", "rheostat.credit.token_advantages.reinforce_pp_advantage", changed(token_returns.reinforce_pp_advantage, gamma=0.9)),
    ("bapo", "rheostat.objectives.searched_clip.search_bounds", first_bounds),
    ("bapo", "rheostat.objectives.terms.behaviour_logp", lambda logp, rows: rows.learner_logp),
    ("bapo/released", "rheostat.objectives.searched_clip.search_bounds", first_bounds),
    ("lp-reg", "rheostat.objectives.low_probability.rarest_below", lambda *_: -torch.inf),
    ("lp-reg/clip", "rheostat.credit.proxy_scores.proxy_logp", changed(proxy_scores.proxy_logp, threshold=0.0)),
    ("self-curation", "rheostat.objectives.clipping._clamp", lambda x, low, high: x.clamp(0.8, 1.3)),
    ("acereason", "rheostat.credit.token_advantages.grpo_advantage", changed(groups.grpo_advantage, scale="none")),
    ("ghpo", "rheostat.credit.token_advantages.grpo_advantage", changed(groups.grpo_advantage, eps=1e-6)),
    ("ded", "rheostat.objectives.terms.weighted_likelihood", lambda logp, mask, denominator, **_: -logp[mask].sum() / mask.numel()),
    ("sft", "rheostat.objectives.terms.weighted_likelihood", lambda logp, mask, denominator, **_: -logp[mask].sum() / mask.numel()),
    ("rft", "rheostat.buffers.retainers.AtLeast.retain", lambda self, context, batch: batch),
    ("chord", "rheostat.objectives.terms.expert_weight", lambda logp, kind: logp.detach().exp()),
    ("chord", "rheostat.objectives.schedules.Complement.at", lambda self, update: 1.0),
    ("chord/mu", "rheostat.objectives.schedules.PeakSchedule.at", lambda self, update: self.peak),
    ("chord/cutoff", "rheostat.objectives.supervised.math.log", lambda x: 0.0),
    ("cog-rethinker", "rheostat.objectives.terms.weighted_likelihood", lambda logp, mask, denominator, **_: -logp[mask].sum() / mask.sum()),
    ("luffy", "rheostat.objectives.clipping.PolicyShaping.loss", lambda self, r, a, logp: -a * r),
    ("luffy", "rheostat.objectives.clipping.NoClip.loss", lambda self, r, a, logp: clipping.Clip().loss(r, a, logp)),
    ("rl-plus", "rheostat.objectives.foreign_terms.external_denominator", lambda old, *_: old),
    ("rl-plus", "rheostat.objectives.foreign_terms.expert_weight", lambda logp, *_, **__: torch.ones_like(logp)),
    ("rl-plus/ablation", "rheostat.objectives.foreign_terms.external_clip", lambda cap: clipping.NoClip()),
    ("rl-plus/ablation", "rheostat.credit.annotations.split_advantage", lambda r, g, own, **options: groups.grpo_advantage(r, g)),
    ("remix", "rheostat.objectives.foreign_terms.window_centre", lambda *_, **__: 1.0),
    ("remix/two anchors", "rheostat.objectives.kl_convex.convex_share", lambda step, **_: 1.0),
    ("remix/two anchors", "rheostat.learner.models.Frozen.after_update", lambda self, context: None),
    ("nft", "rheostat.objectives.negative_aware.straight_through_max", lambda x, least: x.clamp(min=least)),
    ("dpo/sigmoid", "rheostat.objectives.preference_terms.masked_sum", lambda x, mask, dim: x.sum(dim) / mask.sum(dim)),
    ("ipo", "rheostat.objectives.preference.ipo_loss", lambda margin, beta: (margin - 1 / beta).square()),
    ("ipo/scaled", "rheostat.objectives.preference.scaled_ipo_loss", preference.ipo_loss),
    ("cdpo", "rheostat.objectives.preference.sigmoid_loss", lambda margin, beta, _: -logsigmoid(beta * margin)),
    ("robust-dpo", "rheostat.objectives.preference.robust_loss", preference.sigmoid_loss),
    ("simpo", "rheostat.objectives.preference_terms.masked_mean", lambda x, mask, dim: x.masked_fill(~mask, 0.0).sum(dim)),
    ("simpo/cpo", "rheostat.objectives.preference_terms.ChosenLikelihood.rows_of", lambda _, batch: batch.rows[~batch.columns["chosen"]]),
    ("orpo", "rheostat.objectives.preference.log1mexp", torch.zeros_like),
    ("orpo", "rheostat.objectives.preference_terms.ChosenLikelihood.rows_of", lambda self, batch: batch.rows[batch.columns["chosen"]]),
    ("reward-model", "rheostat.objectives.preference_terms.answer_rewards", lambda value, mask: value.sum(1) / mask.sum(1)),
    (
        "polar",
        "rheostat.objectives.policy_discriminator.answer_rewards",
        lambda value, mask: value.gather(1, mask.int().argmax(1)[:, None])[:, 0],
    ),
    ("polar/options", "rheostat.objectives.policy_discriminator.score_penalty", lambda score, kind: score.square()),
    ("kto", "rheostat.objectives.unpaired_terms.kto_baseline", lambda mismatched: mismatched.new_zeros(())),
    ("kto", "rheostat.objectives.unpaired_terms.rotated", lambda rows: rows),
    ("online-dpo", "rheostat.objectives.preference_terms.masked_sum", lambda x, mask, dim: x.sum(dim) / mask.sum(dim)),
    ("light-r1", "rheostat.credit.annotations.cosine_length_reward", lambda right, length, **_: right.float()),
    ("dpo/taught", "rheostat.objectives.preference.nca_loss", lambda w, other, beta: -logsigmoid(beta * (w - other))),
    ("oorl", "rheostat.objectives.group_preference.sigmoid_loss", lambda margin, beta: preference.sigmoid_loss(margin, 2 * beta)),
    (
        "oorl/variance",
        "rheostat.objectives.group_preference.group_preference_loss",
        changed(group_preference.group_preference_loss, variance="population"),
    ),
    ("osp", "rheostat.objectives.preference_terms.soft_preference_loss", lambda margin, p, beta: -logsigmoid(beta * margin)),
    ("osp", "rheostat.learner.judging.strength_of", lambda first, second: first),
    ("osp/an earlier judge", "rheostat.learner.judging.strengths", lambda q, *_: strength.strengths(q, "difference")),
    ("pairwise-policy-gradient", "rheostat.objectives.preference_terms.PairwiseGradient.clipped", lambda self, moved, g: moved.exp() * g),
    ("best-of-n", "rheostat.buffers.retainers.best_of_n", lambda reward: reward.argmin(-1)),
    ("rwr", "rheostat.credit.annotations.exponential_weights", lambda reward, temperature, largest: (reward / temperature).exp()),
    ("rwr/softmax", "rheostat.credit.annotations.softmax_weights", lambda reward, temperature: reward.softmax(-1)),
    ("ppo-lm/options", "rheostat.objectives.terms.value_loss", lambda v, target, **o: clipping_free(v, target, **o)),
    ("ppo-lm/options", "rheostat.credit.annotations.token_gae", changed(token_returns.token_gae, lam=1.0)),
    ("ppo-lm/options", "rheostat.credit.annotations.kl_shaped_reward", lambda reward, old, base, mask, **_: last_only(reward, mask)),
    ("rise", "rheostat.credit.annotations.kl_shaped_reward", lambda reward, old, base, mask, **_: last_only(reward, mask)),
    ("process-reward", "rheostat.credit.process_rewards.progress_rewards", lambda before, after, mask: after.masked_fill(~mask, 0.0)),
    ("prime", "rheostat.credit.process_rewards.process_returns", lambda reward, *_, **__: reward),
    ("oprl", "rheostat.credit.step_rewards.compared", lambda values, there, *_, **__: values * there),
    ("oprl", "rheostat.objectives.trajectory_preference.sigmoid_loss", lambda margin, beta: -beta * margin),
    ("oprl", "rheostat.objectives.step_ratio.per_step", lambda values, step: turn_mean(values, step)),
    ("oprl/released", "rheostat.credit.step_rewards.LEAST", 1.0),
    ("dialtree-rpo", "rheostat.credit.dialogue_credit.tag_mask", lambda tokens, *_: torch.ones_like(tokens, dtype=torch.bool)),
    ("dialtree-rpo/static", "rheostat.credit.dialogue_credit.node_advantage", lambda a, group, path, **_: a[:, None].expand(path.shape)),
    ("rlfr", "rheostat.credit.flow_rewards.normalise", changed(flow_rewards.normalise, form="bilateral")),
    ("rlfr", "rheostat.credit.flow_rewards.keep_largest", lambda score, **_: score),
    ("rlfr", "rheostat.credit.flow_rewards.reverse_recurrence", lambda reward, *_: reward),
    ("rlfr", "rheostat.learner.flow_training.neighbours", lambda chosen, pairing: chosen),
    ("rlfr", "rheostat.learner.flow_training.deviation", lambda velocity, h, noise, t: flow_matching.deviation(velocity, h, noise, t / 2)),
    ("rlfr", "rheostat.learner.flow_training.FlowUpdate.lessons", lambda self, batch: batch),
    ("rlfr/after", "rheostat.credit.flow_rewards.debiased", lambda deviations, times, **_: deviations.mean(-1)),
    ("treepo", "rheostat.credit.tree_advantages.subgroup_advantage", lambda r, g, path, **_: groups.grpo_advantage(r, g, scale="none")),
]


def turn_mean(values: Tensor, step: Tensor) -> Tensor:
    """Of the tokens of a turn, in place of their sum."""
    return per_step(values, step) / per_step(torch.ones_like(values), step).clamp(min=1)


def last_only(reward: Tensor, mask: Tensor) -> Tensor:
    """Token rewards without the KL."""
    return reward_at_last_token(reward, mask)


def padded_mean(x: Tensor, mask: Tensor, dim: int | None) -> Tensor:
    """A mean of rows over their padded width."""
    kept = x.masked_fill(~mask, 0.0)
    return kept.sum() / mask.sum() if dim is None else kept.mean(dim)


def clipping_free(value: Tensor, target: Tensor, **options: Any) -> Tensor:
    """The critic's loss without its clip."""
    from rheostat.objectives.value import value_loss

    return value_loss(value, target, **options | {"clip": None, "old_value": None})


@pytest.mark.parametrize(
    ("name", "place", "wrong"),
    [pytest.param(*each, id=f"{each[0]}-{each[1].rpartition('.')[2]}", marks=night(each[0])) for each in WRONG],
)
def test_a_wrong_equation_leaves_the_plain_steps(
    name: str, place: str, wrong: Any, right: Callable[[Case], Right], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = right(BY_NAME[name])
    monkeypatch.setattr(place, wrong)
    assert strays(known, BY_NAME[name])


def test_every_language_method_has_a_wrong_equation() -> None:
    assert {name.partition("/")[0] for name, _, _ in WRONG} == set(METHODS)

"""Every language method with the settings that change its equation, beside the plain loss of its paper."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from rheostat.methods import table
from rheostat.tasks.language import ChainSum, FilePrompts, GuessNumber
from rheostat.tasks.language.characters import character_tokenizer
from rheostat.tasks.language.preference_rows import PreferencePrompts
from rheostat.tasks.language.translations import Translations
from tests.annotated import annotated
from tests.methods.test_language_methods import Odd
from tests.plain import losses
from tests.plain import worth as credit
from tests.plain.following import Case

CHARACTERS = character_tokenizer().get_vocab()
BOTH = frozenset({"clipped above", "clipped below"})
EXPERT = frozenset({"source expert", "source fresh"})
STALE = frozenset({"a stale sampler"})


class Sums(ChainSum):
    """Short sums that a random model can get right: half of all completions are."""

    broken = 0.0

    def __init__(self) -> None:
        super().__init__(min_terms=2, max_terms=3)

    def verifier(self) -> Any:
        """Odd or even."""
        return Odd(self.broken)


class Sulking(Sums):
    """The first rows have no grade."""

    broken = 0.25


class Guesses(GuessNumber):
    """Two numbers, three turns: a random model finds some of them."""

    def __init__(self) -> None:
        super().__init__(largest=1, smallest_range=2, turns=3, validation_share=0.3)


def pairs() -> FilePrompts:
    """Sums, right and wrong by one; the wrong answer is longer, and some are longer still."""
    return FilePrompts(
        [
            {"prompt": f"{a}+{b}=", "chosen": str((a + b) % 10) * (1 + b % 2), "rejected": f"{(a + b + 1) % 10}{a}" * (1 + a % 2)}
            for a in range(10)
            for b in range(10)
        ]
    )


def labels() -> PreferencePrompts:
    """The same, each answer by itself."""
    return annotated("kto")


def zoo() -> PreferencePrompts:
    """The same, of two policies."""
    return annotated("polar")


class Translated(Translations):
    """Programs that a random model can get right."""

    def verifier(self) -> Any:
        """Odd or even."""
        return Odd()


def case(name: str, loss: Any, *, sees: frozenset[str] | set[str] = frozenset(), **others: Any) -> Case:
    """A case of the method before the slash."""
    facts = {key: others.pop(key) for key in ("turns", "task", "kept", "reward_loss", "flow_loss", "refresh") if key in others}
    return Case(name, name.partition("/")[0], loss, others, frozenset(sees), **facts)


SEARCH: dict[str, float] = {
    "low": 0.6, "low_end": 0.9, "low_step": 0.02, "high": 1.2, "high_end": 3.0, "high_step": 0.05, "target": 0.4
}  # fmt: skip
MIXED: dict[str, Any] = {"stale_share": 0.5, "window": 1, "prompts_per_batch": 4}
NEAR = {"low": -0.02, "high": 0.01}
LONG = {"max_new_tokens": 16, "prompts_per_batch": 2}

POLICY_GRADIENTS = [
    case("grpo", losses.grpo, sees=BOTH | {"rows of different lengths", "a row that was cut"}),
    case("grpo/several turns", partial(losses.grpo, beta=0.1), turns=3, kl_coefficient=0.1, warmup=2, prompts_per_batch=2),
    case("grpo/lag", losses.grpo, turns=3, lag=1, sees=STALE, prompts_per_batch=2),
    case("grpo/replay", losses.grpo, turns=2, replay_share=0.5, sees={"source replay", "a stale sampler"}, prompts_per_batch=2),
    case("grpo/experts inside", losses.grpo, expert_share=0.34, **LONG, sees=EXPERT),
    case("grpo/no grade", losses.grpo, task=Sulking, max_invalid_share=0.5, sees={"an invalid row"}),
    case("grpo/two-sided", partial(losses.grpo, upper=1.3, dual=1.5, beta=0.0), clip_upper=1.3, dual_clip=1.5, kl_coefficient=0.0, epochs=4,
         learning_rate=3e-2, seed=2,
         sees=BOTH | {"clipped by the upper bound"}),
    case("grpo/dual clip", partial(losses.grpo, dual=1.2, beta=0.0), dual_clip=1.2, kl_coefficient=0.0,
         learning_rate=3e-2, epochs=4, seed=2, sees={"dually clipped"}),
    case("grpo/entropy", partial(losses.grpo, bonus=0.1, kl=losses.k2), entropy_coefficient=0.1, kl_estimator="k2"),
    case("grpo/filtered", losses.grpo, temperature=0.7, top_k=5),
    case("grpo/tokens", partial(losses.grpo, together=losses.token_mean, advantage=partial(credit.in_deviations, eps=0.1)),
         aggregation="token-mean", advantage_epsilon=0.1),
    case("grpo/turns of speech", losses.grpo, task=Guesses, max_new_tokens="left out", sees=BOTH),
    case("acereason", losses.acereason, epochs=1, minibatches=1, sees={"rows of different lengths"}),
    case("acereason/four steps", losses.self_curation, minibatches=4, clip_low=0.2, clip_high=0.2, learning_rate=3e-3),
    case("dapo", partial(losses.dapo, buffer=4), overlong_buffer=4, sees=BOTH | {"an overlong row"}),
    case("dr-grpo", losses.dr_grpo, sees=BOTH),
    case("gspo", losses.gspo, sees=BOTH, minibatches=2),
    case("gspo/wide", partial(losses.gspo, low=0.2, high=0.2), clip_low=0.2, clip_high=0.2, ratio="sequence", minibatches=1,
         learning_rate=3e-3),
    case("gmpo", losses.gmpo, sees=BOTH, minibatches=1, learning_rate=2e-2),
    case("cispo", losses.cispo, sees={"clipped above"}, minibatches=2),
    case("tis", losses.tis, turns=2, lag=1, sees=STALE | {"capped", "a weight below its cap"}, learning_rate=2e-2, seed=2),
    case("tis/sequence", partial(losses.tis, whole=True, cap=1.2), turns=2, lag=1, sampler_correction="sequence", sampler_cap=1.2,
         sees=STALE | {"capped", "a weight below its cap"}),
    case("grpo/rejected completions", losses.grpo, turns=2, lag=1, rejection="mean", rejection_high=2e-4, prompts_per_batch=4,
         kept=partial(losses.near_row, most=2e-4), sees=STALE | {"a rejected row", "an accepted row"}),
    case("grpo/rejected tokens", partial(losses.grpo, bonus=0.1, together=partial(losses.near_tokens, **NEAR, together=losses.row_mean)),
         turns=2, lag=1, rejection="token", rejection_statistic="k1", rejection_low=NEAR["low"], rejection_high=NEAR["high"],
         entropy_coefficient=0.1, kept=partial(losses.has_near_tokens, **NEAR), sees=STALE | {"a rejected token"}),
    case("tis/rejected completions", losses.tis, turns=2, lag=1, rejection="mean", rejection_high=2e-4, prompts_per_batch=4,
         kept=partial(losses.near_row, most=2e-4), sees=STALE | {"a rejected row", "an accepted row"}),
    case("tis/centred", partial(losses.centred, tokens=3, cap=1.05), turns=2, lag=1, score_centring=3, sampler_cap=1.05,
         learning_rate=2e-2, seed=2, sees=STALE | {"a capped other token", "a clipped other token"}),
    case("grpo/centred", partial(losses.centred, tokens=2, high=0.2, together=losses.row_mean), turns=3, kl_coefficient=0.0,
         score_centring=2, replay_share=0.5, sees={"source replay", "a stale sampler"}, prompts_per_batch=2),
    case("rloo", losses.rloo, turns=2, sees=BOTH, prompts_per_batch=2, learning_rate=1e-3,
         micro_batch_rows=0),
    case("reinforce", losses.reinforce, epochs=1),
    case("reinforce-pp", partial(losses.reinforce_pp, beta=0.1), turns=2, kl_coefficient=0.1, sees=BOTH, prompts_per_batch=2),
    case("reinforce-pp/turns of speech", partial(losses.reinforce_pp, beta=0.0), kl_coefficient=0.0, task=Guesses,
         max_new_tokens="left out"),
    case("reinforce-pp/baseline", losses.reinforce_pp_baseline, kl_coefficient=0.0, advantage="reinforce-pp-baseline"),
    case("bapo", partial(losses.bapo, **SEARCH), turns=2, lag=1, minibatches=2, sees=BOTH | {"the upper bound moved"} | STALE,
         prompts_per_batch=2, learning_rate=3e-3, seed=1),
    case("bapo/unreachable", partial(losses.bapo, **SEARCH | {"target": 0.9}), target=0.9, minibatches=1, micro_batch_rows=0,
         sees={"the lower bound moved", "the upper bound moved"}),
    case("bapo/released", partial(losses.bapo, form="released", dual=3.0, low=0.6, low_end=0.8, low_step=0.05, high=1.2, high_end=2.0,
                                  high_step=0.05, target=1.0),
         preset="released", learning_rate=2e-2, minibatches=2, sees={"the lower bound moved", "the upper bound moved"}),
    case("bapo/released-script", partial(losses.bapo, form="released", dual=3.0, low=0.8, low_end=0.95, low_step=0.05, high=1.2,
                                         high_end=2.0, high_step=0.1, target=0.5),
         preset="released-script", learning_rate=2e-2, minibatches=2, top_k=5),
    case("grpo/clip-cov", partial(losses.clip_cov, least=0.05, most=1.5, low=0.2, high=0.3), clip="clip-cov", covariance_share=1.0,
         covariance_low=0.05, covariance_high=1.5, clip_low=0.2, clip_high=0.3, kl_coefficient=0.0,
         sees=BOTH | {"a token that is left out"}),
    case("grpo/kl-cov", partial(losses.kl_cov, share=0.2, beta=0.5), clip="kl-cov", covariance_share=0.2, covariance_coefficient=0.5,
         kl_coefficient=0.0, sees={"a held token that has moved"}),
    case("lp-reg", partial(losses.lp_reg, share=0.4), rare_share=0.4, sees={"a rare token that is kept"}),
    case("lp-reg/clip", partial(losses.lp_reg, share=0.3, pull=0.5, threshold=0.3, low=0.2, high=0.2), rare_share=0.3, pull=0.5,
         threshold=0.3, clip_low=0.2, clip_high=0.2, sees=BOTH | {"a rare token that is deleted"}),
    case("light-r1", partial(losses.light_r1, margin=3, exceed=-2.0), length_margin=3, exceed_reward=-2.0, kl_coefficient=0.001,
         sees=BOTH | {"a completion near the limit", "a right completion", "a wrong completion"}),
    case("light-r1/weights", partial(losses.light_r1, margin=1, exceed=-10.0, upper=1.2, beta=0.0), length_margin=1, clip_upper=1.2,
         kl_coefficient=0.0, epochs=4, learning_rate=3e-2, seed=2, sees={"clipped by the upper bound"}),
    case("self-curation", losses.self_curation, minibatches=1, prompts_per_batch=6, sees=BOTH),
    case("self-curation/rehearsed", partial(losses.self_curation, beta=0.5), rehearsal_coefficient=0.5, rehearse="all", minibatches=1,
         sees=EXPERT),
    case("bapo/experts inside", partial(losses.bapo, **SEARCH), expert_share=0.34, minibatches=1, **LONG, sees=EXPERT),
    case("tis/experts inside", losses.tis, expert_share=0.34, **LONG, sees=EXPERT),
    case("ghpo", partial(losses.grpo, beta=0.0, together=losses.token_mean, advantage=partial(credit.in_deviations, eps=1e-4)),
         hint_after=0, hint_place="answer", group_size=2, prompts_per_batch=6, sees={"source hinted", "source fresh"}),
]  # fmt: skip

OTHERS_ROWS = [
    case("ded", losses.likelihood, group_size="left out", most_solved=1.0, questions=12, answers_per_question=2, **LONG,
         sees={"source expert"}),
    case("sft", losses.likelihood, group_size="left out", **LONG, sees={"source expert"}),
    case("rft", losses.likelihood, kept=losses.right),
    case("rft/kl", lambda world, rows: losses.likelihood(world, rows) + 0.1 * losses.token_mean(losses.k3(world, rows)),
         kept=losses.right, kl_coefficient=0.1),
    case("chord", losses.chord, **LONG, sees=EXPERT | BOTH),
    case("chord/mu", partial(losses.chord, mu=losses.cosine(0.9, 0.05, 0, 3), phi=False), turns=2, preset="mu", mu_decay=3, steps=3, **LONG,
         sees=EXPERT, learning_rate=2e-2),
    case("chord/released", partial(losses.chord, mu=losses.cosine(0.5, 0.02, 2, 2)), turns=3, preset="released", mu_warmup=2, mu_decay=2,
         steps=4, **LONG, learning_rate=2e-2),
    case("chord/cutoff", partial(losses.chord, cutoff=0.05), cutoff=0.05, **LONG, sees={"a token beyond the cutoff"}),
    case("chord/searched", partial(losses.chord, search={"form": "paper", "dual": None, **SEARCH, "target": 0.7}), preset="searched",
         target=0.7, minibatches=1, **LONG, sees={"the upper bound moved"}),
    case("cog-rethinker", losses.cog_rethinker, group_size=2, prompts_per_batch=8, learning_rate=2e-2,
         sees=EXPERT | BOTH | {"source hinted", "stage 1 sampled", "stage 1 imitated"}),
    case("cog-rethinker/options", partial(losses.cog_rethinker, weight=0.5, low=0.1, high=0.1), group_size=2, prompts_per_batch=12, turns=2,
         sft_weight=0.5, clip_low=0.1, clip_high=0.1, shots=1, shown_attempts=1, learning_rate=1e-3,
         sees=EXPERT | {"stage 2 sampled", "stage 2 imitated"}),
    case("luffy", losses.luffy, **LONG, sees=EXPERT),
    case("rl-plus", losses.rl_plus, minibatches=1, **LONG, sees=EXPERT),
    case("rl-plus/ablation", partial(losses.rl_plus, gamma=1.0, omega=0.9, cap=0.1, bonus=0.0,
                                     advantage=partial(credit.by_own_rows, scaled=True)),
         exploration=1.0, omega=0.9, external_cap=0.1, entropy_coefficient=0.0, advantage="grpo", statistics="own", minibatches=1,
         group_size=4, **LONG, sees=EXPERT | {"capped"}),
    case("remix", losses.remix, turns=2, switch_after=0, kl_coefficient=0.001, **MIXED, learning_rate=3e-3,
         sees={"source replay", "a stale sampler", "clipped above", "clipped below", "a centre outside PPO's window"}),
    case("remix/two anchors", partial(losses.remix, beta=0.5, share=lambda step: max(1 - 0.3 * max(step - 1, 0), 0.5)), turns=3,
         switch_after=2, kl_coefficient=0.5, convex_start=1, convex_interval=1, convex_drop=0.3, refresh=2,
         **MIXED, sees={"a second anchor"}),
    case("nft", losses.nft, minibatches=2, warmup=0, sees={"the floor of a negative ratio"}),
    case("nft/odds", partial(losses.nft, weight=lambda rate: math.sqrt((1 - rate) / rate), negative=0.5, floor=0.8, divisor=10.0),
         dynamic="none", prompt_weight="odds", negative_weight=0.5, floor=0.8, divisor=10.0, minibatches=1, warmup=0, kept=losses.tells,
         prompts_per_batch=5, sees={"the floor of a negative ratio"}),
    case("nft/sequence", partial(losses.nft, whole=True, weight=lambda rate: 1.0, divisor=5.0), ratio="sequence", prompt_weight="uniform",
         divisor=5.0, minibatches=1, warmup=0),
]  # fmt: skip

PAIRED: dict[str, Any] = {
    "task": pairs, "prompts_per_batch": "left out", "group_size": "left out", "environment_options": "left out", "pairs_per_batch": 4
}  # fmt: skip
LINKS: dict[str, Any] = {
    "sigmoid": losses.smoothed(0.5, 0.1),
    "robust": lambda a, b, *_: -(0.9 * losses.sigmoid(0.5 * (a - b)).log() - 0.1 * losses.sigmoid(-0.5 * (a - b)).log()) / 0.8,
    "ipo": lambda a, b, *_: (a - b - 1.0) ** 2,
    "ipo-mean": lambda a, b, m, n: (a / m - b / n - 1.0) ** 2,
    "ipo-scaled": lambda a, b, *_: (0.5 * (a - b) - 0.5) ** 2,
    "hinge": lambda a, b, *_: (1 - 0.5 * (a - b)).clamp(min=0),
    "sigmoid-mean": lambda a, b, m, n: -losses.sigmoid(0.5 * (a / m - b / n)).log(),
    "nca": lambda a, b, *_: -losses.sigmoid(0.5 * a).log() - 0.5 * (losses.sigmoid(-0.5 * a) * losses.sigmoid(-0.5 * b)).log(),
    "bco": lambda a, b, *_: -losses.sigmoid(0.5 * a).log() - losses.sigmoid(-0.5 * b).log(),
    "sppo": lambda a, b, *_: (a - 1.0) ** 2 + (b + 1.0) ** 2,
    "apo-zero": lambda a, b, *_: 1 - losses.sigmoid(0.5 * a) + losses.sigmoid(0.5 * b),
    "apo-down": lambda a, b, *_: losses.sigmoid(0.5 * a) + 1 - losses.sigmoid(0.5 * (a - b)),
    "exo": lambda a, b, *_: losses.sigmoid(0.5 * (a - b)) * (losses.sigmoid(0.5 * (a - b)) / 0.9).log()
    + losses.sigmoid(0.5 * (b - a)) * (losses.sigmoid(0.5 * (b - a)) / 0.1).log(),
}  # fmt: skip
PREFERENCES = [
    case("dpo", partial(losses.dpo, link=losses.smoothed(0.1)), minibatches=2, **PAIRED),
    *[
        case(f"dpo/{link}", partial(losses.dpo, link=loss), link=link, beta=0.5, epochs=2, **PAIRED, **(
            {"label_smoothing": 0.1} if link in ("sigmoid", "robust", "exo") else {}))
        for link, loss in LINKS.items()
    ],
]  # fmt: skip

JUDGED: dict[str, Any] = {
    "prompts_per_batch": "left out", "group_size": "left out", "environment_options": "left out", "answers_per_batch": 5
}  # fmt: skip
REWARDED = {"prompts_per_batch": 6}
GROUPED: dict[str, Any] = {
    "task": Translated, "prompts_per_batch": 2, "groups_per_batch": 3, "equivalents": 3, "inequivalents": 2, "max_new_tokens": 31
}  # fmt: skip
ANNOTATIONS = [
    case("ipo", partial(losses.dpo, link=lambda a, b, *_: (a - b - 5.0) ** 2), minibatches=2, **PAIRED),
    case("ipo/mean", partial(losses.dpo, link=lambda a, b, m, n: (a / m - b / n - 1.0) ** 2), scale="mean", beta=0.5, **PAIRED),
    case("ipo/scaled", partial(losses.dpo, link=lambda a, b, *_: (0.5 * (a - b) - 0.5) ** 2), scale="scaled", beta=0.5, **PAIRED),
    case("cdpo", partial(losses.dpo, link=losses.smoothed(0.1, 0.2)), label_smoothing=0.2, **PAIRED),
    case("robust-dpo", partial(losses.dpo, link=LINKS["robust"]), beta=0.5, label_smoothing=0.1, **PAIRED),
    case("simpo", partial(losses.simpo, beta=2.0, gamma=0.5), minibatches=2, **PAIRED),
    case("simpo/cpo", partial(losses.simpo, beta=0.3, gamma=0.0, alpha=0.7, mean=False), reduction="sum", beta=0.3, gamma=0.0,
         likelihood_coefficient=0.7, **PAIRED),
    case("orpo", partial(losses.orpo, weight=0.1), minibatches=2, **PAIRED),
    case("orpo/answer", partial(losses.orpo, weight=0.5, whole=False), odds_coefficient=0.5, likelihood_of="answer", **PAIRED),
    case("reward-model", partial(losses.bradley_terry, centring=0.05), centring=0.05, minibatches=2, **PAIRED),
    case("polar", losses.same_policy, minibatches=2, **PAIRED | {"task": zoo}),
    case("polar/options", partial(losses.same_policy, focal=True, size=0.5), focal=True, penalty="log-barrier", penalty_weight=0.5,
         sees={"a pair that is told apart"}, **PAIRED | {"task": zoo}),
    case("kto", partial(losses.kto, beta=0.5, up=1.0, down=1.3), beta=0.5, undesirable_weight=1.3, minibatches=2, task=labels, turns=2,
         sees={"a baseline above 0"}, **JUDGED),
    case("online-dpo", partial(losses.dpo, link=losses.smoothed(0.3)), beta=0.3, kept=losses.differ, turns=2, temperature=1.0, **REWARDED),
    case("online-dpo/semi-online", partial(losses.dpo, link=losses.smoothed(0.3)), beta=0.3, kept=losses.differ, turns=3, temperature=1.0,
         refresh_every=2, sees=STALE, **REWARDED),
    case("dpo/taught", partial(losses.dpo, link=LINKS["nca"]), link="nca", beta=0.5, data="taught", kept=losses.has_both, turns=2,
         prompts_per_batch=4, group_size=3, max_new_tokens=16, refresh_every=0, sees=EXPERT - {"source fresh"}),
    case("oorl", partial(losses.oorl, weight=0.5, beta=0.3, kl=0.1), preference_weight=0.5, beta=0.3, kl_coefficient=0.1,
         sees={"clipped below", "a variance above 0"}, **GROUPED),
    case("oorl/variance", partial(losses.oorl, weight=2.0, beta=0.5, spread=0.3, sample=True, inside=True), preference_weight=2.0, beta=0.5,
         spread_weight=0.3, variance="sample", beta_inside_variance=True, kl_coefficient=0.0, micro_batch_rows=7,
         **GROUPED),
    case("oorl/pairs", partial(losses.oorl, weight=1.0, beta=0.1), preference_weight=1.0, kl_coefficient=0.0,
         **GROUPED | {"equivalents": 1, "inequivalents": 1}),
    case("osp", partial(losses.osp, beta=0.3), beta=0.3, kept=losses.compared_with_others, turns=2, group_size=4, minibatches=2,
         sees={"a baseline that is not the first"}),
    case("osp/difference", partial(losses.osp, beta=0.1, form="difference", first=True), beta=0.1, labels="difference", baseline="first",
         kept=losses.compared_with_others),
    case("osp/hard", partial(losses.osp, beta=0.3, form="hard"), beta=0.3, labels="hard", kept=losses.compared_with_others),
    case("osp/direct", partial(losses.osp, beta=0.3, form="direct"), beta=0.3, labels="direct", kept=losses.compared_with_others),
    case("osp/an earlier judge", partial(losses.osp, beta=0.3, every=2), beta=0.3, judge_refresh_every=2, turns=3, lag=1,
         kept=losses.compared_with_others, sees=STALE),
    case("pairwise-policy-gradient", partial(losses.pairwise, width=0.2), sees={"clipped"}, turns=2, group_size="left out", **REWARDED),
    case("pairwise-policy-gradient/joint", partial(losses.pairwise, width=0.2, joint=True, beta=0.1), clip="joint", kl_coefficient=0.1,
         sees={"clipped"}, turns=2, group_size="left out", **REWARDED),
    case("best-of-n", losses.best, kept=losses.is_best, turns=2),
    case("rwr", partial(losses.rwr, temperature=0.5, largest=5.0), weight_temperature=0.5, largest_weight=5.0, sees={"a capped weight"}),
    case("rwr/softmax", partial(losses.rwr, temperature=0.5, per_prompt=True), weights="softmax", weight_temperature=0.5, minibatches=1),
]  # fmt: skip

TAG = (CHARACTERS["1"],)
DIALOGUES: dict[str, Any] = {
    "tags": "1", "prune": "none", "branches": 3, "width": 3, "group_size": 6, "task": Guesses, "max_new_tokens": "left out", "turns": 2,
}  # fmt: skip

TWO_MODELS = [
    case("ppo-lm", losses.ppo_lm, minibatches=1, group_size=1, prompts_per_batch=8, micro_batch_rows=0, sees=BOTH | {"a row that was cut"}),
    case("ppo-lm/options", partial(losses.ppo_lm, gamma=0.9, lam=0.8, beta=0.2, value=2.0, width=0.02, bonus=0.1), gamma=0.9, lam=0.8,
         kl_coefficient=0.2, value_coefficient=2.0, value_clip=0.02, entropy_coefficient=0.1, minibatches=1, group_size=1, turns=2,
         prompts_per_batch=6, sees={"a clipped value"}),
    case("rise", partial(losses.ppo_lm, beta=0.1, value=1.0, bonus=0.001), kl_coefficient=0.1, solution_rewards="task", minibatches=1,
         prompts_per_batch=1, verification_prompts=2, max_new_tokens=12, turns=2, sees=BOTH),
    case("process-reward", partial(losses.process_reward, alpha=0.7), process_coefficient=0.7, reward_loss=losses.outcome_regression,
         reward_learning_rate=1e-2, reward_passes=2, sees=BOTH),
    case("prime", partial(losses.prime, beta=0.7, gamma=0.9, alpha=0.4, whiten=True), process_beta=0.7, gamma=0.9, process_coefficient=0.4,
         whiten=True, reward_loss=partial(losses.outcome_likelihood, beta=0.7), reward_learning_rate=1e-2, sees=BOTH),
    case("prime/paper", partial(losses.prime, beta=0.05, gamma=1.0, alpha=1.0, whiten=False), turns=2, prompts_per_batch=2,
         reward_loss=partial(losses.outcome_likelihood, beta=0.05), reward_learning_rate=1e-2),
    case("oprl", partial(losses.oprl, beta=0.5, alpha=0.7), process_beta=0.5, step_coefficient=0.7, task=Guesses, max_new_tokens="left out",
         reward_loss=partial(losses.trajectory_preference, beta=0.5), reward_learning_rate=1e-2, reward_passes=2, turns=2,
         sees=BOTH | {"a pair", "a turn of several tokens"}),
    case("oprl/merged", partial(losses.oprl, merged=True, bonus=0.0), combine="outcome", entropy_coefficient=0.0, task=Guesses,
         max_new_tokens="left out", reward_loss=losses.trajectory_preference, reward_learning_rate=1e-2, turns=2, sees={"a pair"}),
    case("oprl/released", losses.oprl_released, preset="released", task=Guesses, max_new_tokens="left out",
         reward_loss=partial(losses.trajectory_preference, mean=True), reward_learning_rate=1e-2, turns=2, sees=BOTH | {"a pair"}),
    case("oprl/single turn", losses.oprl, reward_loss=losses.trajectory_preference, reward_learning_rate=1e-2, prompts_per_batch=2,
         micro_batch_rows=3, sees={"a pair"}),
    case("rlfr", partial(losses.rlfr, coefficient=0.5), flow_coefficient=0.5, flow_loss=losses.flow_matching, flow_learning_rate=1e-2,
         flow_blocks=2, offline_steps=0, minibatches=2, micro_batch_rows=2, turns=2, prompts_per_batch=2, sees=BOTH | {"a penalty"}),
    case("rlfr/after", partial(losses.rlfr, coefficient=0.3, threshold=0.2, top_k=2, times=(0.4, 0.7)), flow_coefficient=0.3,
         flow_threshold=0.2, flow_top_k=2, flow_times=(0.4, 0.7), flow_pairing="token-pre", flow_loss=losses.flow_matching,
         flow_blocks=1, offline_steps=0, minibatches=1, sees={"a penalty"}),
    case("dialtree-rpo", partial(losses.dialtree_rpo, tags=TAG, beta=0.1), kl_coefficient=0.1,
         sees=BOTH | {"a shared reply", "a masked tag"}, **DIALOGUES),
    case("dialtree-rpo/static", partial(losses.dialtree_rpo, tags=TAG, beta=0.001, mode="static", once=True), mask="static",
         prefix_mode="mean", sees={"a shared reply", "a masked tag"}, **DIALOGUES),
    case("dialtree-rpo/single turn", partial(losses.dialtree_rpo, tags=TAG, beta=0.001), tags="1", prune="none", branches=5, group_size=5,
         sees={"a masked tag"}),
    case("treepo", partial(losses.treepo, buffer=4), segment=3, branches=2, max_new_tokens=12, overlong_buffer=4, group_size=5,
         prompts_per_batch=2, warmup=0, sees=BOTH | {"a group inside a tree"}),
]  # fmt: skip

CASES = [*POLICY_GRADIENTS, *OTHERS_ROWS, *PREFERENCES, *ANNOTATIONS, *TWO_MODELS]
APART = ("ctrls",)
"""Their updates are not of the language model; a plain implementation of their own is in a file of its own."""
METHODS = [name for name, row in table.METHODS.items() if row.domain == "language" and name not in APART]

"""GRPO: group relative policy optimisation.

Paper: Shao et al. 2024, DeepSeekMath, arXiv 2402.03300.

Equations (G completions per prompt, R_i their rewards, old = the policy when this update began)
    A_i      = (R_i - mean_g R) / (std_g R + eps)
    ratio_it = pi(y_it | x, y_i<t) / pi_old(y_it | x, y_i<t)
    loss     = mean_i 1/|y_i| sum_t [ -min(ratio A, clip(ratio, 1 - eps_low, 1 + eps_high) A) + beta k3(pi, reference) ]

WHO ACTS   the policy itself samples ``group_size`` completions for each of ``prompts_per_batch`` prompts.
KEPT       the fresh batch, for ``epochs`` x ``minibatches`` gradient steps.
WORTH      a verifier's reward, relative to the group.
MOVES      the clipped surrogate on tokens, a KL to the starting model inside the loss.

Every part is a setting (advantage, ratio, limit, aggregation, KL, sampler correction), so that the other published methods of this
family are this file with other answers: dr-grpo, dapo, gspo, cispo, gmpo, rloo, reinforce, reinforce-pp, tis, luffy, ppo-lm.

What implementations do differently: the standard deviation is unbiased in verl and TRL; eps is 1e-6 in verl (here) and 1e-4 in TRL; verl
adds a dual clip of 3, TRL none (here); TRL's default has no KL. A row whose verifier failed is masked and leaves the group's statistics.
Checked against: verl 0.8.0.dev and TRL 1.16.0, number by number (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.buffers.recent import RecentRows
from rheostat.collect.language.experts import with_experts
from rheostat.collect.language.generation.sampling import Sampling
from rheostat.collect.language.groups import Graded, PromptCollector, World, join
from rheostat.collect.language.rollout_records import rollout_rows
from rheostat.credit.groups import check_groups, informative_groups
from rheostat.credit.token_advantages import Advantage, token_advantages
from rheostat.credit.token_rewards import overlong_penalty
from rheostat.credit.verifiers.interface import Progress
from rheostat.errors import RheostatError
from rheostat.learner.dial import Dial, expert_rows_of
from rheostat.learner.method import Metrics, NonFinite
from rheostat.learner.searched_clip import SearchedWindow, behaviour_logp, check_search
from rheostat.masking import Aggregation, aggregate, masked_mean, natural_denominator
from rheostat.objectives.kl import KLEstimator, kl_estimate
from rheostat.objectives.limits import Limit, limit_of
from rheostat.objectives.meter import off_policyness
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP, RatioKind
from rheostat.objectives.searched_bounds import Form
from rheostat.objectives.weights import importance_weight
from rheostat.policies.flops import FORWARD, TRAIN, matrix_weights, tokens_seen
from rheostat.policies.lagged import LaggedPolicy
from rheostat.policies.language.model import TokenScores
from rheostat.policies.optimizers import language_optimizer, load_many, moments_on_the_meter, save_many
from rheostat.streams import Streams
from rheostat.trajectories import Source, Trajectories, join_rows

LimitName = Literal["clip", "searched", "detached", "log-clip", "none"]


@dataclass(frozen=True)
class GRPOConfig:
    """DeepSeekMath's setting, with batch sizes for one machine."""

    prompts_per_batch: int = 16
    """Prompts per batch."""
    group_size: int = 16
    """Completions per prompt (G)."""
    max_new_tokens: int = 0
    """Longest completion in tokens; 0 takes the task's own limit."""
    temperature: float = 1.0
    """Sampling temperature; log-probabilities are defined after it on both sides."""
    top_k: int = 0
    """Sample among the k most likely tokens; 0 among all."""
    top_p: float = 1.0
    """Sample among the most likely tokens that hold this much probability."""
    epochs: int = 1
    """Passes over a batch."""
    minibatches: int = 1
    """Gradient steps per pass; rows of a group may fall into different ones."""
    micro_batch_rows: int = 0
    """Rows per forward and backward pass, for memory; 0 takes a whole minibatch. The result does not depend on it."""
    learning_rate: float = 1e-6
    """AdamW step size."""
    warmup: int = 0
    """Updates over which the learning rate rises linearly."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    max_grad_norm: float = 1.0
    """Global gradient norm limit."""
    advantage: Advantage = "grpo"
    """What a completion is worth: relative to its group, or to the batch."""
    advantage_epsilon: float = 1e-6
    """Added to the group's standard deviation (verl 1e-6, TRL 1e-4)."""
    ratio: RatioKind = "token"
    """Ratio per token, or one per row."""
    limit: LimitName = "clip"
    """PPO's clip; BAPO's searched one, on the ratio to whoever sampled; CISPO's clipped constant weight; GMPO's clip in log space; none."""
    clip_low: float | None = 0.2
    """Lower width of the window (None: no lower bound, for detached); where a search starts."""
    clip_high: float | None = 0.2
    """Upper width of the window; where a search starts."""
    search: Form = "paper"
    """With limit searched: measure and order of the search, the paper's or the released code's."""
    target: float = 0.4
    """With limit searched, where it stops: positive share of the surrogate (paper), or quotient of positive and negative (released)."""
    clip_low_end: float = 0.1
    """Lower width at the end of the search."""
    clip_low_step: float = 0.02
    """Step of the lower bound; 0 never moves it."""
    clip_high_end: float = 2.0
    """Upper width at the end of the search."""
    clip_high_step: float = 0.05
    """Step of the upper bound; 0 never moves it."""
    dual_clip: float | None = None
    """Where A < 0, a ratio above this gives no gradient (3 in verl)."""
    clamp_log_ratio: bool = True
    """Clamp log-ratios to +-20 before exponentiating, as verl does: keeps wild ratios finite and changes nothing else."""
    aggregation: Aggregation = "sequence-mean"
    """How token losses become one number."""
    constant_denominator: float = 0.0
    """Denominator of the constant aggregation; 0 takes rows x longest completion allowed."""
    kl_coefficient: float = 0.04
    """Weight beta of the KL to the starting model; 0 keeps no reference model."""
    kl_estimator: KLEstimator = "k3"
    """Estimator of that KL."""
    kl_in_reward: bool = False
    """Subtract beta k1 from the reward instead of adding the KL to the loss (RLOO, REINFORCE++, PPO)."""
    entropy_coefficient: float = 0.0
    """Weight of an entropy bonus."""
    sampler_correction: Literal["none", "token", "sequence"] = "none"
    """Truncated importance sampling between the sampler and the learner at the start of the update."""
    sampler_cap: float = 2.0
    """Cap of that weight."""
    dynamic_sampling: bool = False
    """Keep only groups whose rewards differ, and sample until the batch is full (DAPO)."""
    max_sampling_rounds: int = 10
    """Rounds of dynamic sampling before the batch is used as it is."""
    overlong_buffer: int = 0
    """Tokens before the limit over which the overlong penalty grows (DAPO); 0 for none."""
    mask_truncated: bool = False
    """Leave completions that hit the length limit out of the loss (DAPO's overlong filtering)."""
    evaluate_every: int = 10
    """Updates between measurements on the validation set; 0 never."""
    evaluation_prompts: int = 128
    """Validation prompts of such a measurement."""
    max_invalid_share: float = 0.1
    """Share of rows on which graders may fail before the run stops."""
    budget: Literal["updates", "generated tokens"] = "updates"
    """What the run's steps count."""
    dial: Dial = Dial()  # noqa: RUF009 (frozen)
    """How far off-policy the data may be."""


class GRPO:
    """See the module docstring.

    Args:
        config: hyperparameters.
        world: task, policy, engine and verifier.
        streams: the run's random streams.
        total_steps: the budget, in ``config.budget``.
    """

    Config: ClassVar[type[GRPOConfig]] = GRPOConfig
    config: GRPOConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "kl_coefficient": 0.0}}
    needs_value_head: ClassVar[bool] = False
    uses_experts: ClassVar[bool] = False
    kl_in_reward_advantages: ClassVar[tuple[str, ...]] = ("rloo", "reinforce-pp")
    dial_refused: ClassVar[dict[str, str]] = {}
    search_refused: ClassVar[str] = ""
    """Why limit searched has no meaning for this method; empty where it has one."""

    def __init__(self, config: GRPOConfig, world: World, streams: Streams, *, total_steps: int) -> None:
        config = config.dial.apply(config)
        self.config, self.world, self.streams, self.total_steps = config, world, streams, total_steps
        self.policy = world.policy
        if config.budget == "updates":
            config.dial.check_budget(total_steps)
        self.longest = config.max_new_tokens or world.max_new_tokens
        if config.overlong_buffer > self.longest:
            raise RheostatError(
                f"overlong_buffer is {config.overlong_buffer}, more than the {self.longest} tokens a completion may have: lower it, "
                "raise max_new_tokens, or switch it off with 0."
            )
        self.sampling = Sampling(
            temperature=config.temperature, top_k=config.top_k, top_p=config.top_p, max_new_tokens=self.longest, stop_strings=world.stop
        )
        self.collector = PromptCollector(world, streams.seed, max_invalid_share=config.max_invalid_share)
        self.optimizer = language_optimizer(self.policy, config.learning_rate, config.weight_decay)
        self.reference = self.policy.reference() if config.kl_coefficient else None
        self.updates = 0
        self.learner_tokens = 0
        self.weights = matrix_weights(self.policy)
        self.flops = 0
        self.graded: Graded | None = None
        self.sources: dict[Source, int] = {}
        self.lagged = LaggedPolicy(self.policy, config.dial.lag) if config.dial.lag else None
        self.recent = RecentRows(config.dial.replay_age)
        self.window = SearchedWindow(config) if config.limit == "searched" else None
        self.announce()

    @property
    def unit(self) -> str:
        """What the budget counts."""
        return self.config.budget

    @property
    def steps(self) -> int:
        """How much of the budget has been used."""
        return self.updates if self.config.budget == "updates" else self.collector.generated_tokens

    @classmethod
    def derived(cls, config: GRPOConfig) -> dict[str, int | str]:
        """Numbers that follow from the configuration, for printing.

        Raises:
            RheostatError: an impossible combination, and what to change.
        """
        for name in ("prompts_per_batch", "group_size", "epochs", "minibatches", "max_sampling_rounds"):
            if getattr(config, name) < 1:
                raise RheostatError(f"{name} is {getattr(config, name)}: it must be at least 1.")
        rows = config.prompts_per_batch * config.group_size
        if config.minibatches > rows:
            raise RheostatError(f"{config.minibatches} minibatches cannot be cut from {rows} completions: use at most {rows}.")
        if config.group_size == 1 and config.advantage in ("grpo", "mean-baseline", "rloo"):
            raise RheostatError(f"The advantage {config.advantage!r} compares the members of a group: group_size must be at least 2.")
        if config.kl_in_reward and config.advantage not in cls.kl_in_reward_advantages:
            names = " and ".join(cls.kl_in_reward_advantages)
            raise RheostatError(f"kl_in_reward is for the advantages {names}, not for {config.advantage!r}.")
        expert_rows_of(config.dial.expert_share, config.group_size)
        if config.limit == "searched" and cls.search_refused:
            raise RheostatError(f"limit 'searched' has no meaning for {cls.__name__}: {cls.search_refused}. Choose another limit.")
        searched = check_search(config, "limit 'searched'") if config.limit == "searched" else {}
        config = config.dial.apply(config)
        if (cls.uses_experts or config.dial.expert_share) and (config.top_k or config.top_p < 1):
            raise RheostatError("An expert's tokens may lie outside top_k and top_p, where their probability is 0: leave both off.")
        if config.temperature <= 0:
            raise RheostatError(f"temperature is {config.temperature}: a policy gradient needs randomness, so it must be above 0.")
        return {
            "completions per batch": rows,
            "rows per gradient step": math.ceil(rows / config.minibatches),
            "gradient steps per batch": config.epochs * config.minibatches,
            **searched,
        }

    # --- the four questions -----------------------------------------------------------------------------------------------------------

    def announce(self) -> None:
        """Tell the engine whose weights sample from now on: the present ones, or with a lag older ones."""
        if self.lagged is None:
            self.world.engine.update_weights(self.policy, self.updates)
        else:
            self.world.engine.update_weights(self.lagged.acting(), max(0, self.updates - self.config.dial.lag))

    def collect(self) -> Trajectories:
        """WHO ACTS? The policy (with a lag, an older one); with dynamic sampling until enough groups carry a signal."""
        config = self.config
        experts = self.experts_per_group
        progress = Progress(self.updates, self.total_steps)
        parts: list[Graded] = []
        kept = rounds = groups = 0
        while True:
            part = self.sample_groups(config.group_size - experts, progress)
            if experts:
                part = with_experts(self.collector, part, experts, progress)
            check_groups(part.trajectories.group[:, 0], config.group_size)
            rounds, groups = rounds + 1, groups + config.prompts_per_batch
            if not config.dynamic_sampling:
                break
            rows = part.trajectories
            part = part.select(informative_groups(rows.reward.sum(1), rows.group[:, 0], valid=rows.valid[:, 0]))
            kept += len(part.prompts) // config.group_size
            parts.append(part)
            if kept >= config.prompts_per_batch or rounds == config.max_sampling_rounds:
                break
        if parts:
            part = join([part for part in parts if part.prompts], config.prompts_per_batch * config.group_size) or part
            part.metrics |= {"sampling_rounds": rounds, "informative_share": kept / groups}
        self.graded = part
        return part.trajectories

    @property
    def experts_per_group(self) -> int:
        """Members of every group that an expert writes."""
        return expert_rows_of(self.config.dial.expert_share, self.config.group_size)

    def sample_groups(self, members: int, progress: Progress) -> Graded:
        """``members`` completions of the policy's own for each of the next prompts."""
        graded = self.collector.collect(self.config.prompts_per_batch, members, self.sampling, version=self.updates, progress=progress)
        self.spend(FORWARD, graded.trajectories)
        return graded

    def retain(self, fresh: Trajectories) -> Trajectories:
        """WHAT IS KEPT? What was just sampled, and with a replay share groups of earlier batches; rows without a valid grade (and, if
        asked, truncated ones) leave the mask."""
        dial = self.config.dial
        keep = fresh.valid if not self.config.mask_truncated else fresh.valid & ~fresh.truncated.any(1, keepdim=True)
        fresh.mask = fresh.mask & keep
        if dial.lag:
            stale = (fresh.source == int(Source.FRESH)) & (fresh.version < self.updates)
            fresh.source = torch.where(stale, int(Source.STALE), fresh.source)
        if not dial.replay_share:
            return fresh
        groups = len(fresh) // self.config.group_size
        replayed = self.recent.draw(dial.replayed(groups), self.updates, self.streams["replay"])
        self.recent.append(fresh.clone(recurse=False), self.updates)
        return fresh if replayed is None else join_rows([fresh, replayed])

    def credit(self, kept: Trajectories) -> Trajectories:
        """WHAT IS IT WORTH? Rewards relative to the group, spread over the tokens."""
        config = self.config
        if not bool(kept.mask.any()):
            return kept
        if self.needs_start_scores:
            self.spend(FORWARD, kept)
            with torch.no_grad():
                self.store_start(kept, self.score(kept))
        if self.reference is not None:
            self.spend(FORWARD, kept)
            kept.reference_logp = self.reference.score(
                kept.action, kept.attention, kept.mask, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p
            ).logp
        reward = kept.reward.sum(1)
        if config.overlong_buffer:
            length = kept.mask.sum(1)
            reward = reward + overlong_penalty(length, max_length=self.longest, buffer=config.overlong_buffer)
        kept.advantage = self.advantages(kept, reward)
        return kept

    def advantages(self, rows: Trajectories, reward: Tensor) -> Tensor:
        """Token advantages ``[B, T]`` from row rewards ``[B]``."""
        config = self.config
        return token_advantages(
            config.advantage,
            reward,
            rows.group[:, 0],
            rows.mask,
            valid=rows.valid[:, 0],
            eps=config.advantage_epsilon,
            kl_penalty=config.kl_coefficient if config.kl_in_reward else 0.0,
            start_logp=rows.learner_logp,
            reference_logp=rows.reference_logp,
        )

    def improve(self, batch: Trajectories) -> Metrics:
        """HOW DOES THE POLICY MOVE? Gradient steps on the limited surrogate, in micro-batches that do not change the result."""
        config = self.config
        assert self.graded is not None
        metrics: Metrics = dict(self.graded.metrics)
        reports: list[dict[str, Tensor]] = []
        before: list[tuple[Tensor, Tensor]] = []
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (self.updates + 1) / max(1, config.warmup))
        usable = batch.mask.any(1).nonzero().flatten()
        for _ in range(config.epochs if len(usable) else 0):
            order = usable if config.minibatches == 1 else usable[torch.randperm(len(usable), generator=self.streams["minibatches"])]
            for rows in order.tensor_split(min(config.minibatches, len(usable))):
                reports.append(self.gradient_step(batch, rows, before))
        self.updates += 1
        if self.lagged is not None:
            self.lagged.remember(self.policy)
        self.announce()
        self.graded.trajectories = batch[: len(self.graded.prompts)]  # with what was found out about them, for looking at
        if reports:
            for name in dict.fromkeys(name for report in reports for name in report):  # a step without some source says nothing of it
                metrics[name] = torch.stack([report[name] for report in reports if name in report]).mean().item()
            if batch.learner_logp is None:  # a single step: its forward pass was the start of the update
                logp, entropy = (torch.cat(parts) for parts in zip(*before, strict=True))
                batch.learner_logp = torch.zeros(batch.shape).masked_scatter(batch.mask, logp)
                batch.entropy = torch.zeros(batch.shape).masked_scatter(batch.mask, entropy)
            kept = batch.transitions()
            age = torch.where(kept.version < 0, -1, self.updates - 1 - kept.version)
            metrics |= off_policyness(kept.learner_logp, kept.sampler_logp, age=age, source=kept.source, entropy=kept.entropy)
            metrics |= moments_on_the_meter(self.optimizer)
            if config.sampler_correction != "none":
                metrics["meter/capped_share"] = (self.correction(batch)[batch.mask] >= config.sampler_cap).float().mean().item()
            self.learner_tokens += int(batch.mask.sum()) * config.epochs
        metrics |= {
            "gradient_steps": len(reports),
            "generated_tokens": self.collector.generated_tokens,
            "learner_tokens": self.learner_tokens,
            "reward_calls": self.collector.graded_rows,
            "flops": self.flops,
        }
        if self.world.experts is not None:
            metrics["expert_rows"] = len(self.world.experts)
            metrics["expert_rows_dropped"] = sum(self.world.experts.dropped.values())
        if config.evaluate_every and self.updates % config.evaluate_every == 0:
            metrics |= self.measure(config.evaluation_prompts)
        return metrics

    # --- the objective ------------------------------------------------------------------------------------------------------------------

    @property
    def needs_start_scores(self) -> bool:
        """Whether the log-probabilities at the start of the update must be computed apart from the first training pass."""
        config = self.config
        return config.epochs * config.minibatches > 1 or config.kl_in_reward or config.sampler_correction != "none"

    def score(self, rows: Trajectories) -> TokenScores:
        """The learner's view of the chosen tokens, under the distribution that would be sampled."""
        config = self.config
        return self.policy.score(
            rows.action,
            rows.attention,
            rows.mask,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            entropy=True,
            value=self.needs_value_head,
        )

    def store_start(self, rows: Trajectories, scores: TokenScores) -> None:
        """Keep what is needed of the learner at the start of the update."""
        assert scores.entropy is not None
        rows.learner_logp, rows.entropy = scores.logp, scores.entropy

    def limiter(self) -> Limit:
        """How far the ratio may move, by fixed widths."""
        config = self.config
        return limit_of(config.limit, config.clip_low, config.clip_high, dual=config.dual_clip)

    def denominator(self, rows: Trajectories) -> Tensor:
        """What the aggregation divides by, over a whole gradient step."""
        config = self.config
        if config.aggregation != "constant":
            return natural_denominator(rows.mask, config.aggregation)
        return torch.tensor(config.constant_denominator or float(len(rows) * self.longest))

    def correction(self, rows: Trajectories) -> Tensor:
        """Capped importance weights ``[B, T]`` between the sampler and the learner at the start of the update."""
        config = self.config
        assert config.sampler_correction != "none"
        return importance_weight(
            rows.learner_logp, rows.sampler_logp, mask=rows.mask, level=config.sampler_correction, cap=config.sampler_cap
        )

    def surrogate(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> PolicyLoss:
        """The policy loss of some rows."""
        config = self.config
        weight = self.correction(rows) if config.sampler_correction != "none" else None
        window = self.window
        return policy_gradient(
            scores.logp,
            rows.advantage,
            denominator_logp=rows.learner_logp if window is None else behaviour_logp(scores.logp, rows),
            mask=rows.mask,
            limit=self.limiter() if window is None else window.limit(scores.logp, rows),
            ratio=config.ratio,
            log_clamp=LOG_CLAMP if config.clamp_log_ratio and config.ratio == "token" and config.limit != "log-clip" else None,
            weight=weight,
            aggregate=config.aggregation,
            denominator=denominator,
        )

    def losses(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The whole loss of some rows and its parts for the log; shares are relative to the denominator, so that micro-batches add up."""
        config = self.config
        policy = self.surrogate(scores, rows, denominator)
        loss = policy.loss
        parts = {"policy_loss": policy.loss.detach()}
        if self.reference is not None and not config.kl_in_reward:
            penalty = aggregate(self.divergence(scores.logp, rows), rows.mask, config.aggregation, denominator=denominator)
            loss = loss + config.kl_coefficient * penalty
            parts["kl_reference"] = penalty.detach()
        assert scores.entropy is not None
        if config.entropy_coefficient:
            loss = loss - config.entropy_coefficient * aggregate(scores.entropy, rows.mask, config.aggregation, denominator=denominator)
        parts["entropy"] = masked_mean(scores.entropy.detach(), self.measured(rows))
        parts["approx_kl"] = policy.approx_kl
        parts["meter/limited_share"] = policy.limited_share
        if self.window is not None:
            parts |= self.window.meter(policy, scores, rows)
        for kind in self.sources:
            mine = rows.mask & (rows.source == int(kind))
            parts[f"meter/{kind.name.lower()}/limited_share"] = (policy.limited & mine).sum() / self.sources[kind]
        return loss, parts

    def divergence(self, logp: Tensor, rows: Trajectories) -> Tensor:
        """What ``kl_coefficient`` weighs, ``[B, T]``: the KL to the reference."""
        return kl_estimate(logp, rows.reference_logp, self.config.kl_estimator, mask=rows.mask)

    def measured(self, rows: Trajectories) -> Tensor:
        """``[B, T]`` bool: the tokens that the diagnostics of a step are means over."""
        return rows.mask

    def gradient_step(self, batch: Trajectories, rows: Tensor, before: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """One optimiser step on some rows of the batch.

        Raises:
            NonFinite: the loss or the gradient is not finite; carries the batch.
        """
        step = batch[rows]
        denominator = self.denominator(step)
        self.optimizer.zero_grad(set_to_none=True)
        total: dict[str, Tensor] = {}
        size = self.config.micro_batch_rows or len(rows)
        tokens = self.measured(step).sum().clamp(min=1)
        counts = torch.bincount(step.source[step.mask], minlength=len(Source)).tolist()
        self.sources = {kind: counts[kind] for kind in Source if counts[kind]} if sum(map(bool, counts)) > 1 else {}
        self.spend(TRAIN, step)
        if self.window is not None and self.window.begin(step, size, self.score, self.measured(step)):
            self.spend(FORWARD, step)
        for part in step.split(size):
            scores = self.score(part)
            if part.learner_logp is None:
                assert scores.entropy is not None
                before.append((scores.logp.detach()[part.mask], scores.entropy.detach()[part.mask]))
            loss, parts = self.losses(scores, part, denominator)
            loss.backward()
            share = self.measured(part).sum() / tokens
            for name, value in parts.items():
                additive = (name.endswith(("_loss", "/limited_share")) and name != "meter/limited_share") or name == "kl_reference"
                total[name] = total.get(name, torch.zeros(())) + (value if additive else value * share)
        norm = torch.nn.utils.clip_grad_norm_([p for p in self.policy.parameters() if p.requires_grad], self.config.max_grad_norm)
        if not bool(norm.isfinite()) or not all(bool(value.isfinite()) for value in total.values()):
            names = [name for name, value in total.items() if not bool(value.isfinite())] or ["the gradient"]
            raise NonFinite(f"{', '.join(names)} became non-finite in update {self.updates + 1}", step)
        self.optimizer.step()
        return total | {"meter/gradient_norm": norm.detach()}

    def spend(self, operations: int, rows: Trajectories) -> None:
        """Book a pass over rows that costs so many operations per weight and token."""
        self.flops += operations * self.weights * tokens_seen(rows)

    # --- looking ------------------------------------------------------------------------------------------------------------------------

    def measure(self, prompts: int) -> Metrics:
        """Accuracy (mean reward) of one sample per validation prompt; a stream of its own, so that looking changes nothing."""
        self.world.engine.update_weights(self.policy, self.updates)  # it is the present policy that is measured
        found = self.collector.validation(prompts, self.sampling, version=self.updates)
        self.announce()
        return found

    def evaluate(self, episodes: int) -> Metrics:
        """The final measurement, on the whole validation set (at least ``evaluation_prompts``)."""
        return self.measure(max(episodes, self.config.evaluation_prompts))

    def rollouts(self, count: int) -> list[dict[str, Any]]:
        """Whole groups of the last batch for looking at, at most ``count`` rows."""
        if self.graded is None:
            return []
        return rollout_rows(self.graded, self.policy.tokenizer, self.config.group_size, count, update=self.updates)

    # --- state ----------------------------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Nothing to bring in order: between two turns no generation is in flight."""

    def state_dict(self) -> dict[str, Any]:
        """Weights, moments, reference, cursor, streams and counters."""
        return {
            "policy": dict(self.policy.state_dict()),
            "optimizer": save_many(self.optimizer),
            "reference": {} if self.reference is None else self.reference.state_dict(),
            "collector": self.collector.state_dict(),
            "streams": self.streams.state_dict(),
            "updates": self.updates,
            "learner_tokens": self.learner_tokens,
            "flops": self.flops,
            "lagged": {} if self.lagged is None else self.lagged.history.state_dict(),
            "recent": self.recent.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        self.policy.load_state_dict(state["policy"])
        load_many(self.optimizer, state["optimizer"])
        if self.reference is not None:
            self.reference.load_state_dict(state["reference"])
        self.collector.load_state_dict(state["collector"])
        self.streams.load_state_dict(state["streams"])
        self.updates, self.learner_tokens, self.flops = state["updates"], state["learner_tokens"], state["flops"]
        self.recent.load_state_dict(state["recent"])
        if self.lagged is not None:
            self.lagged.history.load_state_dict(state["lagged"])
        self.announce()

    def close(self) -> None:
        """Release graders that run in processes of their own."""
        close = getattr(self.world.verifier, "close", None)
        if close is not None:
            close()

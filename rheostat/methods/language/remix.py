"""ReMix: reincarnating mix-policy proximal policy gradient.

Paper: Liang et al. 2025, Squeeze the Soaked Sponge, arXiv 2507.06892.

Equations (per token; pi_k the policy at the start of step k, beh whoever sampled the row, at most ``window`` steps ago)
    r = pi / pi_beh,   c = pi_k / pi_beh                                      (c = 1 for fresh rows)
    loss    = token mean of -min(r A, clip(r, c - eps, c + eps) A) + beta KL-Convex
    KL-Convex = lambda KL(pi || base) + (1 - lambda) KL(pi || pi_{k-1})
    lambda(k) = max(1 - 0.1 ceil(max(k - 50, 0) / 10), 0.5)
    after step T: base = pi_T, the window is emptied, every batch is fresh

WHO ACTS   the policy; up to step T only for the share 1 - ``stale_share`` of a batch, afterwards for all of it.
KEPT       up to step T, whole groups of the last ``window`` steps fill the batch up; every batch is used ``epochs`` times (the paper's
           update-to-data ratio m = 2).
WORTH      a verifier's reward, relative to the row's own group: groups are never mixed across ages.
MOVES      PPO's clip with its window around the *current* policy, and a KL to two anchors.

What differs from grpo: stale groups, the additive window around c, in which every token starts at the centre however stale it is (so at
the start of a step none is clipped, and the gradient is the importance-weighted one), the second anchor, and the policy's reincarnation
at T as its own base model. For fresh rows and one anchor it is grpo. Rows whose sampler is unknown (experts) have c = 1.

Ablations are settings: ``correction=behaviour`` centres the window on 1, which clips most stale tokens at once; ``correction=none`` takes
the current policy for the sampler; ``switch_after=0`` mixes to the end; ``reset_base=False`` keeps the first base; ``epochs=1``;
``convex_floor=1`` keeps one anchor.

Reconstruction: no training code was released and the equations are from public notes. Ours are: groups drawn without replacement, each
in the window equally likely; stale rows keep their own group's statistics; the k3 estimator (from the sampled tokens, so on stale rows it
is not unbiased); eps 0.2, beta 0.001, no entropy bonus; the optimiser's moments survive the switch; m = 2 after it too. The first batch
has no past and is smaller. The paper's PPO variant, with a critic, is not here.
Checked against: the equations, computed independently (``tests/vectors``: remix).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.buffers.mixing import mixed_counts
from rheostat.buffers.recent import RecentRows
from rheostat.collect.language.groups import Graded, World
from rheostat.credit.verifiers.interface import Progress
from rheostat.errors import RheostatError
from rheostat.learner.method import Metrics
from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, GRPOConfig
from rheostat.objectives.kl_convex import convex_share, kl_convex
from rheostat.objectives.limits import Clip
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP, window_centre
from rheostat.policies.flops import FORWARD
from rheostat.policies.lagged import LaggedPolicy
from rheostat.policies.language.model import TokenScores
from rheostat.streams import Streams
from rheostat.trajectories import Source, Trajectories, join_rows


@dataclass(frozen=True)
class ReMixConfig(GRPOConfig):
    """The paper's mixture and schedule, with a group-relative advantage."""

    stale_share: float = 0.4
    """Share p of a batch's groups that come from the window, up to the switch."""
    window: int = 2
    """Steps N whose rollouts are remembered."""
    epochs: int = 2
    """Update-to-data ratio m: gradient passes over a batch."""
    switch_after: int = 50
    """Step T after which every batch is fresh; 0 mixes to the end."""
    reset_base: bool = True
    """At the switch, the current policy becomes the base model of the KL."""
    correction: Literal["mix", "behaviour", "none"] = "mix"
    """Window around the current policy and ratio to the sampler; window around 1 instead; or no ratio to the sampler at all."""
    kl_coefficient: float = 0.001
    """Weight beta of KL-Convex; 0 keeps no anchors."""
    convex_start: int = 50
    """Last step at which the base model has all the weight of the KL."""
    convex_interval: int = 10
    """Steps between two drops of it."""
    convex_drop: float = 0.1
    """Size of a drop."""
    convex_floor: float = 0.5
    """Least weight of the base model."""
    aggregation: Aggregation = "token-mean"
    """Every token weighs the same."""


class ReMix(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = ReMixConfig
    config: ReMixConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # everything happens five times earlier
        "tiny": {"learning_rate": 2e-4, "switch_after": 10, "convex_start": 10, "convex_interval": 2}
    }
    dial_refused: ClassVar[dict[str, str]] = {
        "replay_share": "it keeps a window of its own; set stale_share instead",
        "replay_age": "it keeps a window of its own; set window instead",
    }

    def __init__(self, config: ReMixConfig, world: World, streams: Streams, *, total_steps: int) -> None:
        if config.budget == "updates" and config.switch_after >= total_steps:
            raise RheostatError(
                f"switch_after is {config.switch_after}, but the run makes {total_steps} updates, so the policy would never be "
                "reincarnated: lower it, raise the budget, or set it to 0 to mix to the end."
            )
        super().__init__(config, world, streams, total_steps=total_steps)
        self.recent = RecentRows(config.window)
        falls = config.convex_drop > 0 and config.convex_floor < 1
        self.previous = LaggedPolicy(self.policy, 1) if config.kl_coefficient and falls else None

    @classmethod
    def derived(cls, config: GRPOConfig) -> dict[str, int | str]:
        """GRPO's numbers and the mixture; refuses what it has no meaning for.

        Raises:
            RheostatError: an impossible combination, and what to change.
        """
        assert isinstance(config, ReMixConfig)
        for name, only in (("limit", "clip"), ("ratio", "token"), ("sampler_correction", "none"), ("dynamic_sampling", False)):
            value = getattr(config, name)
            if value != only:
                why = {"sampler_correction": "its ratio is to the sampler already", "dynamic_sampling": "the window fills its batches"}
                raise RheostatError(
                    f"remix cannot use {name} {value!r}: {why.get(name, 'it centres the window of a token ratio')}. Leave it at {only!r}."
                )
        if config.kl_in_reward:
            raise RheostatError("remix has its KL in the loss, towards two anchors: leave kl_in_reward off.")
        if config.switch_after < 0:
            raise RheostatError(f"switch_after is {config.switch_after}: it counts updates, and 0 mixes to the end.")
        if config.stale_share and 0 < config.switch_after < config.window:
            raise RheostatError(
                f"window is {config.window}, but the run mixes for switch_after {config.switch_after} steps, so it never keeps that many: "
                "lower window or raise switch_after."
            )
        convex_share_of(config, 1)
        fresh, stale = mixed_counts(config.prompts_per_batch, config.stale_share, window=config.window)
        until = f"up to update {config.switch_after}" if config.switch_after else "to the end"
        return super().derived(config) | {"groups of a mixed batch": f"{fresh} fresh, {stale} stale, {until}"}

    @property
    def mixing(self) -> bool:
        """Whether the present batch takes groups from the window."""
        return not self.config.switch_after or self.updates < self.config.switch_after

    @property
    def base_share(self) -> float:
        """lambda of the present step, which is counted from 1."""
        return convex_share_of(self.config, self.updates + 1)

    def sample_groups(self, members: int, progress: Progress) -> Graded:
        """Fresh groups of a mixed batch, or of a whole one after the switch."""
        config = self.config
        prompts = mixed_counts(config.prompts_per_batch, config.stale_share)[0] if self.mixing else config.prompts_per_batch
        graded = self.collector.collect(prompts, members, self.sampling, version=self.updates, progress=progress)
        self.spend(FORWARD, graded.trajectories)
        return graded

    def retain(self, fresh: Trajectories) -> Trajectories:
        """WHAT IS KEPT? What was just sampled, filled up with whole groups of the last steps."""
        kept = super().retain(fresh)
        if not self.mixing:
            return kept
        _, stale = mixed_counts(self.config.prompts_per_batch, self.config.stale_share)
        drawn = self.recent.draw(stale, self.updates, self.streams["replay"])
        self.recent.append(kept.clone(recurse=False), self.updates)
        return kept if drawn is None else join_rows([kept, drawn])

    def credit(self, kept: Trajectories) -> Trajectories:
        """WHAT IS IT WORTH? As in grpo; also what the policy before the last update says, where it is an anchor."""
        kept = super().credit(kept)
        if self.previous is not None and self.base_share < 1 and bool(kept.mask.any()):
            config = self.config
            self.spend(FORWARD, kept)
            with torch.no_grad():
                kept.previous_logp = (
                    self.previous.acting()
                    .score(kept.action, kept.attention, kept.mask, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p)
                    .logp
                )
        return kept

    def improve(self, batch: Trajectories) -> Metrics:
        """HOW DOES THE POLICY MOVE? In its window; at T it becomes its own base model."""
        share = self.base_share
        metrics = super().improve(batch)
        if self.previous is not None:
            self.previous.remember(self.policy)
        if self.updates == self.config.switch_after:
            self.recent = RecentRows(self.config.window)
            if self.reference is not None and self.config.reset_base:
                self.reference = self.policy.reference(whole=True)
        return metrics | {"base_share": share}

    @property
    def needs_start_scores(self) -> bool:
        """The window of stale rows is centred on the policy at the start of the update."""
        return super().needs_start_scores or self.mixing

    def surrogate(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> PolicyLoss:
        """The clipped surrogate, importance-weighted to the sampler and limited around the current policy."""
        config = self.config
        start = scores.logp.detach() if rows.learner_logp is None else rows.learner_logp
        own = (rows.source == int(Source.FRESH)) | rows.sampler_logp.isnan()
        behaviour = start if config.correction == "none" else torch.where(own, start, rows.sampler_logp)
        clamp = LOG_CLAMP if config.clamp_log_ratio else None
        centre = window_centre(start, behaviour, rows.mask, log_clamp=clamp) if config.correction == "mix" else 1.0
        return policy_gradient(
            scores.logp,
            rows.advantage,
            denominator_logp=behaviour,
            mask=rows.mask,
            limit=Clip(config.clip_low or 0.0, config.clip_high or 0.0, dual=config.dual_clip, centre=centre),
            log_clamp=clamp,
            aggregate=config.aggregation,
            denominator=denominator,
        )

    def divergence(self, logp: Tensor, rows: Trajectories) -> Tensor:
        """KL-Convex."""
        return kl_convex(
            logp, rows.reference_logp, rows.previous_logp, share=self.base_share, estimator=self.config.kl_estimator, mask=rows.mask
        )

    def state_dict(self) -> dict[str, Any]:
        """GRPO's state and the policy before the last update; window and base model are in it already."""
        return super().state_dict() | {"previous": {} if self.previous is None else self.previous.history.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        switched = 0 < self.config.switch_after <= state["updates"]
        if self.reference is not None and self.config.reset_base and switched:
            self.reference = self.policy.reference(whole=True)  # with room for the saved base, adapters included
        super().load_state_dict(state)
        if self.previous is not None:
            self.previous.history.load_state_dict(state["previous"])


def convex_share_of(config: ReMixConfig, step: int) -> float:
    """lambda of a step, counted from 1."""
    return convex_share(
        step, start=config.convex_start, interval=config.convex_interval, drop=config.convex_drop, floor=config.convex_floor
    )

"""PPO: proximal policy optimisation with the reference details.

Paper: Schulman et al. 2017, arXiv 1707.06347; details numbered as in Huang et al. 2022, "The 37 implementation details of PPO".

Equations
    ratio_i  = pi(a_i | s_i) / pi_start(a_i | s_i),         pi_start = the policy when this update began
    A_t      = sum_l (gamma lam)^l delta_{t+l},              delta_t = r_t + gamma V(s_{t+1}) (1 - terminated_t) - V(s_t)
    policy   = mean max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps))
    value    = 1/2 mean max((V - R)^2, (V_clipped - R)^2)
    loss     = policy - c_H entropy + c_V value

WHO ACTS   the policy itself, in ``num_envs`` environments.
KEPT       the last ``window`` batches (1: strictly the fresh one; more: see ppo-buffer).
WORTH      GAE over the whole window with the current critic; truncated episodes bootstrap from the value of the true final observation.
MOVES      ``epochs`` passes of clipped-surrogate minibatch steps on everything kept.

What differs from CleanRL's reference: truncation is not treated as death (``bootstrap_on_truncation=False`` does what CleanRL does); raw
observations and rewards are stored and the running statistics change once per batch, between collecting and learning, so the
log-probabilities of ``pi_start`` are recomputed and the first ratio is exactly 1.
Checked against: Stable-Baselines3 2.9.2 and CleanRL, number by number (``tests/vectors``: baselines-control, props).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from rheostat.buffers.history import History
from rheostat.buffers.recent import RecentRows
from rheostat.collect.control.behaviour import LaggedActor
from rheostat.collect.control.episodes import measure_returns
from rheostat.collect.control.normalise import RewardScale, RunningStatistics
from rheostat.collect.control.stepping import Collector
from rheostat.credit.returns import gae
from rheostat.errors import RheostatError
from rheostat.learner.dial import Dial
from rheostat.learner.method import Metrics
from rheostat.masking import standardise_pieces
from rheostat.objectives.limits import Clip, DetachedClip, Limit, Unlimited
from rheostat.objectives.meter import off_policyness
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.slopes import policy_slope, value_slope
from rheostat.objectives.value import value_loss
from rheostat.objectives.weights import importance_weight
from rheostat.policies.control.actor_critic import ActorCritic, ControlPolicy, Evaluation, evaluate
from rheostat.policies.control.distributions import Distribution
from rheostat.policies.control.fast_control import fast
from rheostat.policies.control.sampling_error import neural_sampling_error
from rheostat.policies.flops import FORWARD, TRAIN, matrix_weights
from rheostat.policies.optimizers import moments_on_the_meter
from rheostat.policies.parameters import Adam, Optimizer, ParameterVector, load_optimizer_state, optimizer_state
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.control.environments import Environments
from rheostat.trajectories import Source, Trajectories, Transitions, join_rows

MakeEnvironments = Callable[[int, int], Environments]
"""``(num_envs, seed) -> Environments``."""
Actor = Callable[[Tensor], Distribution]
"""Raw observations ``[N, ...]`` to the distribution of actions."""


@dataclass(frozen=True)
class PPOConfig:
    """Defaults are those of CleanRL's continuous-control script, on 8 environments instead of 1."""

    num_envs: int = 8
    """Environments stepped together."""
    batch_steps: int = 2048
    """Environment steps per update, over all environments (n)."""
    window: int = 1
    """Batches kept and learned from (b); 1 is strictly on-policy data."""
    epochs: int = 10
    """Passes over the kept data per update."""
    minibatches: int = 32
    """Minibatches per pass."""
    learning_rate: float = 3e-4
    """Adam step size."""
    anneal: bool = True
    """Decay the learning rate linearly to 0 over the budget (detail 4)."""
    gamma: float = 0.99
    """Discount per step."""
    lam: float = 0.95
    """GAE lambda."""
    clip: float = 0.2
    """Clip range eps of the ratio."""
    clip_value: bool = True
    """Clip the critic's change to the same range (detail 9)."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus (c_H)."""
    value_coefficient: float = 0.5
    """Weight of the value loss (c_V)."""
    max_grad_norm: float = 0.5
    """Global gradient norm limit (detail 11)."""
    normalise_advantage: bool = True
    """Standardise advantages per minibatch, unbiased deviation + 1e-8 (detail 7)."""
    target_kl: float | None = None
    """Stop the update when the k3 estimate of KL(start || policy) exceeds this; None never stops."""
    kl_stop: Literal["before-step", "after-epoch"] = "after-epoch"
    """When to look at target_kl: on every minibatch before its step (PROPS), or after each pass (CleanRL)."""
    normalise_observations: bool = True
    """Running normalisation of observations, then clipped to +-10 (details 28, 29); images are divided by 255 instead."""
    normalise_rewards: bool = True
    """Divide rewards by the running deviation of the discounted return, then clip to +-10 (details 30, 31)."""
    bootstrap_on_truncation: bool = True
    """Bootstrap from the final observation's value when an episode is cut by a time limit; False treats it as death, as CleanRL does."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of actor and critic."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers."""
    tanh_mean: bool = False
    """Squash the Gaussian mean (what the code of PROPS v1 does)."""
    sampling_error_every: int = 0
    """Put the neural sampling error on the meter every so many updates; 0 never."""
    ratio_to: Literal["start", "sampler"] = "start"
    """What the ratio compares the policy with: itself when this update began, or what really sampled (importance sampling)."""
    limit: Literal["clip", "detached", "none"] = "clip"
    """PPO's clip; CISPO's clipped constant weight; nothing."""
    sampler_correction: Literal["none", "token"] = "none"
    """Truncated importance sampling between what sampled and the policy when this update began."""
    sampler_cap: float = 2.0
    """Cap of that weight."""
    dial: Dial = Dial()  # noqa: RUF009 (frozen)
    """How far off-policy the data may be."""


class Worth(NamedTuple):
    """What the losses need to know about rows, all ``[N]`` and constant."""

    start_logp: Tensor
    """The ratio's denominator: the log-probability under the policy when this update began (or under what sampled, see ``ratio_to``)."""
    advantage: Tensor
    target: Tensor
    """What the critic regresses on."""
    start_value: Tensor
    """The critic's value when this update began."""


class Step(NamedTuple):
    """One gradient step: what the policy said about a minibatch before it moved."""

    log_prob: Tensor
    value: Tensor
    worth: Worth
    gradient_norm: float = 0.0


class PPO:
    """See the module docstring.

    Args:
        config: hyperparameters.
        make: builds the world, from a number of environments and a seed.
        streams: the run's random streams.
        total_steps: the budget, for annealing.
        policy: your own network (a module with ``distribution`` and ``value``); None builds an :class:`ActorCritic`.

    Raises:
        RheostatError: batch arithmetic that cannot work, or a network without the two methods.
    """

    Config: ClassVar[type[PPOConfig]] = PPOConfig
    config: PPOConfig
    dial_refused: ClassVar[dict[str, str]] = {}

    def __init__(
        self, config: PPOConfig, make: MakeEnvironments, streams: Streams, *, total_steps: int, policy: ControlPolicy | None = None
    ) -> None:
        self.derived(config)
        config = config.dial.apply(config)
        self.config, self.make, self.streams, self.total_steps = config, make, streams, total_steps
        environments = make(config.num_envs, derive_seed(streams.seed, "pool", 0))
        config.dial.check_budget(total_steps // config.batch_steps)
        self.collector = Collector(environments)
        self.policy = policy or self.build_policy(environments)
        self.parameters = ParameterVector(cast(nn.Module, self.policy))
        self.network = fast(self.policy, self.parameters)
        self.optimizer = self.build_optimizer()
        self.history = History(config.window * config.batch_steps // self.block_steps(config))
        shape = environments.observation_space.shape
        self.images = len(shape) == 3
        self.observations = RunningStatistics(shape)
        self.rewards = RewardScale(config.num_envs, config.gamma)
        self.lagged = LaggedActor(self.policy, self.parameters, self.observations, config.dial.lag) if config.dial.lag else None
        self.recent = RecentRows(config.dial.replay_age)
        self.expert: Actor | None = None
        self.expert_collector: Collector | None = None
        self.updates = 0
        self.blocks = 0
        self.restarts = 0
        self.weights = matrix_weights(cast(nn.Module, self.policy))
        self.flops = 0

    # --- batch arithmetic ---------------------------------------------------------------------------------------------------------

    @classmethod
    def block_steps(cls, config: PPOConfig) -> int:
        """Environment steps collected per turn of the loop."""
        return config.batch_steps

    @classmethod
    def derived(cls, config: PPOConfig) -> dict[str, int | str]:
        """Numbers that follow from the configuration, for printing.

        Raises:
            RheostatError: an impossible combination, and what to change.
        """
        for name in ("num_envs", "batch_steps", "window", "epochs", "minibatches"):
            if getattr(config, name) < 1:
                raise RheostatError(f"{name} is {getattr(config, name)}: it must be at least 1.")
        if config.ratio_to == "sampler" and config.sampler_correction != "none":
            raise RheostatError("ratio_to='sampler' and sampler_correction both correct for what sampled: use one, or it is done twice.")
        if config.window > 1 and config.dial.replay_share:
            raise RheostatError(
                f"window is {config.window} and dial.replay_share {config.dial.replay_share:g}: both use earlier batches again; use one."
            )
        config = config.dial.apply(config)
        block = cls.block_steps(config)
        if block % config.num_envs:
            nearest = max(1, round(block / config.num_envs)) * config.num_envs
            raise RheostatError(
                f"{block} steps do not divide over {config.num_envs} environments: use {nearest} steps or another num_envs."
            )
        share = config.dial.replay_share + config.dial.expert_share
        rows = round(config.window * config.batch_steps / (1 - share))
        if config.minibatches > rows:
            raise RheostatError(f"{config.minibatches} minibatches cannot be cut from {rows} rows: use at most {rows}.")
        return {
            "steps per environment and turn": block // config.num_envs,
            "rows per update": rows,
            "rows per minibatch": -(-rows // config.minibatches),
            "gradient steps per update": config.epochs * config.minibatches,
        }

    # --- parts --------------------------------------------------------------------------------------------------------------------

    def build_policy(self, environments: Environments) -> ActorCritic:
        """The reference network for this world."""
        return ActorCritic(
            environments.observation_space,
            environments.action_space,
            hidden=self.config.hidden,
            activation=self.config.activation,
            tanh_mean=self.config.tanh_mean,
            seed=derive_seed(self.streams.seed, "network"),
        )

    def build_optimizer(self) -> Optimizer:
        """Adam with epsilon 1e-5 (detail 3)."""
        return Adam(self.parameters.vector, self.config.learning_rate, eps=1e-5)

    @property
    def unit(self) -> str:
        """What the budget counts."""
        return "environment steps"

    @property
    def steps(self) -> int:
        """Environment steps taken (reset rows do not count)."""
        return self.collector.steps

    def remaining(self) -> float:
        """Share of the budget left when this batch was begun: the first update has the full learning rate (detail 4)."""
        return max(0.0, 1 - (self.steps - self.config.batch_steps) / self.total_steps) if self.updates else 1.0

    def normalise(self, observation: Tensor) -> Tensor:
        """Raw observations to what the network reads, with the current statistics."""
        return self.observations.normalise(observation) if self.config.normalise_observations and not self.images else observation

    def act_on_target(self, observation: Tensor) -> Distribution:
        """The learned policy's distribution for raw observations ``[N, ...]``."""
        return self.network.distribution(self.normalise(observation))

    def act(self, observation: Tensor) -> Distribution:
        """Who acts while collecting: here the learned policy itself, or with a lag the one of some updates ago."""
        if self.lagged is None:
            return self.act_on_target(observation)
        seen = self.lagged.normalise(observation) if self.config.normalise_observations and not self.images else observation
        return self.lagged.network.distribution(seen)

    def draw(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions for raw observations, with the log-probabilities under what really sampled them."""
        distribution = self.act(observation)
        action = distribution.sample(generator)
        return action, distribution.log_prob(action)

    # --- the four questions -------------------------------------------------------------------------------------------------------

    def collect(self) -> Trajectories:
        """WHO ACTS? The policy (with a lag, an older one), for one block of steps."""
        steps = self.block_steps(self.config) // self.config.num_envs
        version = max(0, self.updates - self.config.dial.lag)
        return self.collector.collect(self.draw, steps, generator=self.streams["actions"], version=version)

    def retain(self, fresh: Trajectories) -> Trajectories:
        """WHAT IS KEPT? The window, raw, and what the dial adds; the running statistics learn from the fresh block only."""
        self.blocks += 1
        if self.config.normalise_observations and not self.images:
            self.observations.update(fresh.observation, fresh.mask)
        if self.config.normalise_rewards:
            self.rewards.update(fresh.reward, fresh.terminated | fresh.truncated, fresh.mask)
        fresh.source = torch.where(fresh.version < self.updates, int(Source.STALE), int(Source.FRESH))
        kept = self.history.append(fresh)
        dial = self.config.dial
        if not (dial.replay_share or dial.expert_share):
            return kept
        parts = [kept]
        if dial.replay_share:
            replayed = self.recent.draw(dial.replayed(len(fresh)), self.updates, self.streams["replay"])
            self.recent.append(fresh, self.updates)
            parts += [] if replayed is None else [replayed]
        if dial.expert_share:
            parts.append(self.ask_expert(fresh.shape[1]))
        return join_rows(parts)

    def ask_expert(self, steps: int) -> Trajectories:
        """A block of the expert's steps, in worlds of its own: as many rows as make its share of the batch."""
        assert self.expert is not None and self.expert_collector is not None
        expert = self.expert

        def draw(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            distribution = expert(observation)
            action = distribution.sample(generator)
            return action, distribution.log_prob(action)

        rows = self.expert_collector.collect(draw, steps, generator=self.streams["expert"], version=self.updates)
        rows.source = torch.full(rows.shape, int(Source.EXPERT))
        return rows

    def meet_expert(self, expert: Actor) -> None:
        """Take an expert for ``dial.expert_share``: from raw observations ``[N, ...]`` to the distribution it acts by."""
        share = self.config.dial.expert_share
        rows = max(1, round(self.config.num_envs * share / (1 - share)))
        self.expert = expert
        self.expert_collector = Collector(self.make(rows, derive_seed(self.streams.seed, "expert pool")))

    @property
    def due(self) -> bool:
        """Whether the policy moves in this turn: when a whole batch is new (always, unless a method collects in smaller blocks)."""
        return self.blocks % (self.config.batch_steps // self.block_steps(self.config)) == 0

    @property
    def credit_due(self) -> bool:
        """Whether advantages are needed in this turn."""
        return self.due

    def credit(self, kept: Trajectories) -> Trajectories:
        """WHAT IS IT WORTH? Values, advantages and start-of-update log-probabilities under the current networks and statistics."""
        batch = kept.clone(recurse=False)
        if not self.credit_due:
            return batch
        self.flops += 2 * FORWARD * self.weights * kept.count()  # every state, and its successor for the critic
        with torch.no_grad():
            observation = self.normalise(kept.observation).flatten(0, 1)
            following = self.normalise(kept.next_observation).flatten(0, 1)
            start = evaluate(self.network, observation)
            assert start.value is not None
            batch.learner_logp = start.distribution.log_prob(kept.action.flatten(0, 1)).view(kept.shape)
            batch.value = start.value.view(kept.shape)
            batch.next_value = self.network.value(following).view(kept.shape)
            reward = self.rewards.scale(kept.reward) if self.config.normalise_rewards else kept.reward
            batch.advantage, batch.value_target = gae(
                reward,
                batch.value,
                batch.next_value,
                kept.terminated,
                kept.truncated,
                gamma=self.config.gamma,
                lam=self.config.lam,
                mask=kept.mask,
                bootstrap_on_truncation=self.config.bootstrap_on_truncation,
            )
            batch.reward = reward
            older = (kept.source == int(Source.FRESH)) & (kept.version < self.updates)
            batch.source = torch.where(older, int(Source.STALE), kept.source)  # what was fresh has aged in the window
        return batch

    def improve(self, batch: Trajectories) -> Metrics:
        """HOW DOES THE POLICY MOVE? Passes of minibatch steps on the clipped surrogate."""
        if not self.due:
            return self.collector.metrics()
        config = self.config
        rows = batch.transitions()
        observation = self.normalise(rows.observation)
        age = torch.where(rows.source == int(Source.EXPERT), -1, self.updates - rows.version)
        metrics = off_policyness(rows.learner_logp, rows.sampler_logp, age=age, source=rows.source)
        if config.sampler_correction != "none":
            weight = importance_weight(rows.learner_logp, rows.sampler_logp, cap=config.sampler_cap)
            metrics["meter/capped_share"] = (weight >= config.sampler_cap).float().mean().item()
        if config.sampling_error_every and (self.updates + 1) % config.sampling_error_every == 0:
            # Before the policy moves: it is the policy this data was meant for that they are compared with.
            metrics["meter/sampling_error"] = self.sampling_error(observation, rows.action)
        if config.anneal:
            self.optimizer.param_groups[0]["lr"] = config.learning_rate * self.remaining()
        steps: list[Step] = []
        for _ in range(config.epochs):
            stopped = self.learn_once(rows, observation, steps)
            if config.target_kl is not None and config.kl_stop == "after-epoch":
                stopped = stopped or bool(self.losses(steps[-1])[0].approx_kl > config.target_kl)
            if stopped:
                break
        self.updates += 1
        if self.lagged is not None:
            self.lagged.remember(self.parameters, self.observations)
        metrics |= self.report(steps)
        metrics["gradient_steps"] = len(steps)
        metrics["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self.flops += TRAIN * self.weights * sum(len(step.log_prob) for step in steps)
        metrics["flops"] = self.flops + FORWARD * self.weights * self.steps
        with torch.no_grad():
            metrics["entropy"] = self.network.distribution(observation).entropy().mean().item()
        metrics["explained_variance"] = explained_variance(rows.value, rows.value_target)
        return metrics | self.collector.metrics()

    def learn_once(self, rows: Transitions, observation: Tensor, steps: list[Step]) -> bool:
        """One pass over the rows in random order; appends to ``steps``. Returns whether the KL stop ended it."""
        order = torch.randperm(len(rows), generator=self.streams["minibatches"])
        size = -(-len(rows) // self.config.minibatches)  # the last minibatch may be smaller
        denominator = rows.sampler_logp if self.config.ratio_to == "sampler" else rows.learner_logp
        fields = (denominator, rows.advantage, rows.value_target, rows.value, observation, rows.action)
        logp, advantage, *others = (field[order] for field in fields)
        if self.config.normalise_advantage:
            advantage = standardise_pieces(advantage, size)
        if self.config.sampler_correction != "none":  # a factor of the loss, and the loss is proportional to the advantage
            advantage = advantage * importance_weight(rows.learner_logp, rows.sampler_logp, cap=self.config.sampler_cap)[order]
        pieces = (field.split(size) for field in (logp, advantage, *others))
        for *worth, observed, taken in zip(*pieces, strict=True):
            step = self.gradient_step(observed, taken, Worth(*worth))
            if step is None:
                return True
            steps.append(step)
        return False

    def gradient_step(self, observation: Tensor, action: Tensor, worth: Worth) -> Step | None:
        """One step down ``policy - c_H entropy + c_V value`` on a minibatch; None when the KL stop forbids it.

        Derivatives are by hand: ``losses`` says what is minimised and ``slopes`` must be its derivative.
        """
        config = self.config
        now = evaluate(self.network, observation)
        assert now.value is not None
        with torch.no_grad():
            log_prob, score = now.distribution.log_prob_and_slope(action)
            step = Step(log_prob, now.value, worth)
            if config.target_kl is not None and config.kl_stop == "before-step" and self.losses(step)[0].approx_kl > config.target_kl:
                return None
            policy, value = self.slopes(step)
            outputs = score.mul_(policy.unsqueeze(-1))
            if config.entropy_coefficient:
                outputs.sub_(now.distribution.entropy_slope(), alpha=config.entropy_coefficient / len(outputs))
            self.parameters.gradient.zero_()
            self.add_gradient(now, observation, action, worth, outputs)
            now.backward(outputs, value.mul_(config.value_coefficient))
            norm = self.parameters.clip_gradient(config.max_grad_norm)
            self.optimizer.step()
        return step._replace(gradient_norm=norm)

    def add_gradient(self, now: Evaluation, observation: Tensor, action: Tensor, worth: Worth, outputs: Tensor) -> None:
        """For a child that minimises something besides: add its derivative by the distribution's parameters to ``outputs`` ``[N, P]``, and
        what does not go through the distribution to ``self.parameters.gradient``."""

    def limiter(self) -> Limit:
        """How far the ratio may move."""
        clip = self.config.clip
        if self.config.limit == "clip":
            return Clip(clip, clip)
        return DetachedClip(None, clip) if self.config.limit == "detached" else Unlimited()

    def losses(self, step: Step) -> tuple[PolicyLoss, Tensor]:
        """The policy loss and the value loss."""
        worth, clip = step.worth, self.config.clip
        policy = policy_gradient(step.log_prob, worth.advantage, denominator_logp=worth.start_logp, limit=self.limiter())
        value = value_loss(step.value, worth.target, old_value=worth.start_value, clip=clip if self.config.clip_value else None)
        return policy, value

    def slopes(self, step: Step) -> tuple[Tensor, Tensor]:
        """Derivatives of ``losses`` with respect to every log-probability and every value."""
        worth, clip = step.worth, self.config.clip
        policy = policy_slope(step.log_prob, worth.advantage, denominator_logp=worth.start_logp, limit=self.limiter())
        value = value_slope(step.value, worth.target, old_value=worth.start_value, clip=clip if self.config.clip_value else None)
        return policy, value

    def report(self, steps: list[Step]) -> Metrics:
        """What happened in the gradient steps of one update, as means over their rows."""
        if not steps:
            return {}
        log_prob, value, worth, norms = zip(*steps, strict=True)
        policy, critic = self.losses(Step(torch.cat(log_prob), torch.cat(value), Worth(*map(torch.cat, zip(*worth, strict=True)))))
        return {
            "policy_loss": policy.loss.item(),
            "value_loss": critic.item(),
            "approx_kl": policy.approx_kl.item(),
            "meter/limited_share": policy.limited_share.item(),
            "meter/gradient_norm": sum(norms) / len(norms),
        } | moments_on_the_meter(self.optimizer)

    # --- looking ------------------------------------------------------------------------------------------------------------------

    def sampling_error(self, observation: Tensor, action: Tensor) -> float:
        """Neural sampling error of (normalised) data under the current policy; NaN for a network that cannot be split into body and
        head."""
        if not isinstance(self.policy, ActorCritic):
            return float("nan")
        return neural_sampling_error(self.policy, observation, action, generator=self.streams["sampling error"])

    def evaluate(self, episodes: int) -> Metrics:
        """Deterministic actions, frozen statistics, a fresh pool with its own seed."""
        copies = self.collector.environments.copies_for(episodes)
        environments = self.make(copies, derive_seed(self.streams.seed, "evaluation", self.updates))
        return measure_returns(lambda observation: self.act_on_target(observation).mode(), environments, episodes)

    # --- state --------------------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Worlds that cannot be saved start afresh; what was under way is bootstrapped as a truncation."""
        if not self.collector.environments.can_save:
            self.restarts += 1
            self.collector.restart(derive_seed(self.streams.seed, "pool", self.restarts))
            self.rewards.restart()
            self.history.cut()
            if self.expert_collector is not None:
                self.expert_collector.restart(derive_seed(self.streams.seed, "expert pool", self.restarts))

    def state_dict(self) -> dict[str, Any]:
        """Everything: networks, optimiser, statistics, kept data, worlds, streams and counters."""
        return {
            "policy": dict(cast(nn.Module, self.policy).state_dict()),
            "optimizer": optimizer_state(self.optimizer),
            "collector": self.collector.state_dict(),
            "history": self.history.state_dict(),
            "observations": self.observations.state_dict(),
            "rewards": self.rewards.state_dict(),
            "streams": self.streams.state_dict(),
            "updates": self.updates,
            "blocks": self.blocks,
            "restarts": self.restarts,
            "flops": self.flops,
            "lagged": {} if self.lagged is None else self.lagged.history.state_dict(),
            "recent": self.recent.state_dict(),
            "expert": {} if self.expert_collector is None else self.expert_collector.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        cast(nn.Module, self.policy).load_state_dict(state["policy"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.collector.load_state_dict(state["collector"])
        self.history.load_state_dict(state["history"])
        self.observations.load_state_dict(state["observations"])
        self.rewards.load_state_dict(state["rewards"])
        self.streams.load_state_dict(state["streams"])
        self.updates, self.blocks, self.restarts = state["updates"], state["blocks"], state["restarts"]
        self.flops = state["flops"]
        self.recent.load_state_dict(state["recent"])
        if self.lagged is not None:
            self.lagged.load_state_dict(state["lagged"])
        if self.expert_collector is not None:
            self.expert_collector.load_state_dict(state["expert"])

    def close(self) -> None:
        """Release the worlds."""
        self.collector.environments.close()
        if self.expert_collector is not None:
            self.expert_collector.environments.close()


def explained_variance(value: Tensor, target: Tensor) -> float:
    """1 - Var(target - value) / Var(target): 1 is a perfect critic, 0 no better than a constant (detail 12); 0 when the target is
    constant."""
    variance = target.var()
    return (1 - (target - value).var() / variance).item() if variance > 0 else 0.0

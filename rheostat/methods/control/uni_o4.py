"""Uni-O4: one clipped objective for the data set and for the world.

Paper: Lei et al. 2023, "Uni-O4: Unifying Online and Offline Deep Reinforcement Learning with Multi-Step On-Policy Optimization", arXiv
2311.03351; it builds on BPPO (Zhuang et al. 2023, arXiv 2302.11312).

Equations (members i = 1..K; D: the data; mu_i: the old policy of member i; M: a learned model of the world)
    V, Q       = V towards the return R_t, Q towards r + gamma Qbar(s', a') with a' of the data; or both as in iql
    cloning    = mean_D [-log pi_i(a|s) - alpha KL(pi_i(.|s), pi_j(.|s))],         j: the other member under which a is likeliest
    A_i        = standardised Q(s, a) - V(s),    s of D, a ~ mu_i(.|s);            times omega where positive, else 1 - omega (not iql)
    policy_i   = -mean min(ratio A_i, clip(ratio, 1 - eps, 1 + eps) A_i),          ratio = pi_i(a|s) / mu_i(a|s)
    AM-Q_i     = mean of Q(s, a) over the pairs that the mean action of pi_i visits in M from states of D
    gate       = mu_i <- pi_i when AM-Q_i is above the best so far, every ``gate_every`` steps
    online     = the same clipped ratio with advantages by GAE, from the chosen pi_i and the offline V

WHO ACTS   nobody: actions are drawn from mu_i and judged by Q, and episodes are imagined in M. Online the chosen member.
KEPT       the data set. Online one on-policy batch; the data set is left behind.
WORTH      Q - V of critics fitted to the data once; online GAE.
MOVES      clipped ratios: to mu_i offline, to the policy before the update online. Nothing else holds the policy near the data.

Stages share ``--steps`` in proportion to ``critic_part``, ``model_part``, ``cloning_part`` and ``policy_part``, by default the published
numbers of steps (the model has none: it stops by itself, and what it saves is not spent). ``--online-steps`` follow. ``preset small`` has
networks and shares for small tasks. Q is that of the behaviour and is never fitted again, so AM-Q measures one step of improvement under
the states of the new policy, not its value; and the largest of many noisy scores is too large (``fixed_starts`` removes the noise).

What differs from the authors' code, where a setting says how to have it their way:
diversity (``diversity_kind``): their default ("heuristic") has no gradient but that of cloning and only rescales its step; the divergence
above is what the term is meant to be (a reconstruction). All members move at once, theirs one after the other.
clip (``clip_decay``): meant to fall to 0 with the step size; theirs stops falling after 2 percent of the steps ("released").
log std (``log_std_online``): their online network squashes it twice, so the same weights are another policy ("double-tanh").
choice (``choose``): AM-Q alone decides; they measure three members in the world ("return"), which is booked as environment steps.
drawn actions (``clip_actions``): log-probabilities are those of the draw; theirs are those of the clipped action.
time limits (``bootstrap_on_truncation``): V bootstraps where an episode was cut; theirs lets the return end there.
states: standardised with 1e-3 added to the deviation, as in td3-bc; theirs adds 1e-10 and is off by default.
Not offered: V refitted on running reward scales, an imitation term beside the offline surrogate, their AntMaze rewards.
Checked against: the authors' code (``tests/vectors``: uni-o4).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.buffers.offline import OfflineData
from rheostat.buffers.replay import Replay
from rheostat.collect.control.episodes import run_episodes
from rheostat.collect.control.stepping import no_steps
from rheostat.credit.returns import discounted_return
from rheostat.errors import RheostatError
from rheostat.learner.method import Metrics
from rheostat.learner.off_policy import OFFLINE_TURN, OffPolicy, OffPolicyConfig, UsesData
from rheostat.learner.ppo_update import ClippedPhase
from rheostat.methods.control.uni_o4_members import GatedMembers
from rheostat.objectives.diverse_cloning import Diversity, OverDimensions
from rheostat.objectives.meter import off_policyness
from rheostat.policies.control.behaviour_critics import BehaviourCritics, Kind
from rheostat.policies.control.critics import StateValue
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.dynamics import DynamicsEnsemble, DynamicsModel
from rheostat.policies.control.ensembles import GaussianMembers
from rheostat.streams import derive_seed
from rheostat.tasks.control.terminations import termination_of
from rheostat.trajectories import Source, Trajectories, Transitions

Stage = Literal["critics", "model", "cloning", "policies"]
STAGES: tuple[Stage, ...] = ("critics", "model", "cloning", "policies")


@dataclass(frozen=True)
class UniO4Config(OffPolicyConfig):
    """The published setting."""

    batch_size: int = 512
    """Transitions (or states) per gradient step; of the model: ``model_batch_size``."""
    learning_rate: float = 1e-4
    """Adam step size of the cloning."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of the policies."""
    normalise_states: bool = True
    """Standardise observations by the mean and deviation of the data set, also online."""
    critic_part: float = 2_000_000
    """Gradient steps of the critics, in proportion to the other parts: together they are ``--steps``."""
    model_part: float = 300_000
    """Of the model of the world, at most; 0 makes none (then only gates without AM-Q, and the first member is chosen)."""
    cloning_part: float = 400_000
    """Of the cloning."""
    policy_part: float = 10_000
    """Of the clipped policy optimisation; 0 leaves the clones."""
    activation: Literal["relu", "tanh"] = "relu"
    """Of the policies' hidden layers (the authors take tanh for HalfCheetah medium and medium-replay)."""
    critics: Kind = "sarsa"
    """V and Q of the behaviour, or implicit Q-learning with two critics (the authors: on the medium sets)."""
    critic_hidden: tuple[int, ...] = (1024, 1024)
    """Hidden layers of Q."""
    value_hidden: tuple[int, ...] = (512, 512, 512)
    """Hidden layers of V."""
    critic_learning_rate: float = 1e-4
    """Adam step size of Q and V."""
    target_every: int = 2
    """Gradient steps between moves of the slow critics, each by ``tau``."""
    expectile: float = 0.7
    """Of the data's values that V aims at (iql)."""
    bootstrap_on_truncation: bool = True
    """Returns of episodes that were cut end with V of the last observation; False: with nothing, as the authors have it (sarsa)."""
    model_networks: int = 7
    """Networks of the model."""
    model_elites: int = 5
    """Best networks of the model, which are used."""
    model_hidden: tuple[int, ...] = (200, 200, 200, 200)
    """Hidden layers of the model."""
    model_learning_rate: float = 1e-3
    """Adam step size of the model."""
    model_batch_size: int = 256
    """Transitions of every network of the model per gradient step."""
    model_decay: tuple[float, float] = (2.5e-5, 1e-4)
    """Weight decay of the first and the last layer of the model, in between in equal steps."""
    model_patience: int = 5
    """The model stops after so many passes over the data without improvement on the fifth of it that is held out."""
    members: int = 4
    """Policies of the ensemble (K)."""
    diversity: float = 0.1
    """alpha: how much the members are kept apart while cloning."""
    diversity_kind: Diversity = "distribution"
    """A divergence between members; or the released log-likelihood ratio, which only rescales cloning (heuristic)."""
    diversity_dimensions: OverDimensions = "mean"
    """That divergence as a mean over action dimensions (the authors) or their sum."""
    policy_learning_rate: float = 1e-4
    """Adam step size of the offline policy optimisation, falling to 0 (the authors: 1e-5 on Adroit)."""
    offline_clip: float = 0.25
    """Clip range eps of the ratio to the old policy."""
    clip_decay: Literal["linear", "released", "none"] = "linear"
    """eps falls to 0 over the stage; or over its first 2 percent as if it would, and stays there; or is constant."""
    omega: float = 0.7
    """Weight of positive advantages against that of the others, 1 - omega (sarsa)."""
    offline_entropy: float = 0.0
    """Weight of the entropy bonus offline."""
    gate: Literal["am-q", "always", "never"] = "am-q"
    """When the old policy follows: if AM-Q is better than ever, at every evaluation, or never (one-step improvement)."""
    gate_every: int = 100
    """Gradient steps of the policies between evaluations by the gate."""
    horizon: int = 1000
    """Longest imagined episode. Where the task's termination rule is not known, shorter is safer."""
    starts: int = 512
    """Imagined episodes of every member per evaluation."""
    fixed_starts: bool = False
    """The same start states and draws of the model in every evaluation, so that scores differ by the policies alone."""
    choose: Literal["am-q", "return"] = "am-q"
    """Who goes online: the member with the best AM-Q; or, of the best ``choose_among``, the one with the best return in the world."""
    choose_among: int = 3
    """Members that are measured in the world."""
    choose_episodes: int = 10
    """Episodes of each; their steps are taken from ``--online-steps``."""
    deploy: Literal["last", "best"] = "last"
    """The chosen member's policy as it is and its last score, or its last policy that passed the gate and that one's score."""
    online_batch_steps: int = 2048
    """Environment steps per online update."""
    online_minibatch: int = 128
    """Steps per gradient step online."""
    online_epochs: int = 10
    """Passes over every online batch (the authors: 5 to 30)."""
    online_learning_rate: float = 3e-5
    """Adam step size of the policy online (the authors: 1e-5 to 3e-5)."""
    online_critic_learning_rate: float = 2e-4
    """Adam step size of V online."""
    online_anneal: bool = True
    """Both step sizes fall to 0 over ``--online-steps``."""
    online_clip: float = 0.05
    """Clip range of the ratio online, and of V around its value before the update."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus online."""
    lam: float = 0.95
    """GAE lambda."""
    max_grad_norm: float = 0.5
    """Gradient norm limit of every policy, and of V online."""
    log_std_online: Literal["same", "double-tanh"] = "same"
    """The deviation online is that of the offline network, or squashed again as released."""
    clip_actions: bool = False
    """Online log-probabilities are those of the action clipped to its bounds, as released, and not of the draw."""


class UniO4(OffPolicy):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = UniO4Config
    config: UniO4Config
    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "critic_part": 20.0,
            "model_part": 5.0,
            "cloning_part": 10.0,
            "policy_part": 2.0,
            "hidden": (64, 64),
            "critic_hidden": (64, 64),
            "value_hidden": (64, 64),
            "critic_learning_rate": 1e-3,
            "learning_rate": 3e-4,
            "model_networks": 3,
            "model_elites": 3,
            "model_hidden": (64, 64),
            "horizon": 100,
            "batch_size": 256,
        }
    }

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """The shares of the stages, after a look at what cannot work."""
        assert isinstance(config, UniO4Config)
        super().derived(config)
        if config.priority or config.offline_share is not None or config.n_step > 1:
            raise RheostatError("uni-o4 draws single steps of the data set, uniformly: leave priority, offline_share and n_step alone.")
        if min(config.critic_part, config.cloning_part) <= 0 or min(config.model_part, config.policy_part) < 0:
            raise RheostatError(
                "critic_part and cloning_part must be above 0, model_part and policy_part at least 0: they are the stages' proportions."
            )
        if config.deploy == "best" and (config.gate != "am-q" or not config.model_part):
            raise RheostatError("deploy=best takes the policies that passed the gate am-q: use that gate (and a model), or deploy=last.")
        if config.gate == "am-q" and config.policy_part and not config.model_part:
            raise RheostatError("The gate am-q imagines episodes in a model: set model_part above 0, or gate to always or never.")
        counts = ("target_every", "members", "gate_every", "horizon", "starts", "choose_among", "choose_episodes")
        for name in (*counts, "online_batch_steps", "online_minibatch", "online_epochs", "model_batch_size", "model_patience"):
            if getattr(config, name) < 1:
                raise RheostatError(f"{name} is {getattr(config, name)}: it must be at least 1.")
        if not 0 < config.expectile < 1 or not 0 <= config.omega <= 1:
            raise RheostatError("expectile lies between 0 and 1, and so does omega.")
        if config.online_batch_steps % config.num_envs:
            raise RheostatError(
                f"online_batch_steps {config.online_batch_steps} do not divide over {config.num_envs} environments: change one of them."
            )
        parts = dict(zip(STAGES, cls.parts_of(config), strict=True))
        shares = ", ".join(f"{name} {100 * part / sum(parts.values()):.3g} %" for name, part in parts.items())
        return {
            "shares of the offline steps": shares,
            "transitions per gradient step": config.batch_size,
            "gradient steps per online update": config.online_epochs * -(-config.online_batch_steps // config.online_minibatch),
        }

    @staticmethod
    def parts_of(config: UniO4Config) -> tuple[float, ...]:
        """The sizes of the stages, in proportion."""
        return config.critic_part, config.model_part, config.cloning_part, config.policy_part

    @property
    def arithmetic(self) -> dict[str, int | str]:
        """Numbers that follow from the budget too, for printing."""
        return {f"steps of the {stage}": self.lengths[stage] for stage in STAGES}

    # --- parts ------------------------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Critics, a model, the members with their old policies, and what goes online."""
        config, draw, (seen, acted) = self.config, self.streams["networks"], self.sizes
        assert self.offline is not None
        if config.choose == "return" and self.budget == self.offline_budget:
            raise RheostatError("choose=return measures members in the world: give it --online-steps to spend, or choose by am-q.")
        self.ends = self.schedule()
        self.critics = BehaviourCritics(
            seen,
            acted,
            kind=config.critics,
            critic_hidden=config.critic_hidden,
            value_hidden=config.value_hidden,
            learning_rate=config.critic_learning_rate,
            tau=config.tau,
            target_every=config.target_every,
            expectile=config.expectile,
            generator=draw,
        )
        self.online = ClippedPhase(
            self.build_policies(1, squash=config.log_std_online == "double-tanh"),
            StateValue(seen, hidden=config.value_hidden, generator=draw),
            learning_rates=(config.online_learning_rate, config.online_critic_learning_rate),
            clip=config.online_clip,
            epochs=config.online_epochs,
            minibatch=config.online_minibatch,
            entropy_coefficient=config.entropy_coefficient,
            gamma=config.gamma,
            lam=config.lam,
            max_grad_norm=config.max_grad_norm,
        )
        self.seen_data = super().credit(self.rescaled(self.offline.transitions))  # as the networks read it
        self.returns, self.left, self.last = self.returns_of(self.offline)
        self.model = self.build_model() if config.model_part else None
        self.termination = termination_of(self.collector.environments.name)
        self.members = GatedMembers(
            config,
            self.build_policies(config.members),
            self.critics,
            self.model,
            states=self.seen_data.observation,
            ended=self.has_ended,
            steps=self.lengths["policies"],
            streams=self.streams,
        )
        self.chosen = -1
        self.choice_steps = 0

    def build_policies(self, members: int, *, squash: bool = False) -> GaussianMembers:
        """Gaussian policies of one shape."""
        config, draw, (seen, acted) = self.config, self.streams["networks"], self.sizes
        return GaussianMembers(members, seen, acted, hidden=config.hidden, activation=config.activation, squash=squash, generator=draw)

    def build_model(self) -> DynamicsModel:
        """The model of the world, over observations and actions as the networks read them."""
        config, draw, (seen, acted) = self.config, self.streams["networks"], self.sizes
        return DynamicsModel(
            DynamicsEnsemble(seen, acted, networks=config.model_networks, hidden=config.model_hidden, generator=draw),
            self.seen_data,
            elites=config.model_elites,
            learning_rate=config.model_learning_rate,
            batch_size=config.model_batch_size,
            decay=config.model_decay,
            patience=config.model_patience,
            generator=torch.Generator().manual_seed(derive_seed(self.streams.seed, "model data")),  # the same after loading
        )

    def schedule(self) -> dict[Stage, int]:
        """Where every stage ends, in gradient steps.

        Raises:
            RheostatError: a budget that leaves a stage without a step.
        """
        parts = self.parts_of(self.config)
        ends = [round(self.offline_budget * total / sum(parts)) for total in itertools.accumulate(parts)]
        self.lengths = dict(zip(STAGES, (after - before for before, after in itertools.pairwise([0, *ends])), strict=True))
        for stage, part in zip(STAGES, parts, strict=True):
            if part and not self.lengths[stage]:
                raise RheostatError(
                    f"{self.offline_budget:,} steps leave none for the stage {stage!r}: raise steps or change the parts (preset small has "
                    "others)."
                )
        return dict(zip(STAGES, ends, strict=True))

    def returns_of(self, offline: OfflineData) -> tuple[Tensor, Tensor, Tensor]:
        """Per step of the data ``[n]``: the discounted rewards to the end of its episode, the discount of what lies beyond (0 where the
        world ended), and the place of the episode's last step."""
        rows, gamma = offline.transitions, self.config.gamma
        cut = offline.breaks & ~rows.terminated
        returns = discounted_return(self.seen_data.reward, rows.terminated, cut, gamma=gamma)
        left = discounted_return(gamma * cut.float(), rows.terminated, cut, gamma=gamma)
        ends = offline.breaks.nonzero().flatten()
        return returns, left, ends[torch.searchsorted(ends, torch.arange(len(offline)))]

    def build_replay(self, offline: OfflineData | None) -> Replay:
        """Nothing: the policy's own steps are learned from at once."""
        return Replay(1)

    def build_data_replay(self, offline: OfflineData | None) -> Replay:
        """The data set."""
        assert offline is not None
        replay = Replay(len(offline), gamma=self.config.gamma)
        replay.append_transitions(self.rescaled(offline.transitions), offline.breaks)
        return replay

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        found = {"critics": self.critics, "members": self.members, "online": self.online}
        return found if self.model is None else found | {"model": self.model}

    def distribution(self, observation: Tensor) -> Gaussian:
        """The policy of unit actions: the chosen member, or before that the one whose last score is the best."""
        if self.chosen >= 0:
            return self.online.distribution(observation)
        everyone, index = self.members.policies.distribution(observation), int(self.members.scores.argmax())
        return Gaussian(everyone.mean[index], everyone.log_std[index])

    def value(self, observation: Tensor) -> Tensor:
        """V of raw observations, ``[N]``."""
        values = self.critics.values if self.chosen < 0 else self.online.values
        return values.network(self.normalise(observation))

    # --- the four questions -----------------------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Gradient steps on the data set and environment steps, those of choosing a member included."""
        return self.offline_updates + self.collector.steps + self.choice_steps

    @property
    def stage(self) -> Stage:
        """What is being learned from the data."""
        return next(stage for stage in STAGES if self.offline_updates < self.ends[stage])

    def collect(self) -> Trajectories:
        """WHO ACTS? Nobody; then the chosen member, for one batch."""
        if not self.acting:
            return no_steps(self.collector.environments)
        if self.chosen < 0:
            self.choose_by_return()
        count = self.config.online_batch_steps // self.config.num_envs
        return self.collector.collect(self.draw, count, generator=self.streams["actions"], version=self.updates)

    def draw(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions for raw observations and their log-probabilities; the world clips what leaves the bounds."""
        assert self.bounds is not None
        policy = self.distribution(self.normalise(observation))
        unit = policy.sample(generator)
        unit = unit.clamp(-1.0, 1.0) if self.config.clip_actions else unit
        return self.bounds.to_world(unit), policy.log_prob(unit) - self.bounds.log_volume

    def retain(self, fresh: Trajectories) -> Any:
        """WHAT IS KEPT? The data set: the batches of the next gradient steps. Online the fresh batch alone, ``[E, T]``."""
        if not self.acting:
            return self.draw_batches(min(OFFLINE_TURN, self.ends[self.stage] - self.offline_updates))
        fresh.source = torch.full(fresh.shape, int(Source.FRESH))
        return self.rescaled(fresh)

    def draw_batches(self, count: int) -> Transitions:
        """``count`` batches, one after the other; the model's networks have data of their own."""
        if self.stage == "model":
            assert self.model is not None and self.offline is not None
            return self.rescaled(self.offline.transitions[self.model.draw(count, self.streams["model"])])
        assert self.data is not None
        sarsa = self.stage == "critics" and self.config.critics == "sarsa"
        return self.data.sample(count * self.config.batch_size, self.streams["replay"], sarsa=sarsa)

    def credit(self, kept: Any) -> Any:
        """WHAT IS IT WORTH? Offline what the critics say inside every gradient step; online GAE with the present V."""
        if isinstance(kept, Transitions):
            return super().credit(kept)
        assert self.bounds is not None
        batch = kept.clone(recurse=False)
        batch.observation, batch.next_observation = self.normalise(kept.observation), self.normalise(kept.next_observation)
        batch.action = (kept.action.flatten(2) - self.bounds.centre) / self.bounds.half  # not limited: the policy drew it
        return self.online.credit(batch)

    def improve(self, batch: Any) -> Metrics:
        """HOW DOES THE POLICY MOVE? Gradient steps of the present stage, or passes of clipped steps over the online batch."""
        if isinstance(batch, Trajectories):
            return self.improve_online(batch.transitions())
        stage = self.stage
        size = self.config.model_networks * self.config.model_batch_size if stage == "model" else self.config.batch_size
        for start in range(0, len(batch), size):
            rows = batch[start : start + size]
            self.tally(self.gradient_step(rows), rows)
            self.updates += 1
            self.offline_updates += 1
        if stage == "model" and self.model is not None and self.model.stalled:
            self.offline_updates = self.ends["model"]  # early stopping: what is left of the stage is not spent
        if self.offline_updates == self.ends[stage]:
            self.finish(stage)
        metrics = self.row(batch)
        return {"stage": STAGES.index(stage)} | metrics if metrics else {}

    # --- the data set -----------------------------------------------------------------------------------------------------------------

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step of what the stage learns."""
        stage = self.stage
        if stage == "critics":
            return self.critics.step(rows, None if self.config.critics == "iql" else self.returns_from(rows.index))
        if stage == "model":
            assert self.model is not None
            return self.model.step(rows)
        if stage == "cloning":
            return self.members.clone(rows)
        return self.members.improve(rows, self.offline_updates - self.ends["cloning"])

    def returns_from(self, index: Tensor) -> Tensor:
        """What V regresses on at places of the data, ``[B]``."""
        returns = self.returns[index]
        if not self.config.bootstrap_on_truncation:
            return returns
        return returns + self.left[index] * self.critics.value(self.seen_data.next_observation[self.last[index]])

    def has_ended(self, observation: Tensor) -> Tensor:
        """Whether the world has ended at observations as the networks read them, bool ``[N]``."""
        if self.termination is None:
            return torch.zeros(len(observation), dtype=torch.bool)
        raw = observation if self.shift is None or self.scale is None else observation * self.scale + self.shift
        return self.termination(raw)

    def finish(self, stage: Stage) -> None:
        """What follows a stage's last step."""
        if stage == "model" and self.model is not None:
            self.model.finish()
        if stage == "cloning":
            self.members.begin()
        if self.acting:
            self.members.end()
            if self.config.choose == "am-q":
                self.become(self.members.ranking[0])

    def choose_by_return(self) -> None:
        """Measure the best members in the world, each in one environment, and book their steps."""
        bounds, policies, returns = self.bounds, self.members.candidates, {}
        assert bounds is not None
        for index in self.members.ranking[: self.config.choose_among]:
            worlds = self.make(1, derive_seed(self.streams.seed, "choice", index))

            def act(observation: Tensor, index: int = index) -> Tensor:
                return bounds.to_world(policies.distribution(self.normalise(observation)).mean[index])

            found, lengths = run_episodes(act, worlds, self.config.choose_episodes)
            worlds.close()
            returns[index] = sum(found) / len(found)
            self.choice_steps += sum(lengths)
        self.become(max(returns, key=lambda index: returns[index]))

    def become(self, index: int) -> None:
        """Go on with one member and the offline V."""
        self.chosen = index
        self.online.actor.network.become(self.members.candidates, torch.tensor([index]))
        self.online.values.parameters.copy_from(self.critics.values.parameters)

    # --- the world --------------------------------------------------------------------------------------------------------------------

    def improve_online(self, rows: Transitions) -> Metrics:
        """Passes of clipped steps over one batch."""
        assert self.bounds is not None
        taken = self.steps - self.offline_budget - len(rows)  # before this batch
        left = max(0.0, 1 - taken / (self.budget - self.offline_budget)) if self.config.online_anneal else 1.0
        metrics = off_policyness(rows.learner_logp, rows.sampler_logp + self.bounds.log_volume, age=self.updates - rows.version)
        for found in self.online.learn(rows, left, self.streams["minibatches"]):
            self.tally(found, rows)
        self.updates += 1
        metrics |= {"stage": len(STAGES), "learning_rate": self.online.actor.learning_rate}
        return metrics | self.row(Transitions.none(), always=True)

    # --- looking and state ------------------------------------------------------------------------------------------------------------

    def meter(self, rows: Transitions) -> Metrics:
        """How far the policies are from the data, once there are some."""
        return super().meter(rows) if self.offline_updates > self.ends["model"] else {}

    def state_dict(self) -> dict[str, Any]:
        """Everything; the data set is named by the run and read again."""
        return super().state_dict() | {"chosen": self.chosen, "choice_steps": self.choice_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.chosen, self.choice_steps = state["chosen"], state["choice_steps"]

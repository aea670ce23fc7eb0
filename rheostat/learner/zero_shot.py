"""Zero-shot methods: a family of policies pi_z learned without rewards, and the z of a reward that is given later.

What the methods share: how tasks z are drawn, actors that read them, gradient steps of several networks down one loss, and the way from a
reward function, or a goal, to the policy that acts. Models have the names ``policy``, ``state encoder`` (phi), ``task encoder`` (psi),
``predictor`` (of sums of psi), ``task predictor`` (of sums of phi), ``behaviour flow``, and ``target ...``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from rheostat.buffers.control_retainers import DataAlone, DataSet, Draw, LearnedRewards, States, per_turn
from rheostat.collect.control.control_collectors import Nobody
from rheostat.collect.control.evaluation_episodes import run_episodes
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import Found
from rheostat.learner.control_models import TargetNetwork, TrainableNetwork
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import AsRead, Batches, Logging, PerStep, UsesData
from rheostat.learner.stages import GradientSteps, Stage, Staged
from rheostat.objectives.latent_prediction import (
    effective_rank,
    latent_loss,
    mixed_tasks,
    moved_covariance,
    on_sphere,
    orthonormality,
    pessimistic,
    task_actor_loss,
    task_of_rewards,
)
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.policies.control.latents import ActionFlow, LatentPredictor, SphereEncoder, TaskActor
from rheostat.policies.control.squashed import DeterministicAction
from rheostat.streams import derive_seed
from rheostat.tasks.control.state_rewards import NearGoal, Rewarded, StateReward

COVARIANCE_RATE = 0.005
"""Share of a batch in the running covariance of task features."""
RANK_EVERY = 20
"""Gradient steps between measurements of the effective rank."""
INSIDE = 1e-6
"""How far inside [-1, 1] noisy actions stay."""
ActorKind = Literal["plain", "flow"]


# --- options ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskSampling:
    """Which tasks z the policies are trained on."""

    goal_share: float = option(0.5, share=True)
    """Share of the tasks that are goals among the data; the others are uniform directions."""
    scale_goals: bool = option(False)
    """Multiply goals by the inverse covariance of task features (the authors' setting for OGBench)."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.goal_share else {"scale_goals": "goal_share is 0, so there are no goals to scale; raise it, or leave it alone"}


@dataclass(frozen=True)
class TaskFeatures:
    """The encoder of tasks, where it is the only one: psi, or B of forward-backward representations."""

    task_features: int = option(50, at_least=1)
    """Numbers of these features, and of a task."""
    task_hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of their encoder."""
    orthonormality: float = option(1.0, at_least=0)
    """Weight of their orthonormality."""
    task_learning_rate: float | None = option(None, at_least=0)
    """Adam step size of their encoder; None takes learning_rate, and 0 freezes it."""


@dataclass(frozen=True)
class TaskPolicies:
    """The policies pi_z and how they move."""

    actor: ActorKind = option("plain")
    """One action per state and task; or (flow) one per draw of noise, held near a flow that imitates the data."""
    imitation: float = option(0.0, at_least=0)
    """Weight of the squared distance to the data's action (plain), or to that of the imitating flow."""
    learning_rate: float = option(1e-4, at_least=0, short="actor_learning_rate")
    """Adam step size of the policies."""
    noise: float = option(0.2, at_least=0, short="actor_noise")
    """Standard deviation of the noise on actions while learning, in unit actions."""
    noise_clip: float = option(0.3, above=0)
    """Largest size of that noise."""
    pessimism: float = option(0.0, at_least=0, short="actor_pessimism")
    """Weight of the predictors' disagreement, subtracted from the value that a policy climbs."""
    flow_steps: int = option(10, at_least=1)
    """Euler steps from noise to an imitated action."""
    flow_learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the flow that imitates."""

    def __post_init__(self) -> None:
        if self.actor == "flow" and not self.imitation:
            raise RheostatError("The flow actor is held near a flow that imitates the data: set imitation above 0 (the authors: 0.3 to 3).")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if self.actor == "flow":
            return dict.fromkeys(("noise", "noise_clip"), "the flow actor draws noise as an input, so leave it alone, or use actor plain")
        found = dict.fromkeys(("flow_steps", "flow_learning_rate"), "the plain actor has no flow, so leave it alone, or use actor flow")
        return (
            found if self.noise else found | {"noise_clip": "actor_noise is 0, so there is nothing to limit; raise it, or leave it alone"}
        )


# --- models -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlowAction:
    """A one-step action per draw of noise; it has no density, and its mode is that of no noise."""

    act: Callable[[Tensor], Tensor]
    like: Tensor
    """``[N, D]``, of the shape of the noise."""

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N, D]``."""
        return self.act(torch.randn(self.like.shape, generator=generator))

    def mode(self) -> Tensor:
        """``[N, D]``."""
        return self.act(torch.zeros_like(self.like))

    def log_prob(self, action: Tensor) -> Tensor:
        """NaN, ``[N]``: unknown."""
        return torch.full_like(action[:, 0], float("nan"))


class FamilyOfPolicies(TrainableNetwork):
    """All pi_z in one network; it acts by the one of the task that is pursued.

    Args:
        options: of the policies.
        hidden: of the network.
        tasks: numbers of a task.
        reads: name of the encoder whose features it reads; empty: observations.
        features: numbers of those.
        psi: name of the encoder of tasks.
        least_squares: how the task of a reward is inferred.
        rows: of the data that it is inferred from.
    """

    def __init__(
        self,
        options: TaskPolicies,
        hidden: tuple[int, ...],
        *,
        tasks: int,
        reads: str,
        features: int,
        psi: str,
        least_squares: bool,
        rows: int,
    ) -> None:
        self.options, self.reads, self.psi, self.least_squares, self.rows = options, reads, psi, least_squares, rows
        self.pursued: Callable[[Any], Tensor] | None = None
        self._known: tuple[int, Tensor] | None = None

        def build(context: Any) -> nn.Module:
            observations, actions = context.sizes
            states = features if reads else observations
            draw = context.streams["networks"]
            return TaskActor(states, tasks, actions, noise=options.actor == "flow", hidden=hidden, generator=draw)

        super().__init__(build, options.learning_rate)

    def bind(self, context: Any, name: str) -> None:
        """Build the network."""
        super().bind(context, name)
        self._context = context

    # --- learning ---------------------------------------------------------------------------------------------------------------------

    def drawn(self, state: Tensor, task: Tensor, generator: torch.Generator) -> Tensor:
        """Unit actions of pi_z with noise, ``[B, D]``, that carry the gradient; limits pass it on."""
        noise = torch.randn(len(state), self._context.action_size, generator=generator)
        if self.options.actor == "flow":
            found: Tensor = self.network(state, task, noise)
            return found
        return noisy(self.network(state, task), self.options.noise * noise, self.options.noise_clip)

    # --- acting -----------------------------------------------------------------------------------------------------------------------

    def pursue(self, find: Callable[[Any], Tensor] | None) -> None:
        """Act for another task from now on.

        Args:
            find: from the context to z ``[D]``; called again whenever the encoder has moved. None: the rewards of the data set.
        """
        self.pursued, self._known = find, None

    @property
    def task(self) -> Tensor:
        """z of the task that is pursued, ``[D]``.

        Raises:
            RheostatError: there is none, because the recorded rewards have no direction.
        """
        context = self._context
        if self._known is None or self._known[0] != context.updates:
            self._known = (context.updates, (self.pursued or recorded_task)(context))
        return self._known[1]

    def state(self, seen: Tensor) -> Tensor:
        """What the network reads of normalised observations, ``[N, ...]``."""
        if not self.reads:
            return seen
        found: Tensor = self._context.models[self.reads].network(seen)
        return found

    def distribution(self, seen: Tensor) -> Any:
        """The policy of the task that is pursued."""
        state, task = self.state(seen), self.task.expand(len(seen), -1)
        if self.options.actor == "flow":
            return FlowAction(lambda noise: self.network(state, task, noise), seen.new_zeros(len(seen), self._context.action_size))
        return DeterministicAction(self.network(state, task))


def noisy(action: Tensor, noise: Tensor, clip: float) -> Tensor:
    """``clip(a + clip(noise))`` inside the bounds of unit actions, ``[B, D]``; its gradient is that of ``a``, also at the bounds."""
    moved = action + noise.clamp(-clip, clip)
    return moved + (moved.clamp(-1 + INSIDE, 1 - INSIDE) - moved).detach()


def encoder(features: int, hidden: tuple[int, ...]) -> Callable[[Any], nn.Module]:
    """Builds features of observations."""
    return lambda context: SphereEncoder(context.sizes[0], features, hidden=hidden, generator=context.streams["networks"])


def predictor(states: int | None, tasks: int, features: int, networks: int, hidden: tuple[int, ...]) -> Callable[[Any], nn.Module]:
    """Builds an ensemble of predictors; ``states`` None reads observations."""

    def build(context: Any) -> nn.Module:
        observations, actions = context.sizes
        inputs = (observations if states is None else states, tasks, actions, features)
        return LatentPredictor(*inputs, networks=networks, hidden=hidden, generator=context.streams["networks"])

    return build


def behaviour_flow(states: int | None, hidden: tuple[int, ...]) -> Callable[[Any], nn.Module]:
    """Builds the flow that imitates the data."""

    def build(context: Any) -> nn.Module:
        observations, actions = context.sizes
        return ActionFlow(observations if states is None else states, actions, hidden=hidden, generator=context.streams["networks"])

    return build


def move_together(context: Any, names: Sequence[str], loss: Tensor) -> None:
    """One Adam step of several models down one loss, a scalar; then the models that follow them."""
    models = [context.models[name] for name in names]
    for model in models:
        model.parameters.gradient.zero_()
    loss.backward()
    for model in models:
        model.optimizer.step()
    for name in names:
        context.finish_update(name)


# --- a gradient step ----------------------------------------------------------------------------------------------------------------------


class RunningCovariance:
    """The running second moment of task features, ``[D, D]``; the identity at first.

    Args:
        features: D.
    """

    def __init__(self, features: int) -> None:
        self.value = torch.eye(features)

    def add(self, features: Tensor) -> None:
        """Move towards that of a batch ``[B, D]``."""
        self.value = moved_covariance(self.value, features, COVARIANCE_RATE)

    def state_dict(self) -> dict[str, Tensor]:
        """The numbers."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over saved numbers."""
        self.value = state["value"]


@dataclass(frozen=True)
class DrawTasks:
    """Writes the column ``task``, z of every row ``[B, D]``: a direction, or the features of another row's next state."""

    sampling: TaskSampling
    psi: str
    features: int
    writes: ClassVar[tuple[str, ...]] = ("task",)

    def prepare(self, context: Any) -> None:
        """Create the running covariance where goals are scaled by it."""
        if self.sampling.scale_goals:
            context.stores["task covariance"] = RunningCovariance(self.features)

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, generator = len(batch), context.streams["updates"]
        order = torch.randperm(rows, generator=generator)
        uniform = torch.randn(rows, self.features, generator=generator)
        is_goal = torch.rand(rows, generator=generator) < self.sampling.goal_share
        goals = context.models[self.psi].network(batch.rows.next_observation)[order]
        covariance = context.stores.get("task covariance")
        batch.columns["task"] = mixed_tasks(uniform, goals, is_goal, None if covariance is None else covariance.value)
        return batch


def next_action(context: Any, batch: Batch, state: Tensor) -> Tensor:
    """a' of pi_z at the features of the next states, ``[B, D]``, a constant."""
    policy = context.models["policy"]
    inputs = state if policy.reads else batch.rows.next_observation
    found: Tensor = policy.drawn(inputs, batch.columns["task"], context.streams["updates"]).detach()
    return found


def features_told(context: Any, features: Tensor) -> Found:
    """Move the running covariance by the new encoder's features and, now and then, say how many directions they use."""
    covariance = context.stores.get("task covariance")
    if covariance is not None:
        covariance.add(features)
    return {"effective_rank": effective_rank(features)} if context.updates % RANK_EVERY == 0 else {}


def two_sided_loss(
    predicted: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    features: tuple[Tensor, Tensor],
    weights: tuple[float, float],
) -> tuple[Tensor, Found]:
    """TD-JEPA's loss of both sides, a scalar, and its parts: of sums of psi predicted from phi, and of sums of phi predicted from psi.

    Args:
        predicted: ``[M, B, Ds]`` and ``[M, B, Dp]``.
        targets: ``[B, Ds]`` and ``[B, Dp]``.
        features: phi ``[B, Dp]`` and psi ``[B, Ds]`` of the states.
        weights: of their orthonormality.
    """
    errors = [latent_loss(members, target) for members, target in zip(predicted, targets, strict=True)]
    apart = [orthonormality(each) for each in features]
    loss = errors[0] + errors[1] + weights[0] * apart[0] + weights[1] * apart[1]
    return loss, {"state_loss": errors[0], "task_loss": errors[1], "state_orthonormality": apart[0], "task_orthonormality": apart[1]}


def one_sided_loss(predicted: Tensor, target: Tensor, features: Tensor, weight: float) -> tuple[Tensor, Found]:
    """The symmetric form: one encoder whose sums of features are predicted from its own features; a scalar and its parts."""
    error, apart = latent_loss(predicted, target), orthonormality(features)
    return error + weight * apart, {"state_loss": error, "state_orthonormality": apart}


@dataclass(frozen=True)
class TaskActorStep:
    """The policies up the predicted values of their tasks; with imitation, held near the data."""

    options: TaskPolicies
    encoder: str = ""
    """Whose features the predictor reads; empty: observations."""
    reads: ClassVar[tuple[str, ...]] = ("task",)
    models: ClassVar[tuple[str, ...]] = ("policy", "predictor")

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of the policies, and of the imitating flow, on rows ``[B]``; returns ``policy_loss`` and the mean ``q``."""
        rows, task, generator = batch.rows, batch.columns["task"], context.streams["updates"]
        policy, predict = context.models["policy"], context.models["predictor"].network
        with torch.no_grad():
            state = context.models[self.encoder].network(rows.observation) if self.encoder else rows.observation
        inputs = state if policy.reads else rows.observation
        if self.options.actor == "plain":
            action, near, names = policy.drawn(inputs, task, generator), rows.action, ["policy"]
            extra = inputs.new_zeros(())
        else:
            field = context.models["behaviour flow"].network
            noise = torch.randn(rows.action.shape, generator=generator)
            extra = flow_loss(field, inputs, rows.action, generator)
            action, near = policy.network(inputs, task, noise), field.carried(inputs, noise, self.options.flow_steps)
            names = ["policy", "behaviour flow"]
        values = (predict(state, task, action) * task).sum(-1)
        loss = task_actor_loss(values, action, near, imitation=self.options.imitation, penalty=self.options.pessimism)
        move_together(context, names, loss + extra)
        found = {"policy_loss": loss.detach(), "q": pessimistic(values.detach(), self.options.pessimism).mean()}
        return found | ({"flow_loss": extra.detach()} if self.options.actor == "flow" else {})


def flow_loss(field: ActionFlow, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
    """``mean (v(s, (1 - t) x + t a, t) - (a - x))^2`` with x normal and t uniform, a scalar (Lipman et al. 2023, arXiv 2210.02747)."""
    noise = torch.randn(action.shape, generator=generator)
    time = torch.rand(len(action), generator=generator)
    point = torch.lerp(noise, action, time.unsqueeze(-1))
    return (field(state, point, time) - (action - noise)).square().mean()


# --- from a reward to a task --------------------------------------------------------------------------------------------------------------


def rows_of_data(context: Any) -> Any:
    """The rows of the data set that tasks are inferred from, the same for all rewards of a run."""
    data, count = context.offline.transitions, context.models[context.deployed].rows
    if len(data) <= count:
        return data
    generator = torch.Generator().manual_seed(derive_seed(context.streams.seed, "rows of a task"))
    return data[torch.randperm(len(data), generator=generator)[:count]]


def features_of(context: Any, observation: Tensor) -> Tensor:
    """psi of raw observations, ``[N, D]``."""
    with torch.no_grad():
        found: Tensor = context.models[context.models[context.deployed].psi].network(context.see(observation))
    return found


def _inferred(context: Any, rows: Any, reward: Tensor, name: str) -> Tensor:
    """The task of rewards ``[n]`` of rows.

    Raises:
        RheostatError: they are all the same.
    """
    if float(reward.max()) == float(reward.min()):
        raise RheostatError(
            f"{name} {float(reward[0]):g} for all {len(reward):,} states of {context.offline.name} that were looked at, so the direction "
            "of its task is arbitrary: use a reward that differs among the states of the data, or a goal."
        )
    policy = context.models[context.deployed]
    return task_of_rewards(features_of(context, rows.next_observation), reward, least_squares=policy.least_squares)


def recorded_task(context: Any) -> Tensor:
    """z of the rewards that the data set holds, ``[D]``.

    Raises:
        RheostatError: they are all the same.
    """
    rows = rows_of_data(context)
    return _inferred(context, rows, rows.reward, "The recorded reward is")


def task_of(reward: StateReward) -> Callable[[Any], Tensor]:
    """Finds z of a reward function."""

    def find(context: Any) -> Tensor:
        rows = rows_of_data(context)
        return _inferred(context, rows, reward(rows.next_observation), f"The reward {reward.name} is")

    return find


def task_of_goal(goal: Tensor) -> Callable[[Any], Tensor]:
    """Finds z of a goal, a raw observation ``[k]``."""
    return lambda context: on_sphere(features_of(context, goal.unsqueeze(0))[0])


def goal_of(context: Any, goal: Sequence[float]) -> Tensor:
    """A goal as an observation of the task, ``[k]``.

    Raises:
        RheostatError: it has another number of numbers, or one that is not finite.
    """
    found, wanted = torch.tensor(list(goal), dtype=torch.float32), context.observation_space.shape[0]
    if found.shape != (wanted,) or not bool(found.isfinite().all()):
        raise RheostatError(f"A goal of {context.environments.name} is an observation of {wanted} finite numbers; {len(found)} were given.")
    return found


def episodes_of(context: Any, episodes: int, reward: StateReward | None = None) -> tuple[list[float], list[int]]:
    """Returns and lengths of the pursued policy, in fresh environments; of another reward than the environment's, where one is given."""
    environments = context.make(context.environments.copies_for(episodes), derive_seed(context.streams.seed, "evaluation", context.updates))
    policy = context.models[context.deployed]

    def act(observation: Tensor) -> Tensor:
        action: Tensor = context.in_environment_units(policy.distribution(context.see(observation, context.deployed))).mode()
        return action

    try:
        return run_episodes(act, environments if reward is None else Rewarded(environments, reward), episodes)  # type: ignore[arg-type]
    finally:
        environments.close()


def returns_for(context: Any, reward: StateReward, episodes: int) -> list[float]:
    """Returns of whole episodes under a reward function, by the policy of its task; what was pursued before is again pursued after."""
    return _while_pursuing(context, task_of(reward), lambda: episodes_of(context, episodes, reward)[0])


def reached(context: Any, goal: Tensor, distance: float, episodes: int) -> list[float]:
    """1 for every episode that came within a distance of a goal, else 0."""
    near = StateReward(NearGoal(goal, distance), "near the goal")
    found = _while_pursuing(context, task_of_goal(goal), lambda: episodes_of(context, episodes, near)[0])
    return [float(each > 0) for each in found]


def _while_pursuing(context: Any, find: Callable[[Any], Tensor], measure: Callable[[], list[float]]) -> list[float]:
    policy = context.models[context.deployed]
    before = policy.pursued
    policy.pursue(find)
    try:
        return measure()
    finally:
        policy.pursue(before)


# --- composition --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RewardFreeData(DataSet):
    """The data set; the rewards that it may hold are read in measurements alone."""

    def prepare(self, context: Any) -> None:
        """Compare the data set with the environments.

        Raises:
            RheostatError: as :class:`DataSet`; or steps after the data set.
        """
        if context.online_steps:
            raise RheostatError(f"{context.who} learns from a data set alone: leave online_steps out.")
        super().prepare(context)
        context.stores["learned rewards"] = LearnedRewards(1.0, 0.0)


def measured(context: Any, episodes: int) -> Metrics:
    """The return of the task that is pursued; nothing where that is the recorded reward and it has no direction."""
    policy = context.models[context.deployed]
    if policy.pursued is None:
        rewards = rows_of_data(context).reward
        if float(rewards.max()) == float(rewards.min()):
            return {}
    returns, lengths = episodes_of(context, episodes)
    values = torch.tensor(returns, dtype=torch.float64)
    found: Metrics = {
        "evaluation_return": values.mean().item(),
        "evaluation_deviation": values.std().item() if len(returns) > 1 else 0.0,
        "evaluation_length": sum(lengths) / len(lengths),
        "evaluation_episodes": len(returns),
    }
    if context.offline.reference is not None:
        found["normalised_score"] = context.offline.normalised_score(found["evaluation_return"])
    return found


def never(context: Any) -> bool:
    """The policies have no density, and their task is another one in every row: there is nothing to meter."""
    return False


@dataclass(frozen=True)
class ZeroShot:
    """What these methods have in common; a subclass says how its representation moves."""

    keep: DataAlone = DataAlone()
    states: States = States()
    batches: Batches = Batches(1024)
    gamma: float = option(0.98, share=True)
    """Discount per step."""
    tau: float = option(0.001, share=True)
    """Share of the networks in their slow copies after each gradient step."""
    learning_rate: float = option(1e-4, at_least=0)
    """Adam step size of the predictors, and of the encoders where they have none of their own."""
    hidden: tuple[int, ...] = option((1024,), at_least=2)
    """Hidden layers of predictors and policies; the first is also that of their two inputs."""
    predictors: int = option(2, at_least=1)
    """Predictors in the ensemble (M)."""
    pessimism: float = option(0.0, at_least=0)
    """Weight of the predictors' disagreement, subtracted from their target."""
    task_rows: int = option(10_000, at_least=1)
    """Rows of the data that the task of a reward is inferred from, at most."""
    sampling: TaskSampling = TaskSampling()
    policies: TaskPolicies = TaskPolicies()
    log: Logging = Logging(metered=never)
    dial: Dial = Dial()
    """Not for these methods: they collect no data."""

    uses_data: ClassVar[UsesData] = "first"
    zero_shot: ClassVar[bool] = True
    """Whether its policy acts for rewards that are given after training."""

    def __post_init__(self) -> None:
        if self.predictors == 1 and (self.pessimism or self.policies.pessimism):
            raise RheostatError("One predictor has no disagreement: raise predictors, or leave pessimism and actor_pessimism at 0.")

    def family(self, tasks: int, *, psi: str, reads: str = "", features: int = 0, least_squares: bool = True) -> dict[str, Any]:
        """The policies, and the flow that imitates where they have one, by name."""
        policy = FamilyOfPolicies(
            self.policies,
            self.hidden,
            tasks=tasks,
            reads=reads,
            features=features,
            psi=psi,
            least_squares=least_squares,
            rows=self.task_rows,
        )
        if self.policies.actor == "plain":
            return {"policy": policy}
        field_ = TrainableNetwork(behaviour_flow(features if reads else None, self.hidden), self.policies.flow_learning_rate)
        return {"policy": policy, "behaviour flow": field_}

    def followed(self, models: dict[str, Any]) -> dict[str, Any]:
        """Some models with their slow copies."""
        return models | {f"target {name}": TargetNetwork(name, self.tau) for name in models}

    def staged(self, models: dict[str, Any], draw: DrawTasks, updates: Sequence[Any]) -> Staged:
        """Gradient steps on the data set, and nothing after them."""
        read = AsRead(no_images="its encoders read vectors of numbers")
        size = self.batches.size
        step = PerStep(size, [draw], list(updates))
        keep = replace(self.keep, gamma=self.gamma)
        learning = Composition(Nobody(), [Draw(size, per_turn)], [read], [step], models, measure=measured)
        stages = [Stage("offline", learning, GradientSteps(lambda context: context.total_steps))]
        stages.append(Stage("finished", Composition(Nobody(), [], [], [], models, measure=measured)))
        return Staged(stages, models, stores=[read, RewardFreeData(), self.states, draw, keep, self.log])

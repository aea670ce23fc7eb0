"""MBPO and VaGraM by loops: one round of the real training path (fitting, judging, imagining, mixing) against plain networks.

Equations: Chua et al. 2018 (1805.12114) eq. 1 for the likelihood; Voelcker et al. 2022 (2204.01464) eq. 5 and 7 for the weighted errors;
Janner et al. 2019 (1906.08253) algorithm 2 for the rollouts. The gradient steps on the mixed rows are sac's: tests/plain/control_replay.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.api import settings_for
from rheostat.learner import value_aware_model
from rheostat.learner.replay_model import ReplayModel
from rheostat.training.building import build_method
from rheostat.trajectories import Source
from tests.plain import control_plain as cp
from tests.plain.control_path import weights_of
from tests.plain.control_plain import Parameters
from tests.plain.control_replay import soft_action, soft_parameters
from tests.tiny_control import IMAGINING

LIMITS, DECAY = 0.01, (2e-2, 5e-2)
OPTIONS: dict[str, Any] = IMAGINING | {
    "num_envs": 2, "batch_size": 8, "hidden": (5,), "start_steps": 30, "update_to_data": 0.5, "replay_capacity": 300, "log_every": 1000,
    "model_hidden": (6, 5), "model_batch_size": 7, "model_decay": DECAY, "model_learning_rate": 1e-2, "rollouts_per_step": 1,
    "gamma": 0.9, "target_entropy": None, "learning_rate": 0.1, "critic_learning_rate": 0.1, "tau": 0.3,
}  # fmt: skip


@dataclass
class Round:
    """What there was before a round of the model, and after it.

    Attributes:
        weights: of all networks, at both ends.
        state: of the streams before it.
        moves: gradients of the model's steps and the rows ``[E, B]`` that they were made on.
        scores: what the networks were judged by, look by look.
        made: what was imagined.
    """

    method: Any
    rows: Any
    weights: list[Any]
    moves: list[tuple[dict[str, Tensor], Tensor]]
    scores: list[Tensor]
    held_out: Tensor
    made: dict[str, Tensor]
    normaliser: tuple[Tensor, Tensor]


def round_of(method: str, monkeypatch: pytest.MonkeyPatch, task: str = "Pendulum-v1", **options: Any) -> Round:
    """The second round of a real run, of which the first one has made the model and the policy something."""
    own = {name: value for name, value in OPTIONS.items() if name != "target_entropy" or method == "vagram"}
    settings = settings_for(method, task, **({"steps": 60, "evaluation_episodes": 0, "backend": "gymnasium"} | own | options))
    found = build_method(settings, task)
    context, seen = found.context, Round(found, None, [], [], [], torch.zeros(0), {}, (torch.zeros(0), torch.ones(1)))
    one_pass, judge, fit, scores = ReplayModel.one_pass, ReplayModel.judge, ReplayModel.fit, ReplayModel.scores

    def watched_fit(self: Any, context: Any, rows: Any, after: int) -> Any:
        seen.weights, seen.rows, seen.moves, seen.scores = [weights_of(context)], rows.clone(), [], []
        result = fit(self, context, rows, after)
        seen.weights.append(weights_of(context))
        seen.normaliser = self.ensemble.shift, self.ensemble.scale
        return result

    def watched_judge(self: Any, scores: Tensor) -> None:
        seen.scores.append(scores.clone())
        judge(self, scores)

    def watched_scores(self: Any, errors: Any, rows: Any, held_out: Tensor) -> Tensor:
        seen.held_out = held_out
        return scores(self, errors, rows, held_out)

    def watched_pass(self: Any, errors: Any, rows: Any, bootstrap: Tensor, generator: torch.Generator) -> Tensor:
        assert not set(seen.held_out.tolist()) & set(bootstrap.flatten().tolist())
        loss = errors.loss

        class Watched:
            def loss(self, mean: Tensor, log_variance: Tensor, place: Tensor) -> Tensor:
                seen.moves.append(({}, place.clone()))
                found: Tensor = loss(mean, log_variance, place)
                return found

        return one_pass(self, Watched(), rows, bootstrap, generator)

    step = context.models["world model"].learner.optimizer.step

    def watched_step() -> None:
        ensemble = context.models["world model"].ensemble
        seen.moves[-1][0].update({name: value.grad.clone() for name, value in ensemble.named_parameters()})
        step()

    monkeypatch.setattr(ReplayModel, "fit", watched_fit)
    monkeypatch.setattr(ReplayModel, "judge", watched_judge)
    monkeypatch.setattr(ReplayModel, "one_pass", watched_pass)
    monkeypatch.setattr(ReplayModel, "scores", watched_scores)
    monkeypatch.setattr(context.models["world model"].learner.optimizer, "step", watched_step)
    while context.counts.get("model_rounds", 0) < 2:
        found.turn()
    seen.made = {name: column[-context.stores["imagined"].lengths[-1] :] for name, column in context.stores["imagined"].columns.items()}
    return seen


# --- the model by loops -------------------------------------------------------------------------------------------------------------------


class PlainModel:
    """The losses of a round, network by network and row by row."""

    def __init__(self, one: Round, spread: bool, weighed: Callable[[Tensor, int], Tensor] | None = None, added: bool = False) -> None:
        self.rows, self.spread, self.weighed, self.added = one.rows, spread, weighed, added
        self.shift, self.scale = (cp.double(x) for x in one.normaliser)

    def predicted(self, p: Parameters, k: int, i: int) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance of the change of the state and of the reward."""
        x = torch.cat([cp.double(self.rows.observation[i]), cp.double(self.rows.action[i])])
        outputs = cp.stacked(p, k, (x - self.shift) / self.scale, activation=cp.silu)
        if not self.spread:
            return outputs, None
        middle, log_variance = outputs.chunk(2)
        log_variance = p["high"] - torch.log(1 + torch.exp(p["high"] - log_variance))
        return middle, p["low"] + torch.log(1 + torch.exp(log_variance - p["low"]))

    def target(self, i: int) -> Tensor:
        """The change of the state and the reward."""
        change = cp.double(self.rows.next_observation[i]) - cp.double(self.rows.observation[i])
        return torch.cat([change, cp.double(self.rows.reward[i]).reshape(1)])

    def of_row(self, p: Parameters, k: int, i: int) -> Tensor:
        """What a row adds to the loss of a network."""
        middle, log_variance = self.predicted(p, k, i)
        error = middle - self.target(i)
        if log_variance is not None:
            return cp.mean([error[d] ** 2 * torch.exp(-log_variance[d]) + log_variance[d] for d in range(len(error))])
        squares = cp.mean([error[d] ** 2 for d in range(len(error))])
        if self.weighed is None:
            return squares
        return self.weighed(error, i) + (squares if self.added else 0.0)

    def loss(self, p: Parameters, place: Tensor) -> Tensor:
        """With the limits of log-variances and the decay of weights."""
        networks = [cp.mean([self.of_row(p, k, int(i)) for i in place[k]]) for k in range(len(place))]
        total = torch.stack(networks).sum() if self.spread else cp.mean(networks)
        if self.spread:
            total = total + LIMITS * (p["high"].sum() - p["low"].sum())
        layers = [name for name in sorted(p) if name.startswith("stack.weights")]
        for number, name in enumerate(layers):
            total = total + (DECAY[0] + (DECAY[1] - DECAY[0]) * number / (len(layers) - 1)) / 2 * (p[name] ** 2).sum()
        return total

    def score(self, p: Parameters, k: int, held_out: Tensor) -> float:
        """What a network is judged by."""
        if not self.spread:
            return cp.number(cp.mean([self.of_row(p, k, int(i)) for i in held_out]))
        squares = [((self.predicted(p, k, int(i))[0] - self.target(int(i))) ** 2).sum() / 4 for i in held_out]
        return cp.number(cp.mean(squares))


class Values:
    """V_k by loops, with the weights that critics and policy had in the round."""

    def __init__(self, one: Round) -> None:
        weights = one.weights[0]
        self.policy, *self.critics = (
            {name: cp.double(value) for name, value in weights[model].items()} for model in ("policy", "critics", "target critics")
        )
        self.rows = one.rows

    def at(self, state: Tensor) -> list[Tensor]:
        """Critics, then target critics, at the policy's deterministic action, which is a constant."""
        action = torch.tanh(soft_parameters(self.policy, state.detach())[0])
        return [value for critics in self.critics for value in cp.judged(critics, state, action)]

    def gradients(self, i: int) -> list[Tensor]:
        """At the observed next state of a row."""
        state = cp.double(self.rows.next_observation[i]).requires_grad_()
        values = self.at(state)
        return [torch.autograd.grad(value, state, retain_graph=True)[0] for value in values]

    def bounded(self, error: Tensor, i: int) -> Tensor:
        """Dimension by dimension."""
        found, n = self.gradients(i), len(error) - 1
        return cp.mean([cp.mean([(g[d] * error[d]) ** 2 for g in found]) + error[n] ** 2 for d in range(n)])

    def targets_alone(self, error: Tensor, i: int) -> Tensor:
        """The same by the last two value functions."""
        found, n = self.gradients(i)[2:], len(error) - 1
        return cp.mean([cp.mean([(g[d] * error[d]) ** 2 for g in found]) + error[n] ** 2 for d in range(n)])

    def accumulated(self, error: Tensor, i: int) -> Tensor:
        """By the sums of gradients, one after the other."""
        found, n = self.gradients(i), len(error) - 1
        sums = [torch.stack(found[: k + 1]).sum(0) for k in range(len(found))]
        return cp.mean([cp.mean([(g[d] * error[d]) ** 2 for g in sums]) + error[n] ** 2 for d in range(n)])

    def unbounded(self, error: Tensor, i: int) -> Tensor:
        """As inner products."""
        return cp.mean([(g * error[:-1]).sum() ** 2 for g in self.gradients(i)]) + error[-1] ** 2

    def itervaml(self, error: Tensor, i: int) -> Tensor:
        """Differences of values; the action of the predicted state is a constant, too."""
        state = cp.double(self.rows.next_observation[i])
        pairs = zip(self.at(state + error[:-1]), self.at(state), strict=True)
        return cp.mean([(one - other.detach()) ** 2 for one, other in pairs]) + error[-1] ** 2


LATER: dict[str, Any] = {"squared_error_steps": 0}
CASES: dict[str, tuple[str, dict[str, Any], str, bool]] = {
    "mbpo": ("mbpo", {}, "", False),
    "vagram": ("vagram", {}, "bounded", True),
    "vagram-later": ("vagram", LATER, "bounded", False),
    "vagram-targets": ("vagram", LATER | {"value_functions": "targets"}, "targets_alone", False),
    "vagram-released": ("vagram", LATER | {"accumulate_gradients": True}, "accumulated", False),
    "vagram-unbounded": ("vagram", LATER | {"model_loss": "unbounded"}, "unbounded", False),
    "vagram-itervaml": ("vagram", {"model_loss": "itervaml"}, "itervaml", True),
    "vagram-mse": ("vagram", {"model_loss": "mse"}, "", False),
}
"""Method, options, how errors are weighed, and whether squared errors are added."""


def plain_of(one: Round, name: str) -> PlainModel:
    """The plain side of a case."""
    method, _, weighed, added = CASES[name]
    return PlainModel(one, method == "mbpo", getattr(Values(one), weighed) if weighed else None, added)


def differences(one: Round, plain: PlainModel) -> tuple[float, float]:
    """The largest ones of gradients over a whole round, in shares of the largest entry, and of what networks are judged by."""
    p = {name: cp.double(value).requires_grad_() for name, value in one.weights[0]["world model"].items()}
    step = cp.Plain({"world model": dict(p.items())})
    of_gradients, of_scores = 0.0, 0.0
    assert len(one.moves) % (len(one.scores) - 1) == 0
    own = {name: value.detach().clone().requires_grad_() for name, value in p.items()}
    for k, score in enumerate(one.scores[0]):
        of_scores = max(of_scores, abs(plain.score(p, k, one.held_out) - float(score)) / max(1.0, float(score)))
    gradient, place = one.moves[0]
    step.p["world model"] = own
    mine = step.gradient("world model", plain.loss(own, place))
    for name, g in mine.items():
        of_gradients = max(of_gradients, float((g - gradient[name].double()).abs().max()) / max(1.0, float(g.abs().max())))
    return of_gradients, of_scores


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_the_model_is_the_plain_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, options, _, _ = CASES[name]
    one = round_of(method, monkeypatch, **options)
    of_gradients, of_scores = differences(one, plain_of(one, name))
    assert of_gradients < 1e-5 and of_scores < 1e-5


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("vagram-later", "accumulated"),
        ("vagram-later", "unbounded"),
        ("vagram-later", "targets_alone"),
        ("vagram-released", "bounded"),
        ("vagram-unbounded", "itervaml"),
    ],
)
def test_a_wrong_equation_is_told(name: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, options, _, added = CASES[name]
    one = round_of(method, monkeypatch, **options)
    assert differences(one, PlainModel(one, False, getattr(Values(one), wrong), added))[0] > 1e-4


def test_gradients_that_flow_through_the_action_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The action at the next state is a constant: with the policy's slope the weights are others."""
    one = round_of("vagram", monkeypatch, **LATER)
    values = Values(one)

    def with_slope(state: Tensor) -> list[Tensor]:
        action = torch.tanh(soft_parameters(values.policy, state)[0])
        return [value for critics in values.critics for value in cp.judged(critics, state, action)]

    monkeypatch.setattr(values, "at", with_slope)
    assert differences(one, PlainModel(one, False, values.bounded))[0] > 1e-4


# --- the rest of a round ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mbpo", "vagram"])
def test_networks_go_back_to_their_best_look_and_the_best_ones_predict(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = round_of(method, monkeypatch)
    best = one.scores[0].clone()
    for score in one.scores[1:]:
        best = torch.where(score < 0.99 * best, score, best)
    model = one.method.context.models["world model"]
    assert torch.equal(model.errors, best)
    assert model.elites.tolist() == sorted(range(3), key=lambda k: float(best[k]))[:2]
    plain = plain_of(one, method)
    end = {name: cp.double(value) for name, value in one.weights[1]["world model"].items()}
    for k in range(3):
        assert plain.score(end, k, one.held_out) == pytest.approx(float(best[k]), rel=1e-4)


def test_imagined_steps_are_the_plain_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step begins at a state of the replay, or where its predecessor led, and goes where one of the elites says."""
    one = round_of("vagram", monkeypatch, rollouts_per_step=2)
    made, plain = one.made, plain_of(one, "vagram")
    p = {name: cp.double(value) for name, value in one.weights[1]["world model"].items()}
    rollouts, elites = 2 * OPTIONS["model_every"], one.method.context.models["world model"].elites.tolist()
    assert len(made["reward"]) == 2 * rollouts and not made["terminated"].any()
    known = {tuple(each.tolist()) for each in one.rows.observation}
    assert all(tuple(each.tolist()) in known for each in made["observation"][:rollouts])
    assert torch.equal(made["observation"][rollouts:], made["next_observation"][:rollouts])
    policy = {name: cp.double(value) for name, value in one.weights[1]["policy"].items()}
    for i in range(0, 2 * rollouts, 7):
        state, unit = cp.double(made["observation"][i]), cp.double(made["action"][i]) / 2
        x = (torch.cat([state, unit]) - plain.shift) / plain.scale
        said = [cp.stacked(p, k, x, activation=cp.silu) for k in elites]
        led = torch.cat([cp.double(made["next_observation"][i]) - state, cp.double(made["reward"][i]).reshape(1)])
        assert min(float((each - led).abs().max()) for each in said) < 1e-4
        middle, log_std = soft_parameters(policy, state)
        density = float(cp.squashed(torch.atanh(unit), middle, log_std)) - math.log(2.0)
        assert float(made["sampler_logp"][i]) == pytest.approx(density, abs=1e-3)


@pytest.mark.parametrize("mixing", ["rows", "batches"])
def test_batches_are_mixed_as_they_should(mixing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = round_of("mbpo", monkeypatch, imagined_mixing=mixing, imagined_share=(0.25, 0.25))
    context = one.method.context
    draw = next(part for part in one.method.composition.retain if hasattr(part, "imagination"))
    rows = draw.draw(context, 200)
    imagined = rows.source == int(Source.IMAGINED)
    by_batch = imagined.view(200, 8).float().mean(1)
    if mixing == "rows":
        assert (by_batch == 0.25).all()
    else:
        assert set(by_batch.tolist()) == {0.0, 1.0} and 0.15 < by_batch.mean() < 0.35
    store, replay = context.stores["imagined"], context.stores["replay"]
    for name in ("observation", "action", "reward", "next_observation"):
        assert torch.equal(getattr(rows, name)[imagined], store.columns[name][rows.index[imagined]])
        assert torch.equal(getattr(rows, name)[~imagined], replay.columns[name][rows.index[~imagined]])
    assert torch.allclose(rows.discount, 0.9 * ~rows.terminated)


def test_critics_and_policy_get_no_gradient_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    one = round_of("vagram", monkeypatch, model_loss="itervaml")
    for model in ("policy", "critics", "target critics"):
        before, after = one.weights[0][model], one.weights[1][model]
        assert all(torch.equal(before[name], after[name]) for name in before)
    context, values = one.method.context, value_aware_model.ValueFunctions(one.method.context, "all")
    vectors = [context.models[name].parameters for name in ("policy", "critics")]
    for vector in vectors:
        vector.gradient.zero_()
    seen = torch.randn(4, 3, requires_grad=True)
    values(seen).sum().backward()
    assert seen.grad is not None and seen.grad.abs().sum() > 0 and all(not vector.gradient.any() for vector in vectors)
    assert all(parameter.requires_grad for name in ("policy", "critics") for parameter in context.models[name].network.parameters())


def test_the_policy_of_rollouts_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    one = round_of("mbpo", monkeypatch)
    policy = {name: cp.double(value) for name, value in one.weights[1]["policy"].items()}
    means = [soft_action(policy, cp.double(state), torch.zeros(1).double())[0] for state in one.made["observation"]]
    assert (torch.stack(means).float() - one.made["action"] / 2).abs().mean() > 0.05

"""Zero-shot methods against loops: every row, member and feature by itself, gradients by PyTorch of the plain loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.learner.zero_shot import DrawTasks
from rheostat.parts import Batch
from tests.by_hand import step_of
from tests.tiny_control import built, one_batch

GAMMA, ROWS = 0.9, 6
OPTIONS: dict[str, Any] = {
    "batch_size": ROWS, "gamma": GAMMA, "hidden": (6, 4), "tau": 0.25, "learning_rate": 1e-2, "actor_learning_rate": 1e-2,
    "task_features": 3, "task_hidden": (4, 4), "predictors": 3, "pessimism": 0.3, "actor_pessimism": 0.2, "imitation": 0.7,
}  # fmt: skip
JEPA = {"state_features": 4, "state_orthonormality": 0.4, "task_orthonormality": 0.3}
Parameters = dict[str, Tensor]


# --- networks, a row at a time ------------------------------------------------------------------------------------------------------------


def linear(p: Parameters, name: str, member: int, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"][member] + p[f"{name}.bias"][member, 0]


def normalised_tanh(p: Parameters, name: str, member: int, x: Tensor) -> Tensor:
    mean = x.mean()
    deviation = ((x - mean) ** 2).mean().add(1e-5).sqrt()
    return torch.tanh((x - mean) / deviation * p[f"{name}.scale"][member, 0] + p[f"{name}.shift"][member, 0])


def sphere(x: Tensor) -> Tensor:
    return x / (x**2).sum().sqrt() * math.sqrt(len(x))


def encode(p: Parameters, x: Tensor) -> Tensor:
    """Features of one observation."""
    if "body.weight" in p:
        return sphere(linear(p, "body", 0, x))
    x = normalised_tanh(p, "body.1", 0, linear(p, "body.0", 0, x))
    return sphere(linear(p, "body.4", 0, linear(p, "body.2", 0, x).relu()))


def branches(p: Parameters, member: int, first: Tensor, second: Tensor) -> Tensor:
    """Two inputs of one row through one member."""
    parts = []
    for name, x in (("first", first), ("second", second)):
        x = normalised_tanh(p, f"body.{name}.1", member, linear(p, f"body.{name}.0", member, x))
        parts.append(linear(p, f"body.{name}.2", member, x).relu())
    x = torch.cat(parts)
    for layer in (0, 2):
        x = linear(p, f"body.body.{layer}", member, x).relu()
    return linear(p, "body.body.4", member, x)


def predict(p: Parameters, state: Tensor, z: Tensor, action: Tensor) -> list[Tensor]:
    """Every member's prediction of one row."""
    members = len(p["body.first.0.weight"])
    return [branches(p, member, torch.cat([state, z]), torch.cat([state, action])) for member in range(members)]


def act(p: Parameters, state: Tensor, z: Tensor, noise: Tensor | None = None) -> Tensor:
    """One action."""
    state = state if noise is None else torch.cat([state, noise])
    return torch.tanh(branches(p, 0, state, torch.cat([state, z])))


def combined(members: list[Tensor], penalty: float) -> Tensor:
    mean = sum(members[1:], members[0]) / len(members)
    pairs = [(a - b).abs() for i, a in enumerate(members) for j, b in enumerate(members) if i != j]
    return mean - penalty * sum(pairs[1:], pairs[0]) / len(pairs)


def apart(features: list[Tensor]) -> Tensor:
    n = len(features)
    pairs = [(features[i] @ features[j]) ** 2 for i in range(n) for j in range(n) if i != j]
    return 0.5 * torch.stack(pairs).sum() / (n * (n - 1)) - torch.stack([e @ e for e in features]).sum() / n


def squares(members: list[list[Tensor]], targets: list[Tensor], reduce: Callable[[Tensor], Tensor] = torch.sum) -> Tensor:
    """Over rows and members."""
    return torch.stack([reduce((each - y) ** 2) for row, y in zip(members, targets, strict=True) for each in row]).mean()


# --- a gradient step ----------------------------------------------------------------------------------------------------------------------


class Looked:
    """A real gradient step, update by update, and what the plain one needs."""

    def __init__(self, method: str, **options: Any) -> None:
        self.one = built(method, **(OPTIONS | options))
        self.context, step = self.one.context, step_of(self.one.learner)
        self.rows = one_batch(self.one)[:ROWS]
        self.batch = Batch(self.rows)
        for annotate in step.credit:
            assert isinstance(annotate, DrawTasks)
            annotate(self.context, self.batch)
        self.z = self.batch.columns["task"]
        self.updates = step.updates
        self.noise_state = self.context.streams["updates"].get_state()

    def parameters(self, name: str) -> Parameters:
        """Of a model, as leaves in double precision."""
        network = self.context.models[name].network
        return {key: value.detach().double().clone().requires_grad_() for key, value in network.named_parameters()}

    def normal(self) -> Tensor:
        """The noise that the next draw of a policy has."""
        generator = torch.Generator()
        generator.set_state(self.noise_state)
        return torch.randn(ROWS, self.context.action_size, generator=generator).double()

    def moved(self, number: int) -> None:
        """Make an update."""
        self.updates[number].step(self.context, self.batch)

    def gradients(self, name: str) -> dict[str, Tensor]:
        """What a model moved by."""
        return {key: value.grad.clone() for key, value in self.context.models[name].network.named_parameters()}

    def d(self, name: str) -> Tensor:
        """A field of the rows, double."""
        found: Tensor = getattr(self.rows, name).double()
        return found


def differs(found: dict[str, Tensor], plain: Parameters, loss: Tensor) -> float:
    """Largest distance of gradients, relative to the largest of them."""
    expected = torch.autograd.grad(loss, list(plain.values()), retain_graph=True, allow_unused=True)
    worst, size = 0.0, 1e-12
    for key, each in zip(plain, expected, strict=True):
        wanted = torch.zeros_like(plain[key]) if each is None else each
        worst = max(worst, float((found[key].double() - wanted).abs().max()))
        size = max(size, float(wanted.abs().max()))
    return worst / size


def next_actions(look: Looked, actor: Parameters, states: list[Tensor]) -> list[Tensor]:
    """a', with noise as it is drawn."""
    noise = (0.2 * look.normal()).clamp(-0.3, 0.3)
    z = look.z.double()
    return [(act(actor, states[b], z[b]) + noise[b]).clamp(-1 + 1e-6, 1 - 1e-6).detach() for b in range(ROWS)]


def jepa_loss(look: Looked, form: str, reduce: Callable[[Tensor], Tensor] = torch.sum) -> tuple[Tensor, dict[str, Parameters]]:
    """The representation's loss, row by row."""
    z, discount = look.z.double(), look.d("discount")
    s, following, action = look.d("observation"), look.d("next_observation"), look.d("action")
    p = {name: look.parameters(name) for name in look.context.models}
    phi = [encode(p["state encoder"], x) for x in s]
    phi_next = [encode(p["target state encoder"], x).detach() for x in following]
    ahead = next_actions(look, p["policy"], phi_next)
    psi_name = "task encoder" if form == "asymmetric" else "state encoder"
    psi_next = [encode(p[f"target {psi_name}"], x).detach() for x in following]

    def side(name: str, states: list[Tensor], states_next: list[Tensor], features_next: list[Tensor]) -> Tensor:
        y = [
            (features_next[b] + discount[b] * combined(predict(p[f"target {name}"], states_next[b], z[b], ahead[b]), 0.3)).detach()
            for b in range(ROWS)
        ]
        return squares([predict(p[name], states[b], z[b], action[b]) for b in range(ROWS)], y, reduce)

    loss = side("predictor", phi, phi_next, psi_next) + 0.4 * apart(phi)
    moving = {"state encoder": p["state encoder"], "predictor": p["predictor"]}
    if form == "asymmetric":
        psi = [encode(p["task encoder"], x) for x in s]
        loss = loss + side("task predictor", psi, psi_next, phi_next) + 0.3 * apart(psi)
        moving |= {name: p[name] for name in ("task encoder", "task predictor")}
    return loss, moving


def measure_loss(look: Looked, form: str, reduce: Callable[[Tensor], Tensor] = torch.sum) -> tuple[Tensor, dict[str, Parameters]]:
    """The successor measure's residual, pair by pair."""
    z, discount = look.z.double(), look.d("discount")
    s, following, action = look.d("observation"), look.d("next_observation"), look.d("action")
    p = {name: look.parameters(name) for name in look.context.models}
    ahead = next_actions(look, p["policy"], list(following))
    backward, slow = ([encode(p[name], x) for x in following] for name in ("task encoder", "target task encoder"))
    forward = [predict(p["predictor"], s[b], z[b], action[b]) for b in range(ROWS)]
    later = [predict(p["target predictor"], following[b], z[b], ahead[b]) for b in range(ROWS)]
    loss = 0.5 * apart(backward) if reduce is torch.mean else apart(backward)
    for member in range(3):
        for i in range(ROWS):
            for j in range(ROWS):
                y = combined([f @ slow[j] for f in later[i]], 0.3).detach()
                residual = forward[i][member] @ backward[j] - discount[i] * y
                loss = loss + (-residual / ROWS if i == j else 0.5 * residual**2 / (ROWS * (ROWS - 1)))
    return loss, {name: p[name] for name in ("task encoder", "predictor")}


def laplacian(look: Looked, form: str, reduce: Callable[[Tensor], Tensor] = torch.sum) -> tuple[Tensor, dict[str, Parameters]]:
    """Neighbours that are alike, and predictors of sums of features that they do not move."""
    z, discount = look.z.double(), look.d("discount")
    s, following, action = look.d("observation"), look.d("next_observation"), look.d("action")
    p = {name: look.parameters(name) for name in look.context.models}
    ahead = next_actions(look, p["policy"], list(following))
    psi, after = ([encode(p["task encoder"], x) for x in xs] for xs in (s, following))
    alike = torch.stack([((a - b) ** 2).mean() for a, b in zip(psi, after, strict=True)]).mean()
    y = [
        (after[b] + discount[b] * combined(predict(p["target predictor"], following[b], z[b], ahead[b]), 0.3)).detach() for b in range(ROWS)
    ]
    error = squares([predict(p["predictor"], s[b], z[b], action[b]) for b in range(ROWS)], y, reduce)
    return alike + 2 * apart(psi) + error, {name: p[name] for name in ("task encoder", "predictor")}


STEPS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "asymmetric": ("td-jepa", JEPA, jepa_loss),
    "symmetric": ("td-jepa", {"state_features": 3, "state_orthonormality": 0.4, "form": "symmetric"}, jepa_loss),
    "forward-backward": ("forward-backward", {}, measure_loss),
    "laplacian": ("laplacian", {}, laplacian),
}


def looked(name: str) -> tuple[Looked, Any]:
    method, own, plain = STEPS[name]
    if name == "symmetric":
        own = own | {"task_features": 50, "task_hidden": (256, 256)}  # as they are
    return Looked(method, **own), plain


@pytest.mark.parametrize("name", STEPS)
def test_the_representation_moves_as_by_loops(name: str) -> None:
    look, plain = looked(name)
    loss, moving = plain(look, name)
    wrong, _ = plain(look, name, torch.mean)
    before = {each: look.context.models[each].parameters.vector.detach().clone() for each in moving}
    slow = {
        each: look.context.models[f"target {each}"].parameters.vector.clone() for each in moving if f"target {each}" in look.context.models
    }
    look.moved(0)
    for each, parameters in moving.items():
        assert differs(look.gradients(each), parameters, loss) < 1e-5
        now = look.context.models[each].parameters.vector.detach()
        assert not torch.equal(now, before[each])
        if each in slow:  # the slow copy follows by tau
            torch.testing.assert_close(look.context.models[f"target {each}"].parameters.vector, 0.75 * slow[each] + 0.25 * now)
    assert abs(float(wrong.detach()) - float(loss.detach())) > 1e-3  # a mean over features (of B: half the orthonormality) is another loss


@pytest.mark.parametrize(("name", "flow"), [("asymmetric", False), ("forward-backward", False), ("asymmetric", True)])
def test_policies_move_as_by_loops(name: str, flow: bool) -> None:
    method, own, _ = STEPS[name]
    look = Looked(method, **own, **({"actor": "flow", "flow_steps": 3, "actor_reads": "observation"} if flow else {}))
    look.moved(0)
    look.noise_state = look.context.streams["updates"].get_state()
    p = {each: look.parameters(each) for each in look.context.models}
    z, s, data = look.z.double(), look.d("observation"), look.d("action")
    state = [encode(p["state encoder"], x).detach() for x in s] if name == "asymmetric" else list(s)
    extra = torch.zeros((), dtype=torch.float64)
    if flow:
        field = p["behaviour flow"]
        generator = torch.Generator()
        generator.set_state(look.noise_state)
        noise, x = (torch.randn(ROWS, look.context.action_size, generator=generator).double() for _ in range(2))
        time = torch.rand(ROWS, generator=generator).double()

        def velocity(b: int, point: Tensor, t: Tensor) -> Tensor:
            return branches(field, 0, s[b], torch.cat([s[b], point, t.reshape(1)]))

        errors = [(velocity(b, (1 - time[b]) * x[b] + time[b] * data[b], time[b]) - (data[b] - x[b])) ** 2 for b in range(ROWS)]
        extra = torch.stack(errors).mean()
        action = [act(p["policy"], s[b], z[b], noise[b]) for b in range(ROWS)]
        near = []
        for b in range(ROWS):
            point = noise[b]
            for step in range(3):
                point = point + velocity(b, point, torch.tensor(step / 3, dtype=torch.float64)).detach() / 3
            near.append(point.clamp(-1, 1))
    else:
        noise = (0.2 * look.normal()).clamp(-0.3, 0.3)
        action = [act(p["policy"], state[b], z[b]) + noise[b] for b in range(ROWS)]
        assert all(float(each.detach().abs().max()) < 1 for each in action)  # where a limit would pass the gradient on
        near = list(data)
    values = [[f @ z[b] for f in predict(p["predictor"], state[b], z[b], action[b])] for b in range(ROWS)]
    size = torch.stack([each for row in values for each in row]).detach().abs().mean()
    climbed = torch.stack([combined(row, 0.2) for row in values]).mean()
    distance = torch.stack([((a - b) ** 2).mean() for a, b in zip(action, near, strict=True)]).mean()
    loss = -climbed / size + 0.7 * distance + extra
    look.moved(1)
    assert differs(look.gradients("policy"), p["policy"], loss) < 1e-5
    assert differs(look.gradients("policy"), p["policy"], -climbed + 0.7 * distance + extra) > 1e-3  # values are divided by their size
    if flow:
        assert differs(look.gradients("behaviour flow"), p["behaviour flow"], loss) < 1e-5


def test_tasks_are_drawn_among_the_data() -> None:
    look = Looked("td-jepa", **JEPA, goal_share=1.0)
    goals = [encode(look.parameters("task encoder"), x) for x in look.d("next_observation")]
    taken = [min(range(ROWS), key=lambda b: float((goals[b] - z).abs().max())) for z in look.z.double()]
    assert sorted(taken) == list(range(ROWS))
    assert all(float((goals[b] - z).abs().max()) < 1e-5 for b, z in zip(taken, look.z.double(), strict=True))

"""Uni-O4: stages that share a budget, what moves in each of them, the gate, the choice, and the way online."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.behaviour_model import ModelOptions
from rheostat.learner.gated_ensemble import GatedEnsemble
from rheostat.learner.going_online import Drawing
from rheostat.methods.control.uni_o4 import STAGES, UniO4
from rheostat.policies.control.squashed import Bounds
from rheostat.tasks.control import probes
from rheostat.tasks.control.terminations import termination_of
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure, derived
from tests.by_hand import ByHand
from tests.crash import differences
from tests.tiny_control import learner, random_data, small
from tests.training.test_run import StopAfter

PER_STAGE = 150
LONG: dict[str, Any] = {"steps": 4 * PER_STAGE, "checkpoint_every": 10_000, "log_every": 1, "backend": "gymnasium"}
"""Two turns per stage: 100 gradient steps, then 50."""


NO_SCORES: dict[str, Any] = {"model_part": 0.0, "gate_every": 100, "horizon": 1000, "starts": 512} | {
    each.metadata["short"] or each.name: each.default for each in fields(ModelOptions)
}
"""No model of the environment; what would act on it or on the gate is the method's own."""


class Looked(ByHand):
    """Uni-O4's learner with the names of its models."""

    @property
    def stage(self) -> str:
        """What is being learned."""
        return str(self.learner.stage.name)

    @property
    def ends(self) -> dict[str, int]:
        """Where every stage ends, in gradient steps."""
        return dict(zip(STAGES, itertools.accumulate(self.lengths.values()), strict=True))

    @property
    def lengths(self) -> dict[str, int]:
        """Gradient steps of every stage."""
        return dict(zip(STAGES, self.context.stages, strict=False))

    @property
    def critics(self) -> Any:
        """Of the behaviour."""
        return self.context.models["behaviour critics"]

    @property
    def model(self) -> Any:
        """Of the environment."""
        return self.context.models.get("world model")

    @property
    def members(self) -> GatedEnsemble:
        """The ensemble."""
        found = self.context.models["members"]
        assert isinstance(found, GatedEnsemble)
        return found

    @property
    def online(self) -> Any:
        """The policy that goes online."""
        return self.context.models["online policy"]

    @property
    def chosen(self) -> int:
        """The member that went online."""
        return int(self.context.models["policy"].chosen)


def method(task: str = "Pendulum-v1", **options: Any) -> Looked:
    return Looked(learner("uni-o4", task, **options))


def advance(one: Looked, until: str) -> Looked:
    """Take turns up to the beginning of a stage, or of acting."""
    while not one.acting and one.stage != until:
        one.turn()
    return one


def weights(one: Looked) -> dict[str, Tensor]:
    """Everything that can move, as it is now."""
    assert one.model is not None
    found = {
        "critics": one.critics.critics.parameters.vector,
        "values": one.critics.values.parameters.vector,
        "model": one.model.learner.parameters.vector,
        "members": one.members.learner.parameters.vector,
        "old": one.members.target.parameters.vector,
        "actor": one.online.parameters.vector,
        "online values": one.context.models["value"].parameters.vector,
    }
    return {name: vector.detach().clone() for name, vector in found.items()}


# --- the budget --------------------------------------------------------------------------------------------------------------------------


def test_stages_share_the_steps_in_the_published_proportion() -> None:
    one = method(steps=2710, critic_part=2e6, model_part=3e5, cloning_part=4e5, policy_part=1e4, gate_every=10)
    assert one.lengths == {"critics": 2000, "model": 300, "cloning": 400, "policies": 10}
    assert one.arithmetic == {f"steps of the {stage}": one.lengths[stage] for stage in STAGES}
    published = UniO4()
    assert tuple(published.parts) == (2e6, 3e5, 4e5, 1e4)
    assert derived("uni-o4", published)["shares of the offline steps"] == "critics 73.8 %, model 11.1 %, cloning 14.8 %, policies 0.369 %"


@pytest.mark.parametrize("steps", [240, 241, 243, 997])
def test_no_step_is_lost_in_rounding(steps: int) -> None:
    one = method(steps=steps, critic_part=3.0, model_part=1.7, cloning_part=2.1, policy_part=0.9)
    assert sum(one.lengths.values()) == steps == one.ends["policies"]


def test_a_stage_without_a_step_is_refused() -> None:
    with pytest.raises(RheostatError, match="leave none for the stage 'policies'"):
        method(steps=100, policy_part=1e-3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    directory = tmp_path_factory.mktemp("uni-o4") / "whole"
    Run.create(directory, small("uni-o4", **LONG)).train().close()
    return directory


@pytest.mark.parametrize("stage", [*STAGES, "online"])
def test_stopping_in_the_middle_of_every_stage_changes_nothing(stage: str, whole: Path, tmp_path: Path) -> None:
    turns = 2 * [*STAGES, "online"].index(stage) + 1
    halted = Run.create(tmp_path / "halted", small("uni-o4", **LONG))
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(turns))
    one = Looked(halted.method)
    if stage == "online":
        assert one.collector.steps == 16
    else:
        assert one.stage == stage and one.context.gradient_steps == 100
    Run.load(tmp_path / "halted").train()
    assert differences(whole, tmp_path / "halted") == []


# --- what moves --------------------------------------------------------------------------------------------------------------------------


def test_every_stage_moves_its_own_networks_only() -> None:
    one, moved = method(gate="always"), {}
    for stage in (*STAGES, "online"):
        if stage == "policies":  # the end of cloning has made the clones the old policies
            assert torch.equal(weights(one)["members"], weights(one)["old"])
        before = weights(one)
        if stage == "online":
            one.turn()
        else:
            while not one.acting and one.stage == stage:
                one.turn()
        after = weights(one)
        moved[stage] = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {
        "critics": {"critics", "values"},
        "model": {"model"},
        "cloning": {"members", "old"},
        "policies": {"members", "old", "actor", "online values"},  # the last two by the choice
        "online": {"actor", "online values"},
    }


def test_actions_are_drawn_from_the_old_policy_and_the_first_step_has_ratio_one() -> None:
    one = advance(method(), "policies")
    rows = one.read(one.draw_batches(1))
    action, advantage, old_logp = one.members.evaluate_actions(rows.observation)
    assert action.shape == (2, 16, 1) and advantage.shape == old_logp.shape == (2, 16)
    assert not torch.isin(action, rows.action).any()
    policies = one.members.policies.distribution(rows.observation)
    assert torch.equal(policies.log_prob(action).detach(), old_logp)
    found = one.members.improve(rows, 0)
    assert float(found["approx_kl"]) == 0.0 and float(found["meter/clip_fraction"]) == 0.0
    assert float(one.members.improve(rows, 1)["approx_kl"]) > 0.0


def test_the_clipped_steps_begin_with_a_fresh_optimiser() -> None:
    one = advance(method(), "policies")
    assert not one.members.learner.optimizer.state
    assert one.members.learner.state_dict()["optimizer"] == {}


def test_advantages_weigh_sides_for_sarsa_only() -> None:
    for critics, ratio in (("sarsa", 0.7 / 0.3), ("iql", 1.0)):
        one = advance(method(critics=critics), "policies")
        rows = one.read(one.draw_batches(4))[:64]
        generator = one.streams["updates"]
        kept = generator.get_state()
        weighed = one.members.evaluate_actions(rows.observation)[1]
        generator.set_state(kept)
        action = one.members.evaluate_actions(rows.observation)[0]
        q = one.critics.q(rows.observation.repeat(2, 1), action.flatten(0, 1)).view(2, 64)
        plain = q - one.critics.value(rows.observation)
        plain = (plain - plain.mean(1, keepdim=True)) / plain.std(1, keepdim=True)
        factor = weighed / plain
        assert (factor[plain > 0].mean() / factor[plain < 0].mean()).item() == pytest.approx(ratio, rel=1e-3)


def test_sarsa_alone_needs_the_next_action() -> None:
    sarsa, iql = method(), method(critics="iql")
    assert sarsa.draw_batches(1).next_action is not None and iql.draw_batches(1).next_action is None


@pytest.mark.parametrize(("decay", "expected"), [("linear", [0.25, 0.125, 0.05]), ("released", [0.25, 0.245, 0.245]), ("none", [0.25] * 3)])
def test_the_clip_falls_as_asked(decay: str, expected: list[float]) -> None:
    one = method(steps=4000, clip_decay=decay)
    assert [one.members.clipped.clip_at(step, one.members.steps) for step in (0, 500, 800)] == pytest.approx(expected)


# --- returns -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [probes.task_id("DelayedReward", True), probes.task_id("TimeLimit", True), "Pendulum-v1"])
def test_returns_end_with_their_episode(task: str) -> None:
    one = method(task, gamma=0.9, reward_scale=0.5, normalise_states=False)
    rows, data = one.offline.transitions, one.context.stores["data as read"]
    for episode in one.offline.episodes:
        total, left = 0.0, 0.0 if bool(rows.terminated[episode.stop - 1]) else 1.0
        for place in range(episode.stop - 1, episode.start - 1, -1):
            total, left = 0.5 * float(rows.reward[place]) + 0.9 * total, 0.9 * left
            assert float(data.returns[place]) == pytest.approx(total, rel=1e-4, abs=1e-6)
            assert float(data.left[place]) == pytest.approx(left, rel=1e-4, abs=1e-6)
            assert int(data.last[place]) == episode.stop - 1


@pytest.mark.parametrize(("bootstrap", "expected"), [(True, 10.0), (False, 3.04)])
def test_time_limits_are_no_ends_unless_asked(bootstrap: bool, expected: float) -> None:
    """Reward 1 for ever, cut every five steps: V is 1 / (1 - gamma), or the mean of (1 - gamma^k) / (1 - gamma) over k = 2..5 (of the
    last step of an episode no next action is known, and sarsa leaves it out)."""
    task = probes.task_id("TimeLimit", True)
    options = {"gamma": 0.9, "critic_learning_rate": 3e-2, "bootstrap_on_truncation": bootstrap, "critic_part": 30.0, "steps": 660}
    one = advance(method(task, normalise_states=False, **options), "model")
    assert one.value(torch.zeros(1, 1)).item() == pytest.approx(expected, rel=0.08)


# --- the model and the gate --------------------------------------------------------------------------------------------------------------


def test_a_model_that_stops_early_gives_its_steps_back() -> None:
    one = advance(method(steps=2000, model_patience=1, model_learning_rate=0.0), "model")
    one.turn()
    assert one.model is not None and one.model.finished and one.model.steps == 100
    assert one.context.spent == one.steps == one.ends["model"] and one.stage == "cloning"
    assert one.updates == one.lengths["critics"] + 100


def test_worlds_that_end_end_in_the_model_too() -> None:
    one = method("Hopper-v5", offline=random_data("Hopper-v5", 60), **{"steps": 240})
    rule, raw = termination_of("Hopper-v5"), one.offline.transitions.next_observation
    assert rule is not None
    ended = one.members.ended(one.normalise(raw))
    assert torch.equal(ended, rule(raw)) and 0 < ended.sum() < len(ended)
    assert not method().members.ended(torch.full((3, 3), 1e9)).any()  # Pendulum never ends


class Scripted:
    """AM-Q scores as told."""

    def __init__(self, *scores: list[float]) -> None:
        self.scores = list(scores)

    def __call__(self) -> Tensor:
        return torch.tensor(self.scores.pop(0))


def gated(monkeypatch: pytest.MonkeyPatch, *scores: list[float], **options: Any) -> tuple[Looked, GatedEnsemble]:
    """At the beginning of the clipped steps, with scores as told: first of the clones, then of every evaluation."""
    one = method(steps=240, **options)
    monkeypatch.setattr(one.members, "am_q", Scripted(*scores))
    return advance(one, "policies"), one.members


def test_old_policies_follow_where_the_score_is_better_than_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    one, members = gated(monkeypatch, [0.0, 0.0], [1.0, -1.0], [0.5, 0.5], [2.0, 0.5])
    seen, rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), one.read(one.draw_batches(1))
    old, best = [members.old.distribution(seen).mean.clone()], []
    for step in range(60):
        now = members.policies.distribution(seen).mean.detach().clone()
        members.improve(rows, step)
        if (step + 1) % 20 == 0:
            assert not torch.equal(members.policies.distribution(seen).mean, now)  # pi goes on from where it was
            old.append(members.old.distribution(seen).mean.clone())
            best.append(members.best.tolist())
            for member in range(2):
                followed = torch.equal(old[-1][member], members.policies.distribution(seen).mean[member])
                assert followed == ([[True, False], [False, True], [True, False]][step // 20][member])
    assert best == [[1.0, 0.0], [1.0, 0.5], [2.0, 0.5]] and members.replaced == 3
    assert members.scores.tolist() == [2.0, 0.5]


@pytest.mark.parametrize(("gate", "replaced"), [("never", 0), ("always", 6)])
def test_other_gates(gate: str, replaced: int) -> None:
    one = advance(method(gate=gate, gate_every=100 if gate == "never" else 20), "policies")
    clones = weights(one)["old"]
    while not one.acting:
        one.turn()
    assert one.members.replaced == replaced
    assert torch.equal(weights(one)["old"], weights(one)["members"] if gate == "always" else clones)


def test_scores_on_fixed_starts_differ_by_the_policies_alone() -> None:
    fixed, fresh = (advance(method(fixed_starts=fixed), "policies").members for fixed in (True, False))
    assert torch.equal(fixed.am_q(), fixed.am_q()) and not torch.equal(fresh.am_q(), fresh.am_q())


# --- the choice and the way online -------------------------------------------------------------------------------------------------------


def test_the_best_score_goes_online_with_the_offline_value(monkeypatch: pytest.MonkeyPatch) -> None:
    one, members = gated(monkeypatch, [5.0, 4.0], [0.0, 1.0], [3.0, 2.0], [2.0, 3.0])
    while not one.acting:
        one.turn()
    assert one.chosen == 1 == members.ranking("last")[0]
    seen = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    normal = one.normalise(seen)
    torch.testing.assert_close(one.distribution(normal).mean, members.policies.distribution(normal).mean[1])
    torch.testing.assert_close(one.value(seen), one.critics.value(normal))


def test_deploying_the_best_takes_the_old_policy_and_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    one, members = gated(monkeypatch, [5.0, 4.0], [0.0, 1.0], [3.0, 2.0], [2.0, 3.0], deploy="best")
    while not one.acting:
        one.turn()
    assert one.chosen == 0 == members.ranking("best")[0] and members.replaced == 0  # nothing was better than the clones
    seen = one.normalise(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(one.distribution(seen).mean, members.old.distribution(seen).mean[0])


def test_choosing_by_return_is_booked_as_environment_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    one = advance(method(choose="return", choose_episodes=2, choose_among=2, online_steps=1000, num_envs=2), "acting")
    assert one.chosen == -1 and one.steps == 240
    made = []
    make = one.make
    monkeypatch.setattr(one.context, "make", lambda count, seed: made.append(count) or make(count, seed))
    metrics = one.turn()
    assert made == [1, 1] and one.chosen in (0, 1)
    assert one.context.spent == 240 + 2 * 2 * 200 and one.steps == 240 + 800 + 16
    assert metrics["learning_rate"] == pytest.approx(3e-5 * (1 - 800 / 1000))


def test_the_member_with_the_best_return_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    import rheostat.learner.going_online as module

    one = advance(method(choose="return", members=3, choose_among=2, online_steps=100), "acting")
    one.members.scores = torch.tensor([0.0, 2.0, 1.0])
    told = iter([([1.0], [200]), ([5.0], [200])])  # member 1, then member 2; member 0 is not measured
    monkeypatch.setattr(module, "run_episodes", lambda act, worlds, episodes: next(told))
    one.context.models["policy"].choose_by_return(one.context)
    assert one.chosen == 2


def test_online_ratios_start_at_one_and_log_probabilities_are_those_of_the_draw() -> None:
    one = advance(method(online_batch_steps=64, num_envs=4), "acting")
    kept = one.retain(one.collect())
    batch = one.credit(kept)
    log_volume = one.context.bounds.log_volume
    torch.testing.assert_close(batch.rows.learner_logp, kept.rows.sampler_logp + log_volume, atol=1e-4, rtol=1e-4)
    metrics = one.improve(batch)
    assert metrics["meter/kl_behaviour_k3"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["gradient_steps"] == 2 * 64 // 8


@pytest.mark.parametrize("clipped", [False, True])
def test_actions_beyond_the_bounds_are_kept_as_drawn_unless_asked(clipped: bool) -> None:
    one = advance(method(clip_actions=clipped), "acting")
    with torch.no_grad():
        one.online.network.stack.biases[-1].fill_(9.0)  # means and deviations at their upper limits, 1 and 1
    observation = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    action, logp = one.part(Drawing).draw(one.context, observation, torch.Generator().manual_seed(1))
    assert (action.abs() > 2.0).any() == (not clipped)
    unit = action / 2.0
    expected = one.distribution(one.normalise(observation)).log_prob(unit) - torch.tensor(2.0).log()
    torch.testing.assert_close(logp, expected, atol=1e-4, rtol=1e-4)


def test_the_released_deviation_is_another_one_online() -> None:
    seen = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    found = {}
    for how in ("same", "double-tanh"):
        one = advance(method(log_std_online=how), "acting")
        mine, offline = one.distribution(seen), one.members.policies.distribution(seen)
        torch.testing.assert_close(mine.mean, offline.mean[one.chosen])
        found[how] = torch.allclose(mine.log_std, offline.log_std[one.chosen])
    assert found == {"same": True, "double-tanh": False}


def test_clones_alone_are_a_run_without_clipped_steps() -> None:
    one = advance(method(policy_part=0.0, gate_every=100), "acting")
    assert one.members.replaced == 0 and one.chosen in (0, 1) and one.lengths["policies"] == 0
    bare = advance(method(policy_part=0.0, **NO_SCORES), "acting")
    assert bare.model is None and bare.chosen == 0


def test_online_steps_learn_from_clones(tmp_path: Path) -> None:
    """The second half by itself: clones of uniform actions find the right action of a probe."""
    task = probes.task_id("RewardFromBoth", True)
    options = {"online_learning_rate": 1e-2, "online_critic_learning_rate": 1e-2, "online_clip": 0.2, "entropy_coefficient": 0.0}
    options |= {"num_envs": 8, "online_batch_steps": 128, "online_minibatch": 32, "online_epochs": 4, "gamma": 0.9}
    one = method(task, policy_part=0.0, **NO_SCORES, online_steps=3000, normalise_states=False, **options)
    while one.steps < one.budget:
        one.turn()
    wrong = probes.check("RewardFromBoth", gamma=0.9, continuous=True, act=lambda seen: one.act_on_target(seen).mode())
    assert not wrong, wrong


# --- refusals ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_step": 3}, "uni-o4 has no option n_step"),
        ({"offline_share": 0.5}, "uni-o4 has no option offline_share"),
        ({"critic_part": 0.0}, "must be above 0"),
        ({"policy_part": -1.0}, "at least 0"),
        ({"model_part": 0.0}, "imagines episodes"),
        ({"deploy": "best", "gate": "never"}, "passed the gate"),
        ({"expectile": 1.0}, "above 0 and below 1"),
        ({"omega": 1.5}, "at least 0 and at most 1"),
        ({"horizon": 0}, r"gate\.horizon is 0"),
        ({"num_envs": 3}, "do not divide"),
        ({"diversity_kind": "divergence"}, "must be one of"),
        ({"batch_size": 0}, r"batches\.size is 0"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        configure("uni-o4", options)
    assert "\n" not in str(error.value)


def test_refusals_of_the_run() -> None:
    with pytest.raises(RheostatError, match="give it --online-steps"):
        method(choose="return", online_steps=0)
    with pytest.raises(RheostatError, match="5 elites"):
        method(model_elites=5)
    with pytest.raises(RheostatError, match="finite bounds"):
        Bounds.of(type("Space", (), {"low": torch.tensor([-1.0]).numpy(), "high": torch.tensor([float("inf")]).numpy()})(), "UniO4")


def test_the_small_preset_is_complete() -> None:
    small_config = configure("uni-o4", {}, preset="small")
    assert "policies 5.41 %" in str(derived("uni-o4", small_config)["shares of the offline steps"])

"""OPRL: what the theory says on tabular problems, laws of steps and pairs, exact resume of conversations, oracles, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import rheostat
from rheostat.api import settings_for
from rheostat.cli.entry import main
from rheostat.credit.step_rewards import compared, correlation
from rheostat.credit.turns import on_tokens, per_step, steps_of, taken
from rheostat.errors import RheostatError
from rheostat.methods.language.oprl import OPRL
from rheostat.objectives.preference import sigmoid_loss
from rheostat.objectives.trajectory_preference import TrajectoryPreference
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD, TRAIN, tokens_seen
from rheostat.tasks.language import character_tokenizer, language_task
from rheostat.tasks.language.games.text_game import SYMBOLS
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from tests.crash import crash, differences
from tests.learners import weights
from tests.methods.test_language_methods import Lenient, Sulking, save
from tests.methods.test_language_methods import built as built_single
from tests.methods.test_process_reward import Early
from tests.methods.test_turns import SMALL, Easy, built, small
from tests.training.test_run import StopAfter
from tests.vectors.methods import around, batch_of, scores_of

FAST: dict[str, Any] = {"reward_learning_rate": 1e-2, "process_beta": 0.5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model that knows the characters of the games."""
    return save(tmp_path_factory.mktemp("player"), tokenizer=character_tokenizer(SYMBOLS))


# --- theory -------------------------------------------------------------------------------------------------------------------------------


class Tree:
    """All episodes of a decision process with ``actions`` actions and ``steps`` steps, whose states are histories.

    Attributes:
        paths: ``[P, T]`` actions.
        states: ``[P, T]`` the state before each of them, a row of a policy's table.
        reward: ``[P]`` of whole episodes.
    """

    def __init__(self, seed: int, actions: int = 2, steps: int = 3) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.actions, self.steps = actions, steps
        self.paths = torch.tensor(list(itertools.product(range(actions), repeat=steps)))
        known: dict[tuple[int, ...], int] = {}
        self.states = torch.tensor([[known.setdefault(tuple(path[:t]), len(known)) for t in range(steps)] for path in self.paths.tolist()])
        self.count = len(known)
        self.reward = torch.randn(len(self.paths), generator=draw, dtype=torch.float64)
        self.old = torch.randn(self.count, actions, generator=draw, dtype=torch.float64).log_softmax(-1)

    def logp(self, table: Tensor) -> Tensor:
        """``[P, T]`` of the actions of every episode under a table of log-probabilities."""
        return table[self.states, self.paths]


def best_reward_model(tree: Tree, beta: float) -> Tensor:
    """The table that minimises the expected loss over all pairs, labelled as Bradley and Terry have it, by gradient descent."""
    logits = tree.old.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([logits], max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe")
    right = (tree.reward[:, None] - tree.reward).sigmoid()
    old = tree.logp(tree.old).sum(1)

    def loss() -> Tensor:
        score = tree.logp(logits.log_softmax(-1)).sum(1) - old
        return (right * sigmoid_loss(score[:, None] - score, beta)).mean() + (
            (1 - right) * sigmoid_loss(score - score[:, None], beta)
        ).mean()

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)  # type: ignore[arg-type]
    return logits.detach().log_softmax(-1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_step_rewards_are_the_true_ones_shaped_by_a_potential(seed: int) -> None:
    """The theorem: the sum over an episode is its reward up to a constant, each step is a difference of soft values, and so every policy
    has the value it had, less a constant."""
    beta, tree = 0.5, Tree(seed)
    found = beta * (tree.logp(best_reward_model(tree, beta)) - tree.logp(tree.old))
    total = found.sum(1)
    torch.testing.assert_close(total - total.mean(), tree.reward - tree.reward.mean(), atol=1e-4, rtol=1e-4)
    # the potential: of a state, beta times the log of the mean of exp(reward / beta) over how the old policy goes on
    weight = tree.logp(tree.old)
    potential = torch.zeros(len(tree.paths), tree.steps + 1, dtype=torch.float64)
    potential[:, -1] = tree.reward
    for row, t in itertools.product(range(len(tree.paths)), range(tree.steps)):
        same = tree.states[:, t] == tree.states[row, t]
        potential[row, t] = beta * torch.logsumexp(weight[same, t:].sum(1) + tree.reward[same] / beta, 0)
    torch.testing.assert_close(found, potential[:, 1:] - potential[:, :-1], atol=1e-4, rtol=1e-4)
    for other in (3, 4):
        policy = tree.logp(Tree(other).old).sum(1).exp()
        assert float(policy @ total) == pytest.approx(float(policy @ tree.reward) - float(potential[0, 0]), abs=1e-4)
    assert total.argmax() == tree.reward.argmax()


def test_shaping_by_something_else_is_no_shaping() -> None:
    """What the theorem excludes: step rewards that do not add up prefer other episodes."""
    tree = Tree(1)
    found = 0.5 * (tree.logp(best_reward_model(tree, 0.5)) - tree.logp(tree.old))
    assert found[:, :1].sum(1).argmax() != tree.reward.argmax() or found[:, -1].argmax() != tree.reward.argmax()


def test_at_the_start_step_rewards_descend_the_kl_to_the_reward_model() -> None:
    """For pi = pi_old: the gradient of the expected step reward's advantage is -beta times that of KL(pi || pi_phi)."""
    draw = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 5, generator=draw, dtype=torch.float64)
    policy, judge, beta = logits.clone().requires_grad_(), other.log_softmax(-1), 0.3
    logp = policy.log_softmax(-1)
    reward = beta * (judge - logp.detach())
    (expected,) = torch.autograd.grad((logp.detach().exp() * reward * logp).sum(), policy, retain_graph=True)
    (kl,) = torch.autograd.grad((logp.exp() * (logp - judge)).sum(), policy)
    torch.testing.assert_close(expected, -beta * kl)


# --- laws ---------------------------------------------------------------------------------------------------------------------------------


def conversations(seed: int, rows: int = 6, groups: int = 2) -> tuple[Batch, Tensor]:
    """Rows of turns with pauses between them, and log-probabilities."""
    draw = torch.Generator().manual_seed(seed)
    turn = torch.zeros(rows, 14, dtype=torch.int64)
    for row in range(rows):
        place = int(torch.randint(0, 3, (), generator=draw))
        for number in range(1, int(torch.randint(1, 4, (), generator=draw)) + 1):
            length = int(torch.randint(1, 3, (), generator=draw))
            turn[row, place : place + length] = number
            place += length + int(torch.randint(0, 2, (), generator=draw))
    mask = turn > 0
    numbers = lambda: torch.randn(turn.shape, generator=draw, dtype=torch.float64)  # noqa: E731
    reward = torch.zeros(turn.shape, dtype=torch.float64)
    reward[:, -1] = torch.randint(0, 2, (rows,), generator=draw).double()
    group = (torch.arange(rows) % groups)[:, None].expand(turn.shape)
    return batch_of(mask, columns={"turn": turn}, learner_logp=numbers(), reward=reward, group=group), numbers()


def preference(batch: Batch, logp: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Loss and gradient."""
    leaf = logp.clone().requires_grad_()
    loss, _ = TrajectoryPreference(**options)(scores_of(leaf), batch, torch.ones(()), around())
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@given(st.integers(0, 2**16))
def test_what_an_episode_has_earned_may_stand_on_any_of_its_steps(seed: int) -> None:
    """Moving log-ratio between the steps of an episode changes no preference: only the sum is identified."""
    batch, logp = conversations(seed)
    loss, gradient = preference(batch, logp)
    moved, step = logp.clone(), steps_of(batch)
    for row in range(len(logp)):
        places = (step[row] > 0).nonzero().flatten()
        moved[row, places[0]] += 1.7
        moved[row, places[-1]] -= 1.7
    again, same = preference(batch, moved)
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(same, gradient)


@given(st.integers(0, 2**16), st.sampled_from(["sum", "mean"]))
def test_the_loss_is_that_of_all_pairs_and_its_parts_add_up(seed: int, score: Any) -> None:
    batch, logp = conversations(seed)
    leaf, step = logp.clone().requires_grad_(), steps_of(batch)
    total = per_step(leaf - batch.rows.learner_logp, step).sum(1)
    total = total / taken(step).sum(1) if score == "mean" else total
    right, group = batch.rows.reward.sum(1) > 0, batch.rows.group[:, 0]
    pairs = [(a, b) for a in range(6) for b in range(6) if right[a] and not right[b] and group[a] == group[b]]
    plain = torch.stack([-(0.7 * (total[a] - total[b])).sigmoid().log() for a, b in pairs]).mean() if pairs else 0 * total.sum()
    expected = torch.autograd.grad(plain, leaf)[0]
    loss, gradient = preference(batch, logp, beta=0.7, score=score)
    torch.testing.assert_close(loss, plain.detach())
    torch.testing.assert_close(gradient, expected)
    term = TrajectoryPreference(beta=0.7, score=score)
    begun = term.begin(None, logp, batch)
    begun.facts["begun"] = True
    parts = [term(scores_of(logp[rows]), begun[rows], torch.ones(()), around())[0] for rows in torch.arange(6).split(2)]
    torch.testing.assert_close(torch.stack(parts).sum(), loss)


def test_a_hopeless_margin_has_a_finite_loss() -> None:
    """The authors' logarithm of a sigmoid is infinite here."""
    for seed in range(8):
        batch, logp = conversations(seed)
        loss, gradient = preference(batch, logp * 1e5, beta=1.0)
        assert bool(loss.isfinite()) and bool(gradient.isfinite().all())
        if loss > 1000:
            assert bool(gradient.any())
            return
    raise AssertionError("no margin was hopeless")


@given(st.integers(0, 2**16), st.sampled_from(["grpo", "mean-baseline", "rloo"]), st.sampled_from(["steps", "first"]))
def test_comparisons_are_those_of_the_loops(seed: int, form: Any, statistics: Any) -> None:
    batch, logp = conversations(seed)
    step = steps_of(batch)
    values, there, group = per_step(logp, step), taken(step), batch.rows.group[:, 0]
    found = compared(values.masked_fill(~there, torch.nan), there, group, form=form, statistics=statistics)
    for row, place in there.nonzero().tolist():
        members = [other for other in range(6) if group[other] == group[row]]
        base = [float(values[other, t]) for other in members for t in range(values.shape[1]) if there[other, t]]
        base = base if statistics == "steps" else [float(values[other, 0]) for other in members]
        mean = sum(base) / len(base)
        spread = (sum((value - mean) ** 2 for value in base) / len(base)) ** 0.5
        factor = {"grpo": 1 / (spread + 1e-6), "mean-baseline": 1.0, "rloo": len(base) / max(1, len(base) - 1)}[form]
        expected = factor * (float(values[row, place]) - mean) if len(base) > 1 else 0.0
        assert float(found[row, place]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert not bool(found[~there].any())


def test_equal_values_are_worth_exactly_nothing() -> None:
    there = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.full((2, 3), 0.1)
    for form in ("grpo", "mean-baseline", "rloo"):
        assert not bool(compared(values, there, torch.zeros(2, dtype=torch.int64), form=form).any())  # type: ignore[arg-type]
    alone = compared(values, there & torch.tensor([[True, False, False]]), torch.tensor([0, 1]), form="rloo")
    assert not bool(alone.any()), "a step without company"


def test_steps_and_tokens() -> None:
    turn = torch.tensor([[0, 1, 1, 0, 2, 0], [0, 1, 0, 0, 0, 0]])
    values = torch.arange(12.0).view(2, 6)
    found = per_step(values.masked_fill(turn == 0, torch.nan), turn)
    assert found.tolist() == [[3, 4], [7, 0]] and taken(turn).tolist() == [[True, True], [True, False]]
    assert on_tokens(found, turn).tolist() == [[0, 3, 3, 0, 4, 0], [0, 7, 0, 0, 0, 0]]
    mask = torch.tensor([[True, False, True]])
    assert steps_of(batch_of(mask)).tolist() == [[1, 0, 1]] and steps_of(batch_of(mask), single_tokens=True).tolist() == [[1, 0, 2]]
    replayed = batch_of(mask, columns={"turn": torch.zeros(1, 3, dtype=torch.int64)})
    assert steps_of(replayed).tolist() == [[1, 0, 1]]
    assert correlation(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 5.0])) == pytest.approx(1.0)
    assert correlation(torch.ones(3), torch.arange(3.0)) is None


# --- runs ---------------------------------------------------------------------------------------------------------------------------------


def test_the_first_update_moves_as_without_step_rewards(model: str) -> None:
    found = []
    for alpha in (1.0, 0.0):
        one = built("oprl", model, step_coefficient=alpha, **(FAST if alpha else {}))
        metrics = one.turn()
        found.append(weights(one.policy))
        if alpha:
            assert metrics["steps/reward_size"] == pytest.approx(0, abs=1e-6) and metrics["reward_model/pair_accuracy"] == 0.5
            assert one.turn()["steps/reward_size"] > 1e-3
        else:
            assert "reward" not in one.context.models
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("at", [1, 2])
def test_conversations_and_both_models_resume_exactly(model: str, tmp_path: Path, at: int) -> None:
    options = FAST | {"evaluate_every": 2, "evaluation_prompts": 2}
    whole = Run.create(tmp_path / "whole", small("oprl", model, **options), task=Easy()).train()
    assert set(whole.method.state_dict()) >= {"models.policy", "models.reward"} and whole.metrics[1]["turns"] > 1
    halted = Run.create(tmp_path / "halted", small("oprl", model, **options), task=Easy())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(at))
    Run.load(tmp_path / "halted", task=Easy()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.slow
def test_kills_in_the_middle_of_conversations_change_nothing(player: str) -> None:
    sizes = "--prompts-per-batch 2 --group-size 3 --checkpoint-every 2 --evaluate-every 3 --evaluation-prompts 2 --threads 1"
    words = f"--model {player} {sizes} --reward-learning-rate 0.01 --environment turns 4 shortest 1"
    crash("oprl", "text-sokoban", kills=2, steps=12, options=words.split())


def test_both_models_are_counted(model: str) -> None:
    one = built("oprl", model, reward_passes=3, reward_learning_rate=0.0, learning_rate=0.0)
    batch = one.retain(one.collect())
    seen, before = tokens_seen(batch.rows), one.context.flops
    one.improve(one.credit(batch))
    assert one.context.flops - before == one.context.weights * (2 * FORWARD + 4 * TRAIN) * seen  # old and reward model; both trained
    assert one.context.counts == {"reward": 1, "policy": 1}


def test_micro_batches_change_neither_model(model: str) -> None:
    ends: list[list[Tensor]] = []
    for rows in (0, 1, 3):
        one = built("oprl", model, micro_batch_rows=rows, **FAST)
        for _ in range(2):
            for name in ("policy", "reward"):
                trained = one.context.models[name]
                trained.optimizer = torch.optim.SGD(trained.parameters, lr=1.0)
            one.turn()
        ends.append([torch.cat([each.detach().flatten() for each in one.context.models[name].parameters]) for name in ("policy", "reward")])
    for other in ends[1:]:
        for mine, first in zip(other, ends[0], strict=True):
            torch.testing.assert_close(mine, first, atol=1e-5, rtol=1e-3)


def test_rows_without_a_grade_teach_neither(model: str) -> None:
    one = built_single("oprl", model, Sulking(), max_invalid_share=1.0)
    batch = one.credit(one.retain(one.collect()))
    invalid = ~batch.rows.valid[:, 0]
    assert bool(invalid.any()) and not bool(batch.columns["step_reward"][invalid].any()) and not bool(batch.rows.advantage[invalid].any())
    part, reward = one.composition.improve[0], one.context.models["reward"]
    found = []
    for value in (0.0, 100.0):
        batch.rows.reward[invalid] = value
        part.update.accumulate(one.context, batch)
        found.append(torch.cat([each.grad.flatten() for each in reward.parameters]))
    assert torch.equal(*found)


def test_a_single_completion_is_one_step(model: str) -> None:
    one = built_single("oprl", model, Lenient())
    batch = one.credit(one.retain(one.collect()))
    assert bool((batch.rows.advantage.amax(1) == batch.rows.advantage.masked_fill(~batch.rows.mask, -9).amax(1)).any())
    assert one.turn()["reward_model/loss"] > 0


def player_of(player: str, task: str = "text-corridor", knobs: dict[str, Any] | None = None, **options: Any) -> Any:
    values = SMALL | {"model": player, "max_new_tokens": 1} | options
    world = language_task(task, **({"turns": 5} | (knobs or {})))
    return build_method(settings_for("oprl", world, **values), world)


def test_an_oracle_gives_step_rewards(player: str) -> None:
    """Steps towards the end have larger advantages than steps away from it; no reward model is kept."""
    one = player_of(player, knobs={"length": 4, "turns": 12, "shortest": 3, "furthest": 5}, step_rewards="environment", prompts_per_batch=6)
    batch = one.credit(one.retain(one.collect()))
    step = steps_of(batch)
    progress = per_step(batch.columns["progress"], step)
    advantage = per_step(batch.rows.advantage, step) / per_step(torch.ones_like(batch.rows.advantage), step).clamp(min=1)
    there = taken(step)
    assert bool((progress[there] != 0).any()) and "reward" not in one.context.models
    for row in range(len(batch)):
        mine = there[row].nonzero().flatten()
        order = progress[row][mine].argsort()
        sorted_advantages = advantage[row][mine][order]
        assert bool((sorted_advantages[1:] - sorted_advantages[:-1] >= -1e-4).all())
    metrics = one.improve(batch)
    assert "reward_model/loss" not in metrics and metrics["steps/reward_size"] > 0


def test_agreement_with_the_oracle_is_told(player: str) -> None:
    one = player_of(
        player,
        knobs={"length": 3, "turns": 20, "shortest": 3, "furthest": 5, "validation_share": 0.0},
        prompts_per_batch=8,
        group_size=8,
        **FAST,
    )
    one.turn()
    parameters = one.context.models["reward"].parameters
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert -1 <= one.turn()["reward_model/progress_correlation"] <= 1


@pytest.mark.slow
def test_preferences_teach_what_decides_the_outcome(model: str) -> None:
    """A random policy that does not move: the reward model comes to order episodes that it has not seen."""
    options = {"max_new_tokens": 3, "prompts_per_batch": 8, "group_size": 8, "process_beta": 1.0}
    one = built_single("oprl", model, Early(), learning_rate=0.0, reward_learning_rate=1e-2, **options)
    found = [one.turn().get("reward_model/pair_accuracy", 0.5) for _ in range(40)]
    assert found[0] == 0.5 and sum(found[-5:]) / 5 > 0.8


def test_text_sokoban_from_the_command_line(player: str, tmp_path: Path) -> None:
    words = "--steps 2 --prompts-per-batch 2 --group-size 3 --evaluate-every 0 --evaluation-episodes 2 --threads 1 --environment turns 3"
    main(["train", "oprl", "text-sokoban", "--model", player, "--directory", str(tmp_path / "run"), *words.split()])
    run = rheostat.load(tmp_path / "run")
    assert run.finished and run.metrics[-1]["turns"] <= 3 and (tmp_path / "run" / "report.html").exists()


def test_presets(model: str) -> None:
    one = built("oprl", model, preset="released")
    assert one.config.clip.dual == 3.0 and one.config.ratio == "token" and one.config.advantage.statistics == "first"
    assert one.turn()["reward_model/loss"] > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"process_beta": 0.0}, "process_beta|beta"),
        ({"group_size": 1}, "group_size must be at least 2"),
        ({"step_coefficient": 0.0, "episode_coefficient": 0.0}, "both 0: then nothing is learned"),
        ({"step_granularity": "token"}, "which one ratio cannot have: set ratio token"),
        ({"sampler_correction": "token"}, "no ratio of their own here: set ratio token"),
        ({"step_rewards": "environment"}, "guess-number does not"),
        ({"aggregation": "sequence-mean"}, "aggregation is for ratio token"),
        ({"step_coefficient": 0.0, "trajectory_score": "mean"}, "no reward model gives step rewards here"),
        ({"step_coefficient": 0.0, "step_scale": "largest"}, "step_coefficient is 0"),
        ({"advantage": "rloo", "advantage_epsilon": 0.1}, "divides by no deviation"),
        ({"combine": "outcome", "step_statistics": "first"}, "which all steps of an episode share"),
        ({"combine": "rewards", "episode_coefficient": 0.5}, "compares the sum of outcome and step rewards"),
    ],
)
def test_bad_input_is_one_sentence(model: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        built("oprl", model, **options)
    assert "\n" not in str(error.value)


def test_an_oracle_is_refused_where_the_task_has_none(player: str) -> None:
    with pytest.raises(RheostatError, match="knows how far it is from its end, and text-negotiation does not"):
        player_of(player, "text-negotiation", step_rewards="environment")


def test_its_parts_are_its_own() -> None:
    composed = OPRL().compose()
    assert [type(each).__name__ for each in composed.improve] == ["TrajectoryPreferenceUpdate", "Update"]
    assert set(composed.models) == {"policy", "reward"}

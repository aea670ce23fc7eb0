"""Independent PPO: games of known best play, what agents are paid, agents that leave, shared policies, exact resume, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rheostat.api import settings_for
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.learner.teams import build, policies_of
from rheostat.options import options_of
from rheostat.streams import Streams
from rheostat.tasks.control.games import Coordination, Dominance
from rheostat.tasks.control.parallel import ParallelEnvironments, make_parallel
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure
from tests.crash import differences
from tests.teams import Quarry
from tests.training.test_run import StopAfter

TINY: dict[str, Any] = {"num_envs": 4, "batch_steps": 64, "epochs": 2, "minibatches": 2, "hidden": (8,)}
FAST: dict[str, Any] = {"num_envs": 16, "batch_steps": 256, "epochs": 4, "minibatches": 2, "hidden": (8,), "learning_rate": 1e-2}
GAMES = "rheostat.tasks.control.games"


def built(task: Any = Quarry, **options: Any) -> Any:
    """A small team."""
    config = configure("ippo", TINY | options)
    return build(config, "ippo", lambda n, s: make_parallel(task, num_envs=n, seed=s), Streams(0), 10_000)


# --- games -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("game", "best", "paid"), [(Dominance, 1, 1.0), (Coordination, 0, 2.0)])
@pytest.mark.parametrize("share", [False, True])
def test_games_end_in_their_best_play(game: Any, best: int, paid: float, share: bool) -> None:
    one = built(game, **FAST, share_policies=share)
    for _ in range(12):
        one.turn()
    assert one.updates == 12 and {member.updates for member in one.members.values()} == {12}
    assert list(one.members) == (["policy"] if share else ["row", "column"])
    start = {agent: np.zeros(1, np.float32) for agent in ("row", "column")}
    assert one.context.act(start) == {"row": best, "column": best}
    found = one.evaluate(5)
    assert found["evaluation_return"] == 2 * paid and found["evaluation_episodes"] == 5
    assert found["evaluation_return/row"] == found["evaluation_return/column"] == paid


# --- what agents are paid and when they are in ----------------------------------------------------------------------------------------


def test_returns_are_what_the_environment_paid() -> None:
    books: list[list[dict[str, float]]] = []

    def make() -> Quarry:
        books.append([])
        return Quarry(books[-1])

    one = built(make, normalise_rewards=True)
    batch = one.collect()
    collector = one.context.collector
    paid = [each for book in books for each in book]
    assert len(paid) == collector.episodes > 8
    agents = collector.environments.agents
    ours = sorted(returns for returns, _ in collector.finished)
    assert np.allclose(ours, sorted([each[agent] for agent in agents] for each in paid), atol=1e-9)
    assert collector.metrics()["episode_return"] == pytest.approx(sum(sum(each.values()) for each in paid) / len(paid))
    for name, each in batch.rows.items():  # rows: what was paid, finished or not, nothing to those that are out
        rows = each.rows
        assert not rows.reward[~rows.mask].any()
        total = sum(got[name] for got in paid) + sum(world.got[name] for world in collector.environments.copies)
        assert rows.reward.double().sum().item() == pytest.approx(total, rel=1e-6)


def test_agents_that_leave_are_out_until_the_next_episode() -> None:
    one = built()
    rows = {name: each.rows for name, each in one.collect().rows.items()}
    scout, porter = rows["scout"], rows["porter"]
    assert porter.mask.all() and int((~scout.mask).sum()) > 0
    begins = torch.zeros(porter.shape, dtype=torch.bool)
    begins[:, 0] = True
    begins[:, 1:] = porter.truncated[:, :-1]
    for row in range(len(scout)):
        out = False
        for t in range(scout.shape[1]):
            out = out and not bool(begins[row, t])
            assert bool(scout.mask[row, t]) != out
            if scout.mask[row, t] and scout.terminated[row, t]:
                out = True
    assert scout.terminated[scout.mask].any() and not scout.truncated.any()
    assert porter.truncated.any() and not porter.terminated.any()
    same = torch.equal(porter.next_observation[:, :-1][~porter.truncated[:, :-1]], porter.observation[:, 1:][~porter.truncated[:, :-1]])
    assert same and not torch.equal(porter.next_observation[:, :-1], porter.observation[:, 1:])  # the last observation is the true one


def test_spaces_are_each_agents_own() -> None:
    one = built()
    sizes = {name: (rows.observation_space.shape, rows.action_space) for name, rows in one.context.collector.rows.items()}
    assert sizes["digger"][0] == (5,) and sizes["scout"] == ((3,), gymnasium.spaces.Discrete(2))  # two numbers and three tools
    shared = built(share_policies=True)
    assert {name: rows.agents for name, rows in shared.context.collector.rows.items()} == {
        "scout": ["scout", "porter"], "digger": ["digger"]}  # fmt: skip
    batch = shared.collect()
    alone = built().collect()
    assert batch.rows["scout"].rows.shape == (8, 16) and alone.rows["scout"].rows.shape == (4, 16)
    told = shared.improve(shared.credit(shared.retain(batch)))
    assert told["policy_loss"] == pytest.approx((told["scout/policy_loss"] + told["digger/policy_loss"]) / 2)


def test_a_policy_without_a_step_waits() -> None:
    class Late(Dominance):
        """The column player is in for the first round only."""

        def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
            seen, pay, end, cut, info = super().step({"column": 0} | actions)
            end["column"] = True
            self.agents = [agent for agent in self.agents if agent != "column"]
            return seen, pay, end, cut, info

    one = built(lambda: Late(rounds=1000), num_envs=1, batch_steps=8)
    first, second = one.turn(), one.turn()
    assert "column/policy_loss" in first and second["policy_loss"] and "column/policy_loss" not in second
    assert one.members["column"].updates == 1 and one.members["row"].updates == one.updates == 2


def test_steps_are_those_of_environments() -> None:
    one = built(anneal=True, learning_rate=1e-2)
    rates = [one.turn()["learning_rate"] for _ in range(3)]
    assert one.steps == 192 and rates == pytest.approx([1e-2 * (1 - 64 * k / 10_000) for k in range(3)])


# --- runs --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [Quarry, lambda: Coordination(rounds=5)])
def test_stopping_anywhere_changes_nothing(task: Any, tmp_path: Path) -> None:
    """Episodes under way come back by their seeds and actions, or by what the environment saved."""
    settings = settings_for("ippo", task, steps=400, checkpoint_every=128, evaluation_episodes=2, **TINY, **{"dial.lag": 1})
    whole = Run.create(tmp_path / "whole", settings, task=task).train()
    with pytest.raises(Interrupted):
        Run.create(tmp_path / "halted", settings, task=task).train(progress=StopAfter(3))
    continued = Run.load(tmp_path / "halted", task=task).train()
    assert continued.metrics == whole.metrics and continued.summary["evaluation_return"] == whole.summary["evaluation_return"]
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_an_environment_that_went_another_way_says_so(tmp_path: Path) -> None:
    class Wild(Quarry):
        """Draws from nowhere."""

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(None)

    worlds = make_parallel(Wild, num_envs=2, seed=0)
    commands = {"scout": np.zeros(2, np.int64), "digger": np.zeros((2, 2), np.float32), "porter": np.zeros(2, np.int64)}
    worlds.step(commands)
    again = make_parallel(Wild, num_envs=2, seed=0)
    again.load_state_dict(worlds.state_dict())
    assert not again.can_save and "went another way" in again.warnings[0]
    again.restart(3)
    assert again.can_save


def test_command_line_and_acting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "run"
    words = ["train", "ippo", f"{GAMES}:Dominance", "--steps", "128", "--batch-steps", "64", "--num-envs", "4", "--minibatches", "2",
             "--epochs", "1", "--environment", "rounds", "3", "--evaluation-episodes", "1", "--directory", str(directory)]  # fmt: skip
    main(words)
    run = Run.load(directory)
    actions = run.policy({"row": np.zeros(1, np.float32), "column": np.zeros((2, 1), np.float32)})
    assert run.method.context.collector.environments.copies[0].rounds == 3
    assert actions["row"].shape == () and actions["column"].shape == (2,)
    assert {"evaluation_return", "evaluation_return/row"} <= run.evaluate(2, task=f"{GAMES}:Coordination").keys()
    for sentence, act in (
        ("has a policy for each of row, column: hand over a dict", lambda: run.policy(np.zeros(1, np.float32))),
        ("has a policy for each of row, column", lambda: run.policy({"judge": np.zeros(1, np.float32)})),
        ("have no memory", run.memory),
        (r"Quarry cannot be made with the options rounds", lambda: run.evaluate(1, task="tests.teams:Quarry")),
        ("The policies know the agents row, column", lambda: run.evaluate(1, task="tests.teams:Quarry", environment_options={})),
    ):
        with pytest.raises(RheostatError, match=sentence):
            act()


def test_pettingzoo_agrees() -> None:
    """Our games pass PettingZoo's own test of the interface."""
    pytest.importorskip("pettingzoo", reason="needs the extra 'agents'")
    from pettingzoo import ParallelEnv
    from pettingzoo.test import parallel_api_test

    class Registered(Coordination, ParallelEnv):
        """As PettingZoo knows environments."""

    parallel_api_test(Registered(rounds=4), num_cycles=30)  # type: ignore[arg-type]
    one = built(Registered)
    assert one.turn()["episodes"] > 0


# --- refusals ----------------------------------------------------------------------------------------------------------------------------


class Turns(Quarry):
    """Agents act in turns."""

    def agent_iter(self) -> None: ...


class Blind(Quarry):
    """The porter sees nothing."""

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        seen, infos = super().reset(seed)
        del seen["porter"]
        return seen, infos


class Unpaid(Quarry):
    """The digger's reward is missing."""

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        seen, pay, *rest = super().step(actions)
        del pay["digger"]
        return seen, pay, *rest


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("CartPole-v1", "CartPole-v1 is no environment of several agents: name a function .* as MODULE:NAME"),
        ("no_such_module:Env", r"no_such_module:Env cannot be imported .*: start where no_such_module.py is, or install it"),
        (f"{GAMES}:Chess", f"The module {GAMES} has no Chess"),
        (Quarry(), "Several copies of a Quarry are needed: hand over a function that makes one"),
        (Turns, "agents act in turns: wrap it with pettingzoo.utils.conversions.aec_to_parallel"),
        (lambda: gymnasium.make("CartPole-v1"), "which is no parallel environment of PettingZoo: it needs possible_agents"),
        (Blind, "gave no observation to porter, which is among its agents"),
        (Unpaid, "The reward of digger in environment 0 of Unpaid is None"),
    ],
)
def test_tasks_that_are_none(task: Any, sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        built(task).collect()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dial.expert_share": 0.5}, "cannot honour dial.expert_share: an expert would act in environments of its own"),
        ({"steps": 128, "dial.lag": 9}, "would ever see data|sees data|the whole run makes about 2 updates"),
        ({"backend": "gymnasium"}, "backend says who simulates a task of one agent"),
        ({"offline": "data"}, "learns from its own data only"),
    ],
)
def test_what_cannot_be_done(options: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=sentence):
        Run.create(tmp_path / "run", settings_for("ippo", f"{GAMES}:Dominance", **TINY, **({"steps": 128} | options)))


def test_a_method_of_one_agent_says_who_trains_several(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=r"no gymnasium\.Env, but an environment of several agents: ippo trains those"):
        Run.create(tmp_path / "run", settings_for("ppo", Quarry), task=Quarry)


def test_networks_and_sharing_that_do_nothing() -> None:
    make = lambda n, s: make_parallel(Quarry, num_envs=n, seed=s)  # noqa: E731
    with pytest.raises(RheostatError, match="makes a network for every policy"):
        build(configure("ippo", TINY), "ippo", make, Streams(0), 1000, policy=torch.nn.Linear(2, 2))

    class Pair(Quarry):
        possible_agents = ("scout", "digger")

    with pytest.raises(RheostatError, match=r"policies\.share would do nothing: no two agents have equal spaces"):
        built(Pair, share_policies=True)


# --- options -----------------------------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "policies.share": True, "collect.environments": 2, "collect.steps": 32, "keep.batches": 2, "normalisation.observations": False,
    "normalisation.rewards": False, "gae.gamma": 0.5, "gae.lam": 0.5, "gae.bootstrap_on_truncation": False, "network.hidden": (4,),
    "network.activation": "relu", "network.tanh_mean": True, "objective.epsilon": 1e-3, "objective.clip_kind": "detached",
    "objective.value": True, "objective.ratio_to": "sampler", "sampler.correction": "token", "sampler.cap": 1.0001, "stop.target": 1e-9,
    "stop.when": "before-step", "update.epochs": 1, "update.minibatches": 1, "update.learning_rate": 1e-3, "update.anneal": False,
    "update.entropy_coefficient": 0.5, "update.value_coefficient": 0.1, "update.max_grad_norm": 1e-3,
    "update.normalise_advantage": False, "meter.every": 1, "dial.lag": 1, "dial.replay_share": 0.5, "dial.replay_age": 1,
    "dial.updates_per_batch": 1,
}  # fmt: skip
TOGETHER: dict[str, dict[str, Any]] = {
    "objective.ratio_to": {"dial.lag": 1},
    "objective.clip_kind": {"objective.epsilon": 1e-3},
    "objective.value": {"objective.epsilon": 1e-3},
    "sampler.correction": {"dial.lag": 1},
    "sampler.cap": {"dial.lag": 1, "sampler.correction": "token"},
    "stop.when": {"stop.target": 1e-9},
    "dial.replay_age": {"dial.replay_share": 0.5},
}
"""With what an option acts."""
BASE: dict[str, Any] = {
    "collect.environments": 4, "collect.steps": 64, "network.hidden": (8,), "update.epochs": 2, "update.minibatches": 2,
    "update.learning_rate": 1e-2,
}  # fmt: skip


@pytest.mark.parametrize("path", [pytest.param(path, id=path) for path in CHANGES])
def test_every_option_acts(path: str) -> None:
    found = []
    base = {
        name: value
        for name, value in BASE.items()
        if path != "dial.updates_per_batch" or name not in ("update.epochs", "update.minibatches")
    }
    for own in ({}, {path: CHANGES[path]}):
        config = configure("ippo", base | TOGETHER.get(path, {}) | own)
        one = build(config, "ippo", lambda n, s: make_parallel(Quarry, num_envs=n, seed=s), Streams(0), 10_000)
        told = [one.turn() for _ in range(3)]
        found.append((told, torch.cat([value.flatten() for value in one.policy.state_dict().values()]).tolist()))
    assert found[0] != found[1]


def test_the_list_of_options_is_whole() -> None:
    measuring = {"log.evaluate_every", "log.evaluate_episodes"}  # which change no training
    assert {each.path for each in options_of(configure("ippo", {}))} == set(CHANGES) | {
        "dial.expert_share",
        "dial.refresh_every",
    } | measuring


def test_rows_of_agents() -> None:
    """Row ``i A + a`` is agent a in environment i, in observations, actions and rewards."""
    worlds = ParallelEnvironments(Quarry, "Quarry", 3, 0)
    rows = policies_of(worlds, True)["scout"]
    seen = rows.reset()
    for i in range(3):
        for a, agent in enumerate(("scout", "porter")):
            assert np.array_equal(seen[2 * i + a].numpy(), worlds.last[agent][i])
    commands = rows.commands(torch.tensor([0, 1, 1, 0, 0, 0]))
    assert commands["scout"].tolist() == [0, 1, 0] and commands["porter"].tolist() == [1, 0, 0]
    joint = worlds.step(commands | {"digger": np.zeros((3, 2), np.float32)})
    step = rows.read(joint)
    assert torch.equal(step.reward.view(3, 2), torch.from_numpy(joint.reward[:, [0, 2]].astype(np.float32)))

"""The adapter: one stream of true transitions whatever the backend and its autoreset convention."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.control import Environments, Step, known_tasks, make
from tests.tasks.worlds import Box, Clock, Counting, Dict, Faulty


def actions(environments: Environments, steps: int, seed: int = 0) -> list[Tensor]:
    """Random actions, large enough to be clipped."""
    generator = torch.Generator().manual_seed(seed)
    space, rows = environments.action_space, environments.num_envs
    if isinstance(space, gymnasium.spaces.Discrete):
        return [torch.randint(int(space.n), (rows,), generator=generator) for _ in range(steps)]
    assert space.shape is not None
    return [1.5 * torch.randn((rows, *space.shape), generator=generator) for _ in range(steps)]


def valid_transitions(environments: Environments, steps: int) -> list[list[tuple]]:
    """Per environment, the true transitions under a policy that depends on nothing but how many there were before."""
    streams: list[list[tuple]] = [[] for _ in range(environments.num_envs)]
    observation = environments.reset()
    for _ in range(steps):
        action = torch.tensor([[0.01 * len(stream)] for stream in streams])
        step = environments.step(action)
        for row, stream in enumerate(streams):
            if step.valid[row]:
                facts = (step.reward[row], step.terminated[row], step.truncated[row])
                stream.append((*observation[row].tolist(), *(fact.item() for fact in facts), *step.next_observation[row].tolist()))
        observation = step.observation
    return streams


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_autoreset_mode_gives_the_same_transitions(mode: AutoresetMode) -> None:
    reference = valid_transitions(make(Counting, num_envs=3, seed=5), 60)
    vector = SyncVectorEnv([Counting] * 3, autoreset_mode=mode)
    environments = make(vector, num_envs=3, seed=5)
    assert environments.autoreset == mode.name.lower().replace("_", "-")
    for stream, other in zip(reference, valid_transitions(environments, 60), strict=True):
        assert len(other) >= 40
        shared = min(len(stream), len(other))
        assert stream[:shared] == other[:shared]
        assert any(row[3] for row in other) and any(row[4] for row in other), "both endings must occur"


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_next_observation_is_the_final_one_and_the_policy_sees_the_new_episode(mode: AutoresetMode) -> None:
    environments = make(SyncVectorEnv([Counting] * 4, autoreset_mode=mode), num_envs=4, seed=0)
    observation = environments.reset()
    for action in actions(environments, 50):
        step = environments.step(action)
        rows = step.valid
        # The count grows by one in the same episode: never the first observation of the next one.
        assert torch.equal(step.next_observation[rows], observation[rows] + torch.tensor([0.0, 1.0]))
        ended = step.terminated | step.truncated
        if mode is not AutoresetMode.NEXT_STEP:
            assert rows.all()
            assert torch.equal(step.observation[ended], torch.stack([observation[ended, 0] + 1, torch.zeros(int(ended.sum()))], 1))
        observation = step.observation


@pytest.mark.parametrize("as_dict", [False, True])
def test_batched_worlds_report_final_observations_in_one_array(as_dict: bool) -> None:
    environments = make(Clock(4, as_dict=as_dict), num_envs=4, seed=0)
    observation = environments.reset()
    for action in actions(environments, 7):
        step = environments.step(action)
        assert torch.equal(step.next_observation, observation + torch.tensor([1.0, 0.0]))
        assert torch.equal(step.terminated, step.next_observation[:, 0] == 3)
        assert (step.observation[step.terminated, 0] == 0).all()
        observation = step.observation
    silent = make(Clock(4, report=False), num_envs=4, seed=0)
    silent.reset()
    with pytest.raises(RheostatError, match="final_obs"):
        silent.step(torch.zeros(4, dtype=torch.int64))


def test_dict_observations_keep_their_final_one_in_the_same_step() -> None:
    class DictCounting(gymnasium.ObservationWrapper):
        def __init__(self) -> None:
            super().__init__(Counting())
            self.observation_space = Dict({"count": Box(0, 99, (1,), np.float64), "episode": Box(0, 99, (), np.float64)})

        def observation(self, observation: np.ndarray) -> dict:
            return {"count": observation[1:], "episode": observation[0]}

    environments = make(SyncVectorEnv([DictCounting] * 3, autoreset_mode=AutoresetMode.SAME_STEP), num_envs=3, seed=0)
    observation = environments.reset()
    endings = 0
    for action in actions(environments, 30):
        step = environments.step(action)
        assert torch.equal(step.next_observation, observation + torch.tensor([1.0, 0.0]))
        endings += int((step.terminated | step.truncated).sum())
        observation = step.observation
    assert endings > 5


@pytest.mark.parametrize("task", ["CartPole-v1", "gymnasium:CartPole-v1"])
def test_one_row_per_episode_is_fake_under_next_step_autoreset(task: str) -> None:
    environments = make(task, num_envs=6, seed=3)
    assert environments.autoreset == "next-step"
    environments.reset()
    ended = torch.zeros(6, dtype=torch.bool)
    fakes = 0
    for action in actions(environments, 150):
        step = environments.step(action)
        assert torch.equal(step.valid, ~ended)
        assert not (step.terminated | step.truncated)[ended].any() and (step.reward[ended] == 0).all()
        assert (step.next_observation[ended].abs() <= 0.05).all(), "the row after an end holds the first observation of an episode"
        assert (step.next_observation[step.terminated][:, [0, 2]].abs() > torch.tensor([2.4, 0.2094])).any(1).all()
        ended = step.terminated | step.truncated
        fakes += int((~step.valid).sum())
    assert fakes > 10


def test_time_limits_are_truncations() -> None:
    for task in ("Pendulum-v1", "gymnasium:Pendulum-v1"):
        environments = make(task, num_envs=2, seed=0)
        environments.reset()
        steps = [environments.step(action) for action in actions(environments, 200)]
        assert steps[-1].truncated.all() and not steps[-1].terminated.any()
        assert not any((step.truncated | step.terminated).any() for step in steps[:-1])


def test_a_world_that_ends_at_the_limit_ended() -> None:
    """Gymnasium's TimeLimit reports both; only the end counts, there is nothing to bootstrap from."""
    environments = make("gymnasium:CliffWalking-v1", num_envs=1, seed=0, max_episode_steps=13)
    environments.reset()
    steps = [environments.step(torch.tensor([action])) for action in [0] + [1] * 11 + [2]]
    assert steps[-1].terminated.item() and not steps[-1].truncated.item()
    assert not any((step.terminated | step.truncated).item() for step in steps[:-1])


@pytest.mark.parametrize("task", ["CartPole-v1", "HalfCheetah-v5", "CheetahRun-v1", "gymnasium:CartPole-v1", "rheostat/Discrete2D-v0"])
def test_a_seed_gives_the_same_stream_again(task: str) -> None:
    def stream(environments: Environments, seed: int | None = None) -> list[Step]:
        observation = environments.reset() if seed is None else environments.restart(seed)
        nothing = torch.zeros(3)
        first = Step(observation, observation, nothing, nothing, nothing, nothing)
        return [first, *(environments.step(action) for action in actions(environments, 30))]

    def same(a: list[Step], b: list[Step]) -> bool:
        return all(torch.equal(x.observation, y.observation) and torch.equal(x.reward, y.reward) for x, y in zip(a, b, strict=True))

    first = make(task, num_envs=3, seed=7, threads=1)
    reference = stream(first)
    assert same(reference, stream(make(task, num_envs=3, seed=7)))
    assert not same(reference, stream(make(task, num_envs=3, seed=17)))
    other = make(task, num_envs=3, seed=17)
    other.reset()
    other.step(actions(other, 1)[0])
    assert same(reference, stream(other, seed=7)), "restart(seed) is a new pool with that seed"
    assert other.seed == 7 and other.steps == 30


def test_environment_i_has_the_seed_plus_i() -> None:
    for task in ("CartPole-v1", "gymnasium:CartPole-v1"):
        assert torch.equal(make(task, num_envs=3, seed=7).reset()[1:], make(task, num_envs=2, seed=8).reset())


def test_tensors_have_the_promised_types() -> None:
    for task in ("HalfCheetah-v5", "gymnasium:Pendulum-v1"):
        environments = make(task, num_envs=2, seed=0)
        observation = environments.reset()
        step = environments.step(actions(environments, 1)[0])
        assert observation.dtype == step.observation.dtype == step.next_observation.dtype == step.reward.dtype == torch.float32
        assert step.terminated.dtype == step.truncated.dtype == step.valid.dtype == torch.bool
        assert observation.shape[1:] == environments.observation_space.shape
        assert step.reward.shape == step.terminated.shape == step.valid.shape == (2,)
        assert isinstance(environments.action_space, gymnasium.spaces.Box) and environments.action_space.dtype == np.float32


def test_earlier_steps_keep_their_values() -> None:
    for task in ("CartPole-v1", "gymnasium:CartPole-v1", "gymnasium:Pendulum-v1"):
        environments = make(task, num_envs=2, seed=0)
        environments.reset()
        steps, copies = [], []
        for action in actions(environments, 40):
            step = environments.step(action)
            steps.append(step)
            copies.append((step.observation.clone(), step.reward.clone(), step.terminated.clone()))
        for step, (observation, reward, terminated) in zip(steps, copies, strict=True):
            assert torch.equal(step.observation, observation) and torch.equal(step.reward, reward)
            assert torch.equal(step.terminated, terminated)


def test_box_actions_are_clipped_for_the_world_only() -> None:
    big = make("Pendulum-v1", num_envs=2, seed=0)
    exact = make("Pendulum-v1", num_envs=2, seed=0)
    big.reset(), exact.reset()
    raw = torch.tensor([[50.0], [-3.0]])
    seen = raw.clone()
    assert torch.equal(big.step(raw).observation, exact.step(torch.tensor([[2.0], [-2.0]])).observation)
    assert torch.equal(raw, seen), "the caller's action must not change"


def test_one_environment_object_becomes_a_vector_of_one() -> None:
    environments = make(Counting(), num_envs=1, seed=0)
    assert environments.reset().shape == (1, 2) and environments.name == "Counting"
    with pytest.raises(RheostatError, match="num_envs=1"):
        make(Counting(), num_envs=2, seed=0)


def test_options_reach_the_environment() -> None:
    assert make("rheostat/Discrete2D-v0", num_envs=1, seed=0, headings=7).action_space == gymnasium.spaces.Discrete(7)
    slow = make("CartPole-v1", num_envs=1, seed=0, max_episode_steps=3)
    slow.reset()
    assert [bool(slow.step(torch.tensor([i % 2])).truncated) for i in range(3)] == [False, False, True]
    with pytest.raises(RheostatError, match="did you mean max_episode_steps"):
        make("CartPole-v1", num_envs=1, seed=0, max_episode_step=3)
    with pytest.raises(RheostatError, match="no_such_option"):
        make("gymnasium:CartPole-v1", num_envs=1, seed=0, no_such_option=3)


@pytest.mark.parametrize(
    ("name", "near"),
    [("CartPol-v1", "CartPole-v1"), ("rheostat/TwoSteps-v0", "rheostat/TwoStep-v0"), ("envpool:HalfCheeta-v5", "HalfCheetah-v5")],
)
def test_unknown_ids_get_suggestions(name: str, near: str) -> None:
    with pytest.raises(RheostatError, match=f"did you mean .*{near}"):
        make(name, num_envs=1, seed=0)


def test_what_cannot_work_is_refused_in_a_sentence() -> None:
    with pytest.raises(RheostatError, match="players"):
        make("TicTacToe-v1" if "TicTacToe-v1" in known_tasks()["envpool pgx"] else "Othello-v1", num_envs=2, seed=0)
    with pytest.raises(RheostatError, match="num_envs"):
        make("CartPole-v1", num_envs=0, seed=0)
    with pytest.raises(RheostatError, match="seed"):
        make("CartPole-v1", num_envs=2, seed=2**31 - 2)
    with pytest.raises(RheostatError, match="backend"):
        make("CartPole-v1", num_envs=2, seed=0, backend="other")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="is an id"):
        make(3, num_envs=2, seed=0)  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="reset"):
        make("CartPole-v1", num_envs=2, seed=0).step(torch.zeros(2, dtype=torch.int64))


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for module in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(MissingExtra, match=r"pip install .*\[box2d\]"):
        make("gymnasium:LunarLander-v3", num_envs=1, seed=0)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan observation", r"observation of environment 1 .* step 3 .*nan"),
        ("infinite reward", r"reward of environment 1 .* step 3 .*inf"),
        ("shape", r"observation of environment 1 .*shape \[4\].*\[3\]"),
        ("dtype", r"observation of environment 1 .*dtype <U1"),
        ("no reward", r"reward of environment 1 .* step 3 .*nan"),
        ("old api", r"Environment 1 .*malformed.*terminated, truncated"),
    ],
)
def test_a_faulty_environment_is_named(fault: str, message: str) -> None:
    environments = make(SyncVectorEnv([Faulty, lambda: Faulty(fault), Faulty]), num_envs=3, seed=0)
    environments.reset()
    with pytest.raises(RheostatError, match=message):
        for _ in range(4):
            environments.step(torch.zeros(3, dtype=torch.int64))


def test_errors_of_the_users_own_code_stay_as_they_are() -> None:
    environments = make(lambda: Faulty("own bug"), num_envs=2, seed=0)
    environments.reset()
    with pytest.raises(ValueError, match=r"a bug of the user's") as caught:
        for _ in range(4):
            environments.step(torch.zeros(2, dtype=torch.int64))
    assert not isinstance(caught.value, RheostatError)


def test_malformed_actions_are_refused() -> None:
    environments = make("Pendulum-v1", num_envs=2, seed=0)
    environments.reset()
    with pytest.raises(RheostatError, match=r"shape \[2\]; \[2, 1\]"):
        environments.step(torch.zeros(2))
    with pytest.raises(RheostatError, match=r"environment 1 .*diverged"):
        environments.step(torch.tensor([[0.0], [torch.nan]]))
    discrete = make("CartPole-v1", num_envs=2, seed=0)
    discrete.reset()
    with pytest.raises(RheostatError, match="outside"):
        discrete.step(torch.tensor([0, 2]))
    with pytest.raises(RheostatError, match="integers"):
        discrete.step(torch.tensor([0.0, 1.0]))


def test_a_vector_environment_must_state_its_autoreset_mode() -> None:
    vector = SyncVectorEnv([Counting])
    del vector.metadata["autoreset_mode"]
    with pytest.raises(RheostatError, match="autoreset_mode"):
        make(vector, num_envs=1, seed=0)


def test_importing_the_package_loads_no_simulator() -> None:
    code = "import sys, rheostat, rheostat.tasks.control; sys.exit(any(m in sys.modules for m in ('gymnasium', 'envpool', 'mujoco')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_family_is_listed() -> None:
    families = known_tasks()
    assert "CartPole-v1" in families["envpool classic_control"] and "rheostat/TwoStep-v0" in families["rheostat"]
    assert len(families["envpool myosuite"]) > 100


def test_listing_the_tasks_does_not_load_pytorch() -> None:
    ask = (
        "import sys; from rheostat.cli.catalogue import List; import rheostat.tasks.control.registration; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", ask], check=True)

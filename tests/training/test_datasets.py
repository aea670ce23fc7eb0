"""Data sets made by the seeded command: who acted, how much, and the same again."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.buffers.offline import OfflineData
from rheostat.errors import RheostatError
from rheostat.training.datasets import KINDS, make_dataset
from rheostat.training.teachers import EnvironmentSpec, Teacher, TeacherRecipe, recipe_for, teacher_for

SMALL = TeacherRecipe(
    3000,
    {"num_envs": 4, "batch_steps": 256, "minibatches": 4, "epochs": 8, "learning_rate": 5e-3, "hidden": (16,), "anneal": False},
    evaluations=6,
    evaluation_episodes=4,
    reference_episodes=6,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache, so that the teacher is trained once for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


def made(kind: str, cache: Path, steps: int = 400, **options: Any) -> OfflineData:
    return make_dataset("CartPole-v1", kind, steps, **({"teacher": SMALL, "medium_share": 0.3, "cache": cache} | options))


def file_bytes(data: OfflineData, path: Path) -> list[str]:
    pytest.importorskip("minari", reason="the extra 'offline' (minari[hdf5]) is not installed")
    data.save(path)
    return [hashlib.sha256((path / "data" / name).read_bytes()).hexdigest() for name in ("main_data.hdf5", "metadata.json")]


def test_every_kind_has_the_steps_asked_for_and_says_who_acted(cache: Path) -> None:
    found = {kind: made(kind, cache) for kind in KINDS}
    assert all(len(data) == 400 for data in found.values())
    assert found["random"].behaviour == "uniform actions"
    steps = found["medium"].facts["medium"]["steps"]
    assert found["medium"].behaviour == f"PPO after {steps:,} steps"
    assert found["medium-replay"].behaviour == f"PPO in the first {steps:,} steps of its training"
    assert found["medium-random"].behaviour == f"PPO after {steps:,} steps; then uniform actions"
    assert found["expert"].returns.mean() > found["medium"].returns.mean() > found["random"].returns.mean()
    assert len({data.digest for data in found.values()}) == len(KINDS)
    assert all(data.transitions.sampler_logp.isfinite().all() for data in found.values())


def test_the_same_command_gives_the_same_bytes_with_and_without_a_cached_teacher(cache: Path, tmp_path: Path) -> None:
    for kind in ("medium-replay", "medium-random"):
        first = made(kind, cache)
        again = made(kind, tmp_path / "cache")  # a cache of its own: everything is done again
        assert first.digest == again.digest
        assert file_bytes(first, tmp_path / f"{kind}-1") == file_bytes(again, tmp_path / f"{kind}-2")


def test_another_seed_gives_other_data_of_the_random_policy(cache: Path) -> None:
    one, two = (made("random", cache, reference=False, seed=seed) for seed in (0, 1))
    assert one.digest != two.digest and one.reference is None


def test_mixtures_share_the_steps_as_asked(cache: Path) -> None:
    quarter = made("medium-random", cache, mixture=0.25)
    medium, random = made("medium", cache, steps=100), made("random", cache, steps=300)
    assert torch.equal(quarter.transitions.observation[:100], medium.transitions.observation)
    assert torch.equal(quarter.transitions.observation[100:], random.transitions.observation)


def test_the_replayed_data_are_what_the_teacher_collected_until_the_medium_policy(cache: Path) -> None:
    data = made("medium-replay", cache, steps=10**9)
    medium = data.facts["medium"]
    assert len(data) == medium["steps"] and data.transitions.version.unique().tolist() == list(range(medium["updates"]))
    assert len(made("medium-replay", cache, steps=100)) == 100


def test_the_medium_policy_is_the_first_that_earns_its_share(cache: Path) -> None:
    teacher = teacher_for(EnvironmentSpec("CartPole-v1"), 0, SMALL, cache=cache)
    number = teacher.medium(0.3)
    least = teacher.random + 0.3 * (teacher.expert_sampled - teacher.random)
    earned = [policy["evaluated"] for policy in teacher.policies]
    assert earned[number] >= least and all(value < least for value in earned[:number])
    assert [policy["steps"] for policy in teacher.policies] == sorted({policy["steps"] for policy in teacher.policies})
    assert teacher.policies[-1]["steps"] >= SMALL.steps


def fake(tmp_path: Path, earned: list[float], random: float, expert: float) -> Teacher:
    policies = [{"steps": number, "updates": number, "evaluated": value} for number, value in enumerate(earned)]
    state = {"policies": policies, "random": random, "expert": expert, "expert_sampled": expert}
    return Teacher(tmp_path, state, EnvironmentSpec("Made-v0"), 0, TeacherRecipe())


def test_teachers_that_cannot_give_a_medium_policy_are_refused(tmp_path: Path) -> None:
    assert fake(tmp_path, [1.0, 4.0, 6.0, 9.0], 0.0, 10.0).medium(0.5) == 2
    assert fake(tmp_path, [-9.0, -6.0, -4.0], -10.0, -2.0).medium(0.5) == 1
    with pytest.raises(RheostatError, match=r"earned 1\.0 after 500,000 steps, no more than random actions \(2\.0\)"):
        fake(tmp_path, [1.0], 2.0, 1.0).medium(0.5)
    with pytest.raises(RheostatError, match=r"No policy of the teacher on Made-v0 was measured at 5\.0 or more \(best: 4\.0\)"):
        fake(tmp_path, [1.0, 4.0], 0.0, 10.0).medium(0.5)
    with pytest.raises(RheostatError, match="medium share is 1"):
        fake(tmp_path, [1.0], 0.0, 10.0).medium(1.0)


def test_a_cached_teacher_is_not_trained_again_and_another_recipe_is_another_teacher(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("expert", cache)
    monkeypatch.setattr("rheostat.training.teachers._train", lambda *_: pytest.fail("trained again"))
    first = teacher_for(EnvironmentSpec("CartPole-v1"), 0, SMALL, cache=cache)
    assert first.folder.parent == cache / "teachers"
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        teacher_for(EnvironmentSpec("CartPole-v1"), 1, SMALL, cache=cache)


def test_log_probabilities_are_those_of_the_policy_that_acted(cache: Path) -> None:
    teacher, data = teacher_for(EnvironmentSpec("CartPole-v1"), 0, SMALL, cache=cache), made("expert", cache)
    context = teacher._learner(len(teacher.policies) - 1).context
    with torch.no_grad():
        again = context.act_on_target(data.transitions.observation).log_prob(data.transitions.action)
    assert torch.allclose(again, data.transitions.sampler_logp, atol=1e-5)


def test_reference_returns_are_measured_or_published(cache: Path) -> None:
    data = made("random", cache)
    assert data.reference == (data.facts["measured"]["random"], data.facts["measured"]["expert"])
    assert data.reference_source.startswith("measured") and data.normalised_score(data.reference[1]) == 100
    hopper = make_dataset("Hopper-v5", "random", 30, num_envs=2, cache=cache)  # published: no teacher is trained for it
    assert hopper.reference == (-20.272305, 3234.3) and "teacher" not in hopper.facts


def test_the_command_in_the_metadata_says_everything(cache: Path) -> None:
    words = shlex.split(made("medium", cache).facts["command"])
    assert words[:5] == ["rheostat", "dataset", "make", "CartPole-v1", "medium"]
    assert words[words.index("--teacher-steps") + 1] == "3000" and "--medium-share" in words and "learning_rate" in words


def test_orders_that_cannot_work_are_refused(cache: Path) -> None:
    for options, sentence in (
        ({"kind": "medum"}, "Unknown kind of data set 'medum': did you mean medium"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"mixture": 1.0, "kind": "medium-expert"}, "mixture is 1"),
        ({"mixture": 0.001, "kind": "medium-expert"}, "cannot be shared"),
        ({"task": "Cartpole-v7", "kind": "random", "reference": False}, "Unknown control task"),
    ):
        arguments = {"task": "CartPole-v1", "kind": "medium", "steps": 100, "cache": cache, "teacher": SMALL} | options
        with pytest.raises(RheostatError, match=sentence):
            make_dataset(**arguments)  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="evaluations of a teacher is 0"):
        TeacherRecipe(evaluations=0)


def test_recipes_are_found_by_task_whatever_the_backend() -> None:
    assert recipe_for("gymnasium:Pendulum-v1") is recipe_for("Pendulum-v1") and recipe_for("Pendulum-v1").options["gamma"] == 0.9
    assert recipe_for("Unheard-v0") == TeacherRecipe()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("Pendulum-v1", -300.0), ("CartPole-v1", 400.0)])
def test_the_default_teacher_learns_its_task(task: str, least: float, tmp_path: Path) -> None:
    assert teacher_for(EnvironmentSpec(task), 0, cache=tmp_path).expert > least

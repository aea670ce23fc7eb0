"""Every example that the documentation shows, run with a tiny budget."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import rheostat
from rheostat.credit.verifiers import Rollout, load_rewards
from rheostat.errors import RheostatError
from rheostat.experiments.recipe import read_recipe
from rheostat.experiments.studies.results import run_study
from rheostat.methods import table
from rheostat.parts import Aggregate, Batch, Tokens
from rheostat.reporting.study_figures import draw_into
from rheostat.tasks.language import ChainSum, Prompt, Said, character_tokenizer
from rheostat.tasks.language.demonstrations import read_demonstrations
from rheostat.tasks.language.prompt_files import load_prompts
from rheostat.trajectories import Trajectories
from tests.tiny_language import model as random_model

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TESTED = {
    "asym_re", "batch_size", "corridor", "critic_apart", "grpo_by_parts", "kernel", "largest", "loop", "network", "offline_data",
    "reward_own", "reward_trl", "reward_verl", "successor", "topr_attempts", "verdicts", "weighted_buffer",
    "my_environments", "my_talks", "my_tools", "two_stages",
}  # fmt: skip


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``example(name, ...)`` imports examples as if Python ran them; modules and table are as before afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    methods = dict(table.METHODS)

    def load(*names: str) -> ModuleType:
        """Import in this order; the last one."""
        assert set(names) <= TESTED
        return [importlib.import_module(name) for name in names][-1]

    yield load
    table.METHODS.clear()
    table.METHODS.update(methods)
    for name in TESTED:
        sys.modules.pop(name, None)


def test_none_is_forgotten() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED


def test_loop(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    history = example("loop").main()
    assert [round(row.get("meter/share_stale", 0.0), 1) for row in history] == [0.0, 0.5, 0.5]
    assert "fresh [4, 64]  kept [4, 128]" in capsys.readouterr().out


def test_grpo_by_parts(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example("grpo_by_parts").main()
    assert capsys.readouterr().out in (EXAMPLES.parent / "four-questions.md").read_text()


def test_batch_size(example: Any, tmp_path: Path) -> None:
    done = run_study(example("asym_re", "batch_size").STUDY, draw=draw_into, smoke=True, jobs=0, cells=tmp_path)
    assert done.result["verdicts"] == {"batch size": "undecided"} and done.path.with_suffix(".png").exists()


def test_kernel(example: Any) -> None:
    found = example("kernel").main()
    ppo, cispo, gspo = (found[name][1] for name in ("ppo", "cispo", "gspo"))
    assert ppo[0, 0] == 0 and cispo[0, 0] < 0, "the clip takes the gradient of a large ratio, the weight does not"
    assert torch.equal(gspo[0], gspo[0, :1].expand(4)), "one ratio for the row"
    assert all((gradient[1, 2:] == 0).all() for gradient in (ppo, cispo, gspo))


def test_verdicts(example: Any) -> None:
    found = example("verdicts").main()
    assert [verdict.outcome for verdict in found.values()] == ["undecided", "undecided", "supported", "no relevant difference"]
    assert [verdict.look for verdict in found.values()] == [None, None, 8, 8]
    assert found["4 seeds"].difference.low > 0, "the interval alone would have called it"


def test_corridor_trains_and_resumes(example: Any, tmp_path: Path) -> None:
    corridor = example("corridor")
    run = corridor.main(tmp_path / "run", steps=2048)
    assert run.summary["steps"] >= 2048
    again = rheostat.load(tmp_path / "run", task=corridor.Corridor)
    observation = np.array([0.5], np.float32)
    assert again.policy(observation) == run.policy(observation)
    world = corridor.Corridor()
    world.reset(seed=0)
    world.step(1)
    other = corridor.Corridor()
    other.reset(seed=1)
    other.load_state(world.save_state())
    assert np.array_equal(other.look(), world.look())
    other.step(1)
    assert (other.cell, other.time) == (2, 2)


def test_corridor_ends_and_is_cut(example: Any) -> None:
    world = example("corridor").Corridor(length=3, limit=4)
    world.reset(seed=0)
    assert [world.step(1)[2:4] for _ in range(3)] == [(False, False), (False, False), (True, False)]
    world.reset(seed=0)
    assert [world.step(0)[2:4] for _ in range(4)][-1] == (False, True)


def test_two_stages(example: Any, tmp_path: Path) -> None:
    rows = example("two_stages").main(tmp_path / "recipe", steps=512)
    assert [(row["stage"], row["from"]) for row in rows] == [("fast", "start"), ("slow", "fast")]


def test_the_recipe_of_the_page_is_one() -> None:
    recipe = read_recipe(EXAMPLES / "imitate_then_reinforce.toml")
    assert [recipe.settings_of(stage).method for stage in recipe.stages] == ["sft", "grpo"]


def test_the_trial_of_teachers_is_a_recipe() -> None:
    recipe = read_recipe(EXAMPLES / "choose_a_teacher.toml")
    assert recipe.stages[2].experts_of_best == ("careful", "terse")
    careful, terse = (
        read_demonstrations(EXAMPLES / f"teacher_{name}.jsonl").within(ChainSum()).worth(1.0, ChainSum().verifier())
        for name in ("careful", "terse")
    )
    assert len(terse) == 72 and 36 < len(careful) < 72, "the one with the better score is not the one to learn from"


def test_the_curricula_of_the_page_are_recipes() -> None:
    tiny, whole = (read_recipe(EXAMPLES / name) for name in ("math_then_code.toml", "acereason.toml"))
    assert [tiny.settings_of(stage).environment_options["learn"] for stage in tiny.stages] == ["math", "math", "code"]
    lengths = [whole.settings_of(stage).config["sampling"]["max_new_tokens"] for stage in whole.stages]
    assert lengths == [8192, 16384, 24576, 32768, 24576, 32768]


def test_network(example: Any, tmp_path: Path) -> None:
    run = example("network").main(tmp_path / "run", steps=1024)
    assert run.summary["evaluation_return"] > 0


def test_method(example: Any, tmp_path: Path) -> None:
    run = example("weighted_buffer").main(tmp_path / "run", steps=1536)
    last = run.metrics[-1]
    assert last["meter/share_stale"] == pytest.approx(0.5, abs=0.02) and last["meter/ess"] < 1
    assert rheostat.load(tmp_path / "run").settings.config["weight"]["cap"] == 1.5
    with pytest.raises(RheostatError, match=r"weight\.cap is 0"):
        rheostat.train("weighted-buffer", "CartPole-v1", directory=tmp_path / "other", weight_cap=0.0)


def test_offline_data(example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minari", reason="the extra 'offline' is not installed")
    data = example("offline_data").main(tmp_path / "set", steps=300)
    assert len(data) == 300 and data.task == "Hopper-v5" and "by uniform actions" in capsys.readouterr().out


def test_expert_rows_belong_to_their_task() -> None:
    rows = read_demonstrations(EXAMPLES / "experts.jsonl").within(ChainSum()).worth(1.0, ChainSum().verifier())
    assert len(rows) == 64 and not rows.dropped


def test_method_weighs_old_rows_only(example: Any, tmp_path: Path) -> None:
    example("weighted_buffer")
    settings: dict[str, Any] = {"batch_steps": 256, "minibatches": 4, "num_envs": 4, "evaluation_episodes": 0}
    settings |= {"normalise_observations": False, "normalise_rewards": False}  # statistics that move make every row a little stale
    run = rheostat.train("weighted-buffer", "CartPole-v1", directory=tmp_path / "run", steps=256, progress=False, **settings)
    method: Any = run.method
    retained = method.retain(method.collect())
    kept = retained.rows
    weighted = method.credit(retained).rows.advantage
    batch = retained
    for part in method.composition.credit[:-1]:
        batch = part(method.context, batch)
    plain = batch.rows.advantage
    fresh = kept.version == method.updates
    assert torch.allclose(weighted[fresh], plain[fresh], rtol=1e-4, atol=1e-5)
    stale = ~fresh & kept.mask
    ratio = weighted[stale] / plain[stale]
    assert float(ratio.max()) <= 2.0 + 1e-4 and float((ratio - 1).abs().max()) > 1e-3


def test_language_task(example: Any, tmp_path: Path) -> None:
    largest = example("largest")
    tokenizer = character_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    random_model("qwen3", vocabulary=len(tokenizer), **sizes).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    run = largest.main(str(tmp_path / "model"), tmp_path / "run", steps=2)
    assert run.settings.task == "custom:Largest" and "reward/answered" in run.metrics[-1]

    task = largest.Largest()
    stream = task.prompts()
    first = [prompt.key for prompt in stream.take(70)]
    cursor = stream.state_dict()
    following = [prompt.key for prompt in stream.take(10)]
    again = task.prompts()
    again.load_state_dict(cursor)
    assert [prompt.key for prompt in again.take(10)] == following
    assert not set(first) & {prompt.key for prompt in task.validation(200)}
    prompt = task.prompts().take(1)[0]
    expert = task.expert(prompt, np.random.default_rng(0))
    grades = task.verifier().score([prompt.rollout(expert), prompt.rollout("9"), prompt.rollout(f"1;{expert}")])
    assert grades.reward.tolist() == [1.0, 0.0, 1.0]


def saved(folder: Path) -> str:
    """A tiny random model that speaks in characters."""
    tokenizer = character_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    random_model("qwen3", vocabulary=len(tokenizer), **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_task_of_several_turns(example: Any, tmp_path: Path) -> None:
    successor = example("successor")
    run = successor.main(saved(tmp_path / "model"), tmp_path / "run", steps=2)
    assert run.settings.task == "custom:Successor" and run.metrics[-1]["turns"] >= 1 and "reward/right" in run.metrics[-1]
    episodes = successor.Successor().episodes()
    episodes.reset([Prompt("37?")] * 2, [5, 5])
    first = episodes.step([0, 1], [Said("8"), Said("7")])
    assert first.scores.reward.tolist() == [1, 0] and first.over == [False, True]
    following = str((int(first.observations[0][0]) + 1) % 10)
    again = successor.Successor().episodes()
    again.load_state_dict(episodes.state_dict())
    assert again.step([0], [Said(following)]).scores.reward.tolist() == [1]


def test_method_of_two_models(example: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "steps": 3,
        "prompts_per_batch": 8,
        "learning_rate": 1e-3,
        "reward_learning_rate": 1e-3,
        "evaluation_episodes": 0,
    }
    run = example("critic_apart").main(saved(tmp_path / "model"), tmp_path / "run", ChainSum(), **options)
    state = run.method.state_dict()
    assert state["context"]["counts"] == {"reward": 3, "policy": 3} and {"models.policy", "models.reward"} <= set(state)
    assert "reward_model/loss" in run.metrics[-1] and rheostat.load(tmp_path / "run", task=ChainSum()).method.updates == 3


SMALL: dict[str, Any] = {"prompts_per_batch": 8, "max_new_tokens": 6, "evaluation_episodes": 0, "evaluate_every": 0, "progress": False}


def test_method_with_a_moved_baseline(example: Any, tmp_path: Path) -> None:
    module = example("asym_re")
    model = saved(tmp_path / "model")
    run = module.main(model, tmp_path / "run", ChainSum(), steps=6, group_size=4, **SMALL)
    assert run.metrics[-1]["meter/share_stale"] == 1 and run.metrics[0].get("meter/share_stale", 0) == 0
    learner: Any = run.method
    batch = learner.retain(learner.collect())
    batch.rows.reward[0, -1] += 1  # at least one group with two rewards
    rows = learner.credit(batch).rows
    reward = rows.reward.sum(1)
    mean = reward.view(-1, 4).mean(1).repeat_interleave(4)
    wanted = torch.where(rows.mask, (reward - mean + 0.1)[:, None], 0.0)
    assert torch.allclose(rows.advantage, wanted, atol=1e-6)
    with pytest.raises(RheostatError, match="one gradient step per batch"):
        module.main(model, tmp_path / "other", ChainSum(), epochs=2, **SMALL)


def test_method_from_nothing(example: Any, tmp_path: Path) -> None:
    module = example("topr_attempts")
    model = saved(tmp_path / "model")
    run = module.main(model, tmp_path / "run", ChainSum(), steps=2, **SMALL)
    assert 1 < run.metrics[-1]["attempts"] <= 4 and run.metrics[-1]["gradient_steps"] == 4
    learner: Any = run.method
    batch = learner.collect()
    numbers, reward = batch.rows.group[:, 0], batch.rows.reward.sum(1)
    assert numbers[:8].tolist() == sorted(numbers.unique().tolist()), "everybody has a first attempt"
    for number in numbers.unique():
        mine = reward[numbers == number]
        assert len(mine) == 4 or mine[-1] >= 1, "the last attempt is right, or the fourth"
        assert (mine[:-1] < 1).all(), "nobody tries again after a right answer"
    texts = {row: batch.rows.action[row, batch.rows.mask[row]].tolist() for row in range(len(batch))}
    again = [(a, b) for a in texts for b in texts if a < b and numbers[a] == numbers[b]]
    assert any(texts[a] != texts[b] for a, b in again), "another attempt is another answer"
    with pytest.raises(RheostatError, match=r"cannot honour dial\.expert_share: a prompt has attempts"):
        module.main(model, tmp_path / "other", ChainSum(), dial={"expert_share": 0.5}, **SMALL)


def test_taper_obeys_the_laws(example: Any) -> None:
    module = example("topr_attempts")
    term = module.Taper(Tokens(Aggregate("sequence-sum")))
    rows = tiny_rows(6, 5)
    rows.reward[:, -1] = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    rows.sampler_logp[~rows.mask] = torch.nan
    logp = (rows.sampler_logp + torch.linspace(-1, 1, 30).view(6, 5)).nan_to_num(7.0).requires_grad_()

    def gradient(order: list[int], sizes: list[int]) -> torch.Tensor:
        batch = Batch(rows[order])
        denominator = term.denominator(batch, SimpleNamespace(longest=5))
        losses = [
            term(SimpleNamespace(logp=logp[order][index]), batch[index], denominator, None)[0] for index in torch.arange(6).split(sizes)
        ]
        return torch.autograd.grad(sum(losses), logp)[0]

    whole = gradient([0, 1, 2, 3, 4, 5], [6])
    assert torch.allclose(whole, gradient([4, 2, 0, 5, 1, 3], [1, 3, 2])), "order of rows and micro-batches change nothing"
    assert (whole[~rows.mask] == 0).all() and whole.isfinite().all(), "masked NaN does no harm"
    right = rows.reward.sum(1) >= 1
    assert torch.allclose(whole[right][rows.mask[right]], torch.tensor(-1 / 6)), "right completions: the likelihood"
    ratio = torch.where(rows.mask, logp.detach() - rows.sampler_logp, 0.0).sum(1).exp().clamp(max=1)
    for row in (~right).nonzero().flatten():
        assert torch.allclose(whole[row][rows.mask[row]], ratio[row] / 6), "wrong ones: tapered"


def tiny_rows(count: int, length: int) -> Trajectories:
    """Rows ``[count, length]`` of tokens with log-probabilities, the first tokens masked out."""
    no = torch.zeros(count, length, dtype=torch.bool)
    return Trajectories(
        action=torch.zeros(count, length, dtype=torch.long),
        mask=torch.arange(length)[None] >= torch.arange(count)[:, None] % 3,
        reward=torch.zeros(count, length),
        terminated=no,
        truncated=no.clone(),
        sampler_logp=-torch.rand((count, length), generator=torch.Generator().manual_seed(0)) - 0.1,
        source=torch.zeros(count, length, dtype=torch.long),
        batch_size=[count, length],
    )


@pytest.mark.parametrize(
    ("name", "rewards"),
    [("reward_trl.py:score", [1.0, 0.0]), ("reward_verl.py:compute_score", [1.0, 0.0]), ("reward_own.py:brief", [-0.04, -0.03])],
)
def test_reward(name: str, rewards: list[float]) -> None:
    rollouts = [
        Rollout("1+2=", "3;#3", [1, 2, 3, 4], "3", {"answer": "3", "data_source": "sums"}),
        Rollout("1+2=", "4;#", [1, 2, 3], "3", {"answer": "3", "data_source": "sums"}),
        Rollout("1+2=", "", [], "3", {"answer": "3", "data_source": "sums"}, truncated=True),
    ]
    verifier: Any = load_rewards([f"{EXAMPLES / name.partition(':')[0]}:{name.partition(':')[2]}"], isolate=False)
    scores = verifier.score(rollouts)
    assert scores.reward[:2].tolist() == pytest.approx(rewards)
    assert bool(scores.abstained[2]) == name.startswith("reward_own")


def test_problems() -> None:
    task = load_prompts(EXAMPLES / "problems.jsonl", "programs", validation_share=0.0)
    right = {
        "add": "def add(a, b):\n    return a + b\n",
        "runs": "import itertools\ndef runs(text):\n    return [(k, len(list(g))) for k, g in itertools.groupby(text)]\n",
    }
    verifier: Any = task.verifier()
    prompts = task.prompts().take(2)
    programs = [right[prompt.columns["entry_point"]] for prompt in prompts]
    scores = verifier.score([prompt.rollout(f"```python\n{program}```") for prompt, program in zip(prompts, programs, strict=True)])
    assert scores.reward.tolist() == [1.0, 1.0]
    assert verifier.score([prompt.rollout("def add(a, b):\n    return 3\n") for prompt in prompts]).reward.tolist() == [0.0, 0.0]
    verifier.close()


def test_prompts_of_the_quickstart() -> None:
    task = load_prompts(EXAMPLES / "sums.jsonl", "exact-hash", validation_share=0.2)
    assert len(task) + len(task.validation()) == 80
    assert all(str(sum(map(int, str(prompt.content)[:-1].split("+"))) % 10) == prompt.answer for prompt in task.prompts().take(80))

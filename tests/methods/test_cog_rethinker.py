"""Cog-Rethinker: who is asked again, under which prompt every row is learned from, and what the buffers hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rheostat
from rheostat.buffers.traces import Trace
from rheostat.collect.language.problem_stages import NOT_RUN, STAGES, refers_to_attempts, run_stages
from rheostat.credit.verifiers import Grade, Scores
from rheostat.errors import RheostatError
from rheostat.learner.spread_updates import SpreadUpdate
from rheostat.masking import masked_mean
from rheostat.parts import Batch
from rheostat.tasks.language import ChainSum, FilePrompts, GuessNumber
from rheostat.tasks.language.task_interface import Prompt, Worked
from rheostat.tasks.language.word_sums import WordSums
from rheostat.training.run import Interrupted, Run
from rheostat.trajectories import Source
from tests.crash import differences
from tests.learners import credited
from tests.methods.test_language_methods import built, save, small
from tests.training.test_run import StopAfter

GROUPS = {"prompts_per_batch": 8, "group_size": 3}


class ByPrompt:
    """Right is a text whose characters add up to a multiple of a number."""

    name = "by prompt"

    def __init__(self, every: int = 5, broken: bool = False) -> None:
        self.every, self.broken = every, broken

    def score(self, rollouts: Any, progress: Any = None) -> Scores:
        return Scores.from_grades(
            [Grade.failure("no grade") if self.broken and row % 5 == 0 else self._grade(each) for row, each in enumerate(rollouts)]
        )

    def _grade(self, rollout: Any) -> Grade:
        assert not str(rollout.prompt).count("?")  # graders see the plain prompt
        return Grade(float((1 + sum(map(ord, rollout.completion))) % self.every == 0))


class Hard(ChainSum):
    """One answer in so many is right."""

    every, broken = 5, False

    def verifier(self) -> Any:
        return ByPrompt(self.every, self.broken)


class Easy(Hard):
    """Every answer is right."""

    every = 1


class Hopeless(Hard):
    """No answer is right."""

    every = 10**9


class Ungraded(Hard):
    """Some answers cannot be graded."""

    broken = True


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def hard(model: str, task: Any = None, **options: Any) -> Any:
    return built("cog-rethinker", model, task or Hard(), **(GROUPS | options))


def stages_of(one: Any) -> Any:
    return one.composition.collect


# --- who is asked again -------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=6), st.integers(0, 2))
def test_a_problem_goes_on_exactly_where_its_whole_group_is_wrong(counts: list[tuple[int, int, int]], last: int) -> None:
    recorded, size = torch.tensor(counts).T, 3
    tally = run_stages(
        recorded[0],
        torch.full((len(counts),), size),
        size,
        lambda stage, failing: (failing, recorded[stage][failing], torch.full((len(failing),), size)),
        last,
    )
    for problem, of_stage in enumerate(counts):
        expected, running = [], True
        for stage in STAGES:
            expected.append(of_stage[stage] if running and stage <= last else NOT_RUN)
            running = running and of_stage[stage] == 0
        assert tally.right[:, problem].tolist() == expected
        stages = [stage for other, stage in tally.learned(STAGES) if other == problem]
        assert stages == [stage for stage, count in enumerate(expected) if 0 < count < size] and len(stages) <= 1
        assert (problem in tally.dropped()) == (max(expected) <= 0)


def test_a_group_without_a_grade_is_not_known_to_fail(model: str) -> None:
    zero, some = torch.tensor([0, 0]), torch.tensor([3, 2])
    tally = run_stages(zero, some, 3, lambda stage, failing: (failing, torch.tensor([1]), torch.tensor([2])), 1)
    assert tally.right[1].tolist() == [1, NOT_RUN] and tally.learned([1]) == [(0, 1)]
    assert hard(model, Ungraded(), max_invalid_share=0.5).turn()["gradient_steps"] == 1


# --- under which prompt -------------------------------------------------------------------------------------------------------------------


def test_every_row_stands_after_its_own_prompt_and_is_imitated_after_the_plain_one(model: str) -> None:
    one = hard(model)
    for _ in range(3):
        batch = credited(one)
        rows, decode = batch.rows, one.policy.tokenizer.decode
        asked = [decode(rows.action[row][rows.attention[row] & ~rows.mask[row]]) for row in range(len(rows))]
        said = [decode(rows.action[row][rows.mask[row]], skip_special_tokens=True) for row in range(len(rows))]
        sources, stages = rows.source[:, 0].tolist(), batch.columns["stage"].tolist()
        assert len(stages) == len(rows)
        for row, (text, source, stage) in enumerate(zip(asked, sources, stages, strict=True)):
            if source == Source.EXPERT:
                assert "?" not in text and stage > 0 and float(rows.advantage[row].abs().sum()) == 0
            else:
                last = text.rpartition(":")[2]
                assert last.startswith({0: "", 1: "?", 2: ("#", "?")}[stage]) and ("?" in last) == (stage > 0)
                assert source == (Source.HINTED if stage else Source.FRESH)
        graded = batch.facts["graded"]
        assert [str(prompt.content) for prompt in graded.prompts] == asked[: len(graded.prompts)]
        own = rows.source != int(Source.EXPERT)
        again = one.context.score(rows).logp.detach()  # nothing has moved: every ratio is 1
        assert float(((again - rows.sampler_logp).abs() * (rows.mask & own)).nan_to_num().max()) < 1e-5
        for stage in (1, 2):  # what is imitated was said in a later stage, and was right
            imitated = [text for text, source, each in zip(said, sources, stages, strict=True) if source == Source.EXPERT and each == stage]
            assert all((1 + sum(map(ord, text))) % 5 == 0 for text in imitated)
    assert {1, 2} <= set(stages) or one.turn()


def test_groups_of_different_prompts_are_never_mixed(model: str) -> None:
    batch = credited(hard(model, prompts_per_batch=16))
    own = batch.rows.source[:, 0] != int(Source.EXPERT)
    group, stage = batch.rows.group[:, 0], batch.columns["stage"]
    assert own.any() and (~own).any() and bool((group[~own] < 0).all()) and len(group[~own].unique()) == int((~own).sum())
    for number in group[own].unique():
        members = group == number
        assert len(stage[members].unique()) == 1 and int(members.sum()) == 3
        worth = batch.rows.advantage[members].masked_fill(~batch.rows.mask[members], 0.0).abs().sum(1)
        assert bool((worth > 0).all())


def test_tokens_of_all_stages_are_counted(model: str) -> None:
    one = hard(model)
    metrics, total = {}, 0.0
    for _ in range(2):
        metrics = one.turn()
        total += sum(metrics[f"stages/{name}_tokens"] for name in ("direct", "decomposition", "reflection"))
    assert metrics["generated_tokens"] == total
    plain = hard(model, last_stage=0)
    assert plain.turn()["stages/direct_tokens"] == plain.context.collector.generated_tokens


def test_the_spread_gives_every_minibatch_its_part() -> None:
    for own, theirs, minibatches in ((7, 3, 3), (1, 1, 2), (0, 5, 4), (6, 0, 4), (2, 3, 5)):
        source = torch.tensor([int(Source.FRESH)] * own + [int(Source.EXPERT)] * theirs)[:, None]
        batch = Batch(type("Rows", (), {"source": source})())
        context = type("Context", (), {"streams": {"minibatches": torch.Generator().manual_seed(1)}})()
        parts = SpreadUpdate(minibatches=minibatches).minibatch_rows(context, batch, torch.arange(own + theirs))
        assert sorted(torch.cat(list(parts)).tolist()) == list(range(own + theirs))
        counts = [[int((part < own).sum()), int((part >= own).sum())] for part in parts]
        assert all(max(column) - min(column) <= 1 for column in zip(*counts, strict=True)) and min(map(sum, counts)) > 0


# --- traces -------------------------------------------------------------------------------------------------------------------------------


def test_buffers_begin_with_solutions_and_grow_with_what_was_right(model: str) -> None:
    one = hard(model, demonstrations=3)
    stages = stages_of(one)
    begun = dict(stages.buffers[1].traces)
    assert len(begun) == 3 and all("=" in trace.answer and "#" in trace.answer for trace in begun.values())
    metrics = one.turn()
    added = [trace for key, trace in stages.buffers[2].traces.items() if key not in begun]
    assert metrics["stages/reflection_traces"] == len(stages.buffers[2]) == 3 + len(added)
    assert all(trace.attempts and trace.answer not in trace.attempts for trace in added)
    assert metrics["stages/decomposition_shots"] == 2


def test_what_does_not_fit_is_left_out_trace_by_trace(model: str) -> None:
    one = hard(model)
    stages, context = stages_of(one), one.context
    prompt = next(iter(context.setup.task.prompts("train", 1).take(1)))
    problem = type("Problem", (), {"prompt": prompt})()
    whole = stages.fitting(context, 1, problem, ())
    stages.buffers[1].add([Trace(str(n), str(prompt.content), "#1" * 400) for n in range(2)])
    assert whole.shots == 2 and stages.fitting(context, 1, problem, ()).shots == 0
    assert stages.fitting(context, 2, problem, ["#1"] * 2000) is None


def test_stopping_and_resuming_changes_nothing(model: str, tmp_path: Path) -> None:
    options = GROUPS | {"steps": 3, "checkpoint_every": 1, "minibatches": 2}
    Run.create(tmp_path / "whole", small("cog-rethinker", model, **options), task=Hard()).train()
    with pytest.raises(Interrupted):
        Run.create(tmp_path / "halted", small("cog-rethinker", model, **options), task=Hard()).train(progress=StopAfter(2))
    Run.load(tmp_path / "halted", task=Hard()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


# --- options and bad input ----------------------------------------------------------------------------------------------------------------


def test_nothing_fails_nothing_is_asked_again(model: str) -> None:
    metrics = hard(model, Easy()).turn()
    assert metrics["stages/decomposition_share"] == metrics["stages/reflection_share"] == metrics["stages/usable_share"] == 0
    assert metrics["gradient_steps"] == 0 and metrics["reward"] == 1 and metrics["stages/solved_share"] == 1


def test_nothing_is_solved_nothing_is_learned_and_the_run_goes_on(model: str) -> None:
    one = hard(model, Hopeless())
    metrics = [one.turn() for _ in range(2)][-1]
    assert metrics["gradient_steps"] == 0 and metrics["stages/solved_share"] == 0 and metrics["stages/reflection_share"] == 1
    assert metrics["stages/decomposition_traces"] == 4


def test_rows_to_imitate_alone_are_learned_from(model: str) -> None:
    metrics = hard(model, rl_stages=(0,), prompts_per_batch=16, seed=3).turn()
    assert metrics["stages/imitated_rows"] > 0 and metrics["gradient_steps"] == 1


def test_answers_that_speak_of_attempts_can_be_left_out() -> None:
    assert refers_to_attempts("The previous attempt forgot 3.") and refers_to_attempts("Earlier I said 4.")
    assert not refers_to_attempts("3+4=7;#7") and not refers_to_attempts("He attempted nothing")


def test_prompts_in_words_keep_the_chat_and_the_key() -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2+2?"}]
    prompt, task = Prompt(chat, "4"), WordSums()
    asked = task.reflection(prompt, ["5", "6"], [Worked("1+1?", "2", ("3",))])
    assert asked.key == prompt.key and asked.answer == "4" and asked.content[0] == chat[0]
    text = str(asked.content[1]["content"])
    order = [
        text.index(part) for part in ("1+1?", "attempt:\n3", "Solution:\n2", "All attempts", "What is 2+2?", "attempt:\n5", "attempt:\n6")
    ]
    assert order == sorted(order)
    assert str(task.decomposition(Prompt("2+2?")).content).endswith("Problem:\n2+2?\n\nSolution:\n")


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("rl_stages names stage 2, but last_stage is 1: raise it, or leave the stage out", {"last_stage": 1, "rl_stages": (0, 2)}),
        ("rl_stages is .*: name at least one stage, each once", {"rl_stages": ()}),
        ("Nothing would be learned from the later stages: raise sft_weight", {"sft_weight": 0.0, "rl_stages": (0,)}),
        ("leave temperature at 1, and top_k and top_p off", {"temperature": 0.7}),
        ("leave temperature at 1, and top_k and top_p off", {"top_k": 3}),
        ("cog-rethinker cannot honour dial.expert_share: the rows that it imitates", {"dial.expert_share": 0.5}),
        ("stages.last is 3; it must be at least 0 and at most 2", {"last_stage": 3}),
        ("stages.b is 1.5; it must be at least 0 and at most 1", {"bm25_b": 1.5}),
    ],
)
def test_settings_that_make_no_sense(sentence: str, options: dict[str, Any], model: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        hard(model, **options)
    assert "\n" not in str(error.value)


def test_buffers_that_would_begin_empty(model: str) -> None:
    prompts = FilePrompts([{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(9)], max_new_tokens=8, max_prompt_tokens=20)
    with pytest.raises(RheostatError, match=r"buffers of worked traces would begin empty, because none of .* set demonstrations 0"):
        hard(model, prompts)
    solved = FilePrompts([{"prompt": "1+1=", "answer": "2", "completion": "#2"}, *({"prompt": f"{n}+1=", "answer": "3"} for n in range(9))])
    with pytest.raises(RheostatError, match=r"The tokenizer cannot encode the prompt 'Problem"):  # characters know no English
        hard(model, solved, max_new_tokens=8)


def test_a_trace_longer_than_the_context(model: str) -> None:
    class Verbose(Hard):
        def expert(self, *arguments: Any, **options: Any) -> str:
            return "1+1=2;" * 400 + "#2"

    with pytest.raises(RheostatError, match=r"The worked solution of the problem \w+ cannot be shown: .* the model's context leaves"):
        hard(model, Verbose())
    assert hard(model, Verbose(), shots=0).turn()["stages/too_long"] == 0


def test_a_stage_that_could_never_ask(model: str) -> None:
    class Wordy(Hard):
        def decomposition(self, prompt: Prompt, examples: Any = ()) -> Prompt:
            return super().decomposition(prompt, [Worked("1+1=", "#2" * 999)])

    with pytest.raises(RheostatError, match=r"The decomposition stage could never ask: its shortest prompt .* or last_stage to 0"):
        hard(model, Wordy(), shots=0)


def test_conversations_have_no_stages(model: str) -> None:
    with pytest.raises(RheostatError, match="guess-number has several turns, but its stages ask for single answers"):
        hard(model, GuessNumber())


def test_from_python(model: str, tmp_path: Path) -> None:
    run = rheostat.train(
        "cog-rethinker", "chain-sum", model=model, steps=1, directory=tmp_path / "run", evaluation_episodes=0, progress=False,
        preset="tiny", prompts_per_batch=4, group_size=2, max_new_tokens=8, demonstrations=2, evaluate_every=0, threads=1,
    )  # fmt: skip
    assert run.metrics[-1]["stages/reflection_tokens"] > 0


def test_only_the_losses_named_are_there(model: str) -> None:
    names = [[each.name for each in hard(model, **options).composition.update_of().terms] for options in ({}, {"sft_weight": 0.0})]
    assert names == [["policy", "sft"], ["policy"]]
    assert torch.equal(masked_mean(torch.ones(2), torch.zeros(2, dtype=torch.bool)), torch.zeros(()))

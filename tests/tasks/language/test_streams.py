"""Laws of every language task: streams are functions of their seed, can be rewound, and never cross the split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.tasks.language import ChainSum, FilePrompts, LanguageTask, Prompt, PromptStream, language_task
from rheostat.tasks.language.task_interface import content_key, is_validation

TASKS: dict[str, LanguageTask] = {
    "chain-sum": ChainSum(),
    "short chains": ChainSum(min_terms=2, max_terms=2),
    "file": FilePrompts([{"prompt": f"question {i % 90}", "answer": i} for i in range(100)], validation_share=0.2),
}


def task_of(name: str) -> LanguageTask:
    if name == "reasoning":
        pytest.importorskip("reasoning_gym")
        return language_task("reasoning-gym:chain_sum", max_terms=2, max_digits=1)
    return TASKS[name]


every_task = pytest.mark.parametrize("name", [*TASKS, "reasoning"])


@every_task
def test_train_and_validation_never_overlap(name):
    task = task_of(name)
    train = {prompt.key for seed in (0, 1) for prompt in task.prompts("train", seed).take(600)}
    held_out = {prompt.key for prompt in task.validation(200)} | {prompt.key for prompt in task.prompts("validation", 3).take(50)}
    assert train and held_out and not train & held_out


@every_task
def test_the_validation_set_is_fixed_and_without_repetition(name):
    task = task_of(name)
    first = task.validation(40)
    task.prompts("train", 5).take(77)
    assert task.validation(40) == first
    assert len({prompt.key for prompt in first}) == len(first) > 0


@every_task
def test_equal_seeds_give_equal_prompts_and_different_seeds_others(name):
    task = task_of(name)
    take = lambda seed: [prompt.key for prompt in task.prompts("train", seed).take(30)]  # noqa: E731
    assert take(4) == take(4) != take(5)


@every_task
def test_a_cursor_put_back_goes_on_as_if_nothing_had_happened(name):
    task = task_of(name)
    whole = [prompt.key for prompt in task.prompts("train", 1).take(400)]
    stream = task.prompts("train", 1)
    first = [prompt.key for prompt in stream.take(333)]
    state = stream.state_dict()
    assert state["drawn"] == 333 and all(type(value) in (int, str) for value in state.values())
    resumed = task.prompts("train", 1)
    resumed.load_state_dict(state)
    rest = [prompt.key for prompt in resumed.take(67)]
    assert first + rest == whole
    stream.take(5)
    stream.load_state_dict(state)
    assert [prompt.key for prompt in stream.take(67)] == rest


@given(st.lists(st.integers(0, 5), max_size=6), st.lists(st.integers(0, 7), max_size=10))
def test_blocks_of_any_size_are_handed_out_in_order_whatever_the_batches(sizes, batches):
    def block(number: int) -> list[Prompt]:
        size = sizes[number] if number < len(sizes) else 2
        return [Prompt(f"{number}.{index}") for index in range(size)]

    expected = [prompt.content for number in range(60) for prompt in block(number)]
    stream = PromptStream(block)
    got = [prompt.content for batch in batches for prompt in stream.take(batch)]
    assert got == expected[: sum(batches)]


def test_a_split_without_prompts_is_told_not_waited_for():
    with pytest.raises(RheostatError, match="no prompts for the split"):
        ChainSum(validation_share=0.0).prompts("validation").take(1)
    with pytest.raises(RheostatError, match="no validation prompts"):
        ChainSum(validation_share=0.0).validation()


def test_a_small_world_gives_the_validation_prompts_it_has():
    world = ChainSum(min_terms=2, max_terms=2)
    held_out = [key for a in range(10) for b in range(10) if is_validation(key := content_key(f"{a}+{b}="), world.validation_share)]
    assert {prompt.key for prompt in world.validation(500)} == set(held_out)


def test_the_share_of_validation_is_about_as_asked():
    keys = [content_key(str(number)) for number in range(20_000)]
    assert sum(is_validation(key, 0.1) for key in keys) / len(keys) == pytest.approx(0.1, abs=0.01)
    assert not any(is_validation(key, 0.0) for key in keys)


def test_keys_name_the_content():
    chat = [{"role": "user", "content": "hé"}]
    assert content_key("3+7+5=") == "72c95257417e59cd"  # the same on every machine
    assert content_key(chat) == content_key([{"content": "hé", "role": "user"}]) != content_key("hé")
    assert Prompt("a").key == Prompt("a", "answer", {"x": 1}).key
    content_key("\ud800")


def test_unknown_tasks_and_knobs():
    with pytest.raises(RheostatError, match="did you mean chain-sum"):
        language_task("chainsum")
    with pytest.raises(RheostatError, match="Unknown knob of chain-sum 'terms'"):
        language_task("chain-sum", terms=3)


def test_tasks_without_an_expert_say_so():
    with pytest.raises(RheostatError, match="no expert"):
        TASKS["file"].expert(Prompt("a"), None)  # type: ignore[arg-type]

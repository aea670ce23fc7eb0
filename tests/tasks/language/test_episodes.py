"""Episodes of text: limits, state, what is refused; the game of guessing a number; observations as tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Scores
from rheostat.errors import RheostatError
from rheostat.tasks.language import ChainSum, GuessNumber, OneTurn, Partners, Prompt, Reply, Said, Step, TextEpisodes, language_task
from rheostat.tasks.language.observations import Observations
from rheostat.tasks.language.task_list import knobs_of
from rheostat.tasks.language.text_episodes import grade, total_scores
from tests import tiny_language as tiny


def played(task: GuessNumber, prompt: Prompt, guesses: Sequence[str]) -> list[tuple[str, float, bool, bool]]:
    """(observation, reward, terminated, truncated) of every guess."""
    episodes = task.episodes()
    episodes.reset([prompt], [0])
    found = []
    for guess in guesses:
        step = episodes.step([0], [Said(guess)])
        found.append((step.observations[0], step.scores.reward[0].item(), step.terminated[0], step.truncated[0]))
    return found


# --- the game -----------------------------------------------------------------------------------------------------------------------------


def test_higher_lower_found() -> None:
    game = GuessNumber()
    prompt = game.game(0, 9, 6)
    assert prompt.content == "0:9?" and prompt.answer == "6"
    found = played(game, prompt, ["#5", "8", "6"])
    assert found == [("+", 0, False, False), ("-", 0, False, False), ("+", 1, True, False)] or found[-1][1:] == (1, True, False)
    assert [each[0] for each in found[:2]] == ["+", "-"]
    assert played(game, prompt, ["x", "77", "", "5+1"]) == [("?", 0, False, False)] * 3 + [("?", 0, False, True)]
    assert played(game, prompt, ["1", "2", "3", "6"])[-1][1:] == (1, True, False), "found in the last turn: an end, no truncation"


def test_whoever_halves_the_range_always_wins() -> None:
    game = GuessNumber()
    for low, high in ((0, 9), (2, 5), (0, 3)):
        for number in range(low, high + 1):
            episodes = game.episodes()
            episodes.reset([game.game(low, high, number)], [1])
            first, last = low, high
            while True:
                middle = (first + last) // 2
                step = episodes.step([0], [Said(f"#{middle}")])
                if step.over[0]:
                    assert step.terminated[0] and step.scores.reward[0] == 1
                    break
                first, last = (middle + 1, last) if step.observations[0] == "+" else (first, middle - 1)


def test_games_come_from_the_seed_and_keep_their_side() -> None:
    game = GuessNumber()
    take = lambda seed: [prompt.key for prompt in game.prompts("train", seed).take(100)]  # noqa: E731
    assert take(0) == take(0) != take(1)
    held = {prompt.key for prompt in game.validation(30)}
    assert held and not held & set(take(0)) and not held & set(take(5))
    assert all(prompt.columns["low"] <= int(prompt.answer) <= prompt.columns["high"] for prompt in game.prompts().take(200))
    text = game.tokenizer()
    assert all(len(text(str(prompt.content))["input_ids"]) <= game.limits.max_prompt_tokens for prompt in game.prompts().take(50))


def test_it_is_a_task_with_knobs() -> None:
    assert language_task("guess-number", largest=20, turns=6).limits.max_new_tokens == 4
    assert knobs_of("guess-number") == ["largest", "smallest_range", "turns", "validation_share"]
    with pytest.raises(RheostatError, match="Unknown knob of guess-number"):
        language_task("guess-number", size=3)
    for knobs, sentence in (
        ({"largest": 1000}, "lies in 1 to 999"),
        ({"smallest_range": 1}, "smallest_range lies in 2 to 10"),
        ({"turns": 0}, "takes 1 to 64 turns"),
        ({"validation_share": 1.0}, "validation_share lies in"),
    ):
        with pytest.raises(RheostatError, match=sentence):
            language_task("guess-number", **knobs)
    with pytest.raises(RheostatError, match="graded turn by turn"):
        GuessNumber().verifier().score([])


# --- the interface ------------------------------------------------------------------------------------------------------------------------


class Scripted(TextEpisodes):
    """Answers with what it was given, whatever it is."""

    name = "scripted"
    max_turns = 3

    def __init__(self, *steps: Any) -> None:
        super().__init__()
        self.steps = list(steps)

    def begin(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> None:
        pass

    def reply(self, rows: Sequence[int], said: Sequence[Said], progress: Progress | None) -> Step:
        found = self.steps.pop(0)
        return found(rows) if callable(found) else found


def plain(count: int, **changes: Any) -> Step:
    values: dict[str, Any] = {"observations": ["?"] * count, "scores": Scores.from_grades([Grade(1.0)] * count)}
    return Step(**(values | {"terminated": [False] * count, "truncated": [False] * count} | changes))


def begun(*steps: Any, count: int = 2) -> Scripted:
    found = Scripted(*steps)
    found.reset([Prompt(f"{number}") for number in range(count)], list(range(count)))
    return found


def test_the_limit_on_turns_is_a_truncation() -> None:
    one = begun(plain(2), plain(2), plain(2, terminated=[True, False]))
    assert [one.step([0, 1], [Said("")] * 2).over for _ in range(2)] == [[False, False]] * 2
    last = one.step([0, 1], [Said("")] * 2)
    assert (last.terminated, last.truncated) == ([True, False], [False, True])
    own = begun(plain(2, truncated=[True, False]))
    assert own.step([0, 1], [Said("")] * 2).truncated == [True, False], "a limit of the environment's own"
    with pytest.raises(RheostatError, match="conversations that go on"):
        own.step([0], [Said("")])


def test_misbehaviour_of_a_batch_is_one_sentence() -> None:
    def explode(rows: Any) -> Any:
        raise KeyError("board\nlost")

    for step, sentence in (
        (explode, "The environment 'scripted' failed in turn 1: KeyError: 'board.nlost'"),
        (plain(3), "was asked about 2 conversations and answered"),
        (plain(2, observations=["?"]), "was asked about 2 conversations and answered"),
    ):
        with pytest.raises(RheostatError, match=sentence) as error:
            begun(step).step([0, 1], [Said(""), Said("")])
        assert "\n" not in str(error.value)
    odd = begun(plain(2, observations=["?", None])).step([0, 1], [Said("")] * 2)
    assert odd.over == [False, True] and odd.scores.messages == {1: "the environment replied with a NoneType, which is no text"}
    with pytest.raises(RheostatError, match="need as many seeds"):
        begun().reset([Prompt("0")], [])
    with pytest.raises(RheostatError, match="one in each"):
        begun(plain(2)).step([0, 1], [Said("")])
    with pytest.raises(RheostatError, match="at least one turn"):
        Partners("p", lambda prompt, seed: Counting(seed), 0)


class Counting:
    """Replies that depend on the seed and on everything said before."""

    def __init__(self, seed: int) -> None:
        self.total = seed

    def reply(self, said: Said) -> Reply:
        self.total = self.total * 31 + len(said.text) + sum(said.ids)
        return Reply(str(self.total % 97), Grade(float(self.total % 7)), terminated=self.total % 11 == 0)


def test_conversations_in_flight_are_saved() -> None:
    make = lambda: Partners("counting", lambda prompt, seed: Counting(seed), 9)  # noqa: E731
    whole, saved = make(), make()
    prompts = [Prompt("a", 1, {"x": 2}), Prompt([{"role": "user", "content": "b"}]), Prompt("c")]
    for each in (whole, saved):
        each.reset(prompts, [3, -4, 5])
        each.step([0, 1, 2], [Said("12", (4, 5)), Said("", (), True), Said("x", raw="<x>")], Progress(1, 2))
    assert saved.state_dict()["log"]
    again = make()
    again.load_state_dict(json.loads(json.dumps(saved.state_dict())))
    assert (again.prompts, again.turns, again.over) == (whole.prompts, whole.turns, whole.over)
    live = [row for row in range(3) if not whole.over[row]]
    first, second = (each.step(live, [Said("7")] * len(live)) for each in (whole, again))
    assert first.observations == second.observations and first.scores.reward.tolist() == second.scores.reward.tolist()
    whole.over = [True] * 3
    assert whole.state_dict() == {"prompts": [], "seeds": [], "log": []}
    mine = begun(plain(1), count=1)
    mine.prompts = [Prompt("a", grader=ChainSum().verifier())]
    with pytest.raises(RheostatError, match="can only be saved when all are over"):
        mine.state_dict()


def test_one_turn_is_the_verifier() -> None:
    task = ChainSum()
    prompts = task.prompts().take(3)
    one = OneTurn(task)
    one.reset(prompts, [0] * 3)
    said = [Said(f"#{prompts[0].answer}"), Said("#x"), Said(f"#{prompts[2].answer}", cut=True)]
    step = one.step([0, 1, 2], said)
    assert step.scores.reward.tolist() == [1, 0, 1]
    assert (step.terminated, step.truncated) == ([True, True, False], [False, False, True])


def test_totals_over_turns() -> None:
    turns: list[tuple[list[int], list[Grade]]] = [
        ([0, 1, 2, 3], [Grade(1.0, {"a": 1.0}, {"n": "x"}), Grade(), Grade(2.0), Grade()]),
        ([0, 1, 2], [Grade(0.5, {"a": 1.0, "b": 3.0}, {"n": "y"}), Grade(4.0), Grade.failure("lost")]),
        ([0, 2], [Grade(), Grade(9.0)]),
    ]
    found = total_scores([(rows, Scores.from_grades(grades, {"m": 1.0})) for rows, grades in turns], 4)
    assert found.reward[:2].tolist() == [1.5, 4.0] and found.valid.tolist() == [True, True, False, False]
    assert found.abstained.tolist() == [False, False, False, True] and found.messages == {2: "lost"}
    assert found.parts["a"][0] == 2 and found.parts["b"][0] == 3 and found.notes["n"][0] == "y" and found.metrics == {"m": 1.0}


def test_graders_of_prompts_in_order() -> None:
    class Constant:
        def __init__(self, value: float) -> None:
            self.name, self.value = str(value), value

        def score(self, rollouts: Any, progress: Any = None) -> Scores:
            return Scores.from_grades([Grade(self.value + len(rollout.completion), notes={"by": self.name}) for rollout in rollouts])

    mine, other = Constant(10), Constant(20)
    prompts = [Prompt("a"), Prompt("b", grader=mine), Prompt("c", grader=other), Prompt("d", grader=mine), Prompt("e")]
    found = grade(prompts, [prompt.rollout("x" * place) for place, prompt in enumerate(prompts)], Constant(0))
    assert found.reward.tolist() == [0, 11, 22, 13, 4] and found.notes["by"] == ["0", "10", "20", "10", "0"]


# --- observations -------------------------------------------------------------------------------------------------------------------------

TEMPLATE = (
    "{% for m in messages %}{{ ('#' if m['role'] == 'user' else ':') + m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}:{% endif %}"
)


def test_observations_after_text_and_after_chat() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    known = tokenizer.get_vocab()
    ids = lambda text: [known[each] for each in text]  # noqa: E731
    one = Observations(tokenizer)
    assert one.encode("1+2", Prompt("0"), tiny.EOS) == ids("1+2") and one.encode("", Prompt("0"), None) == []
    chat = Prompt([{"role": "user", "content": "0"}])
    message = [*ids("#1+2"), tiny.EOS, *ids(":")]
    assert one.encode("1+2", chat, tiny.EOS) == message, "the policy has closed its turn"
    assert one.encode("1+2", chat, known["1"]) == [tiny.EOS, *message] == one.encode("1+2", chat, None)
    with pytest.raises(RheostatError, match="what the environment said cannot be encoded"):
        one.encode("ä", Prompt("0"), None)
    whole = tokenizer.apply_chat_template(
        [*chat.content, {"role": "assistant", "content": "7"}, {"role": "user", "content": "1+2"}],
        tokenize=True, add_generation_prompt=True, return_dict=False,
    )  # fmt: skip
    opened = tokenizer.apply_chat_template(chat.content, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert [*opened, *ids("7"), tiny.EOS, *one.encode("1+2", chat, tiny.EOS)] == whole

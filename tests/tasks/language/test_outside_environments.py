"""Environments that people have: servers of OpenEnv, environments of TRL, tasks of verifiers; what misbehaves fails alone."""

from __future__ import annotations

import contextlib
import json
import string
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.tasks.language import (
    OpenEnvText,
    Said,
    ToolEnvironment,
    VerifiersTasks,
    character_tokenizer,
    is_language_task,
    knobs_of,
    language_task,
)
from rheostat.training.run import Run
from tests.methods.test_language_methods import save

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


# --- OpenEnv over HTTP --------------------------------------------------------------------------------------------------------------------


class Echo(BaseHTTPRequestHandler):
    """An environment that repeats what it hears, three times an episode; episodes are told apart by their id."""

    episodes: ClassVar[dict[str, int]] = {}
    mood = ""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.mood == "slow":
            time.sleep(0.5)
        if self.mood == "fails":
            self.send_error(500)
            return
        body = json.dumps(self.found(asked)).encode() if self.mood != "garbage" else b"<html>"
        with contextlib.suppress(BrokenPipeError):  # who waits no longer has gone
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def found(self, asked: dict[str, Any]) -> Any:
        if self.path == "/reset":
            self.episodes[asked["episode_id"]] = 0
            return {"observation": {"text": f"{asked['seed'] % 7}:", "metadata": {}}, "reward": None, "done": False}
        self.episodes[asked["episode_id"]] += 1
        turn, said = self.episodes[asked["episode_id"]], asked["action"]["message"]
        shown: dict[str, Any] = {"text": f"{turn}{said}"}
        if self.mood == "no text":
            shown = {"text": 3}
        if self.mood == "two texts":
            shown |= {"hint": "h"}
        if self.mood == "no observation":
            return {"reward": 1.0}
        return {"observation": shown, "reward": "much" if self.mood == "no number" else turn / 4, "done": turn == 3}

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Echo]]]:
    handler = type("Echo", (Echo,), {"episodes": {}})
    one = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{one.server_port}", handler
    one.shutdown()
    one.server_close()


def test_an_episode_over_http(server: tuple[str, type[Echo]]) -> None:
    """Two episodes side by side, each with its own state; a part of the reward for every turn."""
    task = OpenEnvText(server[0], turns=5)
    prompts = task.prompts("train", 0).take(2)
    assert [prompt.content for prompt in prompts] == [f"{prompt.columns['seed'] % 7}:" for prompt in prompts]
    episodes = task.episodes()
    episodes.reset(prompts, [0, 0])
    first = episodes.step([0], [Said("a")])
    both = episodes.step([0, 1], [Said("b"), Said("c")])
    assert first.observations == ["1a"] and both.observations == ["2b", "1c"] and both.scores.reward.tolist() == [0.5, 0.25]
    last = episodes.step([0], [Said("d")])
    assert last.terminated == [True] and last.truncated == [False] and last.scores.reward.tolist() == [0.75]


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("slow", "the server did not answer within 0.1 s"),
        ("fails", "the server answered step with the status 500"),
        ("garbage", "the server answered with what is no JSON"),
        ("no observation", "the server answered without an observation"),
        ("no text", "the observation has text in no field: say with shows which field"),
        ("two texts", "the observation has text in text, hint: say with shows which field"),
        ("no number", "the server answered with the reward 'much', which is no number"),
    ],
)
def test_a_server_that_misbehaves_fails_its_conversation_alone(mood: str, said: str, server: tuple[str, type[Echo]]) -> None:
    url, handler = server
    task = OpenEnvText(url, patience=0.1)
    prompts = task.prompts("train", 0).take(1)
    episodes = task.episodes()
    episodes.reset(prompts, [0])
    handler.mood = mood
    step = episodes.step([0], [Said("a")])
    assert not bool(step.scores.valid[0]) and said in step.scores.messages[0] and "\n" not in step.scores.messages[0]


def test_a_field_is_chosen_by_name(server: tuple[str, type[Echo]]) -> None:
    url, handler = server
    handler.mood = "two texts"
    task = OpenEnvText(url, shows="text")
    episodes = task.episodes()
    episodes.reset(task.prompts("train", 0).take(1), [0])
    assert episodes.step([0], [Said("a")]).observations == ["1a"]


def test_a_server_that_is_away_is_one_sentence() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as gone:
        url = f"http://127.0.0.1:{gone.server_port}"
    with pytest.raises(RheostatError, match=r"cannot begin with seed .* is away: .*[Rr]efused"):
        OpenEnvText(url).prompts("train", 0).take(1)


@pytest.mark.parametrize(
    ("url", "knobs", "said"),
    [
        ("localhost:8000", {}, "is no address of a server"),
        ("file:///etc/passwd", {}, "is no address of a server"),
        ("http://x", {"says": ""}, "set says"),
        ("http://x", {"patience": 0.0}, "The patience with openenv:http://x is seconds above 0"),
        ("http://x", {"turns": 0}, "A conversation of openenv:http://x takes 1 to 1024 turns"),
    ],
)
def test_addresses_and_knobs_that_are_none(url: str, knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(RheostatError, match=said):
        OpenEnvText(url, **knobs)


def test_a_run_with_a_server(server: tuple[str, type[Echo]], tmp_path: Path) -> None:
    model = save(tmp_path / "model")
    sizes = "--prompts-per-batch 2 --group-size 2 --max-new-tokens 2 --steps 1 --evaluation-episodes 0 --environment turns 3"
    main(["train", "grpo", f"openenv:{server[0]}", "--model", model, "--directory", str(tmp_path / "run"), *sizes.split()])
    metrics = Run.load(tmp_path / "run").metrics[-1]
    assert metrics["turns"] == 3 and metrics["reward"] == pytest.approx(1.5)


def test_an_episode_over_a_connection() -> None:
    """The session protocol of OpenEnv's own client."""
    serving = pytest.importorskip("websockets.sync.server", reason="the extra openenv")

    def serve(connection: Any) -> None:
        turn = 0
        for message in connection:
            asked = json.loads(message)
            if asked["type"] == "close":
                return
            turn = 0 if asked["type"] == "reset" else turn + 1
            shown = f"{asked['data']['seed'] % 7}:" if asked["type"] == "reset" else f"{turn}{asked['data']['say']}"
            told = {"type": "observation", "data": {"observation": {"text": shown}, "reward": float(turn), "done": turn == 2}}
            if asked["data"].get("say") == "x":
                told = {"type": "error", "data": {"message": "no such action", "code": "VALIDATION_ERROR"}}
            connection.send(json.dumps(told))

    with serving.serve(serve, "127.0.0.1", 0) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        task = OpenEnvText(f"ws://127.0.0.1:{one.socket.getsockname()[1]}", says="say")
        prompts = task.prompts("train", 0).take(2)
        episodes = task.episodes()
        episodes.reset(prompts, [0, 0])
        assert episodes.step([0, 1], [Said("a"), Said("x")]).scores.messages == {
            1: "OSError: the server answered step with 'error': no such action"
        }
        last = episodes.step([0], [Said("b")])
        assert last.observations == ["2b"] and last.terminated == [True]
        one.shutdown()


# --- environments of TRL ------------------------------------------------------------------------------------------------------------------


class Riddle:
    """An environment whose rows have a prompt and a secret."""

    def reset(self, prompt: str, secret: int) -> str:
        """Begin."""
        self.secret, self.guesses = secret, 0
        return " Guess."

    def guess(self, number: int) -> str:
        """Guess the number.

        Args:
            number: The guess.
        """
        self.guesses += 1
        if number < 0:
            raise ValueError("below 0")
        return "higher" if number < self.secret else "lower" if number > self.secret else "yes"

    def _hidden(self) -> str:
        return "secret"

    def get_reward(self) -> float:
        """One over the guesses."""
        return 1 / max(1, self.guesses)


def call(name: str, **arguments: Any) -> Said:
    return Said(f"I try. <tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>")


ROWS = [{"prompt": f"Riddle {number}.", "secret": number} for number in range(40)]


def test_tools_answer_and_the_answer_ends_the_episode() -> None:
    task = ToolEnvironment(Riddle, rows=ROWS, chat=False, turns=4)
    prompt = task.prompts("train", 0).take(1)[0]
    secret = prompt.columns["seed"]
    assert prompt.content.endswith(f"\n\nRiddle {secret}. Guess.") and "guess(number: int): Guess the number." in prompt.content
    episodes = task.episodes()
    episodes.reset([prompt] * 3, [0] * 3)
    step = episodes.step([0, 1, 2], [call("guess", number=secret), call("guess", number=secret + 1), Said("I give up.")])
    assert (
        step.observations[:2] == ["yes", "lower"] and step.terminated == [False, False, True] and step.scores.reward.tolist() == [0, 0, 1]
    )
    twice = Said(call("guess", number=-1).text + call("guess", number=secret).text)
    assert episodes.step([0], [twice]).observations == ["error: below 0\nyes"]
    last = episodes.step([0], [Said("It is done.")])
    assert last.terminated == [True] and last.scores.reward.tolist() == [pytest.approx(1 / 3)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "this is no call of a tool"),
        ("[1]", "this is no call of a tool"),
        ('{"name": "reset", "arguments": {}}', "there is no 'reset'; tools are guess"),
        ('{"name": "_hidden"}', "there is no '_hidden'"),
        ('{"name": "guess", "arguments": {"value": 3}}', "this is no call of a tool"),
        ('{"name": ["guess"]}', "this is no call of a tool"),
        ("[" * 100_000, "this is no call of a tool"),
        ('{"name": "guess", "arguments": 3}', "this is no call of a tool"),
    ],
)
def test_calls_that_cannot_be_made_are_answered(text: str, said: str) -> None:
    task = ToolEnvironment(Riddle, rows=ROWS, chat=False)
    episodes = task.episodes()
    episodes.reset(task.prompts("train", 0).take(1), [0])
    step = episodes.step([0], [Said(f"<tool_call>{text}</tool_call>")])
    assert said in step.observations[0] and bool(step.scores.valid[0]) and not step.over[0]


def test_the_limit_of_turns_scores() -> None:
    task = ToolEnvironment(Riddle, rows=ROWS, chat=False, turns=2)
    episodes = task.episodes()
    episodes.reset(task.prompts("train", 0).take(1), [0])
    episodes.step([0], [call("guess", number=1)])
    last = episodes.step([0], [call("guess", number=2)])
    assert last.truncated == [True] and last.scores.reward.tolist() == [0.5]


def test_tools_are_told_in_the_template_of_a_chat() -> None:
    prompt = ToolEnvironment(Riddle, rows=ROWS).prompts("train", 0).take(1)[0]
    assert prompt.content[0]["content"].endswith(" Guess.")
    assert prompt.columns["chat_template_kwargs"]["tools"][0]["function"]["name"] == "guess"


class NoReward:
    def reset(self) -> None: ...

    def act(self) -> None: ...


class NoTool:
    def reset(self) -> None: ...

    def get_reward(self) -> float:
        return 0.0


class Later(NoTool):
    async def act(self) -> None: ...


class Shapeless(NoTool):
    def reset(self) -> Any:
        return ["an image"]

    def act(self) -> None: ...


@pytest.mark.parametrize(
    ("make", "knobs", "said"),
    [
        (NoReward, {}, "NoReward has no method get_reward"),
        (NoTool, {}, "NoTool has no tool"),
        (Later, {}, "The method act of Later is a coroutine"),
        ("no_such_module:Thing", {}, r"trl-environment:no_such_module:Thing cannot be imported"),
        ("json:Nothing", {}, r"cannot be imported .*: name it as MODULE:CLASS"),
        (Riddle, {"rows": []}, "a JSON object on every line, and at least one"),
        (Riddle, {"rows": "/no/such/file.jsonl"}, "The rows of Riddle cannot be read"),
        (lambda: 1 / 0, {}, "cannot make an environment: ZeroDivisionError"),
    ],
)
def test_environments_that_are_none(make: Any, knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(RheostatError, match=said):
        ToolEnvironment(make, **knobs)


def test_a_reset_without_text_is_one_sentence() -> None:
    with pytest.raises(RheostatError, match="reset returned a list, which is neither text nor None"):
        ToolEnvironment(Shapeless).prompts("train", 0).take(1)


def test_a_run_with_tools_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the page; a random model calls nothing, so that the counter stays at 0."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    sys.modules.pop("my_tools", None)
    tokenizer = character_tokenizer(string.ascii_letters + string.digits + string.punctuation + " \n")
    model = save(tmp_path / "model", tokenizer=tokenizer, positions=512)
    name = "trl-environment:my_tools:Counter"
    assert is_language_task(name) and "rows" in knobs_of(name)
    sizes = "--prompts-per-batch 2 --group-size 2 --max-new-tokens 2 --steps 1 --evaluation-episodes 0 --environment chat false"
    main(["train", "grpo", name, "--model", model, "--directory", str(tmp_path / "run"), *sizes.split()])
    metrics = Run.load(tmp_path / "run").metrics[-1]
    assert metrics["turns"] == 1 and metrics["reward"] == 0


# --- tasks of verifiers -------------------------------------------------------------------------------------------------------------------


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", None)
    monkeypatch.setitem(sys.modules, "verifiers.v1", None)
    with pytest.raises(RheostatError, match="Tasks of verifiers needs the package 'verifiers', which is not installed"):
        language_task("verifiers:addition")


@pytest.fixture
def addition() -> Any:
    """A taskset of sums, after the package's own interface."""
    vf = pytest.importorskip("verifiers.v1", reason="the extra verifiers")

    class SumData(vf.TaskData):
        total: int

    class Sum(vf.Task[SumData]):
        @vf.reward(weight=2.0)
        async def right(self, trace: Any) -> float:
            return float(trace.last_reply == str(self.data.total))

        @vf.metric
        async def length(self, trace: Any) -> float:
            return float(len(trace.last_reply))

    class Sums(vf.Taskset[Sum]):
        def load(self) -> Any:
            for number in range(90):
                yield Sum(SumData(prompt=f"{number} + 1 =", system_prompt="Add.", total=number + 1))

    return vf, Sum, Sums, vf.TasksetConfig(id="sums")


def test_a_taskset_grades_by_its_own_rewards(addition: Any) -> None:
    _, _, sums, config = addition
    task = VerifiersTasks(sums(config))
    prompt = task.prompts("train", 0).take(1)[0]
    number = prompt.columns["index"]
    assert prompt.content == [{"role": "system", "content": "Add."}, {"role": "user", "content": f"{number} + 1 ="}]
    right, wrong = (task.grade(prompt.rollout(text)) for text in (str(number + 1), "?"))
    assert right.reward == 2 and wrong.reward == 0 and wrong.parts == {"right": 0.0, "length": 1.0}
    assert not {each.key for each in task.validation(5)} & {each.key for each in task.prompts("train", 0).take(50)}


def test_a_taskset_is_found_by_its_id(addition: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "import verifiers.v1 as vf",
        "__all__ = ['Sums']",
        "class Sum(vf.Task[vf.TaskData]):",
        "    @vf.reward",
        "    async def brief(self, trace):",
        "        return float(len(trace.last_reply) < 4)",
        "class Sums(vf.Taskset[Sum]):",
        "    def load(self):",
        "        return [Sum(vf.TaskData(prompt=f'{number} + 1 =')) for number in range(40)]",
    )
    (tmp_path / "my_sums_of_ours.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    task = language_task("verifiers:my-sums-of-ours", most=30)
    prompts = task.prompts("train", 0).take(20)
    grades = task.verifier().score([prompt.rollout(text) for prompt, text in zip(prompts[:2], ("12", "long answer"), strict=True)])
    assert grades.reward.tolist() == [1, 0] and prompts[0].content[0]["content"].endswith("+ 1 =")
    with pytest.raises(RheostatError, match="verifiers:no-such-taskset cannot be loaded"):
        language_task("verifiers:no-such-taskset")


def test_tasks_that_need_a_harness_are_refused(addition: Any) -> None:
    _, kind, sums, config = addition
    kind.NEEDS_CONTAINER = True
    with pytest.raises(RheostatError, match="has tasks that need a container"):
        VerifiersTasks(sums(config))


def test_a_reward_that_raises_makes_its_row_invalid(addition: Any) -> None:
    vf, kind, sums, config = addition

    async def broken(self: Any, trace: Any) -> float:
        raise ValueError("no more numbers")

    kind.right = vf.reward(broken)
    task = VerifiersTasks(sums(config))
    grade = task.grade(task.prompts("train", 0).take(1)[0].rollout("1"))
    assert grade.failed and "no more numbers" in grade.message

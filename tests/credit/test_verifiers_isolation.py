"""Graders that hang, exit and crash, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from rheostat.credit.verifiers import Isolated, Rollout, load_reward, require_valid
from rheostat.errors import RheostatError

GRADERS = """
    import asyncio, ctypes, os, sys, threading, time

    def misbehave(text):
        if text == "hang":
            while True:
                pass
        if text == "exit":
            os._exit(3)
        if text == "crash":
            ctypes.string_at(0)
        if text == "raise":
            raise KeyError("lost")

    def one(data_source, solution_str, ground_truth, extra_info=None):
        print("noise on standard output")
        misbehave(solution_str)
        return {"score": float(solution_str == ground_truth), "pid": os.getpid()}

    def batch(completions, answer, **kwargs):
        for text in completions:
            misbehave(text)
        return [float(text == truth) for text, truth in zip(completions, answer)]

    async def judge(solution_str, ground_truth):
        if solution_str == "slow":
            await asyncio.sleep(60)
        if solution_str == "block":
            time.sleep(60)
        misbehave(solution_str)
        return 1.0

    def silent(rollout):
        os.closerange(3, 64)
        time.sleep(60)

    def where(rollout):
        return float(threading.current_thread() is threading.main_thread())

    def wrong(prompt, completion):
        return 1.0

    def column(completions, solution):
        return [1.0] * len(completions)

    def short(completions):
        return [1.0]

    def child(solution_str):
        import subprocess
        subprocess.Popen(["sleep", "61.25"])
        while True:
            pass

    class Threshold:
        name = "threshold"
        def __init__(self, least):
            self.least = least
        def __call__(self, rollout):
            return float(len(rollout.completion) >= self.least)
"""


@pytest.fixture
def graders(tmp_path: Path) -> str:
    path = tmp_path / "my_rewards.py"
    path.write_text(textwrap.dedent(GRADERS))
    return str(path)


def rollouts(*completions: str) -> list[Rollout]:
    return [Rollout("p", text, [1], "ok", {"answer": "ok"}) for text in completions]


def test_only_the_guilty_samples_are_invalid(graders):
    with Isolated(f"{graders}:one", timeout=0.5) as verifier:
        scores = verifier.score(rollouts("ok", "hang", "no", "exit", "crash", "raise", "ok"))
        assert scores.valid.tolist() == [True, False, True, False, False, False, True]
        assert scores.reward[scores.valid].tolist() == [1.0, 0.0, 1.0]
        assert "ran past its limit of 0.5 s" in scores.messages[1]
        assert "exit code 3" in scores.messages[3] and "noise on standard output" in scores.messages[3]
        assert "SIGSEGV" in scores.messages[4]
        assert "KeyError: 'lost' (my_rewards.py, line" in scores.messages[5]
        assert scores.parts["pid"][0] != os.getpid()
        with pytest.raises(RheostatError, match=r"one failed on 4 of 7.*ran past its limit"):
            require_valid(scores, grader=verifier.name)
        assert verifier.score(rollouts("ok")).valid.all()


def test_a_batch_that_hangs_or_crashes_is_graded_one_by_one(graders):
    with Isolated(f"{graders}:batch", timeout=0.5) as verifier:
        assert verifier.score(rollouts("ok", "no")).reward.tolist() == [1.0, 0.0]
        scores = verifier.score(rollouts("ok", "hang", "exit", "no"))
        assert scores.valid.tolist() == [True, False, False, True]
        assert "graded by itself" in scores.messages[0]
    with Isolated(f"{graders}:batch", timeout=0.5, alone=False) as verifier:
        assert verifier.score(rollouts("ok", "exit")).failed.all()


def test_async_graders_are_stopped_singly_and_killed_when_they_block(graders):
    with Isolated(f"{graders}:judge", timeout=0.3) as verifier:
        scores = verifier.score(rollouts("ok", "slow", "raise", "ok"))
        assert scores.valid.tolist() == [True, False, False, True]
        assert "limit of 0.3 s" in scores.messages[1]
        assert verifier.score(rollouts("ok", "block")).valid.tolist() == [True, False]


def test_the_rest_is_given_up_when_everything_hangs(graders):
    with Isolated(f"{graders}:one", timeout=0.2, give_up_after=2) as verifier:
        started = time.perf_counter()
        scores = verifier.score(rollouts(*["hang"] * 30))
        assert time.perf_counter() - started < 5
        assert scores.failed.all() and "2 before it all hung" in scores.messages[29]


def test_several_workers_share_the_samples(graders):
    with Isolated(f"{graders}:one", timeout=5, workers=2) as verifier:
        scores = verifier.score(rollouts("ok", "no", "ok", "no"))
        assert scores.reward.tolist() == [1.0, 0.0, 1.0, 0.0]
        assert len({worker._process.pid for worker in verifier._workers if worker._process}) == 2


def test_it_works_off_the_main_thread_and_grades_on_one(graders):
    result = []
    with Isolated(f"{graders}:where") as verifier:
        thread = threading.Thread(target=lambda: result.append(verifier.score(rollouts("a"))))
        thread.start()
        thread.join()
    assert result[0].reward.tolist() == [1.0]


def test_a_killed_grader_takes_its_children_along(graders):
    with Isolated(f"{graders}:child", timeout=0.5) as verifier:
        assert verifier.score(rollouts("a")).failed.all()
    assert "sleep 61.25" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def test_a_grader_that_closes_the_connection_is_killed(graders):
    with Isolated(f"{graders}:silent", timeout=20) as verifier:
        scores = verifier.score(rollouts("a"))
        assert scores.failed.all() and "closed its connection" in scores.messages[0]


def test_closing_ends_the_process_and_scoring_starts_it_again(graders):
    verifier = Isolated(f"{graders}:one")
    process = verifier._workers[0]._process
    assert process is not None and process.poll() is None
    verifier.close()
    assert process.poll() is not None and verifier._workers[0]._process is None
    assert verifier.score(rollouts("ok")).valid.all()
    verifier.close()


@pytest.mark.parametrize("level", ["best", "process", "off"])
def test_the_process_ends_when_its_parent_is_killed(graders, level):
    program = f"""
import sys, time
from rheostat.credit.verifiers import Isolated, Rollout
verifier = Isolated({graders + ":one"!r}, sandbox={level!r})
verifier.score([Rollout("p", "ok", [1], "ok")])
print(verifier._workers[0]._process.pid, flush=True)
if {level!r} == "off":  # nobody forks there, so a grader that hangs ends with its own watch, ten seconds late
    time.sleep(60)
verifier.score([Rollout("p", "hang", [1], "ok")])
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert parent.stdout is not None
    group = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        states = [state_of(place) for place in Path("/proc").glob("[0-9]*/stat")]
        if not [fields for fields in states if fields[3] == str(group) and fields[0] != "Z"]:
            return
        time.sleep(0.05)
    raise AssertionError(f"the grading process {group} outlived its parent")


def state_of(place: Path) -> list[str]:
    """State, parent, group and session of a process."""
    try:
        return place.read_text().rpartition(")")[2].split()
    except OSError:
        return ["gone"] * 4


def test_relative_paths_survive_a_change_of_folder(graders, monkeypatch):
    monkeypatch.chdir(Path(graders).parent)
    verifier = Isolated("my_rewards.py:one")
    verifier.close()
    monkeypatch.chdir("/")
    assert verifier.score(rollouts("ok")).valid.all()
    verifier.close()


def test_options_make_the_grader(graders):
    with Isolated(f"{graders}:Threshold", options={"least": 2}) as verifier:
        assert verifier.name == "threshold"
        assert verifier.score(rollouts("a", "bb")).reward.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{file}:wrong", "no known convention"),
        ("{file}:oen", "did you mean one"),
        ("{folder}/none.py:one", "There is no reward file"),
        ("{folder}/broken.py:one", r"invalid syntax.* \(line 2\)|'\(' was never closed \(line 2\)"),
        ("{folder}/raises.py:one", r"RuntimeError: no key \(raises.py, line 1\)"),
        ("{folder}/exits.py:one", "SystemExit"),
        ("{folder}/dies.py:one", "exit code 9"),
        ("no_such_module:one", "No module named 'no_such_module'"),
    ],
)
def test_graders_that_cannot_be_loaded(graders, target, message):
    folder = Path(graders).parent
    (folder / "broken.py").write_text("def one(rollout):\n    return (1\n")
    (folder / "raises.py").write_text("raise RuntimeError('no key')\n")
    (folder / "exits.py").write_text("import sys\nsys.exit('stop')\n")
    (folder / "dies.py").write_text("import os\nos._exit(9)\n")
    with pytest.raises(RheostatError, match=message):
        Isolated(target.format(file=graders, folder=folder))


def test_loading_has_a_limit(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(RheostatError, match=r"Loading the grader .* ran past its limit of 1 s"):
        Isolated(f"{tmp_path}/slow.py:one", start_timeout=1)


@pytest.mark.parametrize(("function", "message"), [("column", "asks for 'solution'"), ("short", "returned 1 rewards for 2")])
def test_mistakes_of_the_function_are_told_as_in_process(graders, function, message):
    with load_reward(f"{graders}:{function}") as verifier, pytest.raises(RheostatError, match=message):
        verifier.score(rollouts("a", "b"))


def test_columns_that_cannot_be_sent(graders):
    with Isolated(f"{graders}:one") as verifier, pytest.raises(RheostatError, match="cannot be sent"):
        verifier.score([Rollout("p", "a", [], "ok", {"lock": threading.Lock()})])


@pytest.mark.parametrize("options", [{"timeout": 0}, {"start_timeout": -1}, {"workers": 0}, {"give_up_after": 0}])
def test_impossible_limits(graders, options):
    with pytest.raises(RheostatError):
        Isolated(f"{graders}:one", **options)

"""Levels: which is taken, what the filter of system calls decides, and what graders that opt out keep."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rheostat.credit.verifiers import ExactMatch, Guarded, Isolated, Rollout, WeightedSum, load_reward
from rheostat.credit.verifiers.sandbox import kernel, levels, seccomp
from rheostat.credit.verifiers.sandbox.grammar import Formula
from rheostat.credit.verifiers.sandbox.process import environment, examine, python_files
from rheostat.errors import RheostatError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces, Landlock and seccomp are Linux's")

GRADERS = """
    import os, threading
    counter = []

    def count(rollout):
        counter.append(1)
        return float(len(counter))

    def variable(rollout):
        return float(os.environ.get("SANDBOX_TEST", 0))

    def reads(rollout):
        return float(open(rollout.completion).read())

    def starts(rollout):
        return float(os.system("true") == 0)

    def threads(rollout):
        found = []
        for _ in range(8):
            thread = threading.Thread(target=found.append, args=(1,))
            thread.start(); thread.join()
        return float(len(found))

    async def slowly(rollout):
        import asyncio
        await asyncio.sleep(0.01)
        return 1.0

    def late(rollout):
        from neighbour import VALUE
        return VALUE

    def greedy(rollout):
        return float(len(bytearray(int(rollout.completion) << 20)) >> 20)
"""


@pytest.fixture
def graders(tmp_path: Path) -> str:
    (tmp_path / "graders.py").write_text(textwrap.dedent(GRADERS))
    (tmp_path / "neighbour.py").write_text("VALUE = 7.0\n")
    return f"{tmp_path}/graders.py"


def here() -> list[str]:
    """The levels that hold on this machine."""
    found = []
    for level in ("process", "kernel", "namespaces"):
        try:
            examine(level)
        except RheostatError:
            continue
        found.append(level)
    return found


def rewards(target: str, *completions: str, **options: object) -> list[float]:
    with Isolated(target, timeout=5, **options) as verifier:  # type: ignore[arg-type]
        scores = verifier.score([Rollout("p", text) for text in completions])
    assert scores.valid.all(), scores.messages
    return scores.reward.tolist()


def test_every_level_measures_what_it_promises():
    for level in here():
        standing = examine(level)
        assert standing.level == level and levels.PROMISES[level] <= set(standing.stopped) and not standing.refused
        assert set(standing.stopped) | set(standing.worked) == set(levels.ATTEMPTS)


def test_best_takes_the_strongest():
    assert examine("best").level == here()[-1]


@pytest.mark.parametrize("level", ["best", "kernel", "process"])
def test_what_graders_do_at_every_level(graders, level):
    if level not in ("best", *here()):
        pytest.skip(f"{level} does not hold here")
    assert rewards(f"{graders}:count", "a", "b", "c", sandbox=level) == [1.0, 1.0, 1.0]  # each in a process that saw no other
    assert rewards(f"{graders}:threads", "a", sandbox=level) == [8.0]
    assert rewards(f"{graders}:slowly", "a", "b", sandbox=level) == [1.0, 1.0]
    assert rewards(f"{graders}:late", "a", sandbox=level) == [7.0]  # a neighbour, imported after loading


def test_the_environment_is_clean_unless_it_is_needed(graders, monkeypatch):
    monkeypatch.setenv("SANDBOX_TEST", "5")
    assert rewards(f"{graders}:variable", "a") == [0.0]
    assert rewards(f"{graders}:variable", "a", needs=("environment",)) == [5.0]
    assert rewards(f"{graders}:variable", "a", sandbox="off") == [5.0]


def test_opting_out(graders, tmp_path):
    (tmp_path / "three").write_text("3")
    with Isolated(f"{graders}:reads", timeout=5, needs=("files",)) as verifier:
        assert verifier.score([Rollout("p", str(tmp_path / "three"))]).reward.tolist() == [3.0]
        (standing,) = verifier.standings()
    assert standing.level == "process" and standing.needs == ("files",) and "opted out of files" in standing.sentence()
    assert levels.Standing.from_json(standing.to_json()) == standing
    assert rewards(f"{graders}:starts", "a", needs=("programs",)) == [1.0]
    assert rewards(f"{graders}:count", "a", "b", needs=("state",)) == [1.0, 2.0]


def test_a_grader_that_meets_the_walls_is_told_how_to_pass(graders, tmp_path):
    if "kernel" not in here():
        pytest.skip("no level here keeps files away")
    (tmp_path / "three").write_text("3")
    with Isolated(f"{graders}:reads", timeout=5) as verifier:
        scores = verifier.score([Rollout("p", str(tmp_path / "three"))])
    assert scores.failed.all() and "--reward-needs files" in scores.messages[0]


def test_samples_that_share_a_fork(graders):
    with Isolated(f"{graders}:count", timeout=5, together=2) as verifier:
        assert verifier.score([Rollout("p", text) for text in "abc"]).reward.tolist() == [1.0, 2.0, 1.0]


@LINUX
def test_memory_has_a_limit(graders):
    with Isolated(f"{graders}:greedy", timeout=5, memory=64) as verifier:
        scores = verifier.score([Rollout("p", "8"), Rollout("p", "500"), Rollout("p", "8")])
    assert scores.valid.tolist() == [True, False, True] and "MemoryError" in scores.messages[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sandbox": "strong"}, "sandbox setting"),
        ({"needs": ("luck",)}, "need of a reward function"),
        ({"sandbox": "require", "needs": ("network",)}, "cannot run in a sandbox of level require"),
        ({"together": 0}, "at least one"),
        ({"memory": -1}, "memory"),
    ],
)
def test_impossible_settings(graders, options, message):
    with pytest.raises(RheostatError, match=message):
        Isolated(f"{graders}:count", **options)


def test_a_reward_in_the_trainers_process_has_no_sandbox(graders):
    def function(completions):
        return [1.0] * len(completions)

    assert levels.weakest(levels.standings_of(load_reward(function))) == "off"
    for reward, isolate in ((function, True), (f"{graders}:count", False)):
        with pytest.raises(RheostatError, match="asks for one"):
            load_reward(reward, isolate=isolate, sandbox="require")
    assert levels.standings_of(load_reward("exact", sandbox="require")) == []  # compares text and runs nothing


def test_several_graders_stand_together(graders):
    with Isolated(f"{graders}:count", sandbox="process") as weak:
        both = WeightedSum([Guarded(weak, Formula(), lambda text: text), ExactMatch()])
        assert [standing.level for standing in both.standings()] == ["process"]
    assert levels.weakest([]) is None


def test_what_is_left_of_the_environment():
    given = {"TOKEN": "x", "LD_LIBRARY_PATH": "/l", "HOME": "/h"}
    clean = environment(given, whole=False)
    assert clean["LD_LIBRARY_PATH"] == "/l" and not {"TOKEN", "HOME"} & set(clean)
    assert environment(given, whole=True)["TOKEN"] == "x"


def test_only_python_files_beside_a_grader_are_readable(tmp_path):
    for name in ("a.py", ".env", "data.json", "package/__init__.py", "package/b.py", "plain/c.py", ".hidden/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {str(Path(path).relative_to(tmp_path)) for path in python_files(str(tmp_path))}
    assert found == {"a.py", "package/__init__.py", "package/b.py"} and python_files(None) == []


def test_places_within_others_are_left_out():
    assert kernel.outermost(["/usr/lib", "/usr", "/user", "/", "/usr"]) == ["/usr", "/user"]


# --- machines that have less ------------------------------------------------------------------------------------------------------------

LESS = """
import ctypes, struct, sys
from rheostat.credit.verifiers.sandbox.kernel import no_new_privileges
from rheostat.credit.verifiers.sandbox.process import examine
from rheostat.errors import RheostatError
steps = [(0x20, 0, 0, 0)]
for number in map(int, sys.argv[2:]):
    steps += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050001)]
steps.append((0x06, 0, 0, 0x7fff0000))
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
no_new_privileges()
assert ctypes.CDLL(None).prctl(22, 2, struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)), 0, 0) == 0
try:
    standing = examine(sys.argv[1])
    print(standing.level, *standing.refused)
except RheostatError as error:
    print(error)
"""


@LINUX
@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls")
@pytest.mark.parametrize(
    ("setting", "missing", "answer"),
    [
        ("best", [272], "kernel namespaces"),
        ("best", [272, 444], "process namespaces kernel"),
        ("require", [272, 444], "No sandbox of the setting 'require' holds here"),
        ("kernel", [444], "No sandbox of the setting 'kernel' holds here"),
    ],
)
def test_where_the_kernel_refuses_unshare_or_landlock(setting, missing, answer):
    if "kernel" not in here():
        pytest.skip("kernel does not hold here anyhow")
    command = [sys.executable, "-c", LESS, setting, *map(str, missing)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith(answer), done.stdout + done.stderr


# --- the filter, run by an interpreter of its own -----------------------------------------------------------------------------------------


def decide(machine: str, number: int, *arguments: int, audit: int | None = None, own: int = 77) -> int:
    """What the filter answers to a call: a classic BPF machine of four instructions."""
    data = {0: number, 4: seccomp.MACHINES[machine][0] if audit is None else audit}
    data |= {seccomp.argument(index): value & 0xFFFFFFFF for index, value in enumerate((*arguments, *[0] * 6)[:6])}
    steps, place, loaded = seccomp.program(machine, own), 0, 0
    while True:
        code, where_true, where_false, operand = steps[place]
        place += 1
        if code == seccomp.RETURN:
            return operand
        if code == seccomp.LOAD:
            loaded = data[operand]
        else:
            true = loaded == operand if code == seccomp.EQUAL else bool(loaded & operand)
            place += where_true if true else where_false


REFUSED = seccomp.DENY | errno.EPERM


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_filter_allows_what_it_lists_and_nothing_else(machine):
    numbers = seccomp.MACHINES[machine][1]
    special = {"clone", "clone3", "kill", "tgkill", "prlimit64", "fcntl", "ioctl", "socketpair", "sched_getaffinity"}
    for name, number in numbers.items():
        if name not in special:
            assert decide(machine, number) == seccomp.ALLOW, name
    for number in set(range(600)) - set(numbers.values()):
        assert decide(machine, number) == REFUSED
    assert decide(machine, numbers["read"] | 0x40000000) == REFUSED  # x32
    assert decide(machine, numbers["read"], audit=0x40000003) == seccomp.KILL  # 32-bit calls


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_filter_looks_at_arguments(machine):
    numbers = seccomp.MACHINES[machine][1]

    def allowed(name: str, *arguments: int) -> bool:
        return decide(machine, numbers[name], *arguments) == seccomp.ALLOW

    assert allowed("clone", 0x10000 | 0x100) and not allowed("clone", 17)
    assert allowed("kill", 77, 9) and not allowed("kill", 1, 9) and not allowed("kill", -1, 9) and not allowed("kill", 0, 9)
    assert allowed("tgkill", 77, 78, 9) and not allowed("tgkill", 1, 1, 9)
    assert allowed("prlimit64", 0, 1) and not allowed("prlimit64", 1, 1)
    assert allowed("sched_getaffinity", 0) and not allowed("sched_getaffinity", 1)
    assert allowed("fcntl", 3, 1) and not any(allowed("fcntl", 3, command) for command in seccomp.SIGNALLING_FCNTL)
    assert allowed("socketpair", 1, 0x80001) and not allowed("socketpair", 1, 0x80002) and not allowed("socketpair", 1, 2)
    assert allowed("ioctl", 3, 0x5421) and decide(machine, numbers["ioctl"], 0, 0x5412) == seccomp.DENY | errno.ENOTTY
    assert decide(machine, numbers["clone3"]) == seccomp.DENY | errno.ENOSYS


def test_a_machine_without_a_table_is_refused():
    with pytest.raises(OSError, match="no system call table for pdp11"):
        seccomp.program("pdp11", os.getpid())


@LINUX
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the header of this machine")
def test_the_numbers_are_those_of_the_headers():
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    lines = [line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_")]
    known = {words[1].removeprefix("__NR_"): int(words[2]) for words in lines}
    assert {name: known[name] for name in seccomp.MACHINES["x86_64"][1]} == seccomp.MACHINES["x86_64"][1]

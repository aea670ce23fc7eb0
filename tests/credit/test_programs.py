"""Programs are graded by what they return, compared outside; what they do to their own process changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.credit.verifiers import Problem, ProgramTests, Rollout, load_reward
from rheostat.credit.verifiers.fences import program_in
from rheostat.credit.verifiers.programs import credit_of
from rheostat.credit.verifiers.reward_checks import check_references
from rheostat.credit.verifiers.sandbox import values
from rheostat.credit.verifiers.sandbox.wire import Garbled
from rheostat.errors import RheostatError

COLUMNS = {"entry_point": "add", "tests": [{"inputs": [1, 2], "output": 3}, {"inputs": {"a": 0, "b": 7}, "output": 7}]}
RIGHT = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module", params=["best", "process"])
def grader(request: pytest.FixtureRequest) -> Iterator[ProgramTests]:
    with ProgramTests(timeout=1.0, memory=256, sandbox=request.param) as made:
        yield made


def graded(grader: ProgramTests, *programs: str, columns: dict[str, object] = COLUMNS) -> tuple[list[float], list[str]]:
    scores = grader.score([Rollout("p", text, columns=columns) for text in programs])
    assert scores.valid.all()
    return scores.reward.tolist(), scores.notes.get("error", [""] * len(programs))


def test_right_wrong_and_broken_programs(grader):
    rewards, errors = graded(
        grader,
        RIGHT,
        f"Think.\n```python\ndef add(a, b): return 0\n```\nNo:\n```python\n{RIGHT}```\nDone.",
        "def add(a, b):\n    return a - b\n",
        "def add(a, b):\n    raise ValueError('no')\n",
        "def plus(a, b):\n    return a + b\n",
        "def add(a, b:\n",
        "",
    )
    assert rewards == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert "not the expected one" in errors[2] and "ValueError: no" in errors[3]
    assert "does not define add" in errors[4] and "SyntaxError" in errors[5]


def test_the_share_of_tests(grader):
    with ProgramTests("share", timeout=1.0) as share:
        rewards, _ = graded(share, "def add(a, b):\n    return 3\n", RIGHT)
    assert rewards == [0.5, 1.0]


FORGERIES = {
    "an object that equals everything": "class E:\n def __eq__(s, o): return True\n __hash__ = None\ndef add(a, b): return E()",
    "an int that equals everything": "class E(int):\n def __eq__(s, o): return True\n __hash__ = int.__hash__\ndef add(a, b): return E()",
    "patched builtins": ("import builtins\nbuiltins.all = builtins.any = builtins.isinstance = lambda *a: True\ndef add(a, b): return 0"),
    "patched comparison": "from rheostat.credit.verifiers.sandbox import values\nvalues.same = lambda *a: True\ndef add(a, b): return 0",
    "patched encoder": "from rheostat.credit.verifiers.sandbox import values\nvalues.encode = lambda v: b'T'\ndef add(a, b): return 0",
    "forged frames, then the end": (
        "import os\nfrom rheostat.credit.verifiers.sandbox import wire\n"
        "def add(a, b):\n for f in range(64):\n  try: os.write(f, wire.frame(wire.RECORD, 0, b'rT') + wire.frame(wire.DONE))\n"
        "  except OSError: pass\n os._exit(0)"
    ),
    "forged grade": (
        "import os\nfrom rheostat.credit.verifiers.sandbox import wire\nfrom rheostat.credit.verifiers.verifier_interface import Grade\n"
        "def add(a, b):\n os.write(3, wire.frame(wire.RECORD, 0, wire.encode_grade(Grade(1.0))) + wire.frame(wire.DONE))\n os._exit(0)"
    ),
    "garbage on every descriptor": (
        "import os\ndef add(a, b):\n for f in range(64):\n  try: os.write(f, b'\\xff' * 999)\n  except OSError: pass"
    ),
    "the same row twice": (
        "import os\nfrom rheostat.credit.verifiers.sandbox import wire\n"
        "def add(a, b):\n os.write(3, wire.frame(wire.RECORD, 0, b'rN') * 2)\n return 0"
    ),
    "the expected outputs from the frames above": (
        "import sys\ndef add(a, b):\n f = sys._getframe()\n while f:\n  for v in list(f.f_locals.values()):\n   if isinstance(v, dict):\n"
        "    for k in ('tests', 'output', 'expected'):\n     if k in v: return v[k]\n  f = f.f_back\n return 0"
    ),
    "the expected outputs from all objects": (
        "import gc\ndef add(a, b):\n for o in gc.get_objects():\n  if isinstance(o, dict) and 'output' in o: return o['output']\n return 0"
    ),
    "exit with success": "import os\ndef add(a, b): os._exit(0)",
    "exit at once": "import sys\nsys.exit(0)",
    "exit when it is imported": "import os\nos._exit(0)",
    "a value too large to carry": "def add(a, b): return 'x' * (1 << 22)",
    "a value too deep to carry": "def add(a, b):\n v = []\n for _ in range(9999): v = [v]\n return v",
    "a value within itself": "def add(a, b):\n v = []\n v.append(v)\n return v",
    "a huge number": "def add(a, b): return 1 << (1 << 20)",
    "hang": "def add(a, b):\n while True: pass",
    "hang when it is imported": "while True: pass",
    "memory": "def add(a, b): return len(bytearray(1 << 30)) * 0 + 3",
    "crash": "import ctypes\ndef add(a, b): ctypes.string_at(0)",
    "an exception that cannot be shown": "class E(BaseException):\n def __str__(s): raise s\ndef add(a, b): raise E",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_no_forgery_earns_the_reward_or_touches_the_next_program(grader, name):
    rewards, errors = graded(grader, FORGERIES[name], RIGHT, "def add(a, b): return 0")
    assert rewards == [0.0, 1.0, 0.0] and errors[0]


def test_no_state_passes_from_one_program_to_the_next(grader):
    patch = "import builtins, math\nbuiltins.sum = lambda x: 3\nmath.pi = 3\n" + RIGHT
    look = "import math\ndef add(a, b):\n    return sum([a, b]) if math.pi > 3 else 'patched'\n"
    assert graded(grader, patch, look)[0] == [1.0, 1.0]


def test_several_workers():
    with ProgramTests(timeout=1.0, workers=2) as grader:
        assert graded(grader, RIGHT, "def add(a, b): return 0", RIGHT)[0] == [1.0, 0.0, 1.0]


def test_the_files_of_the_machine_are_out_of_reach(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("3")
    read = f"def add(a, b):\n    return int(open({str(secret)!r}).read()) if b == 2 else 7\n"
    with ProgramTests(timeout=2.0) as grader:
        if grader.standings()[0].level == "process":
            pytest.skip("no level here keeps files away")
        rewards, errors = graded(grader, read)
        assert rewards == [0.0] and "Error" in errors[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "no entry_point"),
        ({"entry_point": "a b", "tests": []}, "no entry_point"),
        ({"entry_point": "f"}, "no tests"),
        ({"entry_point": "f", "tests": [{"inputs": 3, "output": 1}]}, "Test 0"),
        ({"entry_point": "f", "tests": [{"inputs": [object()], "output": 1}]}, "plain values"),
    ],
)
def test_a_problem_of_another_form_is_invalid(grader, columns, message):
    with pytest.raises(RheostatError, match=message):
        grader.run(RIGHT, Problem.from_columns(columns))
    scores = grader.score([Rollout("p", RIGHT, columns=columns), Rollout("p", RIGHT, columns=COLUMNS)])
    assert scores.valid.tolist() == [False, True] and message in scores.messages[0]


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"workers": 0}, {"memory": 0}, {"tolerance": -1}, {"credit": "half"}, {"sandbox": "off"}]
)
def test_impossible_options(options):
    with pytest.raises(RheostatError):
        ProgramTests(**options)


def test_by_name():
    verifier = load_reward("programs-share")
    assert isinstance(verifier, ProgramTests) and verifier.credit == "share"
    verifier.close()


DOCSTRING = 'def f():\n    """\n    ```python\n    >>> f()\n    ```\n    """\n    return "```"\n'
STANDS = {
    "no fence": ("x = 1", "x = 1"),
    "the last of several": ("```python\na\n```\n```py\nb\n```", "b\n"),
    "no end": ("```\na\n``` then ```python\nunfinished", "unfinished"),
    "an end and no line after it": ("```python\na\n```", "a\n"),
    "nothing in it": ("```python\n```", ""),
    "output after the program": ("```python\na\n```\nOutput:\n```\n3\n```\nand\n```text\n4\n```", "a\n"),
    "a shell after the program": ("```\na\n```\n```bash\npython a.py\n```", "a\n"),
    "another language before it": ("```text\nplan\n```\nso\n```\na\n```\n", "a\n"),
    "only another language": ("```c++\nint a;\n```\nDone.", "int a;\n"),
    "a name after the language": ('```python title="a.py"\na\n```', "a\n"),
    "a version": ("```python3.11\na\n```", "a\n"),
    "a capital": ("``` Python\na\n```", "a\n"),
    "attributes": ("```{.python .numberLines}\na\n```", "a\n"),
    "carriage returns": ("So:\r\n```python\r\na\r\nb\r\n```\r\nDone.\r\n", "a\nb\n"),
    "tildes": ("~~~python\na = '```'\n```\n~~~\n", "a = '```'\n```\n"),
    "tags around it": ("<answer>```python\na\n```</answer>", "a\n"),
    "a list around it": ("1. So\n\n   ```python\n   if a:\n       b\n   ```\n", "if a:\n    b\n"),
    "a fence in a docstring": (f"```python\n{DOCSTRING}```\nDone.", DOCSTRING),
    "a longer fence around it": ("````markdown\nSo:\n```python\na\n```\n````\n", "a\n"),
    "a longer fence without a name": ("````\n```python\na\n```\n````\n", "a\n"),
    "a first try left open": ("```python\na(\n```python\nb\n```", "b\n"),
    "code within a line": ("Use ```x```\nor ``` y ``` here.\n```python\na\n```", "a\n"),
    "no fence but code within a line": ("Use ```x``` here.", "Use ```x``` here."),
    "other ends of lines": ("```python\na = '\u2028\x0c'\n```", "a = '\u2028\x0c'\n"),
}


@pytest.mark.parametrize("kind", STANDS)
def test_where_the_program_stands(kind):
    completion, program = STANDS[kind]
    assert program_in(completion) == program


@given(st.text("`~ \nmd", max_size=60))
def test_any_fences_are_read(text):
    assert len(program_in(text)) <= len(text)
    nested = "".join(f"{'`' * width}md\n" for width in range(40, 2, -1))
    assert program_in(nested + text + "\n") is not None


def test_deep_fences_are_read():
    assert program_in("".join(f"{'`' * width}md\n" for width in range(300, 2, -1))) is not None


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_plain_values_survive_the_way(value):
    back = values.decode(values.encode(value))
    assert repr(back) == repr(value) and type(back) is type(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_garbled(content):
    try:
        value = values.decode(content)
    except Garbled:
        return
    values.encode(value)


@given(plain)
def test_every_plain_value_equals_itself(value):
    assert values.same(value, value)


def test_what_equals_what():
    assert values.same((1, 2.0), [1.0, 2]) and values.same(0.1 + 0.2, 0.3) and values.same(math.nan, math.nan)
    assert not values.same(True, 1) and not values.same(1, True) and not values.same("1", 1) and not values.same([1], [1, 2])
    assert not values.same({"a": 1}, {"b": 1}) and values.same({"a": (1,)}, {"a": [1]}) and not values.same(1 << 5000, 1.0)
    assert not values.same(b"a", "a")


def test_prompts_without_a_problem_are_refused_before_anything_is_sampled(grader):
    good = {"entry_point": "add", "tests": [{"inputs": [1, 2], "output": 3}]}
    rows = [("Line 1", Rollout("Write add.", "", columns=good)), ("Line 2", Rollout("Write add.", "", columns={"entry_point": "add"}))]
    check_references(grader, rows[:1])
    with pytest.raises(RheostatError, match=r"^Line 2: The prompt has no tests: add the column"):
        check_references(grader, rows)


def test_what_a_program_earns():
    assert [credit_of(passed) for passed in ([True, True], [True, False], [False], [])] == [1.0, 0.0, 0.0, 0.0]
    assert [credit_of(passed, "share") for passed in ([True, True], [True, False], [])] == [1.0, 0.5, 0.0]

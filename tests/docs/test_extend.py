"""The pages on extending, followed literally: what they tell a reader to type is typed, with budgets that end within seconds."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gymnasium.envs.registration import registry

from rheostat import plugins
from rheostat.cli.entry import main as rheostat
from rheostat.experiments.studies.results import study_names
from rheostat.methods import table
from rheostat.tasks.language import character_tokenizer
from tests.docs.pages import DOCS, EXAMPLES, commands, taken_apart
from tests.tiny_language import model as random_model
from tests.vectors.__main__ import main as run_vectors

MODEL = "runs/grpo-chain-sum-s0/model"
"""Where the pages have a trained model; here it is a tiny random one."""
MINE = "--methods weighted_buffer.py"
SMALL = "--evaluation-episodes 2 --evaluation-prompts 2 --prompts-per-batch 2 --group-size 2 --max-new-tokens 4"
TYPED = {
    "python weighted_buffer.py": "",
    f"rheostat train weighted-buffer CartPole-v1 {MINE} --steps 4096 --weight-cap 1.5": "--steps 512 --batch-steps 256",
    f"rheostat show weighted-buffer {MINE}": "",
    "rheostat show props": "",
    "python -m tests.vectors props.json": "",
    "rheostat train ppo my_environments:Corridor-v0 --steps 1024 --batch-steps 512": "",
    "rheostat train grpo guess-number --steps 100": f"--steps 2 --model {MODEL} {SMALL}",
    "rheostat train grpo gymnasium-text:my_talks:Countdown-v0 --model chain-sum --steps 100": f"--steps 2 --model {MODEL} {SMALL}",
    "rheostat train grpo text-sokoban --environment boxes 2 penalty 0.1 --steps 100": f"--steps 1 --model untrained-games {SMALL}",
    f"rheostat train grpo --model {MODEL} --prompts sums.jsonl --reward reward_verl.py:compute_score reward_own.py:brief "
    "--environment validation_share 0.2 --steps 3 --prompts-per-batch 8 --group-size 8 --max-new-tokens 40 --learning-rate 2e-4": SMALL,
    "rheostat rollouts runs/grpo-prompts-s0 --rows 2": "",
}
"""Commands of the pages, and what is added here so that they end soon (an option given twice counts as given last)."""
ELSEWHERE = {
    f"rheostat compare ppo-buffer weighted-buffer {MINE} --task CartPole-v1 --seeds 2 --steps 8000": "test_names.py parses it",
    "python asym_re.py": "test_examples.py",
    "python asym_re.py MODEL": "test_examples.py",
    "python topr_attempts.py": "test_examples.py",
    "python -m tests.crash ppo CartPole-v1 --kills 2": "the crash tests",
    "python -m tests.probing ppo": "the probe tests",
    "python -m tests.golden --only 'grpo/*'": "the golden tests",
    "pip install '.[textworld]'": "test_text_world.py plays",
    "rheostat train grpo textworld --model smollm2-135m --environment chat true rooms 3 quest_length 4 --adapter-rank 8 --steps 100": (
        "test_names.py parses it"
    ),
    "pip install '.[miniwob]'": "test_miniwob_pages.py plays",
    "rheostat train grpo miniwob:login-user --model smollm2-135m --environment chat true browsers 4 --adapter-rank 8 --steps 100": (
        "test_names.py parses it"
    ),
    "rheostat train grpo trl-environment:my_tools:Counter --model MODEL --steps 100": "test_outside_environments.py",
    "rheostat train grpo openenv:ws://localhost:8000 --environment shows echoed_message --model MODEL --steps 100": "there, too",
    "rheostat train grpo verifiers:my-taskset --model MODEL --steps 100": "there, too",
    "rheostat train grpo ... --reward judge.py:score --reward-needs network environment": "test_names.py parses it",
}
"""Commands that take minutes, or that other tests run."""


def shown() -> list[str]:
    """Every command of the pages on extending."""
    pages = sorted((DOCS / "extend").glob("*.md"))
    blocks = [block for page in pages for block in taken_apart(page)[0] if block.language in ("sh", "bash")]
    return [" ".join(line.split("#")[0].split()) for block in blocks for line in commands(block)]


def test_every_command_is_typed_somewhere() -> None:
    """Studies take minutes or have tests of their own; test_names.py parses their commands."""
    commands = {line for line in shown() if not line.startswith(("rheostat study ", "rheostat report "))}
    assert commands == TYPED.keys() | ELSEWHERE.keys()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: the examples and a small trained model."""
    folder = tmp_path_factory.mktemp("desk")
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    tokenizer = character_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    random_model("qwen3", vocabulary=len(tokenizer), **sizes).save_pretrained(folder / MODEL)
    tokenizer.save_pretrained(folder / MODEL)
    return folder


@pytest.fixture
def seated(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In that folder; the table of methods, Gymnasium's and Python's modules are as before afterwards."""
    monkeypatch.chdir(desk)
    monkeypatch.syspath_prepend(str(desk))
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv(plugins.FILES, "")
    importlib.invalidate_caches()
    for path in EXAMPLES.glob("*.py"):  # as another test has imported them
        sys.modules.pop(path.stem, None)
    methods, worlds = dict(table.METHODS), dict(registry)
    yield desk
    table.METHODS.clear()
    table.METHODS.update(methods)
    registry.clear()
    registry.update(worlds)
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def type_in(line: str) -> None:
    """What a shell would do with a command line of a page."""
    words = shlex.split(line)
    if words[0] == "rheostat":
        rheostat(words[1:])
    elif words[:3] == ["python", "-m", "tests.vectors"]:
        assert run_vectors(words[3:]) == 0
    else:
        sys.argv = words[1:]
        runpy.run_path(words[1], run_name="__main__")


@pytest.mark.parametrize("line", TYPED, ids=[line[:40] for line in TYPED])
def test_commands_do_what_the_page_says(line: str, seated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if line.startswith("rheostat rollouts"):
        page = next(each for each in TYPED if "--prompts sums.jsonl" in each)
        if not (seated / "runs" / "grpo-prompts-s0").exists():
            type_in(f"{page} {TYPED[page]}")
    type_in(f"{line} {TYPED[line]}".strip())
    out = capsys.readouterr()
    if line.startswith("python weighted_buffer"):
        told = re.search(r"^runs/weighted-buffer.*\n(\{.*\})$", (DOCS / "extend" / "method.md").read_text(), re.M)
        assert told is not None
        arithmetic, numbers = told[0].splitlines()
        found, written = ast.literal_eval(out.out.strip().splitlines()[-1]), ast.literal_eval(numbers)
        assert arithmetic in out.err and found.keys() == written.keys()
        assert found["meter/share_stale"] == pytest.approx(written["meter/share_stale"], abs=0.02)
    elif line.startswith("rheostat train"):
        assert "Report: runs/" in out.out
    elif line.startswith("rheostat rollouts"):
        assert {"compute_score", "compute_score/worked_out"} <= set(re.findall(r"[\w/]+", out.out))


def test_the_smoke_study_of_the_page_exists() -> None:
    assert "props" in study_names()

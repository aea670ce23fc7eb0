"""Small commands are quick: what takes long is remembered, and nothing heavy is loaded for it again. What shells complete."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rheostat import remembered as keeping
from rheostat.cli.completing import candidates, script
from rheostat.cli.entry import main
from rheostat.cli.train import announce
from rheostat.remembered import remembered

HEAVY = ("torch", "transformers", "envpool", "tensordict", "gymnasium")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test alone."""
    monkeypatch.setenv("RHEOSTAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("words", [["list"], ["show", "props"]])
def test_the_second_time_nothing_heavy_is_loaded(words: list[str], cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*words, "--json"])
    first = capsys.readouterr().out
    code = f"import sys; from rheostat.cli.entry import main; main({[*words, '--json']}); print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    again, _, loaded = done.stdout.rstrip().rpartition("\n")
    assert json.loads(again) == json.loads(first) and loaded == "[]"


@pytest.mark.parametrize("words", [["train", "ppo", "--help"], ["config", "nft"]])
def test_text_that_takes_long_is_printed_anew_as_it_was(words: list[str], cache: Path) -> None:
    code = f"""import sys
from rheostat.cli.entry import main
try:
    main({words})
finally:
    print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)"""
    first, again = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2))
    assert again.stdout == first.stdout and len(first.stdout) > 200
    assert first.stderr.strip() != "[]" and again.stderr.strip() == "[]"


def test_studies_are_looked_at_again_when_one_of_their_files_changes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[int] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rheostat.cli.studies._listed", lambda: looks.append(1) or [])
    study, result = tmp_path / "studies" / "mine.py", tmp_path / "studies" / "results" / "mine.json"
    result.parent.mkdir(parents=True)
    study.write_text("")
    for expected, changed in ((1, None), (1, None), (2, result), (2, None), (3, study), (3, None)):
        if changed is not None:
            changed.write_text("{}")
        main(["study", "--list"])
        assert len(looks) == expected
    assert "verdicts" in capsys.readouterr().out


def test_the_help_of_a_method_fits_the_terminal(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for columns in (80, 120, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit):
            main(["train", "ppo", "-h"])
        assert 60 < max(map(len, capsys.readouterr().out.splitlines())) <= columns


def test_what_is_remembered_is_found_once_and_again_after_a_change_or_a_loss(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find() -> dict[str, object]:
        asked.append(1)
        return {"values": (1, 0.5, None), "where": Path("x")}

    expected = {"values": [1, 0.5, None], "where": "x"}
    assert remembered("a", find) == remembered("a", find) == expected and len(asked) == 1
    (file,) = cache.glob("remembered/*/a.json")
    file.write_text('{"values"')
    assert remembered("a", find) == expected and len(asked) == 2
    for number in range(keeping.STATES_KEPT + 3):
        monkeypatch.setattr(keeping, "installation", lambda number=number: f"state-{number}")
        assert remembered("a", find) == expected
    assert len(asked) == 2 + keeping.STATES_KEPT + 3 and len(list(cache.glob("remembered/*"))) == keeping.STATES_KEPT


def test_without_a_cache_folder_everything_works(cache: Path) -> None:
    cache.write_text("a file is in the way")
    assert remembered("a", lambda: [1]) == [1]


def test_the_digest_of_an_installation_covers_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("x = 1")
    before = keeping.installation.__wrapped__()
    assert before == keeping.installation.__wrapped__()
    (tmp_path / "a.py").write_text("x = 10")
    assert before != keeping.installation.__wrapped__()


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["tr"], {"train"}),
        (["train", "grp"], {"grpo"}),
        (["train", "ppo", "CartPole-v"], {"CartPole-v0", "CartPole-v1"}),
        (["train", "grpo", "chain-sum-t"], {"chain-sum-teach"}),
        (["train", "ppo", "CartPole-v1", "--dial.l"], {"--dial.lag"}),
        (["train", "ppo", "CartPole-v1", "--learning-r"], {"--learning-rate"}),
        (["train", "ppo", "CartPole-v1", "--backend", "env"], {"envpool"}),
        (["train", "ppo", "CartPole-v1", "--seed", "1", "--backend", "g"], {"gymnasium"}),
        (["compare", "ppo", "pro"], {"props"}),
        (["compare", "ppo", "--task", "CartPole-v1", "Acrobot-"], {"Acrobot-v1"}),
        (["base-model", ""], {"build", "list"}),
        (["completion", ""], {"bash", "zsh"}),
        (["no-such-command", ""], set()),
        (["train", "no-such-method", "--s"], set()),
    ],
)
def test_what_is_completed(words: list[str], some: set[str]) -> None:
    found = candidates(words)
    assert some <= set(found) if some else not found
    assert all(each.startswith(words[-1]) for each in found)


def test_runs_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "ppo-CartPole-v1-s0").mkdir(parents=True)
    assert candidates(["resume", "ru"]) == ["runs/ppo-CartPole-v1-s0"]


SHELLS = {
    "bash": "{script}\nCOMP_WORDS=(rheostat train props); COMP_CWORD=2; _rheostat; echo ${{COMPREPLY[@]}}",
    "zsh": 'compdef() {{ }}; compadd() {{ print "${{(@P)2}}" }}; {script}\nwords=(rheostat train props); CURRENT=3; _rheostat',
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    main(["completion", shell])
    text = capsys.readouterr().out
    assert text == script(shell) and len(text) < 20_000
    done = subprocess.run([shell, "-c", SHELLS[shell].format(script=text)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["props"] and not done.stderr


def test_the_result_of_training_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"steps": 6, "accuracy": -0.12, "validation_length": 24.0, "warnings": ["Nothing moved."]}
    announce(SimpleNamespace(summary=summary, settings=SimpleNamespace(method="grpo", task="sums", seed=0), directory=Path("runs/x")))
    said = capsys.readouterr().out
    assert "validation reward" in said and "accuracy" not in said and "Note: Nothing moved." in said


def test_training_without_a_method_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train"])
    assert stop.value.code == 0 and "  props " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["train", "--steps", "5"])
    assert stop.value.code == 2 and "Say which method to train" in capsys.readouterr().err

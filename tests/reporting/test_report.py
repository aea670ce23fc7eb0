"""The report as a document: self-contained, escaped, complete without scripts. How it looks and moves is tested in ``tests/browser``."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from rheostat.analysis.format import format_number
from rheostat.errors import RheostatError
from rheostat.reporting.report import Section, write_report
from tests.analysis.synthetic import write_comparison, write_run


class Page(HTMLParser):
    """Text outside scripts, ids, and unbalanced tags of a page."""

    VOID = frozenset({"meta", "link", "input", "br", "path", "circle", "img", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))
        for key in ("href", "src", "action"):
            if attributes.get(key):
                self.references.append(str(attributes[key]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(path: Path) -> tuple[str, Page, dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    charts = json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    return text, Page(text), charts


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("report")
    write_comparison(where / "c", levels={"ppo": 900.0, "props": 2500.0})
    return write_report([where / "c"], where / "page.html")


def test_the_page_is_well_formed_and_asks_for_nothing(comparison: Path) -> None:
    text, page, _ = read(comparison)
    assert not page.open
    assert len(set(page.ids)) == len(page.ids)
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert "default-src 'none'" in text
    labels = [attributes.get("aria-labelledby") for _, attributes in page.tags if attributes.get("aria-labelledby")]
    assert labels
    assert set(labels) <= set(page.ids)


def test_the_library_is_inside(comparison: Path) -> None:
    text = comparison.read_text(encoding="utf-8")
    packed = re.search(r'id="library">([^<]*)</script>', text)
    assert packed is not None
    assert b"plotly.js" in gzip.decompress(base64.b64decode(packed[1]))[:200]
    assert len(text) < 3_000_000


def test_everything_can_be_read_without_scripts(comparison: Path) -> None:
    _, page, _ = read(comparison)
    for words in (
        "ppo and props on Hopper-v5",
        "2 arms · 5 seeds each · 100,000 environment steps each",
        "Final evaluation return",
        "better",
    ):
        assert words in page.text
    assert "behaviour_target_kl" in page.text  # configuration differences
    assert "num_envs" not in page.text  # ... and only differences
    assert "rheostat compare ppo props --task Hopper-v5 --seeds 5" in page.text
    assert "rheostat report" in page.text
    assert "2.13.0" in page.text
    plots = [attributes for tag, attributes in page.tags if "data-panel" in attributes]
    assert all(attributes["role"] == "img" and "goes from" in str(attributes["aria-label"]) for attributes in plots)
    assert sum(tag == "table" for tag, _ in page.tags) >= len(plots)


def test_curves_are_thin_and_match_their_arms(comparison: Path) -> None:
    _, page, charts = read(comparison)
    (task,) = charts["tasks"]
    assert [arm["label"] for arm in task["arms"]] == ["ppo", "props"]
    assert list(task["axes"]) == ["steps", "updates", "gradient_steps", "seconds"]
    assert set(task["panels"]) == {str(attributes["data-panel"]) for _, attributes in page.tags if "data-panel" in attributes}
    for panel in task["panels"].values():
        for series in panel["series"]:
            lengths = {len(series["y"]), len(series["low"]), len(series["high"]), *(len(series["x"][axis]) for axis in task["axes"])}
            assert len(lengths) == 1
            assert lengths.pop() <= 500
    assert sum("seeds" in series for panel in task["panels"].values() for series in panel["series"]) == 2  # of the headline only


def test_whatever_users_write_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    run = write_run(tmp_path / "run", task=evil, command=f"rheostat {evil}", note=evil)
    write_run(tmp_path / "other", task=evil, method=f"m{evil}", note="harmless")
    for file in (tmp_path / "run", tmp_path / "other"):
        rows = (file / "metrics.jsonl").read_text().splitlines()
        rows[-1] = json.dumps(json.loads(rows[-1]) | {f"meter/{evil}": 1.0})
        (file / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    for paths in ([run], [run, tmp_path / "other"]):
        page = write_report(paths, tmp_path / "page.html", title=evil, sections=[Section(evil, evil)])
        text, parsed, _ = read(page)
        assert "<img src=x" not in text
        assert "<script>alert" not in text
        assert not parsed.open
        assert "alert(1)" in parsed.text


def test_rendered_sections_are_taken_as_they_are(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    page = write_report([run], tmp_path / "page.html", sections=[Section("Rollouts", Markup("<p class='rollout'>2 + 2 = <b>4</b></p>"))])
    assert "<p class='rollout'>2 + 2 = <b>4</b></p>" in page.read_text()
    assert "Rollouts" in read(page)[1].text


def test_a_single_run(tmp_path: Path) -> None:
    page = write_report([write_run(tmp_path / "run", seed=7, rows=3000)], tmp_path / "deep" / "page.html")
    _, parsed, charts = read(page)
    assert "ppo on Hopper-v5" in parsed.text
    assert "seed 7 · 100,000 environment steps" in parsed.text
    assert "Each point is the mean of 12 rows" in parsed.text
    assert "num_envs" in parsed.text  # the whole configuration, folded
    assert max(len(series["y"]) for panel in charts["tasks"][0]["panels"].values() for series in panel["series"]) <= 500
    assert page.stat().st_size < 2_600_000


def test_unfinished_runs_and_runs_without_rows(tmp_path: Path) -> None:
    started = write_run(tmp_path / "started", finished=False)
    fresh = write_run(tmp_path / "fresh", seed=1, finished=False)
    (fresh / "metrics.jsonl").write_text("")
    (fresh / "timings.jsonl").unlink()
    for paths in ([started], [fresh], [started, fresh]):
        text = html.unescape(read(write_report(paths, tmp_path / "page.html"))[1].text)
        assert "not finished" in text


def test_several_tasks_have_sections_of_their_own(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / task, task=task) for task in ("Hopper-v5", "Ant-v5")]
    _, page, charts = read(write_report(runs, tmp_path / "page.html"))
    assert len(charts["tasks"]) == 2
    assert "ppo on Hopper-v5 and Ant-v5" in page.text
    assert len(set(page.ids)) == len(page.ids)


def test_language_runs_choose_their_own_panels(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", method="grpo", task="chain-sum", steps=30, rows=30, budget="updates")
    rows = [
        {
            "iteration": i,
            "steps": i,
            "updates": i,
            "reward": i / 30,
            "completion_length": 20.0,
            "kl_reference": 0.1,
            "generated_tokens": 900 * i,
        }
        | {"learner_tokens": 800 * i, "reward_calls": 64 * i, "gradient_steps": 1}
        | ({"accuracy": i / 40} if i % 10 == 0 else {})
        for i in range(1, 31)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "summary.json").write_text(json.dumps({"accuracy": 0.75}))
    _, page, charts = read(write_report([run], tmp_path / "page.html"))
    (task,) = charts["tasks"]
    assert list(task["axes"]) == ["steps", "gradient_steps", "seconds", "generated_tokens", "learner_tokens", "reward_calls"]
    assert task["axes"]["steps"] == "Updates"
    assert next(iter(task["panels"].values()))["label"] == "Validation reward"
    assert {"Reward", "Completion length", "KL to the reference"} <= {panel["label"] for panel in task["panels"].values()}
    assert "Final validation reward" in page.text


@pytest.mark.parametrize(
    ("file", "text"), [("config.json", "{"), ("metrics.jsonl", '{"steps": 1}\nx\n{"steps": 2}\n'), ("summary.json", "[1]")]
)
def test_a_page_of_what_is_whole_says_what_is_left_out(tmp_path: Path, file: str, text: str) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"ppo-s{seed}", seed=seed)
    alone = write_report([tmp_path / "ppo-s1"], tmp_path / "alone.html").read_text()
    (tmp_path / "ppo-s0" / file).write_text(text)
    (tmp_path / "compare.json").write_text("{")
    page = html.unescape(write_report([tmp_path], tmp_path / "page.html").read_text())
    assert "Runs left out" in page and f"{tmp_path / 'ppo-s0' / file} is damaged" in page and "Runs left out" not in alone
    assert f"Whether a run is missing, and which margin was declared, cannot be told: {tmp_path / 'compare.json'} is damaged" in page
    (tmp_path / "ppo-s1" / "config.json").write_text("{")
    with pytest.raises(RheostatError, match=r"ppo-s0.* is damaged.*ppo-s1.* is damaged"):
        write_report([tmp_path], tmp_path / "page.html")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="at least one directory"):
        write_report([], tmp_path / "page.html")
    with pytest.raises(RheostatError, match="does not exist"):
        write_report([tmp_path / "nowhere"], tmp_path / "page.html")
    run = write_run(tmp_path / "run")
    with pytest.raises(RheostatError, match="Could not write the report"):
        write_report([run], run / "config.json" / "page.html")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (99.999, "100"),
        (1000.0, "1,000"),
        (1234.5, "1,234"),
        (-0.05, "-0.05"),
        (1e-6, "1e-06"),
        (3e9, "3e+09"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_numbers_read_well(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_win_rate_against_kl_has_an_axis_of_its_own(tmp_path: Path) -> None:
    """Also where a measurement comes only now and then; the axes of time stay those of the other panels."""
    for method, factor in (("dpo", 1.0), ("online-dpo", 2.0)):
        measured = [{"validation_kl": factor * n, "validation_win_rate": 0.5 + 0.1 * n} if n % 2 == 0 else {} for n in range(5)]
        rows = [{"steps": n, "updates": n, "iteration": n, "reward": 0.1 * n} | found for n, found in enumerate(measured)]
        run = write_run(tmp_path / method, method=method, task="prompts", steps=4, rows=4, budget="updates")
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text, page, charts = read(write_report([tmp_path], tmp_path / "report.html"))
    (task,) = charts["tasks"]
    (panel,) = [panel for panel in task["panels"].values() if panel["label"] == "Win rate against KL"]
    assert panel["axis"] == "KL to the start (nats)" and [each["x"] for each in panel["series"]] == [
        {"own": [0.0, 2.0, 4.0]},
        {"own": [0.0, 4.0, 8.0]},
    ]
    assert panel["series"][0]["y"] == [0.5, 0.7, 0.9] and "steps" in task["axes"]
    assert "ends at 8 nats with 90%" in html.unescape(text) and "8, 0.9" in page.text

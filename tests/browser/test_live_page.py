"""The page that refreshes itself, in a real browser: new numbers arrive, and what the reader has chosen stays."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from rheostat.reporting.live_page import LivePage
from tests.analysis.synthetic import write_run
from tests.browser.driver import MISSING, Browser

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
CHART = "document.querySelector('.headline .plot')"


def append(run: Path, steps: int, value: float, **more: float) -> None:
    """One more row of the log."""
    newest = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(newest | {"iteration": newest["iteration"] + 1, "steps": steps, "episode_return": value} | more) + "\n")


def test_new_numbers_arrive_and_choices_stay(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    with LivePage([run], every=0.2) as page, Browser(1000, 900) as browser:
        threading.Thread(target=page.serve, daemon=True).start()
        browser.open(page.address)
        browser.wait(f"{CHART} && {CHART}.querySelector('.main-svg') !== null")
        browser.run("document.querySelector('input[value=updates]').click()")
        browser.run("document.querySelector('details.more').open = true; document.querySelector('.headline details').open = true")
        append(run, 130_000, 4321.0, surprise=1.0)
        browser.wait(f"{CHART}.data.at(-1).y.at(-1) === 4321")
        assert browser.run("return document.querySelector('input[value=updates]').checked")
        assert browser.run(f"return {CHART}.layout.xaxis.title.text") == "Policy updates"
        assert browser.run("return document.querySelector('details.more').open && document.querySelector('.headline details').open")
        assert "Surprise" in browser.run("return document.querySelector('main').textContent")
        assert "4,321" in browser.run("return document.querySelector('.headline table').textContent")
        assert browser.console() == []
        page.server.shutdown()
        page.server.server_close()
        browser.wait("document.getElementById('status').textContent === 'The page is not being served any more.'")

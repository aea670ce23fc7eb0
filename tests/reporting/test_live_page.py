"""The page that refreshes itself: what it serves, to whom, and what it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rheostat.errors import RheostatError
from rheostat.locks import held
from rheostat.reporting.live_page import LivePage, recent_speed
from rheostat.training.run_directory import LOCK
from tests.analysis.synthetic import write_comparison, write_run
from tests.reporting.test_rollouts import EVIL, keep, row


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", finished=False)


@pytest.fixture
def page(run: Path) -> Iterator[LivePage]:
    with LivePage([run], every=0.2) as found:
        threading.Thread(target=found.serve, daemon=True).start()
        yield found
        found.server.shutdown()


def ask(page: LivePage, path: str = "/", method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", page.server.server_port, timeout=20)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def test_the_page_and_its_update(page: LivePage, run: Path) -> None:
    status, headers, text = ask(page)
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8" and headers["Cache-Control"] == "no-store"
    assert 'data-every="0.2"' in text and "connect-src 'self'" in text and "stopped, 100% of 100,000" in text
    status, _, update = ask(page, "/update")
    assert status == 200 and len(update) < len(text) / 5, "the library travels once"
    status, headers, nothing = ask(page, "/", "HEAD")
    assert status == 200 and nothing == "" and int(headers["Content-Length"]) > 1e5


def test_an_update_shows_what_was_written_since(page: LivePage, run: Path) -> None:
    page.every = 0.0
    before = json.loads(ask(page, "/update")[2].partition('id="charts">')[2].partition("</script>")[0])
    rows = (run / "metrics.jsonl").read_text().splitlines()
    newer = json.loads(rows[-1]) | {"iteration": 41, "steps": 120_000, "episode_return": 4321.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(newer) + "\n")
    after = json.loads(ask(page, "/update")[2].partition('id="charts">')[2].partition("</script>")[0])

    def last(charts: dict) -> float:  # type: ignore[type-arg]
        return next(iter(charts["tasks"][0]["panels"].values()))["series"][0]["y"][-1]

    assert last(after) == 4321.0 != last(before)


def test_the_status_says_how_fast_and_how_long(page: LivePage, run: Path) -> None:
    speed = recent_speed(run)
    assert 1_000 < speed < 10_000
    config = json.loads((run / "config.json").read_text())
    config["settings"]["steps"] = 200_000
    (run / "config.json").write_text(json.dumps(config))
    with held(run / LOCK, "it"):
        text = ask(page)[2]
    assert f"running, 50% of 200,000, {speed:,.4g} per second, 0:00:{100_000 / speed:02.0f} left" in text


def test_nothing_but_the_page_is_served(page: LivePage, run: Path) -> None:
    for path in ("/config.json", "/../config.json", "/update/", "/?x", "/%2e%2e/config.json", f"{run}/config.json"):
        status, _, text = ask(page, path)
        assert (status, text) == (404, "There is nothing but the page itself."), path
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert ask(page, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.evil.example:8000"])
def test_requests_in_the_name_of_another_host_are_refused(page: LivePage, host: str) -> None:
    status, _, text = ask(page, host=host)
    assert (status, text) == (403, "This page is for this machine only.")


def test_tunnels_may_have_another_port(page: LivePage) -> None:
    assert ask(page, host="localhost:1234")[0] == ask(page, host="127.0.0.1")[0] == 200


def test_only_this_machine_is_listened_to(page: LivePage) -> None:
    assert page.server.server_address[0] == "127.0.0.1"
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(("127.0.0.1", page.server.server_port))


def test_what_a_model_wrote_stays_text(page: LivePage, run: Path) -> None:
    config = (run / "config.json").read_text()
    keep(run, 3, [row(text=EVIL + "\x1b[2J")])
    (run / "config.json").write_text(config)
    text = ask(page)[2]
    assert EVIL not in text and "&lt;" in text and "\x1b" not in text


def test_a_file_that_is_being_damaged_is_a_sentence_and_the_server_lives(page: LivePage, run: Path) -> None:
    whole = (run / "config.json").read_text()
    (run / "config.json").write_text("{")
    status, headers, text = ask(page)
    assert status == 503 and headers["Content-Type"].startswith("text/plain") and "config.json is damaged" in text
    (run / "config.json").write_text(whole)
    assert ask(page)[0] == 200


def test_a_comparison_is_counted(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c")
    with LivePage([folder]) as page:
        assert "10 finished" in page.update() or "finished" in page._status(None)


def test_what_cannot_be_served_is_one_sentence(run: Path) -> None:
    with pytest.raises(RheostatError, match=r"every 0\.2 to 3,600 seconds"):
        LivePage([run], every=0.0)
    with pytest.raises(RheostatError, match="does not exist"):
        LivePage([run / "nothing"])
    with LivePage([run]) as page, pytest.raises(RheostatError, match="name another one with --port"):
        LivePage([run], port=page.server.server_port)
    with pytest.raises(RheostatError, match="--port is 99999"):
        LivePage([run], port=99_999)

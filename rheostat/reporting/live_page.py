"""The report of running runs, as a page that refreshes itself.

The page is served on the loopback interface alone: no other machine can reach it. A page of another site that a browser of this machine
has open cannot read it either, because requests in the name of another host are refused (DNS rebinding). The server has two paths, reads
nothing that a request names, and takes nothing but ``GET`` and ``HEAD``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from rheostat.analysis.records import find_runs, read_records
from rheostat.analysis.run_list import list_runs
from rheostat.errors import RheostatError
from rheostat.reporting.report import Live, Section, render, unread
from rheostat.reporting.rollouts import kept_updates, rollouts_section
from rheostat.terminal import clock
from rheostat.training.logs import read_jsonl, read_timings

HOSTS = ("127.0.0.1", "localhost")
"""Names by which a request may call the server; the port may differ, because of tunnels."""
RECENT = 20
"""Rows of the log over which the speed is taken."""
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class LivePage:
    """``with LivePage([directory]) as page: page.serve()``.

    Args:
        paths: directories of runs, comparisons or sweeps.
        port: on 127.0.0.1; 0 takes a free one.
        every: seconds between two reads of the files.

    Raises:
        RheostatError: no run there, an interval that is not positive, or a port that is taken.
    """

    def __init__(self, paths: Sequence[str | Path], *, port: int = 0, every: float = 5.0) -> None:
        if not 0.2 <= every <= 3600:
            raise RheostatError(f"--every is {every:g}: look every 0.2 to 3,600 seconds.")
        if not 0 <= port <= 65_535:
            raise RheostatError(f"--port is {port}: a port is a number from 1 to 65,535, and 0 takes a free one.")
        find_runs(paths)
        self.paths, self.every = [Path(path) for path in paths], every
        self._lock, self._page, self._at = threading.Lock(), "", 0.0
        try:
            self.server = ThreadingHTTPServer((HOSTS[0], port), _handler(self))
        except OSError as error:
            raise RheostatError(f"Port {port} of this machine cannot be used ({error.strerror}): name another one with --port.") from error
        self.server.daemon_threads = True

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{HOSTS[0]}:{self.server.server_port}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.server_close()

    def serve(self) -> None:
        """Answer requests until Ctrl-C."""
        try:
            self.server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            return

    def whole(self) -> str:
        """The page with everything it needs.

        Raises:
            RheostatError: a file is damaged.
        """
        return self._rendered(library=True)

    def update(self) -> str:
        """The page as it is now, without the library that draws; several readers share one read of the files.

        Raises:
            RheostatError: a file is damaged.
        """
        with self._lock:
            if time.monotonic() - self._at > self.every / 2:
                self._page, self._at = self._rendered(library=False), time.monotonic()
            return self._page

    def _rendered(self, *, library: bool) -> str:
        directories = find_runs(self.paths)
        records, damaged = read_records(directories)
        alone = directories[0] if len(directories) == 1 else None
        section = rollouts_section(alone) if alone is not None and kept_updates(alone) else None
        sections: list[Section] = [*unread(damaged), *([section] if section else [])]
        return render(records, sections=sections, live=Live(self.every, self._status(alone)), library=library)

    def _status(self, alone: Path | None) -> str:
        """The progress in a line."""
        if alone is None:
            runs = [run for path in self.paths for run in list_runs(path)]
            counts = {state: sum(run.state == state for run in runs) for state in ("finished", "running", "stopped", "damaged", "unknown")}
            return ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        (run,) = list_runs(alone)
        share = f"{run.state}, {min(1.0, run.done / max(1, run.total)):.0%} of {run.total:,}"
        speed = recent_speed(alone)
        if run.state != "running" or speed <= 0:
            return share
        return f"{share}, {speed:,.4g} per second, {clock(max(0, run.total - run.done) / speed)} left"


def recent_speed(directory: Path) -> float:
    """Budget per second of wall time over the last rows of a run's log; 0 where it is unknown."""
    seconds = {row["iteration"]: float(row["seconds"]) for row in read_timings(directory)}
    rows = [row for row in read_jsonl(directory / "metrics.jsonl") if row.get("iteration") in seconds][-RECENT:]
    if len(rows) < 2:
        return 0.0
    took = seconds[rows[-1]["iteration"]] - seconds[rows[0]["iteration"]]
    return (rows[-1]["steps"] - rows[0]["steps"]) / took if took > 0 else 0.0


def _handler(page: LivePage) -> type[BaseHTTPRequestHandler]:
    """The handler of a page's requests; it has no other methods than GET and HEAD, so that the server refuses those itself."""
    answers = {"/": page.whole, "/update": page.update}

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "Rheostat", ""

        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")
            if (host[0] or host[2]) not in HOSTS:
                self._send(HTTPStatus.FORBIDDEN, "This page is for this machine only.")
            elif self.path not in answers:
                self._send(HTTPStatus.NOT_FOUND, "There is nothing but the page itself.")
            else:
                try:
                    self._send(HTTPStatus.OK, answers[self.path](), "text/html")
                except RheostatError as error:  # being written at this moment, or damaged
                    self._send(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

        do_HEAD = do_GET

        def _send(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
            body = text.encode()
            self.send_response(status)
            headers = HEADERS | {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the terminal stays as it is."""

    return Handler

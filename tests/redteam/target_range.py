"""Where the attacks are tried: a canary, listeners, a watch over signals and processes, and the stand-in grader at one level."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rheostat.credit.verifiers import Isolated, Rollout
from tests.redteam.attacks import Attack
from tests.redteam.standin import Grader

SLACK = 3.0
VARIABLE = "RHEOSTAT_REDTEAM_SECRET"
CALLS = "import ctypes\nL = ctypes.CDLL(None, use_errno=True)\nS = lambda n, *a: L.syscall(ctypes.c_long(n), *a)\ngot = ''\n"


class Range:
    """One level under attack.

    Args:
        level: setting of the sandbox.
        scratch: an empty folder.
        limit: seconds a grading may take.
    """

    def __init__(self, level: str, scratch: Path, limit: float = 1.0) -> None:
        self.limit, self.level, self.mark = limit, level, f"redteam{os.getpid()}"
        self.secret = f"SECRET{os.urandom(6).hex()}"
        os.environ[VARIABLE] = self.secret
        self.folder, self.library = scratch / "folder", scratch / "library"
        for place in (scratch, self.folder, self.library):
            place.mkdir(exist_ok=True)
            place.chmod(0o777)
        self._heard: list[int] = []
        self._before = signal.signal(signal.SIGUSR1, lambda number, _: self._heard.append(number))
        sys.path.append(str(self.library))
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.udp.bind(("::", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0{self.mark}")
        self.abstract.listen()
        self._unix: socket.socket | None = None
        self._fresh_folder()
        self._others = set(filter(str.isdigit, os.listdir("/proc")))
        self.grader = self._grader()

    def _grader(self) -> Isolated:
        return Isolated(f"{Grader.__module__}:{Grader.__name__}", timeout=self.limit, sandbox=self.level, memory=512, give_up_after=1000)

    def close(self) -> None:
        """Put everything back."""
        self.grader.close()
        signal.signal(signal.SIGUSR1, self._before)
        sys.path.remove(str(self.library))
        os.environ.pop(VARIABLE, None)
        for listener in (self.tcp, self.udp, self.abstract, self._unix):
            if listener is not None:
                listener.close()
        Path("/dev/shm", self.mark).unlink(missing_ok=True)

    def _fresh_folder(self) -> None:
        if self._unix is not None:
            self._unix.close()
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.folder.chmod(0o777)
        self.canary = self.folder / "canary"
        self.canary.write_text(self.secret)
        self.canary.chmod(0o666)
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind(str(self.folder / "socket"))
        self._unix.listen()
        for poison in self.library.iterdir():
            shutil.rmtree(poison) if poison.is_dir() else poison.unlink()
        Path("/dev/shm", self.mark).unlink(missing_ok=True)
        self._files = self._snapshot()

    def _snapshot(self) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = [("shm", Path("/dev/shm", self.mark).exists())]
        for folder in (self.folder, self.library):
            for path in sorted(folder.rglob("*")):
                facts = path.lstat()
                found.append((path.name, facts.st_mtime_ns, facts.st_mode, facts.st_size, facts.st_uid))
        return found

    def _processes(self) -> set[int]:
        """Living processes that descend from a grading process of this range, whatever became of their parents."""
        found = set()
        for name in set(filter(str.isdigit, os.listdir("/proc"))) - self._others:
            with contextlib.suppress(OSError):
                alive = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
                if alive and str(self.library).encode() in Path(f"/proc/{name}/environ").read_bytes():
                    found.add(int(name))
        return found

    def _server(self) -> int | None:
        process = self.grader._workers[0]._process
        return None if process is None or process.poll() is not None else process.pid

    def _own(self) -> set[int]:
        """The grading process, and what namespaces keep beside it."""
        pid = self._server()
        if pid is None:
            return set()
        own = {pid}
        if self.level == "namespaces":
            with contextlib.suppress(OSError):
                own |= {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
        return own

    def _heard_by(self) -> Iterator[str]:
        for listener, name in ((self.tcp, "TCP"), (self.udp, "UDP"), (self._unix, "UNIX"), (self.abstract, "abstract")):
            assert listener is not None
            listener.setblocking(False)
            while True:
                try:
                    listener.recv(9) if name == "UDP" else listener.accept()[0].close()
                except OSError:
                    break
                yield f"heard by {name}"

    def fire(self, attack: Attack) -> list[str]:
        """What got out; empty where nothing did."""
        if (attack.parent and self.level == "off") or (attack.machine and attack.machine != platform.machine()):
            return []
        if self._server() is None:  # the last attack took it along
            self.grader.score([Rollout("p", "got = 'right'", answer="right")])
        server, files = self._server(), self._files
        self._heard.clear()
        world = {"FILE": str(self.canary), "FOLDER": str(self.folder), "LIBRARY": str(self.library), "PID": os.getpid(), "MARK": self.mark}
        world |= {"TCP": self.tcp.getsockname()[1], "UDP": self.udp.getsockname()[1], "VARIABLE": VARIABLE, "OTHER": "other-"}
        hostile = Rollout("p", CALLS + attack.code, answer="forged only", columns={"world": world})
        later = [Rollout("p", "got = 'wrong'", answer=f"other-{os.urandom(4).hex()}")]
        if attack.kind == "change another's grade":
            later.append(Rollout("p", "import time; time.sleep(0.06); got = 'right'", answer="right"))  # some of it comes late
        began = time.monotonic()
        scores = self.grader.score([hostile, *later])
        took = time.monotonic() - began
        out = []
        note = " ".join(notes[0] for notes in scores.notes.values())
        if self.secret in note or "GOT" in note:
            out.append("got it")
        if self._snapshot() != files:
            out.append("files changed")
            self._fresh_folder()
        out += sorted(set(self._heard_by()))
        if self._heard:
            out.append("trainer signalled")
        stray = self._processes() - self._own() if self._server() == server else set()
        if stray:
            out.append(f"{len(stray)} processes left")
            for pid in stray:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if scores.reward[1:].tolist() != [0.0, 1.0][: len(later)]:
            out.append(f"later grades {scores.reward[1:].tolist()}")
        elif scores.notes["got"][1:] != ["wrong", "right"][: len(later)]:
            out.append("later answers changed")
        if self._server() != server:
            out.append("grading process lost")
        if took > self.limit + SLACK:
            out.append(f"took {took:.1f} s")
        if scores.reward[0] == 1:
            out.append("own reward forged")
        if self.level == "off" and out:
            self._restart()
        return out

    def _restart(self) -> None:
        self.grader.close()
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def outside(out: Sequence[str]) -> list[str]:
    """The effects beyond the completion's own reward."""
    return [effect for effect in out if effect != "own reward forged"]


@contextlib.contextmanager
def at(level: str, limit: float = 1.0) -> Iterator[Range]:
    """A range at this level.

    Raises:
        RheostatError: the level does not hold here.
    """
    with tempfile.TemporaryDirectory() as scratch:
        ground = Range(level, Path(scratch), limit)
        try:
            yield ground
        finally:
            ground.close()

"""The trainer's side of a grading process: start it at a level, measure that level, send jobs, read the answers, end it."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import secrets
import signal
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from rheostat.credit.verifiers.sandbox import wire
from rheostat.credit.verifiers.sandbox.levels import PROMISES, Standing, candidates
from rheostat.credit.verifiers.sandbox.worker.graders import NothingHandler
from rheostat.credit.verifiers.sandbox.worker.probe import read_mask
from rheostat.errors import RheostatError

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/dev/zero")
"""What programs and libraries read on a Linux system, and nothing personal."""
PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT")
"""Variables without which some Pythons do not start."""
NEIGHBOURS = 500
"""Most Python files in the folder of a grader's file that it may read after it was loaded."""
SERVER_GRACE = 5.0
"""Seconds the grading process has, beyond a job's own limit, to answer that the job ran past it."""
CANARY = f"RHEOSTAT_CANARY_{secrets.token_hex(4)}"
"""A variable that stands for the trainer's secrets: the measurement looks for it."""
MEASURING = 30.0
"""Seconds the measurement may take; it takes milliseconds on an idle machine."""
LINE = 4096
"""Longest line of a grader's output that is read."""
KEEP_UP = 0.2
"""Seconds to wait for the last output of a dead grader."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Grading:
    """What a grading process runs, and how."""

    target: str
    """For messages."""
    handler: str
    """``module:Class`` that the process makes and hands jobs to."""
    options: dict[str, Any]
    """Of the handler."""
    sandbox: str = "best"
    needs: tuple[str, ...] = ()
    memory: int = 1024
    """MiB that a job may take beyond what the loaded grader has; 0 for no limit."""
    start_timeout: float = 120.0
    """Seconds that loading may take."""
    folder: str | None = None
    """Where the grader's file lies, which must be readable while it is loaded."""
    readable: tuple[str, ...] = ()
    """Further files that it reads or becomes."""


@dataclass(frozen=True)
class Answer:
    """One frame, or (kind None) what went wrong with the process itself."""

    kind: int | None
    row: int = 0
    content: bytes = b""
    trouble: str = ""


class NotHere(Exception):
    """This level does not start or does not hold here; the text gives the reason."""


class GradingProcess:
    """One grading process and its messages.

    Args:
        grading: what it runs.
        level: at which to run, without measuring (another process of the same grader did); None measures the level.

    Raises:
        RheostatError: the grader cannot be loaded, or no level of the setting holds here.
    """

    def __init__(self, grading: Grading, level: str | None = None) -> None:
        self.grading = grading
        self.name, self.batched, self.asynchronous = "", False, False
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[Answer] = queue.Queue()
        self._said: deque[str] = deque(maxlen=5)
        self._overhearing: threading.Thread | None = None
        self.standing = Standing(grading.target, level or "off", grading.needs)
        if level is None:
            self._find_level()

    @property
    def forked(self) -> bool:
        """Whether every job has a process of its own."""
        return self.standing.level != "off" and "state" not in self.grading.needs

    def _find_level(self) -> None:
        refused: dict[str, str] = {}
        for level in candidates(self.grading.sandbox, self.grading.needs):
            self.standing = Standing(self.grading.target, level, self.grading.needs)
            try:
                self.start()
                self.standing = replace(self._measured(), refused=refused)
                return
            except NotHere as error:
                refused[level] = str(error)
            except RheostatError:
                if level != "namespaces":  # there, loading may lack a file; elsewhere it is the grader's own failure
                    raise
                refused[level] = "the grader does not load there"
            self.stop()
        why = "; ".join(f"{level}: {text}" for level, text in refused.items())
        raise RheostatError(
            f"No sandbox of the setting {self.grading.sandbox!r} holds here for {self.grading.target} ({why}): "
            "take --sandbox best, or --sandbox off to run it unprotected."
        )

    # --- the process ------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and load the grader in it.

        Raises:
            NotHere: the level does not start.
            RheostatError: the grader cannot be loaded.
        """
        level, grading = self.standing.level, self.grading
        if level != "off" and not hasattr(os, "fork"):
            raise NotHere("this system cannot fork")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from rheostat.credit.verifiers.sandbox.worker.serve import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment({**os.environ, CANARY: "canary"}, whole=level == "off" or "environment" in grading.needs),
            cwd=None if level == "off" or "files" in grading.needs else "/",
            start_new_session=True,  # a group of its own: the trainer handles an interrupt from the keyboard, and its children die with it
        )
        weakref.finalize(self, _kill, self._process)
        self._answers, self._said = queue.Queue(), deque(maxlen=5)
        threading.Thread(target=_hear, args=(self._process.stdout, self._answers), daemon=True).start()
        self._overhearing = threading.Thread(target=_overhear, args=(self._process.stderr, self._said), daemon=True)
        self._overhearing.start()
        libraries = library_places() + python_files(grading.folder) + list(grading.readable)
        hello = {
            "level": level,
            "needs": grading.needs,
            "forked": self.forked,
            "memory": grading.memory << 20,
            "libraries": libraries,
            "listable": [grading.folder] if grading.folder else [],
            "loadable": [*(os.path.realpath(place or os.getcwd()) for place in sys.path), *filter(None, [grading.folder])],
            "target": grading.target,
            "handler": grading.handler,
            "options": grading.options,
        }
        if not self._write(hello):
            raise NotHere(f"the grading process does not start: {self._death()}")
        answer = self.receive(grading.start_timeout, grading.start_timeout)
        if answer.kind == wire.READY:
            self.name, self.batched, self.asynchronous = wire.text_of(answer.content), bool(answer.row & 1), bool(answer.row & 2)
            return
        self.stop()
        if answer.kind == wire.DIED:
            raise NotHere(wire.text_of(answer.content))
        if answer.kind == wire.REFUSED:
            raise RheostatError(wire.text_of(answer.content))
        raise RheostatError(f"Loading the grader {grading.target} {answer.trouble}.")

    def stop(self) -> None:
        """Kill the process and whatever it started."""
        if self._process is not None:
            _kill(self._process)
            self._process = None

    def _measured(self) -> Standing:
        """The standing after a hostile job tried what the level should stop.

        Raises:
            NotHere: something that the level promises to stop worked, or the job did not end well.
        """
        if not self.forked:
            return self.standing
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            port = None
            with contextlib.suppress(OSError):
                port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            canary = Path(folder) / "canary"
            canary.write_text("canary")
            probe = {"file": str(canary), "drop": f"{folder}/drop", "port": port, "variable": CANARY, "pid": os.getpid()}
            limited = self.grading.memory and "programs" not in self.grading.needs  # programs have address spaces of their own
            probe["memory"] = (self.grading.memory << 20) + (1 << 30) if limited else None
            trouble = self.send({"probe": probe, "limit": MEASURING, "grace": 0.0, "count": 1, "ordered": False})
            answer = self.receive(MEASURING, SERVER_GRACE)
            if trouble or answer.kind != wire.RECORD:
                raise NotHere(f"the measurement failed ({trouble or answer.trouble or wire.text_of(answer.content)})")
            stopped, worked = read_mask(answer.content)
            self.receive(1.0, SERVER_GRACE)
        standing = replace(self.standing, stopped=stopped, worked=worked)
        promised = PROMISES[standing.level] - ({"variable"} if "environment" in self.grading.needs else set())
        broken = [name for name in worked if name in promised]
        if broken:
            raise NotHere(f"does not stop {', '.join(broken)}")
        return standing

    # --- messages ---------------------------------------------------------------------------------------------------------------------

    def send(self, job: dict[str, Any]) -> str:
        """Send a job, starting the process if need be; returns what went wrong, or nothing."""
        if self._process is None:
            try:
                self.start()
            except NotHere as error:
                raise RheostatError(f"The sandbox of {self.grading.target} does not start any more: {error}.") from error
        self._said.clear()
        return "" if self._write(job) else self._death()

    def receive(self, limit: float, grace: float = 0.0) -> Answer:
        """The next frame; ``kind`` is None when none came in time or the process is gone."""
        try:
            answer = self._answers.get(timeout=limit + grace)
        except queue.Empty:
            return Answer(None, trouble=f"ran past its limit of {limit:g} s")
        return Answer(None, trouble=self._death()) if answer.kind is None and not answer.trouble else answer

    def last_words(self, how: str) -> str:
        """How a grader ended, with the last line it printed."""
        for _ in range(20):
            if self._said:
                break
            time.sleep(KEEP_UP / 20)
        last = self._said[-1].strip() if self._said else ""
        return f"{how}; its last words: {last[:200]}" if last else how

    def _write(self, message: dict[str, Any]) -> bool:
        assert self._process is not None and self._process.stdin is not None
        try:
            content = pickle.dumps(message)
        except Exception as error:
            raise RheostatError(
                f"The prompts' columns cannot be sent to the grading process ({error}): keep plain values in them."
            ) from error
        try:
            self._process.stdin.write(wire.JOB.pack(len(content)) + content)
            self._process.stdin.flush()
        except OSError:
            return False
        return True

    def _death(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if self._overhearing is not None:
            self._overhearing.join(timeout=0.5)  # for its last words; a child may hold the stream open, so not for ever
        how = f"ended its process with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"crashed its process ({signal.Signals(-code).name})"
        return self.last_words(how)


def examine(setting: str = "best") -> Standing:
    """The sandbox that a grader would have here.

    Raises:
        RheostatError: none of the setting holds here.
    """
    process = GradingProcess(Grading("a grader", f"{NothingHandler.__module__}:{NothingHandler.__name__}", {}, setting))
    process.stop()
    return process.standing


def environment(variables: Mapping[str, str], whole: bool) -> dict[str, str]:
    """The environment variables of a grading process: none of the trainer's, unless it needs all of them."""
    clean = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    clean |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    passed = dict(variables) if whole else {name: variables[name] for name in PASSED_ON if name in variables}
    found = clean | passed
    found["PYTHONPATH"] = os.pathsep.join(place or os.getcwd() for place in sys.path)  # what we can import, it can
    return found


def library_places() -> list[str]:
    """Files and folders that a grader reads after it was loaded: Python, its packages, this library, the system's libraries."""
    places = [sys.prefix, sys.base_prefix, sys.exec_prefix, *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))]
    places += [*site.getsitepackages(), str(Path(__file__).parents[3])]
    if site.ENABLE_USER_SITE:
        places.append(site.getusersitepackages())
    return list(dict.fromkeys([*SYSTEM, *places, *(os.path.realpath(place) for place in places)]))


def python_files(folder: str | None) -> list[str]:
    """The Python files in the folder of a grader's file, which it may import late; no other file of that folder."""
    if folder is None:
        return []
    found: list[str] = []
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith((".", "__")) and (Path(place) / name / "__init__.py").exists()]
        found += [os.path.join(place, name) for name in sorted(names) if name.endswith(".py")]
        if len(found) >= NEIGHBOURS:
            break
    return found[:NEIGHBOURS]


def _hear(stream: IO[bytes], answers: queue.Queue[Answer]) -> None:
    frames = wire.Frames(1 << 32)
    with contextlib.suppress(OSError, ValueError), stream:
        while piece := os.read(stream.fileno(), 1 << 16):
            try:
                for kind, row, content in frames.feed(piece):
                    answers.put(Answer(kind, row, content))
                    if kind in (wire.DONE, wire.DIED, wire.LATE, wire.SPOILT, wire.REFUSED):
                        frames = wire.Frames(1 << 32)
            except wire.Garbled as error:
                answers.put(Answer(None, trouble=f"sent what is no answer ({error})"))
                break
    answers.put(Answer(None))


def _overhear(stream: IO[bytes], said: deque[str]) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        while line := stream.readline(LINE):
            text = "".join(letter if letter.isprintable() else " " for letter in line.decode(errors="replace")).rstrip()
            said.append(text)
            _log.info("grader: %s", text)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:  # gone: its number may be another's by now
        return
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def jobs_of(rows: Sequence[int], together: int) -> list[list[int]]:
    """The rows in pieces of so many."""
    return [list(rows[start : start + together]) for start in range(0, len(rows), together)]

"""One writer at a time: a lock file that names its owner, and that the next process can judge.

The file appears whole or not at all, through a hard link, or through exclusive creation where a file system has no links. Both hold on
network file systems, where ``flock`` often locks nothing. Who finds the file reads whose it is:

| owner | what happens |
|---|---|
| a process of this machine that lives | refused, or waited for |
| a process of this machine that is gone (killed, or the machine restarted) | taken over, and said |
| a process of another machine, or of another container | refused, with how to remove the file: whether it lives cannot be seen from here |
| of another directory: the folder was copied, the file with it | taken over |
| not readable | refused, with how to remove the file |
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rheostat.errors import RheostatError

PERIOD = 0.1
"""Seconds between two looks while a lock is waited for."""
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EINVAL)
"""How file systems say that they have no hard links."""


class Locked(RheostatError):
    """Somebody else is writing there."""


@dataclass(frozen=True)
class Owner:
    """Who writes."""

    pid: int
    started: str
    """When the process began, in the operating system's own words: a number of a process is given again."""
    host: str
    boot: str
    """Which start of the machine; empty where it does not say."""
    pids: str
    """Which table of processes the number is in: containers have their own."""
    folder: str
    """The folder of the lock file, and
    """
    inode: int
    """its number: a copy of the folder has another one, a folder that was moved has not."""
    token: str
    """Different for every owner."""

    @classmethod
    def here(cls, path: Path) -> Owner:
        """This process, as the owner of a lock file."""
        pid, folder = os.getpid(), path.parent.resolve()
        return cls(pid, _started(pid) or "", socket.gethostname(), _boot(), _pids(), str(folder), folder.stat().st_ino, uuid.uuid4().hex)

    def copied(self, path: Path) -> bool:
        """Whether the file came here with a copy of its folder."""
        folder = path.parent.resolve()
        return self.folder != str(folder) and self.inode != folder.stat().st_ino

    def gone(self) -> bool | None:
        """Whether the process has ended; None where that cannot be seen from here."""
        if self.host != socket.gethostname():
            return None
        if self.boot != _boot():
            return True
        if self.pids != _pids():
            return None
        started = _started(self.pid)
        return None if started is None and _hidden(self.pid) else started != self.started


def _started(pid: int) -> str | None:
    """When a process began; None where there is none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (OSError, UnicodeDecodeError):
            return None
        return None if fields[0] in "ZX" else fields[19]  # a zombie writes nothing any more
    try:
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None


def _hidden(pid: int) -> bool:
    """Whether a process is somebody else's, which the machine may not show."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _pids() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


@contextmanager
def held(path: Path, what: str, *, patience: float = 0.0, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file; it is removed at the end, whatever the end is.

    Args:
        path: the file.
        what: is being written, for the sentences ("the run in ...").
        patience: seconds to wait for an owner of this machine that lives.
        say: is told, in a sentence, that an owner who is gone left the file behind, and that another one is waited for.

    Raises:
        Locked: somebody else holds it.
        RheostatError: the file system cannot hold a lock file.
    """
    mine = _take(path, what, time.monotonic() + patience, say or (lambda sentence: None))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if read_owner(path) == mine:
                path.unlink()


def _take(path: Path, what: str, until: float, say: Callable[[str], None]) -> Owner:
    try:
        mine, waiting = Owner.here(path), False
        while not _appear(path, mine):
            other = read_owner(path)
            if other is None:
                if path.exists():
                    raise Locked(f"{path} says that {what} is being written, but not by whom: if nothing writes there, remove that file.")
                continue  # it has just been released
            gone = True if other.copied(path) else other.gone()
            if gone:
                if _replace(path, other, mine):
                    say(f"Process {other.pid}, which was writing {what}, is gone: its lock is taken over.")
                    return mine
            elif gone is None or time.monotonic() >= until:
                raise _locked(path, what, other, known=gone is not None)
            elif not waiting:
                waiting = True
                say(f"Process {other.pid} is writing {what}: waiting for it.")
            time.sleep(PERIOD)
    except OSError as error:
        raise RheostatError(f"Cannot lock {what}: {path} cannot be written ({error.strerror}).") from error
    return mine


def _locked(path: Path, what: str, other: Owner, *, known: bool) -> Locked:
    if known:
        return Locked(f"Process {other.pid} is writing {what}: wait until it has ended, or stop it (kill {other.pid}).")
    return Locked(
        f"Process {other.pid} of the machine {other.host} was writing {what}, and whether it still does cannot be seen from here: if it "
        f"does not, remove {path}."
    )


def _appear(path: Path, mine: Owner) -> bool:
    """Put the file there with everything in it; False where there is one."""
    temporary = path.with_name(f".{path.name}-{mine.token}")
    temporary.write_text(json.dumps(asdict(mine)))
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create(path, mine)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create(path: Path, mine: Owner) -> bool:
    """The same without links: a reader may find the file empty for a moment."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(asdict(mine)))
    return True


def _replace(path: Path, other: Owner, mine: Owner) -> bool:
    """Take the place of an owner who is gone; False where another process is doing or has done that."""
    claim = path.with_name(f".{path.name}.taking")
    if not _appear(claim, mine):
        taker = read_owner(claim)
        if taker is None or taker.copied(claim) or taker.gone():
            claim.unlink(missing_ok=True)
        return False
    try:
        if read_owner(path) != other:  # somebody was faster
            return False
        temporary = path.with_name(f".{path.name}-{mine.token}")
        temporary.write_text(json.dumps(asdict(mine)))
        os.replace(temporary, path)
        return True
    finally:
        claim.unlink(missing_ok=True)


def read_owner(path: Path) -> Owner | None:
    """Whose a lock file is; None where there is none or it cannot be read."""
    for _ in range(3):  # without links it may be empty for a moment
        try:
            found = Owner(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            time.sleep(PERIOD)
            continue
        kinds = zip(asdict(found).values(), (int, str, str, str, str, str, int, str), strict=True)
        return found if all(type(value) is kind for value, kind in kinds) else None
    return None

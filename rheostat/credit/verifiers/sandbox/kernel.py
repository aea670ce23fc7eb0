"""What Linux lets an ordinary process give up for good: the files it sees (Landlock, mounts), the network, other processes (namespaces).

Called through ctypes, so that nothing has to be installed, and without root. Nothing here can be undone by the process that called it, and
its children inherit it. Every function raises OSError where the kernel refuses. For system calls see the
module ``seccomp``. References: landlock(7), namespaces(7), user_namespaces(7), pivot_root(2), mount_setattr(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT, MOUNT_SETATTR = 444, 445, 446, 442
"""Numbers of system calls; those added after 2019 are the same on every architecture."""

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
MS_NODEV, MS_NOSUID, MS_BIND, MS_REC, MS_PRIVATE = 4, 2, 0x1000, 0x4000, 0x40000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, AT_RECURSIVE, AT_FDCWD = 1, 2, 4, 0x8000, -100
MNT_DETACH = 2

EXECUTE, READ_FILE, READ_FOLDER = 1, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    """The result of a C call; raises OSError where it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int, what: str) -> None:
    """One process attribute."""
    checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), what)


def system_call(what: str, number: int, *arguments: object) -> int:
    """A system call that has no function in the C library."""
    return checked(_libc.syscall(ctypes.c_long(number), *arguments), what)


def no_new_privileges() -> None:
    """Nothing that this process runs gains rights from now on, as a set-user-id program would."""
    prctl(PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")


def die_with_parent() -> None:
    """This process is killed when the thread that made it ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, "death signal")


def adopt_orphans() -> None:
    """Processes whose parent ends become children of this one, if they descend from it."""
    prctl(PR_SET_CHILD_SUBREAPER, 1, "subreaper")


# --- Landlock -----------------------------------------------------------------------------------------------------------------------------


def landlock_version() -> int:
    """The kernel's Landlock version; 0 where it has none or it is switched off."""
    return max(0, int(_libc.syscall(ctypes.c_long(LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def landlock(readable: Iterable[str], listable: Iterable[str] = ()) -> None:
    """From now on these files and folders can be read, the names in some others too, and no file written.

    From version 4 on no TCP socket connects or listens, from version 6 on no signal and no abstract UNIX socket reaches a process outside.
    """
    version = landlock_version()
    if not version:
        raise OSError("this kernel has no Landlock")
    handled = (1 << 13) - 1  # everything of version 1; later versions added refer, truncate and ioctl
    handled |= sum(1 << bit for bit, since in ((13, 2), (14, 3), (15, 5)) if version >= since)
    attributes = struct.pack("QQQ", handled, 3, 3)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = system_call("landlock", LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    rights = [(path, EXECUTE | READ_FILE | READ_FOLDER) for path in readable] + [(path, READ_FOLDER) for path in listable]
    for path, right in rights:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # not there, or not readable anyhow
            continue
        allowed = right if os.path.isdir(path) else right & ~READ_FOLDER
        system_call(f"landlock {path}", LANDLOCK_ADD, rules, 1, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
    system_call("landlock", LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


# --- namespaces ---------------------------------------------------------------------------------------------------------------------------


def enter_namespaces(readable: Sequence[str], loadable: Sequence[str], before: Callable[[], None] = lambda: None) -> list[str]:
    """Continue as process 1 of a system without network, other processes, ``/proc``, and any file but these, which are read-only.

    The caller stays behind to wait and ends as its child does. A folder ``/scratch`` in memory can be written (32 MB). Rights over these
    namespaces remain until :func:`close_namespaces`.

    Args:
        readable: absolute paths of files and folders that stay; those that do not exist are left out.
        loadable: of others that are there until :func:`close_namespaces`.
        before: called in the new process while it still sees the old files.

    Returns:
        The places that :func:`close_namespaces` removes.
    """
    user, group = os.getuid(), os.getgid()
    checked(_libc.unshare(NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    child = os.fork()
    if child:
        os.closerange(0, 256)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    die_with_parent()
    before()
    return _replace_root(readable, loadable)


def close_namespaces(temporary: Sequence[str]) -> None:
    """Remove the files that only loading needed, and every right over the namespaces."""
    for path in reversed(temporary):
        checked(_libc.umount2(path.encode(), MNT_DETACH), f"umount {path}")
    _drop_capabilities()


def _drop_capabilities() -> None:
    for capability in range(64):
        _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)  # fails above the last one this kernel knows
    checked(_libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)), "capset")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    kind_bytes = None if kind is None else kind.encode()
    checked(_libc.mount(source.encode(), target.encode(), kind_bytes, ctypes.c_ulong(flags), data.encode()), f"mount {target}")


def _set_mount(path: str, attributes: int, flags: int = 0) -> None:
    content = struct.pack("QQQQ", attributes, 0, 0, 0)
    arguments = (AT_FDCWD, path.encode(), ctypes.c_uint(flags), content, ctypes.c_size_t(len(content)))
    system_call(f"mount_setattr {path}", MOUNT_SETATTR, *arguments)


def _replace_root(readable: Sequence[str], loadable: Sequence[str]) -> list[str]:
    """An empty file system in memory becomes the root, the places are bound into it, and the old root is let go; the loadable places."""
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.mkdir("/tmp/old")
    checked(_libc.pivot_root(b"/tmp", b"/tmp/old"), "pivot_root")
    os.chdir("/")
    kept = outermost(readable)
    for path in kept:
        _bind(path)
    places = [path for path in outermost(loadable) if outermost([*kept, path]) != kept]  # not within one that stays
    temporary = [path for path in places if _bind(path)]  # over what lies in them and stays, which taking them away uncovers
    checked(_libc.umount2(b"/old", MNT_DETACH), "umount")
    os.rmdir("/old")
    os.mkdir("/scratch")
    _mount("tmpfs", "/scratch", "tmpfs", MS_NOSUID | MS_NODEV, "size=32m,mode=700")
    _set_mount("/", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    return temporary


def _bind(path: str) -> bool:
    """Show a place of the old root in the new one; whether it exists."""
    source = f"/old{path}"
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    elif os.path.exists(source):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).touch()
    else:
        return False
    _mount(source, path, None, MS_BIND | MS_REC)
    _set_mount(path, ATTR_RDONLY | ATTR_NOSUID | (0 if path.startswith("/dev/") else ATTR_NODEV), AT_RECURSIVE)
    return True


def outermost(paths: Iterable[str]) -> list[str]:
    """The paths without those that lie inside another one, shortest first, and without the root."""
    found: list[str] = []
    for path in sorted(set(paths) - {"/"}, key=lambda path: (len(path), path)):
        if not any(path == outer or path.startswith(outer.rstrip("/") + "/") for outer in found):
            found.append(path)
    return found

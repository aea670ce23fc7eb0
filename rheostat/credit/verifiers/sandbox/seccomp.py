"""The system calls that computing needs, and a filter that leaves only those (seccomp(2), mode 2).

The filter is a classic BPF program over the number, the architecture and the arguments of a call. It is an allow-list: what a later kernel
adds is refused. Threads may start, processes may not; signals reach this process only. On x86-64 the numbers of the x32 interface differ
from all of the list, so they are refused with the rest. A child that becomes another program (Node) may do that: the program runs in the
same process behind the same filter, and starts no other.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from rheostat.credit.verifiers.sandbox.kernel import checked

# x86-64 and arm64 numbers of the calls both have
_BOTH: dict[str, tuple[int, int]] = {
    # memory
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    # open files, and opening what Landlock and the mounts leave
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "dup": (32, 23),
    "dup3": (292, 24),
    "pipe2": (293, 59),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "openat": (257, 56),
    "newfstatat": (262, 79),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "statx": (332, 291),
    "faccessat2": (439, 439),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    # time and chance
    "nanosleep": (35, 101),
    "setitimer": (38, 103),
    "gettimeofday": (96, 169),
    "times": (100, 153),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "getrandom": (318, 278),
    # this process and its threads
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "futex": (202, 98),
    "set_tid_address": (218, 96),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # an event loop wakes itself up through a pair of sockets
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    # allowed under a condition
    "socketpair": (53, 199),
    "fcntl": (72, 25),
    "clone": (56, 220),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
    "ioctl": (16, 29),
    # refused with an answer that makes the C library fall back on clone
    "clone3": (435, 435),
}
_X86_ALONE = {"open": 2, "stat": 4, "lstat": 6, "poll": 7, "access": 21, "select": 23, "dup2": 33, "readlink": 89, "arch_prctl": 158}
_X86_ALONE |= {"time": 201, "epoll_wait": 232}

MACHINES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (0xC000003E, {name: both[0] for name, both in _BOTH.items()} | _X86_ALONE),
    "aarch64": (0xC00000B7, {name: both[1] for name, both in _BOTH.items()}),
}
"""Machine -> its number in the audit interface and its system calls."""

CLONE_THREAD = 0x10000
EXECVE = {"x86_64": 59, "aarch64": 221}
SIGNALLING_FCNTL = (8, 10, 15)
"""F_SETOWN, F_SETSIG and F_SETOWN_EX let the kernel send signals to others on this process's behalf."""

STREAM_PAIR = 0x80001
"""SOCK_STREAM | SOCK_CLOEXEC. Pairs of the other kinds can send to sockets of other processes."""
HARMLESS_IOCTL = (0x5421, 0x5450, 0x5451)
"""FIONBIO, FIONCLEX and FIOCLEX; every other request is answered as if the file were no terminal."""

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE = 0, 4
PR_SET_SECCOMP, FILTER_MODE = 22, 2

Step = tuple[int, int, int, int]
"""Code, steps to skip where true, steps to skip where false, operand."""


def argument(index: int) -> int:
    """Where the lower half of a call's argument stands (both machines are little-endian)."""
    return 16 + 8 * index


def program(machine: str, own: int, becomes_program: bool = False) -> list[Step]:
    """The filter.

    Args:
        machine: as :func:`platform.machine` returns.
        own: id of the process that will be filtered.
        becomes_program: whether it may replace itself by another program.

    Raises:
        OSError: no table for this machine.
    """
    if machine not in MACHINES:
        raise OSError(f"no system call table for {machine}")
    audit, numbers = MACHINES[machine]
    refused = (RETURN, 0, 0, DENY | errno.EPERM)
    allowed = (RETURN, 0, 0, ALLOW)
    no_terminal = (RETURN, 0, 0, DENY | errno.ENOTTY)

    def among(index: int, values: tuple[int, ...], where_found: Step, otherwise: Step) -> list[Step]:
        jumps = [(EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
        return [(LOAD, 0, 0, argument(index)), *jumps, otherwise, where_found]

    only_if: dict[str, list[Step]] = {
        "clone": [(LOAD, 0, 0, argument(0)), (ANY_BIT, 0, 1, CLONE_THREAD), allowed, refused],
        "kill": among(0, (own,), allowed, refused),
        "tgkill": among(0, (own,), allowed, refused),
        "sched_getaffinity": among(0, (0, own), allowed, refused),
        "prlimit64": among(0, (0,), allowed, refused),
        "fcntl": among(1, SIGNALLING_FCNTL, refused, allowed),
        "socketpair": among(1, (STREAM_PAIR,), allowed, refused),
        "ioctl": among(1, HARMLESS_IOCTL, allowed, no_terminal),
        "clone3": [(RETURN, 0, 0, DENY | errno.ENOSYS)],
    }
    steps: list[Step] = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    if becomes_program:
        steps += [(EQUAL, 0, 1, EXECVE[machine]), allowed]
    for name, number in numbers.items():
        block = only_if.get(name, [allowed])
        steps += [(EQUAL, 0, len(block), number), *block]
    return [*steps, refused]


def restrict(becomes_program: bool = False) -> None:
    """Leave this process, for good, only the calls of the list. Needs ``no_new_privileges``."""
    steps = program(platform.machine(), os.getpid(), becomes_program)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    checked(libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(FILTER_MODE), header, 0, 0), "seccomp")

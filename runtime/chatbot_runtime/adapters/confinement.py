"""Takes every right from the running process but computing and writing to open pipes.

Linux seccomp in filter mode (kernel Documentation/userspace-api/seccomp_filter.rst), made by hand
because it needs no privilege, no library and no user namespace. It is an allow list: a system
call that is not named fails with EPERM, on another architecture's numbers the process dies. The
numbers stand in the kernel's arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h.

Runs in a child by path, without the rest of the package: the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import socket
import struct
from typing import Final

MEMORY_BYTES: Final = 512 * 1024 * 1024
CPU_S: Final = 30

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000

# BPF: load a word, jump if equal, jump if greater or equal, return.
_LD: Final = 0x20
_JEQ: Final = 0x15
_JGE: Final = 0x35
_RET: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000 | errno.EPERM
#: x86-64's second numbering (x32) begins here; it would slip past the list.
_X32: Final = 0x40000000

_X86_64: Final = (
    # read write close fstat poll lseek mmap mprotect munmap brk
    *(0, 1, 3, 5, 7, 8, 9, 10, 11, 12),
    # rt_sigaction rt_sigprocmask rt_sigreturn sched_yield mremap madvise getpid exit
    *(13, 14, 15, 24, 25, 28, 39, 60),
    # gettimeofday getrusage sigaltstack gettid futex restart_syscall
    *(96, 98, 131, 186, 202, 219),
    # clock_gettime clock_getres clock_nanosleep exit_group ppoll set_robust_list getrandom rseq
    *(228, 229, 230, 231, 271, 273, 318, 334),
)
_AARCH64: Final = (
    # the same calls in the same order
    *(63, 64, 57, 80, 62, 222, 226, 215, 214),
    *(134, 135, 139, 124, 216, 233, 172, 93),
    *(169, 165, 132, 178, 98, 128),
    *(113, 114, 115, 94, 73, 99, 278, 293),
)
#: Machine name -> (AUDIT_ARCH, allowed system calls).
_ARCHITECTURES: Final = {
    "x86_64": (0xC000003E, _X86_64),
    "aarch64": (0xC00000B7, _AARCH64),
}


class Unconfined(Exception):
    """The confinement could not be installed or did not hold; nothing may be parsed."""


def confine() -> None:
    """Give up files, network, processes and unbounded memory and time, for good.

    Raises Unconfined where any part fails or where a test of it succeeds in what is forbidden.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        message = f"no list of system calls for {machine}"
        raise Unconfined(message)
    try:
        _limit()
        _leave_the_network()
        _filter(*_ARCHITECTURES[machine])
    except (OSError, AttributeError, ValueError) as error:
        raise Unconfined(str(error)) from error
    _prove()


def _limit() -> None:
    for kind, bound in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (bound, bound))


def _leave_the_network() -> None:
    # A second wall where the kernel grants it; pods often may not, and the filter stands anyway.
    with contextlib.suppress(OSError):
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)


def _filter(architecture: int, allowed: tuple[int, ...]) -> None:
    program = [
        (_LD, 0, 0, 4),  # seccomp_data.arch
        (_JEQ, 1, 0, architecture),
        (_RET, 0, 0, _KILL),
        (_LD, 0, 0, 0),  # seccomp_data.nr
        (_JGE, len(allowed), 0, _X32),
        # Each hit jumps over the rest of the list and the refusal.
        *((_JEQ, len(allowed) - i, 0, number) for i, number in enumerate(allowed)),
        (_RET, 0, 0, _ERRNO),
        (_RET, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(buffer))
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(header), 0, 0)


def _call(name: str, *arguments: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _prove() -> None:
    """Try what is forbidden. A filter that lets one of these through is no filter."""
    attempts = {
        "open": lambda: os.open("/proc/self/status", os.O_RDONLY),
        "socket": lambda: socket.socket().close(),
        "fork": os.fork,
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except PermissionError:
            continue
        except OSError as error:
            message = f"{name} failed with {error} and not by the filter"
            raise Unconfined(message) from error
        message = f"{name} is still possible"
        raise Unconfined(message)

"""Classic filters in the kernel: on a socket (SO_ATTACH_FILTER), and on the system calls of this process (seccomp)."""

from __future__ import annotations

import os
from ctypes import addressof, c_char
from struct import pack

from ..errors import FeatureError
from . import syscall
from .refusal import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

    from ..bpf.classic import Filter

_SOL_SOCKET, _SO_ATTACH_FILTER, _SO_DETACH_FILTER = 1, 26, 27
_PR_SET_NO_NEW_PRIVS, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 38, 1, 1
_NUMBERS = {"x86_64": (157, 317), "aarch64": (167, 277)}  # prctl, seccomp


def attach_filter(sock: socket, program: Sequence[Filter]) -> None:
    """Let a socket take only what the filter keeps. It stays until `detach_filter`, or the socket is closed.

    Raises FormatError for a wrong filter, KernelError when the kernel refuses it.
    """
    from ..bpf.classic import check, encode

    check(program)
    code = encode(program)
    memory = bytearray(code)
    address = addressof(c_char.from_buffer(memory))
    try:
        sock.setsockopt(_SOL_SOCKET, _SO_ATTACH_FILTER, pack("=H6xQ", len(program), address))
    except OSError as error:
        raise refusal("attach a filter to a socket", error.errno or 0) from None


def detach_filter(sock: socket) -> None:
    """Take the filter of a socket away. Raises KernelError when it has none."""
    try:
        sock.setsockopt(_SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError as error:
        raise refusal("detach the filter of a socket", error.errno or 0) from None


def restrict_calls(program: Sequence[Filter], *, all_threads: bool = True) -> None:
    """Have every system call of this process judged by the filter, for ever, in its children too. Needs no privilege.

    Raises FormatError for a wrong filter, KernelError when the kernel refuses it, FeatureError on an unknown machine.
    """
    from ..bpf.classic import check_seccomp, encode

    check_seccomp(program)
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is None:
        raise FeatureError(f"no system call numbers for {os.uname().machine}", feature="arch")
    memory = bytearray(encode(program))
    header = bytearray(pack("=H6xQ", len(program), addressof(c_char.from_buffer(memory))))
    result = syscall.enter(numbers[0], _PR_SET_NO_NEW_PRIVS, 1)
    if result >= 0:
        flags = _SECCOMP_FILTER_FLAG_TSYNC if all_threads else 0
        result = syscall.enter(numbers[1], _SECCOMP_SET_MODE_FILTER, flags, addressof(c_char.from_buffer(header)))
    if result < 0:
        raise refusal("install a filter of system calls", -result)

"""The one way into the kernel: bpf(2), perf_event_open(2), ioctl(2), as plain integers.

Everything that this room asks of the kernel beyond files goes through `enter`, so that a test can put its own function
there and refuse any call with any errno. A result below zero is a negative errno; nothing here raises for it.
The libc function `syscall` is called through ctypes: 1.2 µs a call, 1.2 ms to import.
"""

from __future__ import annotations

import os
from ctypes import CDLL, addressof, c_char, c_char_p, c_long, c_void_p, get_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Union

    Buffer = Union[bytes, bytearray, memoryview]

# System call numbers by machine: bpf, perf_event_open, ioctl.
NUMBERS = {
    "x86_64": (321, 298, 16),
    "aarch64": (280, 241, 29),
}

_libc_syscall: Callable[..., int] | None = None
_numbers: tuple[int, int, int] | None = None


def enter(number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
    """Make system call `number`; return its result, or the negative errno. Tests replace this function."""
    global _libc_syscall
    if _libc_syscall is None:
        _libc_syscall = _bind()
    result = _libc_syscall(number, a, b, c, d, e, f)
    return result if result >= 0 else -get_errno()


def _bind() -> Callable[..., int]:
    function = CDLL(None, use_errno=True).syscall
    function.argtypes = [c_long] * 7
    function.restype = c_long
    return function


def _number(index: int) -> int:
    global _numbers
    if _numbers is None:
        machine = os.uname().machine
        found = NUMBERS.get(machine)
        if found is None:
            from ..errors import FeatureError

            known = ", ".join(NUMBERS)
            raise FeatureError(
                f"the kernel engine has no system call numbers for {machine}; it knows {known}", feature="arch"
            )
        _numbers = found
    return _numbers[index]


def bpf(command: int, attr: bytearray) -> int:
    """bpf(2). The kernel may write results into `attr`."""
    return enter(_number(0), command, address(attr), len(attr))


def perf_event_open(attr: bytearray, pid: int, cpu: int, group_fd: int = -1, flags: int = 0) -> int:
    """perf_event_open(2): a new descriptor or a negative errno."""
    return enter(_number(1), address(attr), pid, cpu, group_fd, flags)


def ioctl(fd: int, request: int, argument: int = 0) -> int:
    """ioctl(2) with an integer (or an address) as argument."""
    return enter(_number(2), fd, request, argument)


def address(buffer: Buffer) -> int:
    """Return where the bytes of `buffer` lie; 0 for an empty one. The caller keeps the buffer alive and unresized."""
    if not buffer:
        return 0
    if isinstance(buffer, bytes):
        return c_void_p.from_buffer(c_char_p(buffer)).value or 0
    return addressof(c_char.from_buffer(buffer))

"""A descriptor of sonde's is handed to a stopped process, which maps what it is open for and closes it: what cannot be opened by a name.

It goes through a pair of sockets that the process makes, so that nobody needs a right on the other. The numbers of descriptors are found in memory, by sonde, and put
where results of calls stand: each is the result of a call that fails. If sonde dies before it is there, what follows fails too, and closes nothing of the process's.
"""

from __future__ import annotations

import array
import os
import socket
from struct import Struct

from ..errors import KernelError
from . import ptrace
from .calls import Call, Result
from .memory import FIXED_NOREPLACE, PROT_READ, PROT_WRITE, SHARED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

    from .stopped import StoppedProcess

SCRATCH_BYTES = 256
_SOCKETPAIR, _RECVMSG = 53, 47
_CLOEXEC, _DONTWAIT, _CMSG_CLOEXEC = 0x80000, 0x40, 0x40000000
_PAIR, _IOVEC, _DATA, _MESSAGE, _CONTROL, _CONTROL_BYTES = 0, 16, 32, 64, 128, 24
_MSGHDR = Struct(
    "<QIIQQQQII"
)  # struct msghdr: name, its length, padding, iovec, how many, control, its length, flags, padding
_NOTHING = Call("close", (-1,))  # fails


def map_descriptor(
    stopped: StoppedProcess, fd: int, address: int, size: int, scratch: memoryview | mmap, at: int
) -> int:
    """Have the process map what our descriptor `fd` is open for, at a free address; return that, or a negative errno.

    `scratch` is SCRATCH_BYTES of memory that the process has at `at`. Raises KernelError, TargetError.
    """
    handed = _Handed(stopped.pid, fd, scratch)
    scratch[_IOVEC : _IOVEC + 16] = Struct("<QQ").pack(at + _DATA, 1)
    message = _MSGHDR.pack(0, 0, 0, at + _IOVEC, 1, at + _CONTROL, _CONTROL_BYTES, 0, 0)
    scratch[_MESSAGE : _MESSAGE + len(message)] = message
    how = PROT_READ | PROT_WRITE, SHARED | FIXED_NOREPLACE
    try:
        results = stopped.run(
            [
                Call(_SOCKETPAIR, (socket.AF_UNIX, socket.SOCK_DGRAM | _CLOEXEC, 0, at + _PAIR)),
                _NOTHING,  # the socket that we send to
                _NOTHING,  # the one that the process receives from
                Call("close", (Result(1),)),
                Call(_RECVMSG, (Result(2), at + _MESSAGE, _DONTWAIT | _CMSG_CLOEXEC)),
                _NOTHING,  # what it has received
                Call("close", (Result(2),)),
                Call("mmap", (address, size, *how, Result(5), 0)),
                Call("close", (Result(5),)),
            ],
            {0: handed.send, 1: lambda _: handed.pair[0], 2: lambda _: handed.pair[1], 5: handed.received},
        )
    finally:
        scratch[:SCRATCH_BYTES] = bytes(SCRATCH_BYTES)
    return next((results[n] for n in (0, 4) if results[n] < 0), results[7])


class _Handed:
    """A descriptor on its way."""

    def __init__(self, pid: int, fd: int, scratch: memoryview | mmap) -> None:
        self.pair = -1, -1
        self._pid = pid
        self._fd = fd
        self._scratch = scratch

    def send(self, results: Sequence[int]) -> None:
        """The process has made a pair of sockets: send the descriptor by our copy of one."""
        if results[0] < 0:
            return
        self.pair = Struct("<ii").unpack_from(self._scratch, _PAIR)
        pidfd = os.pidfd_open(self._pid)
        try:
            with socket.socket(fileno=ptrace.fetch_descriptor(pidfd, self.pair[0])) as ours:
                ours.sendmsg([b"m"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self._fd]))])
        except OSError as error:
            raise KernelError(f"hand a descriptor to process {self._pid}", error.errno or 0) from None
        finally:
            os.close(pidfd)

    def received(self, results: Sequence[int]) -> int:
        """The number that the descriptor has in the process."""
        length, level, kind, number = Struct("<QiiI").unpack_from(self._scratch, _CONTROL)
        there = results[4] >= 0 and (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and length == 20
        return int(number) if there else -1

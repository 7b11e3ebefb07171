"""The last rung: a breakpoint of one byte (int3), and a handler for SIGTRAP in the process that sends the thread to the probe's trampoline.

    traps = Traps(agent)
    traps.add(address, trampoline)        before the byte is replaced
    traps.install(stopped)
    restore(pid, spans)                   when all bytes have been put back

The handler knows its own traps by address and by the kernel's word that it was a breakpoint (si_code SI_KERNEL); any other SIGTRAP goes to the handler that was
there before, or ends the process as it would have. A hit costs a signal, some microseconds. A thread that blocks SIGTRAP would be killed by the kernel, and a program that
installs a handler of its own afterwards gets ours: so this is only done when it is asked for, and not where a thread blocks the signal.

In the agent's code, which the process reads and sonde writes:

    32 bytes   struct sigaction as it was (the kernel's: handler, flags, restorer, mask)
    32 bytes   one that asks for the default
    …          the handler, the return from it
    16 bytes   for each trap: the address behind the breakpoint, that of the trampoline; zeros end the table
"""

from __future__ import annotations

import os
import struct
import time

from .refusal import read_status
from .stopped import StoppedProcess, is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .agent import Agent
    from .machine import Machine

MOST = 255  # traps of one process
_SIGTRAP = 5
_SIGINFO, _RESTORER, _ONSTACK, _NODEFER = 4, 0x04000000, 0x08000000, 0x40000000
_ACTION = struct.Struct("<4Q")
_CODE_AT = 2 * _ACTION.size
_CODE_BYTES = 512
_BIT = 1 << _SIGTRAP - 1
_MOMENT_S = 1.0


class Traps:
    """The handler of one process, and its table. `agent` is the memory that has it."""

    def __init__(self, agent: Agent, machine: Machine) -> None:
        self._agent = agent
        self._behind = len(machine.BREAKPOINT)
        self._base = agent.reserve(_CODE_AT + _CODE_BYTES + 16 * (MOST + 1), 64)
        self._count = 0
        self._table = self._base + _CODE_AT + _CODE_BYTES
        code, returns = machine.trap_handler(self._base, self._base + _ACTION.size, self._table)
        assert len(code) <= _CODE_BYTES
        self._restorer = self.handler + returns
        agent.write(self._base + _CODE_AT, code)
        self._installed = False

    @property
    def handler(self) -> int:
        """The address of the handler."""
        return self._base + _CODE_AT

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more."""
        return self._count >= MOST

    def add(self, address: int, trampoline: int) -> None:
        """Enter a trap: who runs into a breakpoint at `address` goes on in its trampoline."""
        at = self._table + 16 * self._count
        self._agent.write(at + 8, trampoline.to_bytes(8, "little"))
        self._agent.write(at, (address + self._behind).to_bytes(8, "little"))
        self._count += 1

    def install(self, stopped: StoppedProcess) -> None:
        """Make the handler that of the process. Twice is harmless. Raises TargetError."""
        if self._installed:
            return
        old = _read_action(stopped)
        self._agent.write(self._base, old)
        flags = _SIGINFO | _RESTORER | _ONSTACK | _NODEFER
        action = _ACTION.pack(self.handler, flags, self._restorer, 0)
        stopped.system_call("rt_sigaction", _SIGTRAP, action, 0, 8)
        self._installed = True


def blocking_thread(pid: int) -> int:
    """Return a thread that blocks SIGTRAP, 0 where there is none. One that begins does so for a moment, which is let pass."""
    found = _having(pid, "SigBlk")
    deadline = time.monotonic() + _MOMENT_S
    while found and time.monotonic() < deadline:
        time.sleep(0.001)
        found &= _having(pid, "SigBlk")
    return min(found, default=0)


def _having(pid: int, *masks: str) -> set[int]:
    """The threads that have SIGTRAP in one of these masks, fields of /proc/PID/status."""
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return set()
    statuses = ((tid, read_status(tid)) for tid in threads)
    return {tid for tid, status in statuses if any(int(status.get(mask, "0"), 16) & _BIT for mask in masks)}


def _read_action(stopped: StoppedProcess) -> bytes:
    """What the process does upon SIGTRAP, as the kernel's struct sigaction; it is written below a stack that stands still, and taken away again."""
    scratch = (stopped.registers(stopped.threads[0]).sp - 1024) & -16
    before = stopped.read(scratch, _ACTION.size)
    try:
        stopped.system_call("rt_sigaction", _SIGTRAP, 0, scratch, 8)
        return stopped.read(scratch, _ACTION.size)
    finally:
        stopped.write(scratch, before)


def restore(pid: int, spans: Sequence[tuple[int, int]], limit_s: float = 1.0) -> frozenset[int] | None:
    """Give a process the handler for SIGTRAP back that it had before one in `spans` (address, size) took its place.

    No breakpoint may be in place any more. Returns the addresses of the handler and of where it returned to, which stacks may still hold though nobody comes back
    to them; None when a thread that has run into a breakpoint was not told of it within `limit_s`: then the handler stays. Raises TargetError, PrivilegeError.
    """
    deadline = time.monotonic() + limit_s
    while is_alive(pid) and _having(pid, "SigCgt"):
        with StoppedProcess(pid) as stopped:
            if not _having(pid, "SigPnd", "ShdPnd"):
                handler, _, restorer, _ = _ACTION.unpack(_read_action(stopped))
                if any(start <= handler < start + size for start, size in spans):
                    old = stopped.read(handler - _CODE_AT, _ACTION.size)
                    stopped.system_call("rt_sigaction", _SIGTRAP, old, 0, 8)
                    return frozenset([handler, restorer])
                return frozenset()
        if time.monotonic() > deadline:
            return None
        time.sleep(0.001)
    return frozenset()

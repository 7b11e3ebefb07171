"""Signal handlers of sonde's in the process: they send a thread that has run into something of ours on to where it is to go.

    handler = Handler(agent, machine, SIGTRAP)
    handler.add(address, goes_on)         before a thread can come there
    handler.install(stopped)
    restore(pid, spans)                   when all breakpoints are out
    give_back(stopped, spans)             when no thread is in our code

Two use them: breakpoints where no jump fits (`placing`), whose trampoline is where the thread goes on, and reads that ask nobody (`guards`). A handler knows what is its own by the counter and by the
kernel's word that an instruction has caused the signal. Any other signal goes to the handler that was there before, or does what it would have done. A thread that blocks the signal
would be killed by the kernel, and a program that installs a handler of its own afterwards gets ours: so this is only done when it is asked for, and not where a thread blocks the signal.

In the agent's code, which the process reads and sonde writes:

    32 bytes   struct sigaction as it was (the kernel's: handler, flags, restorer, mask)
    32 bytes   one that asks for the default
    …          the handler, the return from it
    16 bytes   for each place: the counter there, where to go on; zeros end the table
"""

from __future__ import annotations

import struct
import time

from ..debuginfo.procmaps import list_threads
from .refusal import read_status
from .stopped import StoppedProcess, is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .agent import Agent
    from .machine import Machine

MOST = 255  # places of one handler
SIGTRAP, SIGBUS, SIGSEGV = 5, 7, 11
NAMES = {SIGTRAP: "SIGTRAP", SIGBUS: "SIGBUS", SIGSEGV: "SIGSEGV"}
FAULTS = (SIGSEGV, SIGBUS)
_SIGINFO, _RESTORER, _ONSTACK, _NODEFER, _RESETHAND = 4, 0x04000000, 0x08000000, 0x40000000, 0x80000000
_ACTION = struct.Struct("<4Q")
ACTION_BYTES = _ACTION.size
CODE_AT = 2 * ACTION_BYTES  # from the action that was there to the handler
_CODE_BYTES = 512
_MOMENT_S = 1.0


class Handler:
    """The handler of one process for one signal, and its table. `agent` is the memory that has it; `flag` the address of a u32 that becomes 0 when the program's own handler is
    called (0: none)."""

    def __init__(self, agent: Agent, machine: Machine, signal: int, flag: int = 0) -> None:
        self.signal = signal
        self._agent = agent
        self._base = agent.reserve(CODE_AT + _CODE_BYTES + 16 * (MOST + 1), 64)
        self._count = 0
        self._table = self._base + CODE_AT + _CODE_BYTES
        code, returns = machine.signal_handler(signal, self._base, self._base + ACTION_BYTES, self._table, flag)
        assert len(code) <= _CODE_BYTES
        self._restorer = self.address + returns
        agent.write(self.address, code)
        self._installed = False

    @property
    def address(self) -> int:
        """The address of the handler."""
        return self._base + CODE_AT

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more."""
        return self._count >= MOST

    def add(self, address: int, goes_on: int) -> None:
        """Enter a place: a thread whose counter is `address` when the signal comes goes on at `goes_on`."""
        at = self._table + 16 * self._count
        self._agent.write(at + 8, goes_on.to_bytes(8, "little"))
        self._agent.write(at, address.to_bytes(8, "little"))
        self._count += 1

    def install(self, stopped: StoppedProcess) -> None:
        """Make the handler that of the process. Twice is harmless. Raises TargetError."""
        if self._installed:
            return
        old = _read_action(stopped, self.signal)
        self._agent.write(self._base, old)
        action = _ACTION.pack(self.address, *self._manner(*_ACTION.unpack(old)))
        stopped.system_call("rt_sigaction", self.signal, action, 0, 8)
        self._installed = True

    def _manner(self, handler: int, flags: int, restorer: int, mask: int) -> tuple[int, int, int]:
        """Flags, restorer and mask: where faults go on to a handler of the program's they are its own. Breakpoints may stand in what that handler calls, so SIGTRAP stays open."""
        if handler <= 1 or self.signal == SIGTRAP or not flags & _RESTORER:
            return _SIGINFO | _RESTORER | _ONSTACK | _NODEFER, self._restorer, 0
        return (flags | _SIGINFO) & ~_RESETHAND, restorer, mask


def blocking_thread(pid: int, signals: Collection[int], *, patient: bool = True) -> int:
    """Return a thread that blocks one of the signals, 0 where there is none. One that begins does so for a moment, which is let pass by who is `patient`."""
    found = having(pid, signals, "SigBlk")
    deadline = time.monotonic() + _MOMENT_S
    while found and patient and time.monotonic() < deadline:
        time.sleep(0.001)
        found &= having(pid, signals, "SigBlk")
    return min(found, default=0)


def _bit(signal: int) -> int:
    return 1 << signal - 1


def having(pid: int, signals: Collection[int], *masks: str) -> set[int]:
    """Return the threads that have one of the signals in one of these masks, fields of /proc/PID/status."""
    bits = sum(map(_bit, signals))
    statuses = ((tid, read_status(tid)) for tid in list_threads(pid))
    return {tid for tid, status in statuses if any(int(status.get(mask, "0"), 16) & bits for mask in masks)}


def _read_action(stopped: StoppedProcess, signal: int) -> bytes:
    """What the process does upon a signal, as the kernel's struct sigaction; it is written below a stack that stands still, and taken away again."""
    scratch = (stopped.registers(stopped.threads[0]).sp - 1024) & -16
    before = stopped.read(scratch, ACTION_BYTES)
    try:
        stopped.system_call("rt_sigaction", signal, 0, scratch, 8)
        return stopped.read(scratch, ACTION_BYTES)
    finally:
        stopped.write(scratch, before)


def _iter_ours(
    stopped: StoppedProcess, spans: Sequence[tuple[int, int]], signals: Collection[int]
) -> Iterator[tuple[int, int, int]]:
    """Yield the signals whose handler is in `spans` (address, size), with the addresses of the handler and of where it returns to."""
    caught = int(read_status(stopped.pid).get("SigCgt", "0"), 16)
    for signal in signals:
        if caught & _bit(signal):
            handler, _, restorer, _ = _ACTION.unpack(_read_action(stopped, signal))
            if any(start <= handler < start + size for start, size in spans):
                yield signal, handler, restorer


def find_handlers(stopped: StoppedProcess, spans: Sequence[tuple[int, int]]) -> frozenset[int]:
    """Return the addresses of handlers for faults in `spans`, and of where they return to: stacks may still hold them though nobody comes back to them."""
    ours = _iter_ours(stopped, spans, FAULTS)
    return frozenset(address for _, handler, restorer in ours for address in (handler, restorer))


def give_back(
    stopped: StoppedProcess, spans: Sequence[tuple[int, int]], signals: Collection[int] = FAULTS
) -> frozenset[int]:
    """Give a process the handlers back that it had before ones in `spans` took their place; return the addresses of those, and of where they returned to.

    No thread may be in our code any more where they are for faults: it may be about to need them.
    """
    addresses: set[int] = set()
    for signal, handler, restorer in _iter_ours(stopped, spans, signals):
        stopped.system_call("rt_sigaction", signal, stopped.read(handler - CODE_AT, ACTION_BYTES), 0, 8)
        addresses |= {handler, restorer}
    return frozenset(addresses)


def restore(pid: int, spans: Sequence[tuple[int, int]], limit_s: float = 1.0) -> frozenset[int] | None:
    """Give a process the handler for SIGTRAP back that it had before one in `spans` took its place.

    No breakpoint may be in place any more. Returns the addresses of the handler and of where it returned to, which stacks may still hold though nobody comes back
    to them; None when a thread that has run into a breakpoint was not told of it within `limit_s`: then the handler stays. Raises TargetError, PrivilegeError.
    """
    deadline = time.monotonic() + limit_s
    while is_alive(pid) and having(pid, [SIGTRAP], "SigCgt"):
        with StoppedProcess(pid) as stopped:
            if not having(pid, [SIGTRAP], "SigPnd", "ShdPnd"):
                return give_back(stopped, spans, [SIGTRAP])
        if time.monotonic() > deadline:
            return None
        time.sleep(0.001)
    return frozenset()

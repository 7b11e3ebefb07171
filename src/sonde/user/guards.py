"""Reads that ask nobody whether the memory is there: the page is read, and a handler for SIGSEGV and SIGBUS mends what comes of it (`--fast-reads`).

    guards = Guards(pid, machine)
    guards.study()                        while the process runs
    address = guards.place(agent, facts)  the primitive `check`, for programs in reach of the agent
    guards.install(stopped)

A word in the process's private memory says whether that is so; while it is 0 the kernel is asked, as without guards (`helpers`). It goes back to 0 for good, in the process itself, before the program takes a handler for one of the two signals, and
before a handler that it has had is called; and by sonde when a thread blocks one of them. For that the places that change handlers are probed: where one cannot be, there are no guards. There the program
is also told of its own handler when it asks for it, not of ours.
"""

from __future__ import annotations

import os

from . import frame
from .handlers import CODE_AT, FAULTS, NAMES, Handler, blocking_thread, having

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .agent import Agent
    from .helpers import Facts
    from .machine import GuardCode, Machine
    from .stopped import StoppedProcess

_NAMES = " or ".join(NAMES[signal] for signal in FAULTS)


class Guards:
    """The guards of one program. `own_pid` is what the process calls itself, 0 where it may not be asked."""

    def __init__(self, pid: int, own_pid: int, machine: Machine) -> None:
        assert machine.GUARDS is not None, "who wants guards has looked whether there are any"
        self.code: GuardCode = machine.GUARDS
        self.why = ""  # reads are asked for, for this reason
        self.is_installed = False  # whether the process has the handlers
        self._pid = pid
        self._own_pid = own_pid
        self._machine = machine
        self._private = 0
        self._handlers: list[Handler] = []
        self._blocking: set[int] = set()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The system calls whose places are to be probed for this."""
        return () if self.why else (self.code.SIGACTION,)

    def study(self, *, patient: bool = True) -> None:
        """See whether a thread stands against it."""
        thread = 0 if self.why else blocking_thread(self._pid, FAULTS, patient=patient)
        if thread:
            self.give_up(f"thread {thread} blocks {_NAMES}")

    def place(self, agent: Agent, facts: Facts) -> int:
        """Place the primitive `check`, that which asks where the handlers can know no more places; return its address."""
        self._open(agent, facts)
        if any(handler.is_full for handler in self._handlers):
            return agent.place(self._machine.primitive("check", facts))
        code, load, fault = self.code.check(facts)
        address = agent.place(code)
        for handler in self._handlers:
            handler.add(address + load, address + fault)
        return address

    def change(self, agent: Agent, facts: Facts) -> bytes:
        """Return the code that runs before a call that changes handlers."""
        self._open(agent, facts)
        return self.code.handler_changes(FAULTS, facts.private, self._own_pid > 0)

    def telling(self, agent: Agent, facts: Facts) -> bytes:
        """Return the code that runs behind it."""
        self._open(agent, facts)
        return self.code.handler_told({each.signal: (each.address, each.address - CODE_AT) for each in self._handlers})

    def _open(self, agent: Agent, facts: Facts) -> None:
        """Have the handlers; the process is not told of them yet."""
        if not self._handlers:
            self._private = facts.private
            flag = self._private + frame.GUARDED
            self._handlers = [Handler(agent, self._machine, signal, flag) for signal in FAULTS]

    def install(self, stopped: StoppedProcess) -> None:
        """Give the process the handlers, if there is something for them to do. Twice is harmless."""
        if self.is_installed or self.why or not self._handlers:
            return
        for handler in self._handlers:
            handler.install(stopped)
        if self._own_pid:
            stopped.write(self._private + frame.PROCESS, self._own_pid.to_bytes(8, "little"))
        stopped.write(self._private + frame.GUARDED, (1).to_bytes(4, "little"))
        self.is_installed = True

    def give_up(self, why: str) -> None:
        """Have the kernel be asked from now on. The handlers stay: a thread may be reading."""
        self.why = why
        if self.is_installed:
            with open(f"/proc/{self._pid}/mem", "r+b", buffering=0) as memory:
                os.pwrite(memory.fileno(), bytes(4), self._private + frame.GUARDED)

    def look(self) -> str:
        """See whether a thread blocks one of the signals by now, and did so the last time; return why that ends it, "" where it does not."""
        if not self.is_installed or self.why:
            return ""
        blocking = having(self._pid, FAULTS, "SigBlk")
        lasting, self._blocking = blocking & self._blocking, blocking
        if lasting:
            self.give_up(f"thread {min(lasting)} blocks {_NAMES}")
        return self.why

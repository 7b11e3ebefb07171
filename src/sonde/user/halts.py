"""Halts: where a thread of the process says what it is about to do, and waits until sonde has made use of the moment.

    exec     before execve and execveat: sonde seizes the thread, so that it gets hold of the next program before its first instruction (`execs`)
    files    in the function that the dynamic loader calls when files have come (`follow.find_loader_hook`): their probes are put in before any of their code runs

A thread draws a number and sleeps on a futex until sonde says that it has served that number. Nobody tells sonde: it looks at the numbers, which are in shared memory. What
harms nobody comes first. A thread passes by when sonde is dead (`owner`), and where sonde does not wait (frame.HALTS); it waits for PATIENCE_NS at most, and then gives up all halts, so
that a sonde that is stopped or killed meanwhile costs one wait. (A command that sonde starts waits as long as sonde lives.) Children pass by, whether they have memory of their own (fork) or their parent's (vfork): the
kernel tells them other numbers.
"""

from __future__ import annotations

import ctypes

from . import frame, ptrace
from .refusal import is_confined, read_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .machine import Machine

_FUTEX_WAKE, _EVERYBODY = 1, 0x7FFFFFFF


class Halts:
    """The halts of one process, by the state that is shared with it."""

    def __init__(self, state: memoryview) -> None:
        self._words = state.cast("B").cast("I")
        self._wide = state.cast("B").cast("Q")
        self._served = ctypes.c_uint32.from_buffer(self._words, frame.SERVED)

    def keep(self, halts: int) -> None:
        """Say at which halts somebody answers: frame.EXEC, FILES, both, or none."""
        self._words[frame.HALTS // 4] = halts

    def be_patient(self) -> None:
        """Have threads wait as long as sonde lives, not for PATIENCE_NS only."""
        self._words[frame.PATIENT // 4] = 1

    def own(self) -> None:
        """Say that sonde lives, where nobody will take it back (see `owner`)."""
        self._words[frame.OWNER // 4] = 1

    @property
    def asked(self) -> int:
        """The number that was drawn last; 0 when all numbers have been served."""
        asked = self._words[frame.ASKED // 4]
        return int(asked) if asked != self._words[frame.SERVED // 4] else 0

    def serve(self, number: int) -> None:
        """Let all go on who drew this number, or an earlier one."""
        self._words[frame.SERVED // 4] = number
        ptrace.futex(ctypes.addressof(self._served), _FUTEX_WAKE, _EVERYBODY)

    @property
    def execing(self) -> int:
        """The thread that is about to call exec, or in it, as the process numbers it; 0: none."""
        return int(self._words[frame.EXECING // 4])

    def forget_exec(self) -> None:
        """Take the thread out that has not come back from exec: it is another program now."""
        self._words[frame.EXECING // 4] = 0

    def exec_call(self) -> tuple[int, ...]:
        """The number and the first arguments of that thread's call."""
        first = frame.EXEC_CALL // 8
        return tuple(self._wide[first : first + frame.EXEC_CALL_WORDS])

    def close(self) -> None:
        """Let everybody pass. Twice is harmless."""
        self.keep(0)
        if self.asked:
            self.serve(self.asked)


def exec_numbers(machine: Machine) -> tuple[int, ...]:
    """The numbers of the system calls that begin another program, as far as a thread can be made to halt before them."""
    return machine.HALTS.EXEC_NUMBERS if machine.HALTS is not None else ()


def find_own_pid(pid: int) -> int:
    """Return what a process calls itself, 0 where there may be no halts in it: they make system calls of its own, for which a filter might end it."""
    if is_confined(pid):
        return 0
    return int(read_status(pid).get("NSpid", str(pid)).split()[-1])

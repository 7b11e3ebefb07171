"""What the engine must know of a processor, as one door: the machine code around programs, where registers are, what moves instructions.

    machine = get_machine("aarch64")
    code = machine.entry(at, runners, around, frame.ENTRY, site)

Each processor has a package of its own, whose module `machine` has all of this under the same names. Nobody else asks which processor it is.
"""

from __future__ import annotations

from ..errors import FeatureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Protocol

    from ..bpf.isa import Insn
    from ..debuginfo.ptregs import PtRegs
    from .calls import Call
    from .helpers import Facts
    from .ptrace import Registers
    from .relocated import Relocated
    from .runners import Calls, Runner, Surroundings

    class HaltCode(Protocol):
        """The routines of `halts`, in a process that calls itself `pid` and has the state at the address `state`."""

        @property
        def EXEC_NUMBERS(self) -> tuple[int, ...]:
            """The numbers of the system calls that begin another program."""

        @property
        def VFORK_NUMBERS(self) -> tuple[int, ...]:
            """The numbers of the system calls that may make a child in the memory of its parent."""

        def vfork_begins(self, state: int) -> bytes:
            """What runs before such a call."""

        def vfork_ends(self, state: int) -> bytes:
            """What runs behind it."""

        def exec_halt(self, state: int, pid: int) -> bytes:
            """What runs before such a call, of which the frame's record tells."""

        def exec_done(self, state: int) -> bytes:
            """What runs behind one that has failed."""

        def files_halt(self, state: int, pid: int, changing: int) -> bytes:
            """What runs in the loader's function. `changing`: the address of a word that is not 0 while its list is not complete, or 0."""

        def born(self, at: int, call: Sequence[int], calls: Calls, around: Surroundings, registers: Registers) -> bytes:
            """What runs, at the address `at`, before the first instruction of a program, at `registers`: the begin and the end of the `call` of exec (number and
            arguments) that has led there."""

    class GuardCode(Protocol):
        """The routines of `guards`."""

        @property
        def SIGACTION(self) -> int:
            """The number of the system call that changes handlers."""

        @property
        def SIGACTION_FIELDS(self) -> frozenset[str]:
            """The registers that `handler_told` reads."""

        def check(self, facts: Facts) -> tuple[bytes, int, int]:
            """The primitive `check` that reads what it is asked for, where in it the read is, and where it goes on when that fails."""

        def handler_changes(self, signals: Collection[int], private: int, asks: bool) -> bytes:
            """What runs before that call: a program that takes a handler for one of the signals has reads asked for from then on. `asks`: whether a child of vfork is told apart, by asking the
            kernel; `private`: the address of the private memory."""

        def handler_told(self, handlers: Mapping[int, tuple[int, int]]) -> bytes:
            """What runs behind it: a program that asks which handler it has is told of its own. By signal, the addresses of our handler and of the action that was there before."""

    class Assembled(Protocol):
        """Code that can still go anywhere, or anywhere near."""

        def __len__(self) -> int:
            """How many bytes it takes."""

        def at(self, address: int) -> bytes:
            """The code for an address. Raises TargetError for one that is too far from where the thread goes on."""

    class Machine(Protocol):
        """A processor."""

        @property
        def NAME(self) -> str:
            """The kernel's name of it."""

        @property
        def REGISTERS(self) -> PtRegs:
            """The registers in a program's context."""

        @property
        def RECORD(self) -> int:
            """Where in a frame the record of an event is."""

        @property
        def REACH(self) -> int:
            """How far a jump leads, in bytes, with room for code on both sides."""

        @property
        def COUNTER(self) -> bytes:
            """A function that returns the processor's counter."""

        @property
        def CLOCK_SOURCE(self) -> str:
            """What the kernel calls its clock where it goes by that counter."""

        @property
        def SYSCALL(self) -> bytes:
            """The instruction that enters the kernel."""

        @property
        def BREAKPOINT(self) -> bytes:
            """The instruction that raises SIGTRAP; none where `signal_handler` is not to be had."""

        @property
        def GUARDS(self) -> GuardCode | None:
            """The routines of guarded reads; None where there are none yet."""

        @property
        def HALTS(self) -> HaltCode | None:
            """The routines of halts; None where there are none yet."""

        @property
        def UNWINDS(self) -> bool:
            """Whether stacks can be walked by unwind tables (see `walking`)."""

        def signal_handler(self, signal: int, old: int, default: int, table: int, flag: int) -> tuple[bytes, int]:
            """A handler of `handlers`, and where in it the return from signals begins. `old`, `default`: addresses of what the kernel's struct sigaction
            was and of one that asks for the default; `table`: that of the places; `flag`: of a u32 that becomes 0 when the program's own handler is called, 0: none."""

        def cpu_code(self, rseq: int | None, slots: int) -> bytes:
            """Code that loads the number of the CPU into the register of results; `rseq`: how far from the thread pointer a struct rseq is.

            Where it cannot be had, a number below `slots` that threads are likely not to share.
            """

        def entry(self, at: int, runners: Sequence[Runner], around: Surroundings, kind: int, site: int) -> bytes:
            """The code up to the moved instructions, which stand right behind it. `at` is its address, `site` that of the probe."""

        def returning(
            self,
            at: int,
            before: Sequence[Runner],
            after: Sequence[Runner],
            around: Surroundings,
            site: int,
            signs: bool = False,
        ) -> tuple[bytes, bytes]:
            """Likewise for the return of a function, in two parts: what calls the moved instructions, and where they return to. `signs`: whether it signs its return address."""

        def system_calls(
            self, at: int, calls: Calls, around: Surroundings, site: int, behind: int
        ) -> tuple[bytes, list[tuple[int, int]]]:
            """The code for a place that makes system calls, and (address, bytes) of where a thread waits in one, with so many bytes of ours on its stack.

            The moved instruction is to stand right behind it, and what follows the call `behind` bytes further on.
            """

        def assemble_calls(self, calls: list[Call], registers: Registers, signal_mask: int) -> Assembled:
            """The code that makes system calls (see `calls`), for a thread that has `registers` and goes on with them afterwards."""

        def find_calls(self, code: bytes, start_of: Callable[[int], int]) -> Iterator[tuple[int, int]]:
            """Yield where code makes system calls, with the number of the only call that can be made there, -1 when that is not known.

            `start_of` tells where the function begins that a place is in, -1: nobody knows.
            """

        def claim_routine(self, around: Surroundings) -> bytes:
            """The routine that claims a slot."""

        def restorer(self, private: int, spans: Iterable[tuple[int, int]]) -> list[Insn]:
            """A program for the entry of an unwinder: put back the return addresses above the stack pointer. `spans` are the memory of our code (address, size)."""

        def primitive(self, name: str, facts: Facts) -> bytes:
            """The code of a primitive of helpers."""

        def map_door(self, routines: Iterable[tuple[int, int, bool]]) -> bytes:
            """A helper of maps for calls that do not say which map. `routines`: the map's address, that of its routine, whether it wants to know who asks."""

        def relocate(self, code: bytes, old: int, new: int, *, patch: int, falls: bool = False) -> Relocated:
            """The instructions of a window for another address. Raises ProbeError."""

        def jump_to(self, source: int, target: int) -> bytes:
            """A jump that stands at `source`. Raises OverflowError where it does not reach."""


def get_machine(name: str) -> Machine:
    """Return the processor that the kernel calls `name`. Raises FeatureError for one that is not known here."""
    if name == "x86_64":
        from .x86 import machine

        return machine
    if name == "aarch64":
        from .a64 import machine as a64

        return a64
    raise FeatureError(f"the user engine knows no {name}", feature=f"user:{name}", hint="use --engine kernel")


def get_native() -> Machine:
    """Return the processor that this machine has. Raises FeatureError where processes cannot be entered."""
    import os

    name = os.uname().machine
    if name != "x86_64":  # `calls`, `stopped`, `frames`, `process`, `windows`
        raise FeatureError(
            f"the user engine cannot enter processes of {name} yet", feature=f"user:{name}", hint="use --engine kernel"
        )
    return get_machine(name)

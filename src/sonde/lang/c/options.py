"""What goes into a compilation of C text besides the text, and what comes out of it: the words between `compile` and its callers.

BCC makes a function into a program when somebody loads it, and of the type that he asks for. So compiling has two steps: the text is
analysed once, and then each function is lowered for each `Entry` that it is wanted for.
"""

from __future__ import annotations

from ...record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from ...debuginfo.ctype import CType
    from ...debuginfo.usdt import UsdtArg
    from ...errors import Diagnostic
    from ...spec.object import MapSpec, ProgramSpec
    from .analysis import Table

    class Unit(Protocol):
        """A BCC text that makes sense (see `compile.CompiledC`)."""

        @property
        def programs(self) -> tuple[str, ...]:
            """The functions that may become programs, in order of definition (`FunctionSymbol.is_program`)."""
            ...

        @property
        def tables(self) -> Mapping[str, Table]:
            """The tables by name, in order of declaration, with the C types of key and leaf."""
            ...

        @property
        def maps(self) -> tuple[MapSpec, ...]:
            """What is to be created before any program is loaded: tables, globals, scratch."""
            ...

        @property
        def events(self) -> Mapping[str, CType]:
            """The C type of what programs submit, by the name of the perf or ring buffer; without one where there are several."""
            ...

        @property
        def warnings(self) -> tuple[Diagnostic, ...]: ...

        def compile_program(
            self, name: str, entry: Entry, *, trace: Callable[[str, str], None] | None = None
        ) -> Compiled:
            """Lower one function for one kind of entry. Raises CompileError. Same input, same bytes.

            trace(stage, text) gets the IR after each pass that changed something.
            """
            ...


EXTERN = "extern:"  # before the name of a function, or of the map of a variable, that another object defines


class Entry(Record):
    """What a function is compiled for, when it is made into a program.

    `type`, `attach_type` and `attach_btf` are those of the ProgramSpec to be made. `context` says what the first parameter really is, where
    that differs from what the text expects:

    context        a function written for `struct pt_regs *` gets
    ""             what the program type gives: pt_regs for a kprobe, the arguments' array for tracing …
    "sys_enter"    the context of tracepoint:syscalls:sys_enter_`event`: parameters (also PT_REGS_PARMn, PT_REGS_PARMn_SYSCALL, and members
                   of the inner pt_regs) are its `args`; PT_REGS_RC and whatever it has not is an error
    "sys_exit"     that of tracepoint:syscalls:sys_exit_`event`: only PT_REGS_RC, which is `ret`
    "raw_enter"    that of raw_tracepoint:sys_enter, with a test of the number at the start: the registers are those of the caller
    "raw_exit"     that of raw_tracepoint:sys_exit, likewise

    `returns`: a function that was written for the exit of a function (its parameters are the arguments, then the result) gets the
    registers at the return in place of the array: only the result is known.
    """

    type: str  # "kprobe", "tracepoint", "raw_tracepoint", "tracing", "perf_event", "xdp" …
    attach_type: str = ""
    attach_btf: str = ""
    context: str = ""
    event: str = ""  # the system call without its prefix ("openat")
    number: int = -1  # of the system call, for raw_enter and raw_exit
    sleepable: bool = False
    returns: bool = False
    user: bool = False  # on a user function: what parameters point to is user memory
    usdt: tuple[UsdtArg, ...] = ()  # where bpf_usdt_readarg finds the arguments at this location


class Options(Record):
    """Options of one compilation. `flags` are those of a C compiler that matter here: -D -U -I -include -W…"""

    dialect: str = "bcc"  # or "libbpf": programs and maps by section
    flags: tuple[str, ...] = ()
    directory: str = ""  # of the source file: where #include "own.h" looks first
    relocatable: bool = (
        False  # the object may go to another kernel: accesses of kernel structs are noted as CO-RE relocations
    )
    linkable: bool = False  # what the text declares and does not define is another object's, to be linked with
    count_losses: bool = False  # records that found no room in a ring buffer are counted (see `losses`)
    header: str = ""  # a file that is included before the text (BCC's hdr_file)


class Compiled(Record):
    """A program, and maps that its function needs beyond those of the unit (scratch memory)."""

    program: ProgramSpec
    maps: tuple[MapSpec, ...] = ()

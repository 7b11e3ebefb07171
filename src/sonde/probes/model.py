"""What the rest of sonde knows of a probe: its pattern as written, the concrete probes, what a program can reach there.

`grammar.parse_attach_point` makes a Pattern, `catalogue.expand` turns it into Probes, `catalogue.context_of` describes
the context of a program attached to one. The types themselves are described in one file each.
"""

from __future__ import annotations

from ..record import Record
from ..spec.object import ProbeSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.ctype import CType, Struct
    from ..debuginfo.tracefs import TracepointFormat
    from ..debuginfo.usdt import UsdtArg


class Pattern(Record):
    """An attach point as parsed: its checked parts, wildcards not expanded.

    `text` is the pattern in its normal form ("tracepoint:sched:*"). Which of the other fields are used depends on the
    type, as in `spec.object.ProbeSpec`; any name in them may hold the wildcard `*` where `wild` says so.
    """

    type: str
    text: str
    category: str = ""  # tracepoint: subsystem; usdt: provider; self: trigger
    event: str = ""
    module: str = ""
    symbol: str = ""
    path: str = ""  # as written: may be a library name, a command on PATH or a glob
    offset: int = 0  # from the symbol
    address: int = 0
    period_ns: int = 0
    frequency_hz: int = 0
    count: int = 0
    length: int = 0
    mode: str = ""
    pin: str = ""
    line: int = 0  # uprobe by source location: path@file:line:column
    column: int = 0
    source: str = ""
    demangled: bool = False  # uprobe: the symbol is a C++ name as people write it
    wild: bool = False
    lenient: bool = False  # one of several that a wildcard provider gave: it may well match nothing


class Probe(Record):
    """One concrete probe.

    `name` is what the builtin `probe` prints. `spec` is complete but for `program`; under -p its `pid` is set where the
    kernel itself can keep to one process, so where it is 0 the program has to compare. `program_type`, `attach_type` and
    `attach_btf` are those of the program that it needs (see spec.object.ProgramSpec).
    """

    type: str
    name: str
    spec: ProbeSpec
    program_type: str
    attach_type: str = ""
    attach_btf: str = ""
    usdt_args: tuple[UsdtArg, ...] = ()  # of a USDT probe: where its arguments are at this very location


class Context(Record, eq=False):
    """What a program reaches through its context pointer. All offsets are bytes from it; -1 means that there is none.

    kind            the context is
    regs            struct pt_regs: `registers`, `arg_offsets`, `retval_offset`, `ip_offset`, `sp_offset`
    perf_event      the same registers, then more: interval, profile, software, hardware, watchpoint
    tracepoint      the record of the event: `args`, `format`
    tracing         an array of u64, the arguments as BTF types them: fentry, fexit, rawtracepoint with BTF. `args` has one
                    member for each 8-byte slot, at its offset, with its C type (narrower values lie in the low bytes)
    raw_tracepoint  the same array without types
    iter            `args` is the context itself, struct bpf_iter__X, whose pointers the verifier trusts
    none            nothing: begin, end, self, test, bench
    """

    kind: str
    args: Struct | None = None
    retval: CType | None = None
    format: TracepointFormat | None = None
    arg_offsets: tuple[int, ...] = ()  # of arg0, arg1 …
    retval_offset: int = -1
    ip_offset: int = -1
    sp_offset: int = -1
    fp_offset: int = -1
    registers: tuple[tuple[str, int], ...] = ()  # names that reg() takes
    usdt_args: tuple[UsdtArg, ...] = ()
    foreign: bool = False  # tracing: of a BPF program, whose types the verifier may take for plain numbers

    def get_register(self, name: str) -> int:
        """Return the offset of the register `name`, or -1."""
        for known, offset in self.registers:
            if known == name:
                return offset
        return -1

"""The verifier's door: is a program safe to run where no kernel protects anybody? Sound first: what is accepted reads and writes nothing but its own.

It goes about it as the kernel's verifier does: every path is followed with what is known of each register and stack slot. What is accepted ends,
stays inside its context, stack, maps and records, gives back what it takes, and calls helpers with what they may be given.

For an engine that puts programs into another process, this is the one door:

    verdict = verify(insns, kind, maps, helpers=lambda helper: helper.name in mine)

`kind` says what the program gets as its context, `maps` are by the numbers in its wide loads, and `helpers` is the engine's own table: a call of anything
else is refused, as are kernel functions. An engine that runs only what was accepted can say: nothing runs there that was not verified. It must
keep its side: memory of maps and context as large as was said, helpers that do what `bpf.helpers` says, 512 bytes of stack.
"""

from __future__ import annotations

from ...errors import FormatError
from ...record import Record
from ..isa import Insn, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ...debuginfo.ctype import CType, Struct
    from ..helpers import Helper
    from .state import State


class MapInfo(Record, eq=False):
    """What the verifier needs to know of a map. `special` are (start, end, what) of the fields that only helpers may touch.

    What they are: "spin_lock", "timer", "kptr:STRUCT", or another name of something that no helper here works on.
    `initial` is the content of a read-only map; `inner` the template of a map of maps.
    """

    name: str
    kind: str
    key_size: int
    value_size: int
    max_entries: int = 1
    read_only: bool = False
    special: tuple[tuple[int, int, str], ...] = ()
    initial: bytes = b""
    inner: MapInfo | None = None


class Refusal(Record):
    """Why a program was refused: at which instruction, what is wrong, what would satisfy the check, and what was known there.

    `registers` are (name, description) of the registers that the instruction uses.
    """

    pc: int
    message: str
    wants: str = ""
    registers: tuple[tuple[str, str], ...] = ()
    path: tuple[int, ...] = ()


class Verdict(Record):
    """What the verifier found. `refusal` is None for a program that is safe.

    `processed` instructions were followed, `states` remembered; the longest way through the program has `longest` instructions (-1: it
    depends on how often a helper calls back); its functions use `stack_bytes` of stack together, `places` of it: (first pc of the function, offset
    from r10, bytes), pieces that are used together taken as one.
    """

    refusal: Refusal | None
    processed: int
    states: int
    longest: int
    stack_bytes: int
    helpers: tuple[str, ...]
    maps: tuple[str, ...]
    places: tuple[tuple[int, int, int], ...] = ()

    @property
    def safe(self) -> bool:
        """Whether the program was accepted."""
        return self.refusal is None


def verify(
    code: bytes | Sequence[Insn],
    kind: str,
    maps: Mapping[int, MapInfo] | None = None,
    *,
    arch: str = "x86_64",
    types: tuple[CType | None, ...] = (),
    helpers: Callable[[Helper], bool] | None = None,
    find_struct: Callable[[str], Struct | None] | None = None,
    kfuncs: Mapping[int, str] | None = None,
    symbols: Mapping[int, CType | None] | None = None,
    attach_type: str = "",
    sleepable: bool = False,
    uninitialised_stack: bool = False,
    max_insns: int = 1_000_000,
    trace: Callable[[int, State], object] | None = None,
) -> Verdict:
    """Verify a program of type `kind` (the kernel's name in lower case). `maps` are by the number that wide loads have.

    `helpers` says which helpers there are; `types` are a tracing program's argument types; `uninitialised_stack` lets programs and helpers read bytes of the
    stack that nothing was written to, as Linux lets privileged ones since 6.3. `trace(pc, state)` is called before each instruction. Raises FormatError for code without form, KeyError for
    a program type without rules.
    """
    from .contexts import find_context
    from .explore import Walker
    from .kfuncs import find_kfuncs
    from .problem import Problem

    insns = decode(code) if isinstance(code, bytes) else list(code)
    if not insns:
        raise FormatError("the program has no instructions")
    walker = Walker(
        insns,
        find_context(kind, arch, types, attach_type),
        maps or {},
        allows=helpers or (lambda helper: sleepable or "sleeps" not in helper.flags),
        find_struct=find_struct or (lambda name: None),
        kfuncs=find_kfuncs(kfuncs or {}),
        symbols=symbols,
        sleepable=sleepable,
        uninitialised_stack=uninitialised_stack,
        max_insns=max_insns,
        trace=trace,
    )
    refusal = None
    try:
        walker.run()
    except Problem as problem:
        used = _used(walker.insns[walker.pc])
        registers = tuple((f"r{i}", str(walker.state.regs[i])) for i in used)
        refusal = Refusal(walker.pc, problem.message, problem.wants, registers)
    return Verdict(
        refusal,
        walker.processed,
        walker.states,
        -1 if walker.unbounded else walker.longest,
        walker.stack_bytes,
        tuple(sorted(walker.helpers)),
        tuple(sorted(walker.used_maps)),
        tuple(_together(walker.places)),
    )


def _together(places: set[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Pieces of stacks, those that overlap made one: (function, offset, bytes)."""
    found: list[list[int]] = []
    for entry, low, high in sorted(places):
        if found and found[-1][0] == entry and low < found[-1][2]:
            found[-1][2] = max(found[-1][2], high)
        else:
            found.append([entry, low, high])
    return ((entry, low, high - low) for entry, low, high in found)


def _used(insn: Insn) -> list[int]:
    """The registers that an instruction takes."""
    if insn.opcode == 0x85:
        return [1, 2, 3, 4, 5]
    if insn.opcode == 0x95:
        return [0]
    return sorted({insn.dst} | ({insn.src} if insn.opcode & 7 in (1, 3) or insn.opcode & 8 else set()))

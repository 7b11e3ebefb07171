"""Machine code as data: what a back end of the JIT is given, and what it returns."""

from __future__ import annotations

from ...record import Record
from ..flow import split_blocks, split_functions
from ..isa import CALL, FRAME_POINTER, LDDW, MAX_STACK_BYTES, Insn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class CodeReloc(Record):
    """Eight bytes of the code, at `offset`, that take an address when the code is placed.

    kind       the address of
    helper     the function of helper number `value`: called with r1..r5 as C arguments, returns r0
    kfunc      the function of BTF id `value`
    packet     the function u64 (u64 offset, u64 bytes): what packet loads read, negative beyond the end
    map        the map number `value`, as helpers take it
    map_value  byte `addend` of the value of map number `value`
    cpu        a u32 that holds the number of the running CPU
    owner      a u32 that is written into claims of maps: the number of the thread or the process, not 0
    rseq       not an address: the offset of the running CPU's number from the thread pointer (`__rseq_offset` + 4)
    function   the local function at machine code offset `value`
    """

    offset: int
    kind: str
    value: int
    addend: int = 0


class MachineCode(Record):
    """Machine code of one program, entered at its start with the context in the first C argument.

    `pcs` are (offset, pc) pairs, ascending: the code from an offset on is that of the instruction at pc. `changes` are the CPU's registers (by their
    numbers in machine code) that do not have their value again when the program has returned, without the stack pointer and the flags.
    """

    arch: str
    text: bytes
    relocs: tuple[CodeReloc, ...]
    pcs: tuple[tuple[int, int], ...]
    changes: frozenset[int] = frozenset()

    def find_pc(self, offset: int) -> int:
        """Return the pc of the instruction that the machine code at `offset` belongs to; -1 for the entry sequence."""
        from bisect import bisect_right

        index = bisect_right(self.pcs, offset, key=lambda pair: pair[0]) - 1
        return self.pcs[index][1] if index >= 0 else -1


def bind(code: MachineCode, address: int, find: Callable[[CodeReloc], int]) -> bytes:
    """Return the bytes to put at `address`, of this process or another. `find` answers relocations, but those of local functions; the addend is the caller's to add."""
    text = bytearray(code.text)
    for reloc in code.relocs:
        place = address + reloc.value if reloc.kind == "function" else find(reloc)
        text[reloc.offset : reloc.offset + 8] = (place & (1 << 64) - 1).to_bytes(8, "little")
    return bytes(text)


class Function(Record, eq=False):
    """What a back end needs to know of one function before it begins.

    `saved` are the registers among r6 to r9 that it changes; `stack_bytes` what it uses below r10; `frame`: whether r10 is used at all.
    """

    pc: int
    body: list[tuple[int, Insn]]
    saved: tuple[int, ...]
    stack_bytes: int
    frame: bool
    calls: bool
    counts: bool  # there is a may_goto
    leaders: frozenset[int]  # pcs that jumps lead to, and those behind jumps


def split(insns: Iterable[Insn], stack_bytes: int = MAX_STACK_BYTES) -> list[Function]:
    """Cut a program into its functions. Raises FormatError."""
    return [_describe(pc, body, stack_bytes) for pc, body in split_functions(list(insns)).items()]


def _describe(pc: int, body: list[tuple[int, Insn]], stack_bytes: int) -> Function:
    written: set[int] = set()
    leaders = frozenset(split_blocks(body))
    depth, escapes, calls, counts = 0, False, False, False
    for _, insn in body:
        class_ = insn.opcode & 7
        written.add(_written(insn))
        calls = calls or insn.opcode & ~8 == CALL or (class_ == 0 and insn.opcode != LDDW)
        counts = counts or insn.opcode == 0xE5
        base = insn.src if class_ == 1 or insn.imm == 0x100 else insn.dst
        if class_ in (1, 2, 3):
            depth = max(depth, -insn.off if base == FRAME_POINTER else 0)
        if insn.src == FRAME_POINTER and (class_ in (3, 4, 5, 6, 7)):
            escapes = True
    if escapes:
        depth = stack_bytes
    saved = tuple(r for r in range(6, 10) if r in written)
    return Function(pc, body, saved, (max(depth, 0) + 7) & ~7, depth > 0 or escapes, calls, counts, leaders)


def _written(insn: Insn) -> int:
    """The register that an instruction changes, of those that a caller keeps (-1: none)."""
    class_ = insn.opcode & 7
    if class_ in (0, 1, 4, 7):
        return insn.dst
    if class_ == 3 and insn.opcode & 0xE0 == 0xC0:
        return insn.dst if insn.imm == 0x100 else insn.src if insn.imm & 1 else -1
    return -1

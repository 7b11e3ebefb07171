"""Machine code to text, in the notation of the kernel's verifier log and of bpftool (which LLVM's is close to).

Every operation's text comes from the table in `isa`; `asm` reads the same text back.
"""

from __future__ import annotations

from .helpers import HELPERS
from .isa import LDDW, Insn, get_op, iter_pcs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def format_insn(insn: Insn) -> str:
    """Return the text of one instruction; for one that does not exist, its fields ("<opcode 0xff …>")."""
    op = get_op(insn)
    if op is None:
        return f"<opcode {insn.opcode:#04x} dst={insn.dst} src={insn.src} off={insn.off} imm={insn.imm}>"
    return op.text.format_map(_Operands(insn))


class _Operands:
    """The placeholders of an operation's text, each made when the text asks for it."""

    __slots__ = ("insn",)

    def __init__(self, insn: Insn) -> None:
        self.insn = insn

    def __getitem__(self, name: str) -> str:
        insn = self.insn
        if name[0] in "rw" and name[1] in "ds":
            return f"{name[0]}{insn.dst if name[1] == 'd' else insn.src}"
        return _FORMATS[name](insn)


_FORMATS = {
    "imm": lambda i: str(i.imm),
    "hex": lambda i: f"{i.imm:#x}" if i.opcode == LDDW else f"{i.imm & 0xFFFFFFFF:#x}",
    "mem": lambda i: f"r{i.dst} {i.off:+d}",
    "from": lambda i: f"r{i.src} {i.off:+d}",
    "pc": lambda i: f"pc{i.off:+d}",
    "far": lambda i: f"pc{_signed(i.imm):+d}",
    "low": lambda i: str(_signed(i.imm)),
    "high": lambda i: f"{_signed(i.imm >> 32):+d}",
    "to": lambda i: str(i.imm >> 16 & 0xFFFF),
    "as": lambda i: str(i.imm & 0xFFFF),
    "helper": lambda i: _name_helper(i.imm),
    "kfunc": lambda i: f"kfunc#{i.imm}" + (f"{i.off:+d}" if i.off else ""),
}


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (value >> 31 << 32)


def _name_helper(number: int) -> str:
    helper = HELPERS.get(number)
    return f"bpf_{helper.name}#{number}" if helper else f"unknown#{number}"


def disassemble(
    insns: Iterable[Insn],
    *,
    sources: Mapping[int, str] | None = None,
    notes: Mapping[int, str] | None = None,
    first_pc: int = 0,
) -> str:
    """Return one line for each instruction: "   3: (bf) r6 = r1". There is no newline at the end.

    `sources` has the source line that the code from a pc on was made from; it is printed above it ("; text"). `notes` has what
    to append to a line ("; text"): the map's name where the code has a number only. `asm` takes both for comments.
    """
    sources, notes = sources or {}, notes or {}
    lines = []
    for pc, insn in iter_pcs(insns):
        pc += first_pc
        if pc in sources:
            lines.append(f"; {sources[pc]}")
        note = f" ; {notes[pc]}" if pc in notes else ""
        lines.append(f"{pc:4}: ({insn.opcode:02x}) {format_insn(insn)}{note}")
    return "\n".join(lines)

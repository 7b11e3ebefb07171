"""A compiled program as text: instructions with the names of maps and functions, below the source lines they come from."""

from __future__ import annotations

from ..bpf.disasm import disassemble
from ..bpf.isa import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import Span
    from ..spec.object import ProgramSpec


def format_program(program: ProgramSpec) -> str:
    """Return the listing of one program: a head line, then an instruction a line."""
    size = len(program.insns) // 8
    notes = {reloc.pc: reloc.symbol + (f"+{reloc.addend}" if reloc.addend else "") for reloc in program.relocs}
    sources = {line.pc: _source(line.span) for line in program.lines if line.span.excerpt}
    head = f"{program.name}: {program.type}, {size} instructions, {program.stack_bytes} bytes of stack"
    return head + "\n" + disassemble(decode(program.insns), sources=sources, notes=notes)


def _source(span: Span) -> str:
    """The part of the first source line that the span covers, with its place."""
    first = span.excerpt.split("\n", 1)[0]
    end = span.end_column - 1 if span.end_line == span.line else len(first)
    return f"{span.line}:{span.column} {first[span.column - 1 : end].strip()}"

"""What BPF(debug=…) shows on stderr: the text, the intermediate code and the bytecode of each function as it is compiled.

BCC's bits say what LLVM has at some stage. Here each bit shows what is nearest to that: DEBUG_LLVM_IR our IR after all passes,
DEBUG_PREPROCESSOR the text (which nothing rewrites), DEBUG_BPF and DEBUG_SOURCE the bytecode, the latter between its source lines,
DEBUG_BPF_REGISTER_STATE what the verifier said of it, and DEBUG_BTF which types of the kernel the program is verified against.
"""

from __future__ import annotations

import sys

from .enums import DEBUG_BPF, DEBUG_BPF_REGISTER_STATE, DEBUG_BTF, DEBUG_LLVM_IR, DEBUG_PREPROCESSOR, DEBUG_SOURCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...kernel.programs import Program
    from ...spec.object import ProgramSpec


class Shower:
    """Shows the stages of one function for the bits that are set."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._ir: dict[str, str] = {}  # by function, as of the last pass that changed it

    @property
    def trace(self) -> Callable[[str, str], None] | None:
        """What the compiler is to call after each pass; None when nobody wants to see that."""
        return self._keep if self.bits & DEBUG_LLVM_IR else None

    def _keep(self, stage: str, text: str) -> None:
        self._ir[text.split("(", 1)[0]] = text

    def show_program(self, spec: ProgramSpec) -> None:
        """Show a function that has been compiled."""
        for text in self._ir.values():
            _print(f"; IR of {spec.name}\n{text}")
        self._ir.clear()
        if self.bits & (DEBUG_BPF | DEBUG_SOURCE):
            _print(f"; bytecode of {spec.name} ({spec.type}): {len(spec.insns) // 8} instructions, "
                   f"{spec.stack_bytes} bytes of stack\n{disassembly(spec, bool(self.bits & DEBUG_SOURCE))}")  # fmt: skip
        if self.bits & DEBUG_BTF:
            target = f"{spec.attach_type} {spec.attach_btf}" if spec.attach_btf else "no function of the kernel"
            _print(f"; {spec.name} is verified against {target}")

    def show_verdict(self, program: Program) -> None:
        """Show what the verifier says of a function that it has accepted."""
        if self.bits & DEBUG_BPF_REGISTER_STATE:
            from ...kernel.programs import read_verifier_log

            _print(f"; verifier's log of {program.name}\n{read_verifier_log(program)}")


def show_text(bits: int, text: bytes) -> None:
    """Show the program text, if DEBUG_PREPROCESSOR is set."""
    if bits & DEBUG_PREPROCESSOR:
        _print(text.decode(errors="replace"))


def disassembly(spec: ProgramSpec, with_source: bool) -> str:
    """Return the bytecode of a program as text, between its source lines where these are wanted, with the names of its maps."""
    from ...bpf.disasm import disassemble
    from ...bpf.isa import decode

    notes = {reloc.pc: reloc.symbol for reloc in spec.relocs if reloc.symbol}
    sources = {}
    if with_source:
        for line in spec.lines:
            excerpt = line.span.excerpt.strip()
            if excerpt:
                sources[line.pc] = f"{line.span.line}: {' '.join(excerpt.split())}"
    return disassemble(decode(spec.insns), sources=sources, notes=notes)


def _print(text: str) -> None:
    print(text.rstrip("\n"), file=sys.stderr)

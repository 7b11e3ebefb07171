"""CO-RE at load time: instructions that hold something about kernel types get what holds on this kernel.

The answers are those of `debuginfo.corerelo`. As in libbpf, an instruction without an answer becomes a call that does not exist: a
program that looks first whether a member exists never comes there, and the verifier drops it; otherwise the refusal says what was missing.
"""

from __future__ import annotations

from struct import Struct

from ..bpf import isa
from ..debuginfo.corerelo import explain, resolve, show
from ..errors import Diagnostic, FormatError, VerifierError
from .btf import iter_module_btf, kernel_btf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..debuginfo.btf import Btf
    from ..debuginfo.corerelo import Answer
    from ..spec.object import CoreAccess, ProgramSpec, Reloc

POISON = 0xBAD2310  # the number of the helper that is called in place of an instruction without an answer (libbpf: "bad relo")

_SLOT = Struct("<BBhi")
_POISONED = _SLOT.pack(isa.CALL, 0, 0, POISON)
_OFFSET_LIMIT = 0x7FFF
_BYTES_OF = {code: size for size, code in isa.SIZE_OF_BYTES.items()}
_SIZE_BITS, _CLASS_BITS = 0x18, 0x07


class CoreLoader:
    """Fits programs to the types of this kernel; one for each object, so that no question is answered twice.

    `kernel` is the BTF to answer from: the running kernel's when None.
    """

    def __init__(self, kernel: Btf | None = None) -> None:
        self._kernel = kernel
        self._modules: list[Btf] | None = None
        self._answers: dict[CoreAccess, Answer] = {}
        self._poisoned: dict[tuple[str, int], CoreAccess] = {}

    def _target(self) -> Btf:
        if self._kernel is None:
            self._kernel = kernel_btf()
        return self._kernel

    def _iter_modules(self) -> Iterator[Btf]:
        if self._modules is None:
            self._modules = list(iter_module_btf()) if self._kernel is None or self._kernel is kernel_btf() else []
        yield from self._modules

    def fill(self, spec: ProgramSpec, insns: bytearray, reloc: Reloc) -> None:
        """Change the instruction that `reloc` is about. Raises FormatError where instruction and relocation do not belong together."""
        access = reloc.core
        if access is None:
            raise FormatError(f"program {spec.name}: the CO-RE relocation at instruction {reloc.pc} says nothing")
        answer = self._answers.get(access)
        try:
            if answer is None:
                answer = self._answers[access] = resolve(access, self._target(), self._iter_modules())
            done = patch(insns, reloc.pc, access, answer)
        except FormatError as error:
            raise FormatError(
                f"program {spec.name}, instruction {reloc.pc}: {error.message}", hint=error.hint
            ) from None
        if not done:
            self._poisoned[spec.name, reloc.pc] = access

    def explained(self, error: VerifierError, spec: ProgramSpec) -> VerifierError:
        """Return `error`; where the verifier came to an instruction without an answer, one that says what this kernel lacks."""
        from .verifier_log import explain as find_line
        from .verifier_log import find_failing_pc

        pc, _ = find_failing_pc(error.log)
        access = self._poisoned.get((spec.name, pc))
        if access is None or f"#{POISON}" not in error.log:
            return error
        why, close = explain(access, self._target(), self._iter_modules())
        why = why or "it has another size here, and a sign"
        _, diagnostic = find_line(error.log, spec.lines)
        text = f"{show(access)} cannot be had on this kernel: {why}"
        if diagnostic is not None:
            diagnostic = Diagnostic("ERROR", text, diagnostic.span, diagnostic.excerpt)
        hint = f"did you mean {', '.join(close)}?" if close else "the program was compiled for another kernel"
        return VerifierError(
            spec.name, error.errno, log=error.log, summary=f"instruction {pc}: {text}", diagnostic=diagnostic, hint=hint
        )


def patch(insns: bytearray, pc: int, access: CoreAccess, answer: Answer) -> bool:
    """Put an answer into the instruction at `pc`: an immediate, or the offset of a load or store, and its size.

    Returns False where there is no answer, and the instruction may no longer be reached. Raises FormatError when the instruction is none that
    can hold one, does not hold the value that the compiler recorded, or is too narrow.
    """
    at = pc * 8
    opcode, registers, off, imm = _SLOT.unpack_from(insns, at)
    kind = opcode & _CLASS_BITS
    if answer.value is None:
        _poison(insns, at, opcode)
        return False
    value = answer.value
    if kind in (isa.BPF_ALU, isa.BPF_ALU64) and not opcode & isa.BPF_X:
        _check(access, answer, imm, 32)
        if not -1 << 31 <= value < 1 << (32 if kind == isa.BPF_ALU else 31):
            raise FormatError(f"{access.kind} of {show(access)} is {value} here, more than this instruction can hold")
        _SLOT.pack_into(insns, at, opcode, registers, off, value - (value >> 31 << 32) if value > 0 else value)
    elif kind in (isa.BPF_LDX, isa.BPF_ST, isa.BPF_STX):
        _check(access, answer, off, 16)
        return _patch_offset(insns, at, access, answer)
    elif opcode == isa.LDDW:
        _patch_wide(insns, at, access, answer)
    else:
        raise FormatError(f"an instruction with the opcode {opcode:#04x} cannot hold {access.kind} of {show(access)}")
    return True


def _poison(insns: bytearray, at: int, opcode: int) -> None:
    insns[at : at + 8] = _POISONED
    if opcode == isa.LDDW:
        insns[at + 8 : at + 16] = _POISONED


def _check(access: CoreAccess, answer: Answer, held: int, bits: int) -> None:
    if answer.checked and (held ^ access.value) & (1 << bits) - 1:
        raise FormatError(
            f"the instruction holds {held}, not {access.value}, which was recorded for {access.kind} of {show(access)}"
        )


def _patch_offset(insns: bytearray, at: int, access: CoreAccess, answer: Answer) -> bool:
    opcode, registers, _, imm = _SLOT.unpack_from(insns, at)
    value = answer.value or 0
    if not 0 <= value <= _OFFSET_LIMIT:
        raise FormatError(f"{show(access)} lies {value} bytes from the start here, more than a load or store reaches")
    held_bytes = _BYTES_OF[opcode & _SIZE_BITS]
    if answer.target_bytes and answer.target_bytes != (answer.local_bytes or held_bytes):
        if not answer.resizable or answer.target_bytes not in isa.SIZE_OF_BYTES:
            _poison(insns, at, opcode)
            return False
        if held_bytes != answer.local_bytes:
            raise FormatError(
                f"{show(access)} has {answer.local_bytes} bytes, but the instruction accesses {held_bytes}"
            )
        opcode = opcode & ~_SIZE_BITS | isa.SIZE_OF_BYTES[answer.target_bytes]
    _SLOT.pack_into(insns, at, opcode, registers, value, imm)
    return True


def _patch_wide(insns: bytearray, at: int, access: CoreAccess, answer: Answer) -> None:
    _, registers, off, low = _SLOT.unpack_from(insns, at)
    second, more, second_off, high = _SLOT.unpack_from(insns, at + 8)
    if registers >> 4 or off or second or more or second_off:
        raise FormatError(f"a 64-bit load of another form cannot hold {access.kind} of {show(access)}")
    _check(access, answer, low & 0xFFFFFFFF | high << 32, 64)
    value = (answer.value or 0) & 0xFFFFFFFFFFFFFFFF
    insns[at + 4 : at + 8] = (value & 0xFFFFFFFF).to_bytes(4, "little")
    insns[at + 12 : at + 16] = (value >> 32).to_bytes(4, "little")

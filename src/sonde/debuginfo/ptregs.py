"""Registers as the kernel saves them: names to byte offsets in struct pt_regs, for each architecture.

Follows arch/x86/include/asm/ptrace.h and arch/arm64/include/uapi/asm/ptrace.h. The order of saved registers is
ABI; the same offsets serve kprobes, uprobes and the register part of struct bpf_perf_event_data.
"""

from __future__ import annotations

from ..record import Record


class PtRegs(Record):
    """The layout of one architecture. Offsets are bytes; `names` are the kernel's own and `aliases` other spellings."""

    names: tuple[str, ...]  # 8 bytes each, in order
    args: tuple[str, ...]  # registers of the first arguments of a function
    result: str
    ip: str
    sp: str
    fp: str
    aliases: tuple[tuple[str, str], ...] = ()
    link: str = ""  # holds the return address where a function begins; "": that is on the stack

    def get_offset(self, name: str) -> int:
        """Return the offset of the register `name`, or -1."""
        for alias, known in self.aliases:
            if alias == name:
                name = known
        return self.names.index(name) * 8 if name in self.names else -1


_X86_64 = PtRegs(
    ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax", "ip",
     "cs", "flags", "sp", "ss"),
    ("di", "si", "dx", "cx", "r8", "r9"),
    result="ax",
    ip="ip",
    sp="sp",
    fp="bp",
)  # fmt: skip
_AARCH64 = PtRegs(
    (*(f"r{n}" for n in range(31)), "sp", "pc", "pstate"),
    tuple(f"r{n}" for n in range(8)),
    result="r0",
    ip="pc",
    sp="sp",
    fp="r29",
    link="r30",
    aliases=(*((f"x{n}", f"r{n}") for n in range(31)), ("lr", "r30"), ("fp", "r29")),
)


def get_ptregs(arch: str) -> PtRegs | None:
    """Return the register layout of `arch` ("x86_64", "aarch64"), or None for one that is not known here."""
    return {"x86_64": _X86_64, "aarch64": _AARCH64}.get(arch)


def find_operand(arch: str, name: str) -> tuple[int, int]:
    """Return (offset, size) in pt_regs of a register as assembler operands name it ("eax", "r8d", "ah", "w3").

    Both numbers are bytes. Raises KeyError for what pt_regs does not hold (vector registers, unknown names).
    """
    if arch == "x86_64":
        return _find_x86(name)
    if arch == "aarch64":
        if name[:1] == "w" and name[1:].isdecimal():
            return _find(_AARCH64, "x" + name[1:]), 4
        return _find(_AARCH64, name), 8
    raise KeyError(name)


def _find(regs: PtRegs, name: str) -> int:
    offset = regs.get_offset(name)
    if offset < 0:
        raise KeyError(name)
    return offset


def _find_x86(name: str) -> tuple[int, int]:
    regs = _X86_64
    if name[:1] == "r" and name[1:2].isdecimal():  # r8 r8d r8w r8b
        size = {"d": 4, "w": 2, "b": 1}.get(name[-1], 8)
        return _find(regs, name if size == 8 else name[:-1]), size
    if name[:1] in ("r", "e") and name[1:] in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip"):
        return _find(regs, name[1:]), 8 if name[0] == "r" else 4
    if name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp"):
        return _find(regs, name), 2
    if name in ("sil", "dil", "bpl", "spl"):
        return _find(regs, name[:2]), 1
    if name in ("al", "bl", "cl", "dl"):
        return _find(regs, name[0] + "x"), 1
    if name in ("ah", "bh", "ch", "dh"):  # the second byte of the saved register
        return _find(regs, name[0] + "x") + 1, 1
    raise KeyError(name)

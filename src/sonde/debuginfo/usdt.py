"""USDT notes: the static probe points that a program or library declares in its section .note.stapsdt.

An argument is written as an operand of the assembler ("-4@%edi", "8@-16(%rbp)", "8@[sp, 16]"); it is decoded into
offsets into struct pt_regs, so that whoever generates code needs to know no register name. The format is that of
SystemTap's sys/sdt.h, version 3: three addresses, then provider, name and arguments, each ended by a NUL.
"""

from __future__ import annotations

import struct

from ..errors import FormatError
from ..record import Record
from .elf import Elf
from .ptregs import find_operand, get_ptregs

NT_STAPSDT = 3


class UsdtArg(Record):
    """Where an argument of a USDT probe is when the probe is hit.

    kind    the value is
    const   `value`
    reg     the register at byte `base` of pt_regs
    mem     the user memory at `value` + register at `base` + register at `index` * `scale`  (-1: no such register)
    none    out of reach of a program (a vector register, an operand that nobody knows): `text` says what it is

    The value has `size` bytes (1, 2, 4, 8) and is extended as `signed` says.
    """

    size: int
    signed: bool
    kind: str
    value: int = 0
    base: int = -1
    index: int = -1
    scale: int = 1
    text: str = ""


class UsdtNote(Record):
    """One location of a probe. Offsets are in the file; `semaphore_offset` is 0 when the probe has no semaphore."""

    provider: str
    name: str
    vaddr: int
    offset: int
    semaphore_offset: int
    args: str  # as the assembler wrote them; see `parse_args`


def read_notes(elf: Elf) -> list[UsdtNote]:
    """Return the USDT locations of `elf` in the order of the file, also those of separate debug-less copies of a probe.

    Raises FormatError for a corrupt section. A location that no segment of the file holds is left out.
    """
    section = elf.get_section(".note.stapsdt")
    if section is None:
        return []
    base = elf.get_section(".stapsdt.base")
    found = []
    for note in elf.iter_notes(section):
        if note.owner != "stapsdt" or note.type != NT_STAPSDT:
            continue
        decoded = _decode(elf, note.data, note.offset, base.addr if base else 0)
        if decoded.offset >= 0:
            found.append(decoded)
    return found


def _decode(elf: Elf, data: bytes, offset: int, base: int) -> UsdtNote:
    strings = data[24:].split(b"\0")
    if len(data) < 24 or len(strings) < 4:
        raise FormatError("a USDT note ends too early", path=elf.path, offset=offset)
    pc, link_base, semaphore = struct.unpack_from("<QQQ", data)
    if base and link_base:  # the file was moved after it was linked (prelink, a debug file): follow it
        pc = (pc + base - link_base) & 0xFFFFFFFFFFFFFFFF
        semaphore = (semaphore + base - link_base) & 0xFFFFFFFFFFFFFFFF if semaphore else 0
    provider, name, args = (s.decode("utf-8", "replace") for s in strings[:3])
    return UsdtNote(provider, name, pc, elf.get_offset(pc), max(elf.get_offset(semaphore), 0) if semaphore else 0, args)


def parse_args(note: UsdtNote, elf: Elf) -> tuple[UsdtArg, ...]:
    """Decode the arguments of `note`. What cannot be decoded gets the kind "none"; nothing raises."""
    return tuple(parse_arg(text, elf.arch, elf, note.vaddr) for text in split_args(note.args))


def split_args(text: str) -> list[str]:
    """Split at the spaces between arguments; those inside brackets belong to an operand ("8@[sp, 16]")."""
    found = []
    start, depth = 0, 0
    for at, char in enumerate(text):
        if char in "[(":
            depth += 1
        elif char in "])":
            depth -= 1
        elif char == " " and depth <= 0:
            found.append(text[start:at])
            start = at + 1
    found.append(text[start:])
    return [part for part in found if part]


def parse_arg(text: str, arch: str, elf: Elf | None = None, vaddr: int = 0) -> UsdtArg:
    """Decode one argument of the probe at `vaddr`; `elf` serves operands that name a symbol."""
    size_text, at, operand = text.partition("@")
    if not at:
        size_text, operand = "8", text  # the first version of the format had no sizes
    signed = size_text.startswith("-")
    size = size_text.lstrip("-")
    if size not in ("1", "2", "4", "8"):  # "4f", "8f": floating point, which programs cannot handle
        return UsdtArg(8, signed, "none", text=text)
    arg = UsdtArg(int(size), signed, "none", text=text)
    try:
        if arch == "x86_64":
            return _parse_x86(arg, operand, elf, vaddr)
        if arch == "aarch64":
            return _parse_aarch64(arg, operand)
    except (KeyError, ValueError):
        pass
    return arg


def _parse_x86(arg: UsdtArg, operand: str, elf: Elf | None, vaddr: int) -> UsdtArg:
    if operand.startswith("$"):
        value, symbol = _displacement(operand[1:], elf)
        if symbol and not (elf and elf.is_exec):
            return arg
        return UsdtArg(arg.size, arg.signed, "const", value, text=arg.text)
    if operand.startswith("%") and ":" not in operand:
        base, size = find_operand("x86_64", operand[1:])
        return UsdtArg(min(arg.size, size), arg.signed, "reg", 0, base, text=arg.text)
    head, _, inner = operand.partition("(")
    if ":" in head or (inner and not inner.endswith(")")):
        return arg  # a segment register: its base is not among the saved registers
    value, symbol = _displacement(head, elf)
    base_text, index_text, scale = _split_memory(inner[:-1])
    if base_text == "%rip":
        if not symbol:
            return arg  # relative to an instruction whose length is not known
        return _memory(arg, value - vaddr, "%rip", "", 1)  # in the handler, ip is the address of the probe
    if (symbol and not (elf and elf.is_exec)) or not (head or base_text or index_text):
        return arg
    return _memory(arg, value, base_text, index_text, scale)


def _split_memory(inner: str) -> tuple[str, str, int]:
    parts = [p.strip() for p in inner.split(",")]
    if len(parts) > 3:
        raise ValueError(inner)
    parts += [""] * (3 - len(parts))
    scale = int(parts[2]) if parts[2] else 1
    if scale not in (1, 2, 4, 8):
        raise ValueError(inner)
    return parts[0], parts[1], scale


def _memory(arg: UsdtArg, value: int, base: str, index: str, scale: int) -> UsdtArg:
    offsets = []
    for name in (base, index):
        offset, size = find_operand("x86_64", name.lstrip("%")) if name else (-1, 8)
        if size != 8:
            raise ValueError(name)
        offsets.append(offset)
    return UsdtArg(arg.size, arg.signed, "mem", value, offsets[0], offsets[1], scale, arg.text)


def _displacement(text: str, elf: Elf | None) -> tuple[int, bool]:
    """Evaluate "16", "-8+4", "counter", "counter+8": the value, and whether a symbol is part of it."""
    value, symbol = 0, False
    for term in text.replace("-", "+-").split("+"):
        if not term:
            continue
        digits = term.lstrip("-")
        if digits[:1].isdecimal():
            value += int(digits, 0) * (-1 if term[0] == "-" else 1)
            continue
        found = elf.get_symbol(digits) if elf and term[0] != "-" and not symbol else None
        if found is None:
            raise KeyError(term)
        value += found.vaddr
        symbol = True
    return value, symbol


def _parse_aarch64(arg: UsdtArg, operand: str) -> UsdtArg:
    if not operand.startswith("["):
        number = operand.lstrip("#")
        if number.lstrip("-")[:1].isdecimal():
            return UsdtArg(arg.size, arg.signed, "const", int(number, 0), text=arg.text)
        base, size = find_operand("aarch64", operand)
        return UsdtArg(min(arg.size, size), arg.signed, "reg", 0, base, text=arg.text)
    if not operand.endswith("]"):
        return arg
    parts = [p.strip() for p in operand[1:-1].split(",")]
    regs = get_ptregs("aarch64")
    assert regs is not None
    base = regs.get_offset(parts[0])
    if base < 0:
        return arg
    value, index, scale = 0, -1, 1
    if len(parts) > 1:
        number = parts[1].lstrip("#")
        if number.lstrip("-")[:1].isdecimal():
            value = int(number, 0)
        else:
            index = regs.get_offset(parts[1])
            if index < 0:
                return arg  # a 32-bit index is extended on the way, which `scale` cannot say
    if len(parts) > 2:
        shift = parts[2].split()
        if index < 0 or len(shift) != 2 or shift[0] != "lsl":
            return arg
        scale = 1 << int(shift[1].lstrip("#"))
    if len(parts) > 3 or scale not in (1, 2, 4, 8):
        return arg
    return UsdtArg(arg.size, arg.signed, "mem", value, base, index, scale, arg.text)

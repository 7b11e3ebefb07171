"""BCC's `disassembler`: the code of a function and the layout of a table as text.

The frame of a line is BCC's; the instruction stands in the kernel's notation, which also has what BCC's lacks (32-bit operations,
atomics, byte order).
"""

from __future__ import annotations

import ctypes as ct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_TYPE_NAMES: dict[Any, str] = {
    ct.c_bool: "_Bool",
    ct.c_char: "char",
    ct.c_byte: "signed char",
    ct.c_ubyte: "unsigned char",
    ct.c_short: "short",
    ct.c_ushort: "unsigned short",
    ct.c_int: "int",
    ct.c_uint: "unsigned int",
    ct.c_long: "long",
    ct.c_ulong: "unsigned long",
    ct.c_int64 * 2: "__int128",
    ct.c_uint64 * 2: "unsigned __int128",
}


def disassemble_str(bpfstr: bytes) -> list[str]:
    """Return one line for each slot of 8 bytes of a program's code. Raises FormatError."""
    from ...bpf.isa import decode, iter_pcs

    lines = []
    for pc, insn in iter_pcs(decode(bpfstr)):
        lines.append(f"{pc:4d}: ({insn.opcode:02x}) {_instruction(insn, pc)}")
        if insn.opcode == _LDDW:
            lines.append(f"{pc + 1:4d}:      (64-bit upper word)")
    return lines


_LDDW = 0x18


def _instruction(insn: Any, pc: int) -> str:
    from ...bpf.disasm import format_insn

    if insn.opcode == _LDDW and insn.src in (1, 2):
        at = f" at byte {insn.imm >> 32}" if insn.src == 2 else ""
        return f"r{insn.dst} = <map{at} at fd #{insn.imm & 0xFFFFFFFF}>"
    text = format_insn(insn)
    _, mark, offset = text.rpartition("goto pc")
    return f"{text} <{pc + 1 + int(offset)}>" if mark else text


def disassemble_prog(func_name: Any, bpfstr: bytes) -> str:
    """Return the code of a function as text, under a title."""
    return "\n".join([f"Disassemble of BPF program {func_name}:", *disassemble_str(bpfstr)])


def decode_map(map_name: Any, map_obj: Any, map_type: int, sizeinfo: bool = False) -> str:
    """Return the layout of a table's keys and leaves as C text; with `sizeinfo`, each member's offset and size in bytes."""
    from ...kernel.abi import MAP_TYPES

    lines = [
        f"Layout of BPF map {map_name} (type {MAP_TYPES[map_type].upper()}, FD {map_obj.map_fd}, ID {map_obj.map_id}):"
    ]
    for kind, name in ((map_obj.Key, "key"), (map_obj.Leaf, "value")):
        if issubclass(kind, (ct.Structure, ct.Union)):
            lines += [f"  {_type_name(kind)} {{", *_members(kind, "    ", 0, sizeinfo), f"  }} {name};"]
        else:
            lines.append(f"  {_type_name(kind)} {name};")
    return "\n".join(lines)


def _type_name(kind: Any) -> str:
    if kind in _TYPE_NAMES:
        return _TYPE_NAMES[kind]
    if issubclass(kind, ct.Array):
        return f"{_type_name(kind._type_)}[{kind._length_}]"
    return "union" if issubclass(kind, ct.Union) else "struct"


def _members(kind: Any, indent: str, base: int, sizeinfo: bool) -> Iterator[str]:
    for field in kind._fields_:
        name, member = field[0], field[1]
        place = getattr(kind, name)
        at, size = base + place.offset, ct.sizeof(member)
        if len(field) == 3:
            where = f"[{at},{place.size & 0xFFFF} +{field[2]} bit] " if sizeinfo else ""
            yield f"{indent}{where}{_type_name(member)} {name}:{field[2]};"
            continue
        where = f"[{at} +{size}] " if sizeinfo else ""
        if issubclass(member, (ct.Structure, ct.Union)):
            yield f"{indent}{where}{_type_name(member)} {{"
            yield from _members(member, indent + "  ", at, sizeinfo)
            yield f"{indent}}} {name};"
        else:
            yield f"{indent}{where}{_type_name(member)} {name};"

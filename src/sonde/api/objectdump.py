"""What an ELF object holds, as lines of text: maps, externs, programs in the verifier's notation between their source lines, types as C."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..bpf.objfile.model import Extern, Fill, MapDef, ObjectFile, Program
    from ..debuginfo.btf import Btf
    from ..debuginfo.ctype import CType

_KEEP = "#if defined(__bpf__) && !defined(BPF_NO_PRESERVE_ACCESS_INDEX)\n"


def dump_object(found: ObjectFile, *, types: bool = False) -> Iterator[str]:
    """Yield the lines that describe an object; with `types`, those of its C types too. Raises FormatError for damaged types."""
    yield f'license "{found.license}"'
    for warning in found.warnings:
        yield f"warning: {warning}"
    for each in found.maps:
        yield _map(each)
        yield from _variables(each)
    for extern in found.externs:
        yield _extern(extern)
    for program in found.programs:
        yield ""
        yield from _program(program)
    if types and found.btf is not None:
        from ..debuginfo.btfheader import iter_header as iter_types

        yield ""
        yield from iter_types(found.btf)


def _map(found: MapDef) -> str:
    from ..kernel.abi import MAP_TYPES

    kind = MAP_TYPES[found.type] if found.type < len(MAP_TYPES) else f"type {found.type}"
    parts = [kind, _side("key", found.key_size, found.key), _side("value", found.value_size, found.value)]
    parts.append(f"{found.max_entries} entries")
    if found.flags:
        parts.append(f"flags {found.flags:#x}")
    if found.pinned:
        parts.append("pinned by name")
    parts += [f"[{number}] = {name}" for number, name in found.values]
    if found.initial.strip(b"\0"):
        shown = found.initial[:16].hex(" ")
        parts.append(f"initially {shown}{' …' if len(found.initial) > 16 else ''}")
    return f"map {found.name}: {', '.join(part for part in parts if part)}"


def _variables(found: MapDef) -> Iterator[str]:
    """The variables of a section of data, with their places."""
    from ..debuginfo.ctype import Struct, declare

    if isinstance(found.value, Struct) and found.value.kind == "datasec":
        for member in found.value.members:
            yield f"  {member.offset:5}: {declare(member.ctype, member.name)}"


def _side(word: str, size: int, ctype: CType | None) -> str:
    from ..debuginfo.ctype import Struct, declare

    if not size:
        return ""
    named = ctype is not None and not (isinstance(ctype, Struct) and ctype.kind == "datasec")
    return f"{word} {size} bytes" + (f" ({declare(ctype)})" if named and ctype is not None else "")


def _extern(found: Extern) -> str:
    from ..debuginfo.ctype import declare

    return f"extern {declare(found.ctype, found.name)} ({found.section}{', weak' if found.weak else ''})"


def _program(program: Program) -> Iterator[str]:
    from ..bpf.disasm import format_insn
    from ..bpf.isa import decode, iter_pcs

    yield f"program {program.name}, section {program.section}: {len(program.insns) // 8} instructions"
    functions = {function.pc: function.name for function in program.functions}
    lines = {line.pc: line.span for line in program.lines}
    fills: dict[int, list[Fill]] = {}
    for fill in program.fills:
        fills.setdefault(fill.pc, []).append(fill)
    for pc, insn in iter_pcs(decode(program.insns)):
        if pc in functions:
            yield f"{functions[pc]}:"
        if pc in lines and lines[pc].line:
            yield f"; {lines[pc].file}:{lines[pc].line}  {lines[pc].excerpt.strip()}".rstrip()
        notes = "".join(f"  ; {_note(fill)}" for fill in fills.get(pc, ()))
        yield f"{pc:6}: {format_insn(insn)}{notes}"


def _note(fill: Fill) -> str:
    from ..debuginfo.corerelo import show

    if fill.core is not None:
        return f"CO-RE {fill.core.kind} {show(fill.core)}"
    if fill.kind == "map_value":
        return f"{fill.symbol}{fill.addend:+d}"
    return f"{fill.kind} {fill.symbol}{' (weak)' if fill.weak else ''}"


def dump_types(btf: Btf) -> Iterator[str]:
    """Yield all types as one C header, which compiles; for BPF, accesses to members become CO-RE relocations, as with bpftool's vmlinux.h.

    Raises FormatError for damaged types.
    """
    from ..debuginfo.btfheader import iter_header

    yield "#ifndef __VMLINUX_H__\n#define __VMLINUX_H__\n"
    yield f"{_KEEP}#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)\n#endif\n"
    yield from iter_header(btf)
    yield f"\n{_KEEP}#pragma clang attribute pop\n#endif\n\n#endif"

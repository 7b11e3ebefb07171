"""Relocations of a program that do not depend on where it goes: numbers of maps, local functions. What only an engine knows is left to it."""

from __future__ import annotations

from struct import pack_into

from ..errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .object import ProgramSpec, Reloc

    Fill = Callable[[ProgramSpec, bytearray, Reloc], object]

_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 1, 2
_WIDE = ("map", "map_value", "ksym", "ksym_btf")


def relocate(spec: ProgramSpec, maps: Mapping[str, int], others: Mapping[str, Fill] | None = None) -> bytearray:
    """Return a copy of the program's code with its relocations filled in; `maps` are the numbers (descriptors) of its maps.

    Kinds that are not of maps and functions are filled in by `others`, where it has them; else values that depend on the kernel's types
    stand as the compiler found them, and calls of kernel functions stay open. Raises FormatError, and what `others` raise.
    """
    insns = bytearray(spec.insns)
    if len(insns) % 8 or not insns:
        raise FormatError(f"the code of program {spec.name} has {len(insns)} bytes: not whole instructions")
    for reloc in spec.relocs:
        if reloc.kind not in KINDS:
            raise FormatError(f"program {spec.name}: unknown relocation {reloc.kind!r} at instruction {reloc.pc}")
        slots = 2 if reloc.kind in _WIDE else 1
        if not 0 <= reloc.pc <= len(insns) // 8 - slots:
            raise FormatError(f"program {spec.name}: relocation {reloc.kind!r} outside the code, at {reloc.pc}")
        if reloc.kind in ("map", "map_value"):
            _fill_map(spec, insns, reloc, maps)
        elif (
            reloc.kind == "subprogram"
        ):  # `addend` is the pc at which it starts; calls and addresses count from the next instruction
            pack_into("<i", insns, reloc.pc * 8 + 4, reloc.addend - reloc.pc - 1)
        elif others is not None and reloc.kind in others:
            others[reloc.kind](spec, insns, reloc)
    return insns


KINDS = ("map", "map_value", "subprogram", "kfunc", "ksym", "ksym_btf", "core")


def _fill_map(spec: ProgramSpec, insns: bytearray, reloc: Reloc, maps: Mapping[str, int]) -> None:
    number = maps.get(reloc.symbol)
    if number is None:
        raise FormatError(
            f"program {spec.name} uses map {reloc.symbol!r} at instruction {reloc.pc}, which the object does not have"
        )
    source = _PSEUDO_MAP_VALUE if reloc.kind == "map_value" else _PSEUDO_MAP_FD
    at = reloc.pc * 8
    insns[at + 1] = insns[at + 1] & 0x0F | source << 4
    pack_into("<i", insns, at + 4, number)
    if reloc.kind == "map_value":
        pack_into("<i", insns, at + 12, reloc.addend)

"""Layout of C structs and unions as the System V (x86-64) and AAPCS64 (aarch64) LP64 rules give it, bit-fields included."""

from __future__ import annotations

from ..record import Record
from .ctype import CType, Member, Struct, alignof, sizeof

_NO_LIMIT = 1 << 30  # bytes


class MemberDecl(Record, eq=False):
    """A member before it has an offset. `width` is -1 for what is no bit-field; `aligned` is 0 without that attribute."""

    name: str
    ctype: CType
    width: int = -1
    aligned: int = 0
    packed: bool = False


def lay_out(
    kind: str,
    name: str,
    members: list[MemberDecl],
    *,
    packed: bool = False,
    aligned: int = 0,
    max_align: int = 0,
    arch: str = "x86_64",
) -> Struct:
    """Return the struct or union `name` with its members at their places.

    `max_align` is what `#pragma pack(N)` says: no member has a greater alignment, whatever its own attributes, and bit-fields follow each
    other without gaps; 0 for no limit.
    """
    limit = max_align or _NO_LIMIT
    placed: list[Member] = []
    end_bits = 0
    largest_bits = 0
    struct_align = max(aligned, 1)
    for member in members:
        natural = min(alignof(member.ctype), limit)
        loose = packed or member.packed or max_align > 0
        tight = (packed or member.packed) and not (
            max_align and member.width >= 0
        )  # gcc: the pragma goes before the attribute
        align = min(max(member.aligned, 1 if tight else natural), limit)
        start = 0 if kind == "union" else end_bits
        if member.width < 0:
            start = _round_up(start, 8 * align)
            end_bits = start + 8 * sizeof(member.ctype)
        else:
            start = _place_bits(member, start, natural, loose, min(member.aligned, limit))
            end_bits = start + member.width
            if not member.name and arch != "aarch64":
                align = 1  # unnamed bit-fields align the struct only on Arm
            elif member.width == 0:
                align = natural
        struct_align = max(struct_align, align)
        largest_bits = max(largest_bits, end_bits)
        if member.width < 0 or member.name:
            placed.append(Member(member.name, member.ctype, start, max(member.width, 0)))
    size = _round_up(largest_bits, 8 * struct_align) >> 3
    return Struct(kind, name, size, tuple(placed), align=struct_align)


def _place_bits(member: MemberDecl, start: int, natural: int, loose: bool, aligned: int) -> int:
    """Where a bit-field begins: it must not cross the boundary of a unit of its type, unless it is packed."""
    unit = 8 * sizeof(member.ctype)
    if aligned:
        start = _round_up(start, 8 * aligned)
    if member.width == 0:
        return _round_up(start, 8 * alignof(member.ctype))  # no pragma changes that
    if not loose and start // unit != (start + member.width - 1) // unit:
        start = _round_up(start, 8 * natural)
    return start


def _round_up(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple

"""Layout of C structs and unions as the System V (x86-64) and AAPCS64 (aarch64) LP64 rules give it, bit-fields included."""

from __future__ import annotations

from ..record import Record
from .ctype import CType, Member, Struct, alignof, sizeof


class MemberDecl(Record, eq=False):
    """A member before it has an offset. `width` is -1 for what is no bit-field; `aligned` is 0 without that attribute."""

    name: str
    ctype: CType
    width: int = -1
    aligned: int = 0
    packed: bool = False


def lay_out(
    kind: str, name: str, members: list[MemberDecl], *, packed: bool = False, aligned: int = 0, arch: str = "x86_64"
) -> Struct:
    """Return the struct or union `name` with its members at their places."""
    placed: list[Member] = []
    end_bits = 0
    largest_bits = 0
    struct_align = max(aligned, 1)
    for member in members:
        natural = alignof(member.ctype)
        loose = packed or member.packed
        align = max(member.aligned, 1 if loose else natural)
        start = 0 if kind == "union" else end_bits
        if member.width < 0:
            start = _round_up(start, 8 * align)
            end_bits = start + 8 * sizeof(member.ctype)
        else:
            start = _place_bits(member, start, natural, loose)
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


def _place_bits(member: MemberDecl, start: int, natural: int, loose: bool) -> int:
    """Where a bit-field begins: it must not cross the boundary of a unit of its type, unless it is packed."""
    unit = 8 * sizeof(member.ctype)
    if member.aligned:
        start = _round_up(start, 8 * member.aligned)
    if member.width == 0:
        return _round_up(start, 8 * natural)
    if not loose and start // unit != (start + member.width - 1) // unit:
        start = _round_up(start, 8 * natural)
    return start


def _round_up(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple

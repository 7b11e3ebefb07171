"""Which parts of which slots can become values: those that are always accessed whole, by their own address.

A slot is cut into pieces by the accesses to it: the members of a struct become values one by one.
"""

from __future__ import annotations

from ..ir import CTX, INT_OF_BYTES, Inst, bytes_of
from .memory import place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ir import Function, Value
    from .memory import Place, Root


class Piece:
    """`size` bytes at `offset` of a slot, to become a value of `type`."""

    __slots__ = ("name", "offset", "size", "type")

    def __init__(self, name: str, offset: int, size: int, type_: str) -> None:
        self.name = name
        self.offset = offset
        self.size = size
        self.type = type_


def find_pieces(function: Function) -> dict[Root, list[Piece]]:
    """Return the pieces of each slot that has any, in order of their offsets."""
    slots = [i for i in function.blocks[0].insts if i.op == "alloca"]
    if not slots:
        return {}
    found = _Accesses(slots)
    for block in function.blocks:
        for inst in block.insts:
            found.add(inst)
        end = block.end
        if end is not None:
            for a in (*end.args, *(a for _, arguments in end.targets for a in arguments)):
                found.drop(a)
    return {slot: pieces for slot in slots if slot in found.ranges and (pieces := found.cut(slot))}


class _Accesses:
    def __init__(self, slots: list[Inst]) -> None:
        self.ranges: dict[Root, list[tuple[int, int, str]]] = {slot: [] for slot in slots}
        self.of: dict[Value, Inst] = {slot: slot for slot in slots}  # address -> slot

    def drop(self, value: Value) -> None:
        """The slot that this address belongs to is used in another way: it stays memory."""
        slot = self.of.get(value)
        if slot is not None:
            self.ranges.pop(slot, None)

    def add(self, inst: Inst) -> None:
        """Note how an instruction uses slots."""
        of = self.of
        if not any(a in of for a in inst.args):
            return
        op = inst.op
        if op in ("ptradd", "cast") and inst.args[0] in of:
            of[inst] = of[inst.args[0]]
        elif op == "load" and not inst.volatile:
            self.note(inst.args[0], inst.offset, bytes_of(inst.type), inst.type)
        elif op == "store" and not inst.volatile:
            self.drop(inst.args[1])
            self.note(inst.args[0], inst.offset, bytes_of(inst.args[1].type), inst.args[1].type)
        elif op == "memset":
            self.note(inst.args[0], inst.offset, 0, "")
        elif op == "memcpy":
            small = is_word_copy(inst)
            for p, offset in ((inst.args[0], inst.offset), (inst.args[1], inst.src_offset)):
                self.note(p, offset, inst.size, "" if small else "blocked")
        else:
            for a in inst.args:
                self.drop(a)

    def note(self, p: Value, offset: int, size: int, type_: str) -> None:
        """An access to `size` bytes as a type; "blocked": they must stay memory."""
        if p not in self.of:
            return
        slot, at = place_of(p)
        if at is None:
            self.drop(p)
        elif slot in self.ranges and size:
            self.ranges[slot].append((at + offset, size, type_))

    def cut(self, slot: Inst) -> list[Piece]:
        """Return the pieces of a slot: ranges that overlap no different range."""
        pieces = []
        ranges = sorted(set(self.ranges[slot]))
        i = 0
        while i < len(ranges):
            offset, size, _ = ranges[i]
            end, whole, types = offset, True, set()
            while i < len(ranges) and (ranges[i][0] < end or end == offset):
                whole &= ranges[i][:2] == (offset, size) and ranges[i][2] != "blocked"
                end = max(end, ranges[i][0] + ranges[i][1])
                types.add(ranges[i][2])
                i += 1
            types.discard("")
            if whole:
                type_ = types.pop() if len(types) == 1 else INT_OF_BYTES[size]
                pieces.append(Piece(f"{slot.name}.{offset}" if offset else slot.name, offset, size, type_))
        return pieces


def is_word_copy(inst: Inst) -> bool:
    """Tell whether a memcpy can be a load and a store, on both sides."""
    if inst.size not in INT_OF_BYTES:
        return False
    return all(
        _is_aligned(place_of(p), offset, inst)
        for p, offset in ((inst.args[0], inst.offset), (inst.args[1], inst.src_offset))
    )


def _is_aligned(place: Place, offset: int, inst: Inst) -> bool:
    root, at = place
    if isinstance(root, Inst) and root.op == "alloca":
        return at is not None and (at + offset) % inst.size == 0 and root.align >= inst.size
    if not isinstance(root, tuple) and root.type == CTX:
        return at is not None and (at + offset) % inst.size == 0
    return isinstance(root, tuple) or root.type in ("ptr.map", "ptr.mem") or inst.align >= inst.size

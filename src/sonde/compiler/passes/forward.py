"""Loads whose value is known already, from a store or another load that every way here has passed, become that value."""

from __future__ import annotations

from ..ir import CTX, MAP, Inst, bytes_of, is_pointer
from .graph import predecessors, substitute
from .memory import Slots, effects_of, may_overlap, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.object import MapSpec
    from ..ir import Block, Function, Value
    from .memory import Access, Root

    Known = dict[tuple[Root, int, int], Value]  # root, offset, bytes -> what is there


def forward(function: Function, maps: dict[str, MapSpec]) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    blocks = function.blocks
    before = predecessors(blocks)
    private = Slots(function).private
    at_end: dict[Block, Known] = {}
    changes: dict[Value, Value] = {}
    casts = False
    for block in blocks:
        known = _joined([at_end.get(p) for p in before[block]])
        kept = []
        for inst in block.insts:
            if inst.op == "load" and not inst.volatile:
                root, offset = place_of(inst.args[0])
                key = (root, (offset or 0) + inst.offset, bytes_of(inst.type))
                value = known.get(key) if offset is not None else None
                if value is not None and value.type == inst.type:
                    changes[inst] = value
                    continue
                if value is not None and bytes_of(value.type) == 8 and is_pointer(value.type) != is_pointer(inst.type):
                    inst.op, inst.args, inst.offset = "cast", [value], 0
                    casts = True
                elif offset is not None:
                    known[key] = inst
            else:
                _forget(known, inst, private, maps)
            kept.append(inst)
        block.insts = kept
        at_end[block] = known
    substitute(function, changes)
    return bool(changes) or casts


def _joined(ways: list[Known | None]) -> Known:
    """Return what is known whichever way was taken; nothing where a jump leads back."""
    if not ways or ways[0] is None:
        return {}
    first = ways[0]
    if len(ways) == 1:
        return dict(first)
    known = dict(first)
    for other in ways[1:]:
        if other is None:
            return {}
        known = {key: value for key, value in known.items() if other.get(key) is value}
    return known


def _forget(known: Known, inst: Inst, private: set[Value], maps: dict[str, MapSpec]) -> None:
    """Drop what an instruction may overwrite; remember what it stores."""
    op = inst.op
    if op == "store":
        root, offset = place_of(inst.args[0])
        size = bytes_of(inst.args[1].type)
        at = None if offset is None else offset + inst.offset
        _overwrite(known, (root, at, size), private)
        if at is not None and not inst.volatile:
            known[root, at, size] = inst.args[1]
    elif op in ("memset", "memcpy"):
        root, offset = place_of(inst.args[0])
        _overwrite(known, (root, None if offset is None else offset + inst.offset, inst.size), private)
    elif op == "atomic":
        root, offset = place_of(inst.args[0])
        _overwrite(
            known, (root, None if offset is None else offset + inst.offset, bytes_of(inst.args[1].type)), private
        )
    elif op in ("call", "callsub", "kfunc", "tailcall"):
        _called(known, inst, private, maps)


def _called(known: Known, inst: Inst, private: set[Value], maps: dict[str, MapSpec]) -> None:
    effects = effects_of(inst, maps)
    for access in effects.writes:
        _overwrite(known, access, private)
    if effects.everything or effects.maps or effects.context:
        for key in list(known):
            root = key[0]
            kind = MAP if isinstance(root, tuple) else root.type
            if root in private:
                continue
            if effects.everything or (effects.maps and kind != CTX) or (effects.context and kind == CTX):
                del known[key]


def _overwrite(known: Known, access: Access, private: set[Value]) -> None:
    root, offset, size = access
    for key in list(known):
        other, start, length = key
        if other == root if isinstance(root, tuple) else other is root:
            if offset is None or ((size is None or start < offset + size) and offset < start + length):
                del known[key]
        elif may_overlap(root, other, private):
            del known[key]

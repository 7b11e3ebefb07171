"""Where a function's own stack is read and written through other registers than r10: by loads and stores, and by the helpers that are given its addresses.

Followed forwards over all paths: which registers hold r10 plus a known number, which map, which constant. Where an index that is not known has been added, it is taken for positive, which whoever follows
the program holds against the truth (`lows`). Where an address is stored, handed to another function or to a helper that does more than read and write bytes there, nothing is known of the
function, and all of its stack counts as read.
"""

from __future__ import annotations

from ...record import Record
from ..flow import split_blocks
from ..helpers import HELPERS
from ..isa import ACCESS_BYTES, CALL, FRAME_POINTER, LDDW, MAX_STACK_BYTES, Insn
from .state import SLOTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    # What registers hold: ("at", offset from r10), ("from", the lowest such offset), ("map", number), ("number", n). Those that hold none of these are not there.
    Held = tuple[str, int]
    Registers = dict[int, Held]

ALL_SLOTS = (1 << SLOTS) - 1
_ANYWHERE = ("from", -MAX_STACK_BYTES)
_ADDRESSES = frozenset(["at", "from"])
_MOV, _ADD, _SUB, _LOAD_ACQUIRE = 0xB0, 0x00, 0x10, 0x100
_SIZED, _TO_TOP = frozenset(["mem", "mem_rw"]), frozenset(["fixed", "fixed_rw"])
_NOT_READ = frozenset(["value_out", "mem_out", "fixed_out", "scalar"])


class StackUse(Record):
    """By pc of a load, a store or a call: `reads`, the slots that it may read (of a store: be one of), as a mask, and `lows`, the lowest offset from r10 for which that holds; `certain` are the loads
    and stores that can only be of these very bytes. What goes elsewhere than to the stack is in none of them.
    """

    reads: dict[int, int]
    lows: dict[int, int]
    certain: set[int]


class _Unknown(Exception):
    """What is done with the stack cannot be told."""


def find_uses(
    body: list[tuple[int, Insn]], maps: Mapping[int, object], lower: frozenset[int] = frozenset()
) -> StackUse | None:
    """Return how a function uses its stack; None when that cannot be told.

    `maps` by the numbers that its instructions have (verifier.MapInfo); `lower`: pcs at which an index was found to be negative.
    """
    if any(
        insn.opcode == CALL and insn.src == 2 for _, insn in body
    ):  # a kernel function, which may keep objects there
        return None
    blocks = split_blocks(body)
    states: dict[int, Registers] = {body[0][0]: {FRAME_POINTER: ("at", 0)}}
    waiting = [body[0][0]]
    use = StackUse({}, {}, set())
    try:
        while waiting:
            pc = waiting.pop()
            state = dict(states[pc])
            block = blocks[pc]
            for at, insn in block.insns + ([block.end] if block.end else []):
                _step(at, insn, state, use, maps)
            for following in (block.target, block.next):
                if following in blocks and _merge(states, following, state):
                    waiting.append(following)
    except _Unknown:
        return None
    for pc in lower & use.reads.keys():
        use.reads[pc] = ALL_SLOTS
        use.lows.pop(pc, None)
        use.certain.discard(pc)
    return use


def slots_of(off: int, size: int) -> int:
    """The slots of the bytes r10 + off … + size, as a mask."""
    if not -SLOTS * 8 <= off < 0:
        return 0
    first, last = (-off - 1) // 8, max(-off - size, 0) // 8
    return sum(1 << slot for slot in range(last, first + 1))


# What registers hold ------------------------------------------------------------------------------------------------


def _is_address(held: Held | None) -> bool:
    return held is not None and held[0] in _ADDRESSES


def _merge(states: dict[int, Registers], pc: int, new: Registers) -> bool:
    """Join what is known on another path to `pc`; tell whether that changes anything."""
    old = states.get(pc)
    if old is None:
        states[pc] = dict(new)
        return True
    changed = False
    for register in old.keys() | new.keys():
        held = old.get(register)
        joined = _join(held, new.get(register))
        if joined != held:
            changed = True
            if joined is None:
                del old[register]
            else:
                old[register] = joined
    return changed


def _join(a: Held | None, b: Held | None) -> Held | None:
    if a == b:
        return a
    if a is not None and b is not None and _is_address(a) and _is_address(b):
        return "from", min(a[1], b[1])
    return _ANYWHERE if _is_address(a) or _is_address(b) else None


def _step(pc: int, insn: Insn, state: Registers, use: StackUse, maps: Mapping[int, object]) -> None:
    class_ = insn.opcode & 7
    if class_ in (4, 7):
        _arithmetic(insn, state, class_ == 7)
    elif class_ == 0:
        state.pop(insn.dst, None)
        if insn.opcode == LDDW and insn.src in (0, 1):
            state[insn.dst] = ("number", insn.imm) if insn.src == 0 else ("map", insn.imm & 0xFFFFFFFF)
        elif insn.opcode != LDDW:  # a packet load
            _forget(state)
    elif class_ in (1, 2, 3):
        _access(pc, insn, state, use)
    elif insn.opcode & ~8 == CALL:
        _call(pc, insn, state, use, maps)


def _forget(state: Registers) -> None:
    """What a call leaves of the registers."""
    for register in range(6):
        state.pop(register, None)


def _arithmetic(insn: Insn, state: Registers, wide: bool) -> None:
    operation, source = insn.opcode & 0xF0, state.get(insn.src) if insn.opcode & 8 else ("number", insn.imm)
    held = state.get(insn.dst)
    result: Held | None = None
    if operation == _MOV:
        is_whole = insn.off == 0 and wide
        if not is_whole and _is_address(source):
            raise _Unknown
        is_small = insn.off == 0 and source is not None and source[0] == "number" and 0 <= source[1] < 1 << 31
        result = source if is_whole or is_small else None  # of another number only a part is left
    elif held is not None and _is_address(held):
        result = _moved(held, source, operation) if wide else _ANYWHERE
    elif _is_address(source):  # a number plus an address is one, too
        result = _ANYWHERE
    if result is None:
        state.pop(insn.dst, None)
    else:
        state[insn.dst] = result


def _moved(held: Held, by: Held | None, operation: int) -> Held:
    """An address plus or minus what a register holds, or a number."""
    kind, off = held
    if operation == _ADD and by is None:
        return "from", off
    if operation not in (_ADD, _SUB) or by is None or by[0] != "number" or abs(by[1]) > MAX_STACK_BYTES:
        return _ANYWHERE
    off += by[1] if operation == _ADD else -by[1]
    return kind, max(off, -MAX_STACK_BYTES) if kind == "from" else off


# What is done with addresses ----------------------------------------------------------------------------------------


def _note(pc: int, use: StackUse, slots: int, low: int) -> None:
    use.reads[pc] = use.reads.get(pc, 0) | slots
    use.lows[pc] = min(use.lows.get(pc, low), low)


def _access(pc: int, insn: Insn, state: Registers, use: StackUse) -> None:
    """A load, store or atomic operation."""
    class_ = insn.opcode & 7
    is_atomic = class_ == 3 and insn.opcode & 0xE0 == 0xC0
    is_load = class_ == 1 or (is_atomic and insn.imm == _LOAD_ACQUIRE)
    if class_ == 3 and not is_load and _is_address(state.get(insn.src)):
        raise _Unknown
    held = state.get(insn.src if is_load else insn.dst)
    if held is not None and _is_address(held):
        low, is_known = held[1] + insn.off, held[0] == "at"
        _note(pc, use, slots_of(low, ACCESS_BYTES[insn.opcode & 0x18] if is_known else -low), low)
        if is_known:  # when another path comes here with another address, neither is
            use.certain.add(pc)
        else:
            use.certain.discard(pc)
    if is_load:
        state.pop(insn.dst, None)
    elif is_atomic:  # it may give back what was there
        state.pop(insn.src, None)
        state.pop(0, None)


def _call(pc: int, insn: Insn, state: Registers, use: StackUse, maps: Mapping[int, object]) -> None:
    given = {register: state[register] for register in range(1, 6) if register in state}
    helper = HELPERS.get(insn.imm) if insn.opcode == CALL and insn.src == 0 else None
    if helper is None and any(map(_is_address, given.values())):
        raise _Unknown
    for register, kind in enumerate(helper.args if helper is not None else (), 1):
        held = given.get(register)
        if held is not None and _is_address(held):
            _note(pc, use, _read_by(kind.rstrip("?"), held, given, register, helper.args, maps), held[1])  # type: ignore[union-attr]
    if helper is not None and helper.variadic and any(map(_is_address, given.values())):
        _note(pc, use, ALL_SLOTS, -MAX_STACK_BYTES)
    _forget(state)


def _read_by(
    kind: str,
    held: Held,
    given: Mapping[int, Held],
    register: int,
    kinds: tuple[str, ...],
    maps: Mapping[int, object],
) -> int:
    """The slots that a helper reads through an argument of some kind, an address."""
    off = held[1]
    top = slots_of(off, -off)
    if kind in _NOT_READ:
        return 0
    if kind in ("key", "value"):
        known = given.get(kinds.index("map") + 1) if "map" in kinds else None
        table = maps.get(known[1]) if known is not None and known[0] == "map" else None
        if table is None:
            raise _Unknown
        return slots_of(off, getattr(table, f"{kind}_size")) if held[0] == "at" else top
    if kind in _SIZED:
        size = given.get(register + 1)
        if held[0] == "at" and size is not None and size[0] == "number" and 0 <= size[1] <= MAX_STACK_BYTES:
            return slots_of(off, size[1])
        return top
    if kind in _TO_TOP:
        return top
    raise _Unknown

"""What the verifier knows at one point of one path: registers and stack of each frame, and what the program holds on to.

A Reg never changes; frames and states are copied when a path divides.
"""

from __future__ import annotations

from ..isa import MAX_STACK_BYTES
from . import scalar
from .scalar import Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Union

    Live = Callable[["Frame"], tuple[int, int, int, int]]
    from .callbacks import Rounds

    Slot = Union["Reg", bytes]  # a register that was stored whole, or a kind for each byte: see INVALID

ZERO = scalar.const(0)
SLOTS = MAX_STACK_BYTES // 8
# A byte of the stack: never written, anything, zero, part of what only helpers may touch.
INVALID, MISC, ZEROS, OPAQUE = ord("?"), ord("m"), ord("0"), ord("x")
UNWRITTEN = bytes([INVALID]) * 8

UNTRUSTED, PLAIN, TRUSTED, IN_RCU = (
    0,
    1,
    2,
    3,
)  # of a kernel pointer: whether helpers and kernel functions may rely on it
OPAQUE_KINDS = frozenset(["dynptr", "iter"])


class Reg:
    """One register. "?" behind a kind: it may also be null.

    kind         off and number          thing                           size          ident
    none         (never written)
    scalar       number: its value                                                     equal numbers have the same
    ctx          where it points to
    stack        in the frame `size`,                                    frame number
                 0 at its top
    map                                  MapInfo
    value value? in the map's value      MapInfo                                       which look-up it came from
    mem mem?     in the memory           None, or "ro"                   bytes         which call it came from
    packet, packet_meta   in the packet                                  bytes known   which number was added
    packet_end
    btf btf?     in the struct           the Struct                      trust         which call it came from
    func                                 the pc of the function
    object object?                       its name ("socket", "dynptr" …)               which call it came from
    part         its low bytes           a kind for each byte            bytes of it                (in slots only)
    dynptr       which 8 bytes of it     where its memory is                           its own   (in slots only)
    iter         which 8 bytes of it     what it goes over               1: not at its end  its own   (in slots only)

    `parent` is the ident of what it belongs to: when that is given back, this is gone, too.
    """

    __slots__ = ("ident", "kind", "number", "off", "parent", "size", "thing")

    def __init__(
        self,
        kind: str,
        number: Scalar = ZERO,
        off: int = 0,
        thing: object = None,
        size: int = 0,
        ident: int = 0,
        parent: int = 0,
    ) -> None:
        self.parent = parent
        self.kind = kind
        self.number = number
        self.off = off
        self.thing = thing
        self.size = size
        self.ident = ident

    @property
    def is_pointer(self) -> bool:
        """Whether it holds an address."""
        return self.kind not in ("scalar", "none", "part")

    @property
    def may_be_null(self) -> bool:
        """Whether it must be compared with null before it is used."""
        return self.kind.endswith("?")

    def change(self, **changes: object) -> Reg:
        """A copy with some fields changed."""
        fields = {name: getattr(self, name) for name in self.__slots__} | changes
        return Reg(**fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reg):
            return NotImplemented
        return (
            self.kind == other.kind
            and self.off == other.off
            and self.thing is other.thing
            and self.size == other.size
            and self.number == other.number
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.off, self.size, self.number))

    def __str__(self) -> str:
        if self.kind == "scalar":
            return str(self.number)
        if self.kind == "none":
            return "never written"
        where = f"{self.off:+d}" if self.off else ""
        if self.number is not ZERO and self.number.const != 0:
            where += f" plus {self.number}"
        name = getattr(self.thing, "name", "") or (str(self.thing) if self.thing is not None else "")
        return " ".join(p for p in (_WORDS.get(self.kind, self.kind), name, where) if p)


_WORDS = {
    "ctx": "the context",
    "stack": "the stack",
    "map": "the map",
    "value": "a value of map",
    "value?": "a value of map, or null:",
    "mem": "memory",
    "mem?": "memory, or null",
    "packet": "the packet",
    "packet_end": "the end of the packet",
    "packet_meta": "the packet's metadata",
    "btf": "a kernel",
    "btf?": "a kernel pointer, or null:",
    "func": "the function at pc",
    "object": "a",
    "object?": "null or a",
}
NONE = Reg("none")
UNKNOWN = Reg("scalar", scalar.UNKNOWN)


def number(value: int) -> Reg:
    """A register that holds a known number."""
    return Reg("scalar", scalar.const(value))


class Frame:
    """Registers and stack of one function that is being run. `slots` are by number from the top: slot 0 is r10 - 8."""

    __slots__ = ("callback", "entering", "entry", "number", "regs", "return_pc", "slots")

    def __init__(self, number: int, entry: int = 0, return_pc: int = -1, callback: Rounds | None = None) -> None:
        self.number = number
        self.entry = entry  # pc of the function
        self.entering = callback is not None  # a callback at its very start
        self.return_pc = return_pc
        self.callback = callback
        self.regs = [NONE] * 10 + [Reg("stack", size=number)]
        self.slots: dict[int, Slot] = {}

    def copy(self) -> Frame:
        """An independent copy."""
        made = Frame.__new__(Frame)
        made.number, made.return_pc, made.callback = self.number, self.return_pc, self.callback
        made.entry, made.entering = self.entry, self.entering
        made.regs = self.regs[:]
        made.slots = dict(self.slots)
        return made

    def widen(self, last: Frame) -> None:
        """Forget the numbers that are not those of `last`; addresses stay."""
        for index, reg in enumerate(self.regs):
            if reg.kind == "scalar" and not (
                last.regs[index].kind == "scalar" and last.regs[index].number == reg.number
            ):
                self.regs[index] = UNKNOWN
        for slot, kept in self.slots.items():
            before = last.slots.get(slot)
            if isinstance(kept, Reg):
                same = isinstance(before, Reg) and before.kind == kept.kind and before.number == kept.number
                if kept.kind in ("scalar", "part") and not (same and before.thing == kept.thing):  # type: ignore[union-attr]
                    self.slots[slot] = UNKNOWN if kept.kind == "scalar" else _any_number(kinds_of(kept))
            elif kept != before:
                self.slots[slot] = _any_number(kept)


def kinds_of(slot: Slot) -> bytes:
    """The kinds of the bytes of a slot."""
    if not isinstance(slot, Reg):
        return slot
    if slot.kind == "part":
        kinds: bytes = slot.thing  # type: ignore[assignment]
        return kinds
    if slot.kind in OPAQUE_KINDS:
        return bytes([OPAQUE]) * 8
    return bytes([ZEROS if slot.kind == "scalar" and slot.number.const == 0 else MISC]) * 8


def low_bytes(slot: Slot, size: int) -> Scalar | None:
    """What is known of the lowest `size` bytes of a slot, zero-extended; None where they are no number."""
    if isinstance(slot, Reg) and slot.kind == "scalar":
        return slot.number if size == 8 else scalar.and_(slot.number, scalar.const((1 << 8 * size) - 1))
    kinds = kinds_of(slot)
    if (
        isinstance(slot, Reg)
        and slot.kind == "part"
        and (size <= slot.size or not kinds[slot.size : size].strip(_ZERO))
    ):
        return scalar.and_(slot.number, scalar.const((1 << 8 * size) - 1))
    if (isinstance(slot, Reg) and slot.is_pointer) or INVALID in kinds[:size]:
        return None
    return scalar.const(0) if not kinds[:size].strip(_ZERO) else scalar.of_size(size)


_ZERO = bytes([ZEROS])


def _any_number(kinds: bytes) -> bytes:
    return bytes(MISC if kind == ZEROS else kind for kind in kinds)


class State:
    """All frames, the innermost last; `held` are the idents of what must be given back (ring buffer records, references)."""

    __slots__ = ("frames", "held", "lock", "lonely", "marks", "preempt", "rcu", "rounds", "steps", "turns")

    def __init__(self) -> None:
        self.frames = [Frame(0)]
        self.held: frozenset[int] = frozenset()
        self.lock: Reg | None = None  # the map value whose spin lock is held
        self.rcu = 0  # read locks
        self.preempt = 0  # times that preemption was disabled
        self.marks: dict[
            int, list[Frame]
        ] = {}  # by pc of a call that begins a round of an open loop: what the last round began with
        self.rounds = 0  # times that may_goto did not leave its loop
        self.lonely = False  # since the last may_goto left its loop: no other state answers for this one
        self.turns = 0  # times that a loop which ends by itself, whatever its numbers are, began anew
        self.steps = 0  # instructions on this path

    @property
    def frame(self) -> Frame:
        """The frame that runs."""
        return self.frames[-1]

    @property
    def regs(self) -> list[Reg]:
        """The registers of the frame that runs."""
        return self.frames[-1].regs

    def copy(self) -> State:
        """An independent copy."""
        made = State.__new__(State)
        made.frames = [frame.copy() for frame in self.frames]
        made.held = self.held
        made.lock, made.rcu, made.preempt, made.marks = self.lock, self.rcu, self.preempt, self.marks
        made.rounds, made.turns, made.lonely = self.rounds, self.turns, self.lonely
        made.steps = self.steps
        return made

    def map_regs(self, ident: int, make: Callable[[Reg], Reg]) -> None:
        """Replace every register and stored register whose ident is `ident` by make(register)."""
        for frame in self.frames:
            for index, reg in enumerate(frame.regs):
                if reg.ident == ident:
                    frame.regs[index] = make(reg)
            for slot, kept in frame.slots.items():
                if isinstance(kept, Reg) and kept.ident == ident:
                    frame.slots[slot] = make(kept)

    def release(self, ident: int) -> None:
        """Something has been given back: nothing that leads there, or belongs to it, may be used any more."""
        self.held -= {ident}
        for frame in self.frames:
            frame.regs = [NONE if ident in (reg.ident, reg.parent) else reg for reg in frame.regs]
            for slot, kept in frame.slots.items():
                if isinstance(kept, Reg) and ident in (kept.ident, kept.parent):
                    frame.slots[slot] = UNWRITTEN if kept.kind in OPAQUE_KINDS else NONE

    def mark(self, pc: int) -> None:
        """The first round of a loop begins at `pc`."""
        self.marks = {**self.marks, pc: [frame.copy() for frame in self.frames]}

    def widen(self, pc: int) -> None:
        """Another round of a loop begins: forget the numbers that are not what they were when the last one began, so that there is an end to it."""
        for frame, last in zip(self.frames, self.marks.get(pc, ())):
            frame.widen(last)
        self.turns += 1
        self.mark(pc)

    def forget_packet(self) -> None:
        """The packet may have moved, or have another size: no address in it holds any more."""
        for frame in self.frames:
            frame.regs = [NONE if reg.kind in _IN_PACKET else reg for reg in frame.regs]
            for slot, kept in frame.slots.items():
                if isinstance(kept, Reg) and kept.kind in _IN_PACKET:
                    frame.slots[slot] = NONE


_IN_PACKET = frozenset(["packet", "packet_meta", "packet_end"])


def contains(old: State, new: State, live: Live) -> bool:
    """Tell whether what was found safe from `old` on is safe from `new` on: each of its possibilities is one of `old`.

    `live(frame)` gives (registers that matter, registers whose number matters, slots that matter, slots whose number matters)
    as bit masks, at the pc that the frame is at.
    """
    if len(old.frames) != len(new.frames) or len(old.held) != len(new.held):
        return False
    if old.rcu != new.rcu or old.preempt != new.preempt or (old.lock is None) != (new.lock is None):
        return False
    idents: dict[int, int] = {}
    if old.lock is not None and new.lock is not None and not _reg_contains(old.lock, new.lock, True, idents):
        return False
    for a, b in zip(old.frames, new.frames):
        if a.return_pc != b.return_pc or a.entry != b.entry or not _same_rounds(a.callback, b.callback, idents):
            return False
        regs, precise, slots, precise_slots = live(b)
        for index in range(10):
            bit = 1 << index
            if regs & bit and not _reg_contains(a.regs[index], b.regs[index], bool(precise & bit), idents):
                return False
        for slot in a.slots.keys() | b.slots.keys():
            if slots >> slot & 1 and not _slot_contains(
                a.slots.get(slot, UNWRITTEN), b.slots.get(slot, UNWRITTEN), bool(precise_slots >> slot & 1), idents
            ):
                return False
    # Two things that are held apart must not be one in the new state: it would be given back twice.
    return _renamed(old.held, idents) == new.held and all(
        _renamed(a.callback.held, idents) == b.callback.held
        for a, b in zip(old.frames, new.frames)
        if a.callback is not None and b.callback is not None
    )


def _renamed(held: frozenset[int], idents: dict[int, int]) -> frozenset[int]:
    return frozenset(idents.get(ident, ident) for ident in held)


def _same_rounds(a: Rounds | None, b: Rounds | None, idents: dict[int, int]) -> bool:
    """Whether the rounds of a callback that are still to come are the same, too."""
    if a is None or b is None:
        return a is b
    return (
        a.name == b.name
        and len(a.args) == len(b.args)
        and all(_reg_contains(x, y, True, idents) for x, y in zip((*a.args, a.result), (*b.args, b.result)))
    )


def _same_ident(a: int, b: int, idents: dict[int, int]) -> bool:
    """What was one thing in the old state must be one thing in the new."""
    if not a:
        return True
    return bool(b) and idents.setdefault(a, b) == b


def _reg_contains(a: Reg, b: Reg, precise: bool, idents: dict[int, int]) -> bool:
    if a.kind == "none":
        return True  # nothing was read from it
    if a.kind == "scalar" and b.kind == "scalar":
        # A number that does not matter itself may stand for an equal one that does.
        return (not precise or a.number.contains(b.number)) and _same_ident(a.ident, b.ident, idents)
    if a.kind != b.kind or a.off != b.off or a.thing is not b.thing:
        return False
    if a.kind in ("packet", "packet_meta"):
        if b.size < a.size:
            return False
    elif a.size != b.size:
        return False
    return (
        a.number.contains(b.number)
        and _same_ident(a.ident, b.ident, idents)
        and _same_ident(a.parent, b.parent, idents)
    )


def _slot_contains(a: Slot, b: Slot, precise: bool, idents: dict[int, int]) -> bool:
    if isinstance(a, Reg) and a.kind == "part":
        return _part_contains(a, b, precise)
    if isinstance(b, Reg) and b.kind == "part":
        b = kinds_of(b)
    if isinstance(a, Reg):
        if isinstance(b, Reg):
            return _reg_contains(a, b, precise, idents)
        # Bytes in place of a number that nothing depends on; zeros in place of 0.
        return a.kind == "scalar" and (
            (not precise and INVALID not in b) or (a.number.covers(0) and b == bytes([ZEROS]) * 8 and not a.ident)
        )
    if isinstance(b, Reg):
        if b.kind != "scalar":
            return all(kind == INVALID for kind in a)
        return all(kind in (INVALID, MISC) or (not precise) or b.number.const == 0 for kind in a)
    return all(x in (y, INVALID) or (x == MISC and y == ZEROS) for x, y in zip(a, b))


def _part_contains(a: Reg, b: Slot, precise: bool) -> bool:
    if isinstance(b, Reg) and b.is_pointer:
        return False
    if not all(x in (y, INVALID) or (x == MISC and y == ZEROS) for x, y in zip(kinds_of(a), kinds_of(b))):
        return False
    low = low_bytes(b, a.size) if precise else None
    return not precise or (low is not None and a.number.contains(low))

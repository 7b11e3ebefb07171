"""The states that paths have been through, by instruction, found again by the known numbers in them.

A state answers for another one only where each of its known numbers that matters is the other's, too. So states are kept by the places of
their known numbers, and by those numbers: of a loop with a counter, a path is compared with the states of its own round only.
"""

from __future__ import annotations

from .state import Reg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .state import Frame, Live, State

_PATIENCE = 16  # times that a state is compared in vain
_SLOT_PLACE, _FRAME_PLACES = 10, 80


class Node:
    """A state that was passed. `branches` counts the paths from it that are not at their end; `reach` is the longest one, in instructions."""

    __slots__ = ("branches", "hits", "mark", "misses", "parent", "place", "reach", "state")

    def __init__(self, state: State, parent: Node | None, place: Visited) -> None:
        self.mark = hash(tuple(state.regs))  # equal for equal registers
        self.place = place
        self.hits = self.misses = 0
        self.state = state
        self.parent = parent
        self.branches = 1
        self.reach = state.steps


class Visited:
    """The nodes at one instruction: by the places of known numbers, then by these numbers. `open` of them are not at the end of all their paths."""

    __slots__ = ("_groups", "open")

    def __init__(self) -> None:
        self.open = 0
        self._groups: dict[tuple[int, ...], dict[tuple[int, ...], list[Node]]] = {}

    def candidates(self, known: dict[int, int]) -> Iterator[list[Node]]:
        """The lists of nodes that may answer for a state with these known numbers."""
        for places, lists in self._groups.items():
            try:
                numbers = tuple([known[place] for place in places])
            except KeyError:
                continue
            found = lists.get(numbers)
            if found:
                yield found

    def add(self, node: Node, known: dict[int, int]) -> None:
        """Keep a node, whose known numbers are these."""
        self.open += 1
        places = tuple(known)
        self._groups.setdefault(places, {}).setdefault(tuple(known.values()), []).append(node)


def known_numbers(state: State, live: Live) -> dict[int, int]:
    """The known numbers of a state that matter, by place: registers, then slots, frame by frame."""
    known: dict[int, int] = {}
    for frame in state.frames:
        _add_known(known, frame, *live(frame)[1::2])
    return known


def _add_known(known: dict[int, int], frame: Frame, registers: int, slots: int) -> None:
    base = frame.number * _FRAME_PLACES
    for index, reg in enumerate(frame.regs):
        if registers >> index & 1 and reg.kind == "scalar":
            value, unknown = reg.number.bits
            if not unknown:
                known[base + index] = value
    if slots:
        for slot in sorted(frame.slots):
            kept = frame.slots[slot]
            if (
                slots >> slot & 1
                and isinstance(kept, Reg)
                and kept.kind in ("scalar", "part")
                and not kept.number.bits[1]
            ):
                known[base + _SLOT_PLACE + slot] = kept.number.bits[0]


def is_of_little_use(node: Node) -> bool:
    """Whether a node has answered for too few of the states that it was compared with to be kept."""
    return node.misses > 3 * node.hits + _PATIENCE and not node.branches

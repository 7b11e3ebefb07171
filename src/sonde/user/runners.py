"""What trampolines are made of: programs that are in place, and what those of one process share."""

from __future__ import annotations

from ..record import Record
from . import frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .budget import Gates


class Runner(Record):
    """A program that is in place: its address, what it reads of the context, its cookie. `exclusive`: no other run may use its slot meanwhile.

    `fields` are names of registers in pt_regs; `context` is the offset in the frame of what it gets as its context; `account` the number of its probe in the
    budget (-1: it has none).
    """

    address: int
    fields: frozenset[str]
    exclusive: bool = False
    cookie: int = 0
    context: int = frame.REGS
    account: int = -1
    overrides: bool = False  # it may ask that the function does not run


class Surroundings(Record):
    """What trampolines of one process share: addresses in it. `cpu_code` loads the number of the CPU into eax and changes nothing else."""

    state: int
    private: int
    slots: int
    cpu_code: bytes
    claim: int = 0  # the routine that claims a slot
    gates: Gates | None = None  # of the budget, if there is one


class Calls(Record):
    """What is to run at a place that makes system calls: programs at the beginning and at the end, by the number of the call (-1: of every one)."""

    enters: tuple[tuple[int, Runner], ...]
    exits: tuple[tuple[int, Runner], ...]

    def numbers(self) -> list[int]:
        """The numbers that programs ask for, without "every one"."""
        return sorted({number for number, _ in (*self.enters, *self.exits) if number >= 0})

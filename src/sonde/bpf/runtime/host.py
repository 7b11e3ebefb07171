"""What helpers ask of the machine that calls them: `interp.Machine`, or `native.NativeMachine` for machine code."""

from __future__ import annotations

M = 0xFFFFFFFFFFFFFFFF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..maps import SharedMap
    from .world import World

    class Bytes(Protocol):
        """Memory by address. All raise RunError for what is not there."""

        def view(self, address: int, size: int, *, write: bool = False) -> memoryview: ...
        def read(self, address: int, size: int) -> bytes: ...
        def write(self, address: int, data: bytes) -> None: ...
        def read_string(self, address: int, limit: int) -> bytes: ...

    class Host(Protocol):
        """A machine, as helpers see it."""

        @property
        def memory(self) -> Bytes: ...

        @property
        def world(self) -> World: ...

        @property
        def records(self) -> dict[int, tuple[SharedMap, int]]:
            """Ring buffer records that are reserved and not given back: the map and the offset in it, by address."""
            ...

        def map_at(self, address: int) -> object:
            """The map that a program's pointer stands for. Raises RunError."""
            ...

        def map_address(self, table: object) -> int:
            """The pointer that stands for a map."""
            ...

        def place(self, table: SharedMap, offset: int, size: int) -> int:
            """The address of a piece of a map's memory."""
            ...

        def lend(self, data: bytes) -> int:
            """Put bytes into memory for the time of a callback; return their address."""
            ...

        def give_back(self, address: int) -> None:
            """Take lent bytes, or a record, out of the memory."""
            ...

        def call_address(self, address: int, *args: int) -> int:
            """Call a function of the program. Raises RunError."""
            ...


def errno(result: int) -> int:
    """A result as a program sees it: 64 bits, negative ones as two's complement."""
    return result & M


def signed(value: int) -> int:
    """The low 32 bits of a number, with their sign."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000

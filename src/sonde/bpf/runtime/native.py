"""The host of helpers for machine code in this very process: addresses are the process's own.

    native = NativeMachine({1: table})
    with Placed(translate(insns, arch), helpers=native.helpers(), maps=native.maps(), values=native.values()) as placed:
        placed.run(native.lend(context))

Memory is read and written through the kernel, so that an address that a program got wrong is an error here and no crash.
"""

from __future__ import annotations

import ctypes
import os

from ...errors import RunError
from ..isa import MAX_TAIL_CALLS
from . import World, helper_table
from .host import M

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..maps import SharedMap

    NativeHelper = Callable[[int, int, int, int, int], int]

_CALL = ctypes.CFUNCTYPE(*[ctypes.c_uint64] * 6)
_TAIL_CALL = 12


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_uint64), ("size", ctypes.c_uint64)]


class NativeMemory:
    """The memory of this process, by address (see `host.Bytes`)."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._read, self._write = libc.process_vm_readv, libc.process_vm_writev
        for function in (self._read, self._write):
            function.restype = ctypes.c_ssize_t
            function.argtypes = [
                ctypes.c_int,
                ctypes.c_void_p,
                ctypes.c_ulong,
                ctypes.c_void_p,
                ctypes.c_ulong,
                ctypes.c_ulong,
            ]

    def _copy(self, function: Callable[..., int], address: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
        size = len(buffer)
        ours, theirs = _Piece(ctypes.addressof(buffer), size), _Piece(address, size)
        done = function(os.getpid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
        if done != size:
            raise RunError(f"{size} bytes at {address:#x} are not there", address=address)

    def read(self, address: int, size: int) -> bytes:
        """Return a copy of bytes. Raises RunError."""
        if not size:
            return b""
        buffer = ctypes.create_string_buffer(size)
        self._copy(self._read, address, buffer)
        return buffer.raw

    def write(self, address: int, data: bytes) -> None:
        """Store bytes. Raises RunError."""
        if data:
            self._copy(self._write, address, (ctypes.c_char * len(data)).from_buffer_copy(data))

    def view(self, address: int, size: int, *, write: bool = False) -> memoryview:
        """Return the bytes themselves; what is not there ends the process when it is touched."""
        return memoryview((ctypes.c_char * size).from_address(address)).cast("B")

    def read_string(self, address: int, limit: int) -> bytes:
        """Return the bytes up to a NUL, `limit` at most. Raises RunError."""
        text = b""
        while len(text) < limit:
            at = address + len(text)
            piece = self.read(at, min(limit - len(text), 4096 - at % 4096))  # within a page, all is there or nothing
            head, nul, _ = piece.partition(b"\0")
            text += head
            if nul:
                break
        return text


class NativeMachine:
    """Helpers for machine code (see `host.Host`). `tables` are the maps by their numbers in the code; they must stay open while it runs.

    Tail calls go to what a program array holds: anything with an `address` of machine code, such as `here.Placed`.
    """

    def __init__(self, tables: Mapping[int, SharedMap], world: World | None = None) -> None:
        self.world = world or World()
        self.memory = NativeMemory()
        self.records: dict[int, tuple[SharedMap, int]] = {}
        self.tables = dict(tables)
        self._by_address = {table.region.address: table for table in tables.values()}
        self._lent: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self._tail_calls = 0

    def maps(self) -> dict[int, int]:
        """The addresses of the maps, as `Placed` takes them."""
        return {number: table.region.address for number, table in self.tables.items()}

    def values(self) -> dict[int, int]:
        """The addresses of the first entries of arrays, as `Placed` takes them."""
        arrays = {n: t for n, t in self.tables.items() if t.shape.kind == "array"}
        return {number: table.region.address + table.layout.entries for number, table in arrays.items()}

    def helpers(self) -> dict[int, NativeHelper]:
        """All helpers as functions of five numbers, as `Placed` takes them."""
        found = {number: self._bind(function) for number, function in helper_table().items()}
        found[_TAIL_CALL] = self._find_tail
        return found

    def _bind(self, function: Callable[..., int]) -> NativeHelper:
        return lambda r1, r2, r3, r4, r5: function(self, r1, r2, r3, r4, r5) & M

    def begin(self) -> None:
        """Forget the tail calls of the run before."""
        self._tail_calls = 0

    def _find_tail(self, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        get_program = getattr(self.map_at(r2), "get_program", None)
        if get_program is None:
            raise RunError("a tail call needs a program array", address=r2)
        found = get_program(r3 & 0xFFFFFFFF)
        if found is None or self._tail_calls >= MAX_TAIL_CALLS:
            return 0
        self._tail_calls += 1
        return int(found.address)

    # what helpers ask -----------------------------------------------------------------------------------------

    def map_at(self, address: int) -> object:
        """Return the map at an address. Raises RunError."""
        found = self._by_address.get(address)
        if found is None:
            raise RunError(f"{address:#x} is no map", address=address)
        return found

    def map_address(self, table: object) -> int:
        """Return the address of a map, also of one that is in another map only."""
        region = table.region  # type: ignore[attr-defined]
        self._by_address.setdefault(region.address, table)  # type: ignore[arg-type]
        return int(region.address)

    def place(self, table: SharedMap, offset: int, size: int) -> int:
        """Return the address of a piece of a map's memory."""
        return table.region.address + offset

    def lend(self, data: bytes) -> int:
        """Put bytes into memory; return their address, which is good until they are given back."""
        buffer = ctypes.create_string_buffer(bytes(data), max(len(data), 1))
        address = ctypes.addressof(buffer)
        self._lent[address] = buffer
        return address

    def give_back(self, address: int) -> None:
        """Free lent bytes."""
        self._lent.pop(address, None)

    def call_address(self, address: int, *args: int) -> int:
        """Call machine code."""
        padded = [*args, 0, 0, 0, 0, 0][:5]
        found: int = _CALL(address)(*padded)
        return found

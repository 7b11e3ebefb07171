"""The address space of a program that runs without a kernel: regions of bytes, each with bounds that nothing crosses.

A pointer is a 64-bit number: the region's number in the upper half, an offset in the lower. So pointer arithmetic is
plain arithmetic, and a pointer that left its region is caught when it is used. Region 0 is never there: null and small numbers are no addresses.
"""

from __future__ import annotations

from ..errors import RunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Buffer = Union[bytearray, memoryview]

REGION_SHIFT = 32
OFFSET_MASK = (1 << REGION_SHIFT) - 1


class Memory:
    """Regions by number. `regions` is read directly by the code that `interp` generates."""

    __slots__ = ("_next", "_objects", "regions")

    def __init__(self, *, zeros: bool = False) -> None:
        """Make an empty address space. `zeros`: what is not there reads as zeros, as the kernel has it for pointers that BTF describes."""
        self.regions: dict[int, Buffer] = _Zeros() if zeros else {}
        self._objects: dict[int, object] = {}
        self._next = 1

    def add(self, data: Buffer) -> int:
        """Map a buffer and return its address. A read-only memoryview may be read only."""
        number, self._next = self._next, self._next + 1
        self.regions[number] = data
        return number << REGION_SHIFT

    def add_object(self, thing: object) -> int:
        """Return an address that stands for `thing` (a map, a program): nothing can be read there."""
        number, self._next = self._next, self._next + 1
        self._objects[number] = thing
        return number << REGION_SHIFT

    def get_object(self, address: int) -> object | None:
        """Return what `add_object` gave this address; None for any other."""
        return None if address & OFFSET_MASK else self._objects.get(address >> REGION_SHIFT)

    def remove(self, address: int) -> None:
        """Unmap a region or an object; pointers into it lead nowhere from then on."""
        number = address >> REGION_SHIFT
        self.regions.pop(number, None)
        self._objects.pop(number, None)

    def view(self, address: int, size: int, *, write: bool = False) -> memoryview:
        """Return `size` bytes at `address`. Raises RunError when not all of them are there, or may not be written."""
        region = self.regions.get(address >> REGION_SHIFT)
        offset = address & OFFSET_MASK
        if region is None or offset + size > len(region):
            raise RunError(describe_fault(self, address, size), address=address)
        found = memoryview(region)[offset : offset + size]
        if write and found.readonly:
            raise RunError(f"{size} bytes at {address:#x} may not be written", address=address)
        return found

    def read(self, address: int, size: int) -> bytes:
        """Return a copy of `size` bytes. Raises RunError."""
        return bytes(self.view(address, size))

    def write(self, address: int, data: bytes) -> None:
        """Store bytes. Raises RunError."""
        self.view(address, len(data), write=True)[:] = data

    def read_string(self, address: int, limit: int) -> bytes:
        """Return the bytes up to a NUL, `limit` of them at most. Raises RunError when the region ends before either."""
        region = self.regions.get(address >> REGION_SHIFT)
        offset = address & OFFSET_MASK
        if region is None or offset >= len(region):
            raise RunError(describe_fault(self, address, 1), address=address)
        data = bytes(region[offset : offset + limit])
        text, nul, _ = data.partition(b"\0")
        if not nul and len(data) < limit:
            raise RunError(describe_fault(self, address, limit), address=address)
        return text


class _Zeros(dict[int, "Buffer"]):
    """Regions, in which every other one is there as zeros to be read: 4 GiB of address space that no page of memory stands behind."""

    def __init__(self) -> None:
        import mmap

        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
        self._zeros = memoryview(mmap.mmap(-1, OFFSET_MASK + 9, flags=flags, prot=mmap.PROT_READ))

    def __missing__(self, number: int) -> Buffer:
        return self._zeros


def describe_fault(memory: Memory, address: int, size: int) -> str:
    """Say what is wrong with an access to `size` bytes at `address`."""
    region = memory.regions.get(address >> REGION_SHIFT)
    where = f"{size} byte{'s' if size > 1 else ''} at {address:#x}"
    offset = address & OFFSET_MASK
    below = OFFSET_MASK + 1 - offset
    if below < 1 << 31 and (address >> REGION_SHIFT) + 1 in memory.regions:
        return f"access to {where} is outside its region, {below} bytes below it"
    if region is not None:
        return f"access to {where} is outside its region, {offset} bytes into {len(region)}"
    if memory.get_object(address & ~OFFSET_MASK) is not None:
        return f"access to {where}, inside an object that is opaque to programs"
    return f"access to {where}, where nothing is mapped"

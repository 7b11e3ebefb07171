"""Arrays whose values lie in memory of somebody else: the kernel's, of an array with BPF_F_MMAPABLE, so that programs there and here share them.

    a page of ours with the header · the values, as the kernel has them: each at a multiple of eight bytes

Whoever maps the one maps the other right behind it. The header says where the values begin, so code for arrays is code for these too.
"""

from __future__ import annotations

import ctypes
import os
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE
from weakref import finalize

from ...errors import FeatureError
from .array import ArrayMap
from .base import MapShape, Plan, round_up
from .memory import Region

HEADER_PAGE = PAGESIZE
_MAP_FIXED = 0x10


class LentRegion(Region):
    """A page of the memfd `fd`, and `size` bytes of what `values_fd` is open for. The one is taken over, the other stays the caller's."""

    def __init__(self, fd: int, values_fd: int, size: int) -> None:
        super().__init__(8)
        super().close()
        self.shared, self.fd = True, fd
        total = HEADER_PAGE + size
        self.address = _map_behind_each_other(fd, values_fd, size)
        array = (ctypes.c_char * total).from_address(self.address)
        finalize(array, _unmap, self.address, total)
        self.data = memoryview(array).cast("B")
        self.words = self.data.cast("Q")
        self.use_atomics()


class LentArray(ArrayMap):
    """An array in memory that `values_fd` is open for."""

    def __init__(self, shape: MapShape, fd: int, values_fd: int) -> None:
        """`fd` is a memfd for the header, empty or all zeros, and is taken over. Raises MapError, FeatureError."""
        self._values_fd = values_fd
        super().__init__(shape, fd=fd)

    def plan(self) -> Plan:
        step = round_up(self.shape.value_size)
        size = -(-step * self.shape.max_entries // PAGESIZE) * PAGESIZE
        return Plan(HEADER_PAGE + size, 1, size, step, 0, HEADER_PAGE)

    def make_region(self, shared: bool, fd: int) -> Region:
        return LentRegion(fd, self._values_fd, self.layout.size - HEADER_PAGE)

    def find_at(self, key: bytes, cpu: int, *, mark: bool = True) -> int:
        index = self.index_of(key)
        return HEADER_PAGE + index * self.stride if index < self.max_entries else 0


def _map_behind_each_other(fd: int, values_fd: int, size: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    failed = (ctypes.c_void_p(-1).value, None)
    base = libc.mmap(None, HEADER_PAGE + size, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    for at, length, which in ((0, HEADER_PAGE, fd), (HEADER_PAGE, size, values_fd)):
        place = base
        if base not in failed:
            place = libc.mmap(base + at, length, PROT_READ | PROT_WRITE, MAP_SHARED | _MAP_FIXED, which, 0)
        if place in failed:
            raise FeatureError(
                f"the memory of an array cannot be mapped: {os.strerror(ctypes.get_errno())}", feature="map:array:mmap"
            )
    return int(base)


def _unmap(address: int, size: int) -> None:
    libc = ctypes.CDLL(None)
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.munmap(address, size)

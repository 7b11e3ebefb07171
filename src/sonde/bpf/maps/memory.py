"""The memory under a map, and the operations on its words that other threads and processes must see as one.

Memory is a bytearray (one process), or a memfd that others map too. Shared words are changed by a few instructions that the JIT makes, since Python has no
atomic operations: this is the only machine code here, and it stands in for nothing but `lock cmpxchg`, `xadd` and their like. In the
memory of one process alone plain reads and writes do, as long as Python's lock keeps threads apart.

Orders: `load` is an acquire, `store` a release, everything else is a full barrier. Words lie at multiples of eight bytes.
"""

from __future__ import annotations

import ctypes
import os

from ...errors import FeatureError
from ..isa import Insn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap

    from ..jit.here import Placed

    Operation = Callable[[int, int, int], int]

M = (1 << 64) - 1
POPULATE_WRITE = 23  # of madvise(2)

# Machine code by way of the JIT: r1 is the address of a word, r2 and r3 are numbers; the old value is returned. As instructions, since reading text
# would cost more than all the rest.
_ATOMIC, _END = 0xDB, Insn(0x95)
_MOVE, _ZERO = Insn(0xBF, 0, 2), Insn(0xB7, 0)  # r0 = r2; r0 = 0
_OPERATIONS = {
    "cas": (_MOVE, Insn(_ATOMIC, 1, 3, 0, 0xF1), _END),
    "add": (_MOVE, Insn(_ATOMIC, 1, 0, 0, 0x01), _END),
    "or": (_MOVE, Insn(_ATOMIC, 1, 0, 0, 0x41), _END),
    "load": (Insn(_ATOMIC, 0, 1, 0, 0x100), _END),
    "store": (Insn(_ATOMIC, 1, 2, 0, 0x110), _ZERO, _END),
}


class Region:
    """`size` bytes, seen as bytes (`data`) and as words (`words`, by number). `fd` is the memfd of shared memory, else -1."""

    def __init__(self, size: int, *, shared: bool = False, fd: int = -1) -> None:
        """Allocate, or map `size` bytes of the memfd `fd`, which is taken over. Raises FeatureError where sharing needs machine code that cannot be had."""
        self.shared = shared or fd >= 0
        self.fd = fd
        self._mapping: mmap | None = None
        size = (size + 7) & ~7
        backing: bytearray | mmap = bytearray(size)
        if self.shared:
            import mmap

            if fd < 0:
                self.fd = os.memfd_create("sonde-map", os.MFD_CLOEXEC)
                os.ftruncate(self.fd, size)
            backing = self._mapping = mmap.mmap(self.fd, size)
        self.data = memoryview(backing)
        self.words = self.data.cast("Q")
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(backing))
        self.use_atomics()

    def use_atomics(self) -> None:
        """Prepare the operations on words, by what the memory is."""
        self._atomic = _operations() if self.shared else None
        self._ordered = self.shared and os.uname().machine != "x86_64"

    def populate(self) -> None:
        """Have all pages of shared memory made now, as far as there is memory: else each costs whoever writes there first some microseconds.

        Linux 5.14; before, nothing happens. (posix_fallocate would leave it to the first access to clear them.)
        """
        if self.fd >= 0:
            import mmap

            try:
                with mmap.mmap(self.fd, os.fstat(self.fd).st_size) as whole:
                    whole.madvise(POPULATE_WRITE)
            except OSError:
                pass

    def load(self, offset: int) -> int:
        """Return a word; what was written before it was stored is seen by reads that follow."""
        if self._ordered:
            assert self._atomic is not None
            return self._atomic["load"](self.address + offset, 0, 0)
        return self.words[offset >> 3]

    def load_last(self, offset: int) -> int:
        """Return a word, read after everything that was read before: what makes a look at a sequence number the second one."""
        if self._ordered:
            assert self._atomic is not None
            return self._atomic["add"](self.address + offset, 0, 0)
        return self.words[offset >> 3]

    def store(self, offset: int, value: int) -> None:
        """Store a word after everything that was written before."""
        if self._ordered:
            assert self._atomic is not None
            self._atomic["store"](self.address + offset, value, 0)
        else:
            self.words[offset >> 3] = value

    def cas(self, offset: int, old: int, new: int) -> bool:
        """Store `new` where `old` stands; False when something else stands there."""
        if self._atomic is not None:
            return self._atomic["cas"](self.address + offset, old, new) == old
        if self.words[offset >> 3] != old:
            return False
        self.words[offset >> 3] = new
        return True

    def add(self, offset: int, value: int) -> int:
        """Add to a word, modulo 2^64; return what stood there before."""
        if self._atomic is not None:
            return self._atomic["add"](self.address + offset, value & M, 0)
        old = self.words[offset >> 3]
        self.words[offset >> 3] = (old + value) & M
        return old

    def set_bits(self, offset: int, value: int) -> None:
        """Or into a word."""
        if self._atomic is not None:
            self._atomic["or"](self.address + offset, value, 0)
        else:
            self.words[offset >> 3] |= value

    def close(self) -> None:
        """Let the memory go, once nobody holds a view of it. Twice is harmless."""
        mapping, self._mapping = self._mapping, None
        self.words.release()
        self.data.release()
        if mapping is not None:
            try:
                mapping.close()
            except BufferError:  # somebody holds a view: the memory goes with that
                pass
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_placed: dict[str, Placed] = {}
_callable: dict[str, Operation] = {}


def prepare() -> None:
    """Make what shared memory needs once in a process: for whoever must be quick when there is a map to be made. Raises as `Region` does."""
    _operations()


def _operations() -> dict[str, Operation]:
    """The machine code of the operations, made once a process."""
    if not _callable:
        from ..jit import translate
        from ..jit.here import Placed

        machine = os.uname().machine
        prototype = ctypes.PYFUNCTYPE(*[ctypes.c_uint64] * 4)
        try:
            for name, insns in _OPERATIONS.items():
                _placed[name] = Placed(translate(insns, machine))
                _callable[name] = prototype(_placed[name].address)
        except FeatureError as error:
            raise FeatureError(
                f"maps in shared memory need machine code: {error.message}",
                feature=f"jit:{machine}",
                hint="make the map without sharing it",
            ) from None
    return _callable


def claim_owner() -> int:
    """Return what claim words hold while this thread has them: its number in the kernel."""
    from _thread import get_native_id

    return get_native_id()

"""Whether sonde lives, told by the kernel to the process that it traces: a word in their shared memory, which the kernel clears when sonde is killed.

Robust futexes (get_robust_list(2), Documentation/locking/robust-futexes.rst): each thread has a list of locks; of those that it still holds when it ends, however
it ends, the kernel replaces the number of the thread in the lock by FUTEX_OWNER_DIED. The C library made the list, as one of its pthread_mutex_t; ours is one more:

    0    u32  number of the thread, 0 when nobody owns the memory (__lock)
    24   u64  address of the `next` before (__list)
    32   u64  next: address of the next one's `next`; the last one's is the list's head

The process can write to the first, and must not to the others, which sonde trusts: so the page that they share ends between them.
"""

from __future__ import annotations

import ctypes
import os
import threading

from ..errors import FeatureError, KernelError
from . import frame

_GET_ROBUST_LIST = 274
_BEFORE, _NEXT = 24, 32
_PAGE = 4096
_READ_WRITE, _SHARED, _PRIVATE, _FIXED, _ANONYMOUS = 3, 1, 2, 16, 32


class Owner:
    """Owns the state of a process for the calling thread: until `close`, or until that thread has ended. A context manager."""

    def __init__(self, fd: int) -> None:
        """`fd` is the memfd of the state. Raises FeatureError where the C library keeps no list like that, KernelError."""
        self._thread = 0
        self._pages = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        head = find_head()
        self._pages = self._map(0, 2 * _PAGE, _PRIVATE | _ANONYMOUS, -1)
        self._map(self._pages, _PAGE, _SHARED | _FIXED, fd)
        lock = self._pages + frame.OWNER
        self._word = ctypes.c_uint32.from_address(lock)
        self._link, following = lock + _NEXT, word_at(head).value
        word_at(lock + _BEFORE).value = head
        word_at(self._link).value = following
        word_at((following & ~1) + _BEFORE - _NEXT).value = self._link
        word_at(head).value = self._link
        self._thread = self._word.value = threading.get_native_id()

    def _map(self, address: int, size: int, flags: int, fd: int) -> int:
        words = ctypes.c_void_p(address), ctypes.c_size_t(size), _READ_WRITE, flags, fd, ctypes.c_long(0)
        found = self._libc.mmap(*words)
        if found is None or found == ctypes.c_void_p(-1).value:
            raise KernelError("sonde could not map memory that it shares with the process", ctypes.get_errno())
        return int(found)

    def close(self) -> None:
        """Own it no more. Twice is harmless."""
        thread, self._thread = self._thread, 0
        if not thread:
            return
        self._word.value = 0
        if os.path.exists(f"/proc/self/task/{thread}"):  # else its list has ended with it
            before, following = word_at(self._link + _BEFORE - _NEXT).value, word_at(self._link).value
            word_at(before).value = following
            word_at((following & ~1) + _BEFORE - _NEXT).value = before
        self._libc.munmap(ctypes.c_void_p(self._pages), ctypes.c_size_t(2 * _PAGE))

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_head() -> int:
    """Return the address of this thread's list: of the first `next`, and then how far a lock is from its `next`. Raises FeatureError."""
    head, size = ctypes.c_uint64(), ctypes.c_uint64()
    failed = ctypes.CDLL(None).syscall(_GET_ROBUST_LIST, 0, ctypes.byref(head), ctypes.byref(size))
    if failed or not head.value or ctypes.c_int64.from_address(head.value + 8).value != -_NEXT:
        raise FeatureError(
            "what changes the process must end with sonde, also when it is killed; this C library keeps no list of robust futexes to see it by",
            feature="user:robust_list",
            hint="run sonde with a Python for glibc",
        )
    return head.value


def word_at(address: int) -> ctypes.c_uint64:
    """Return the word at an address of this process."""
    return ctypes.c_uint64.from_address(address)

"""Where aarch64 code makes system calls, and which: by the constant that is loaded into x8 before.

What is not seen to leave x8 alone counts as changing it; then the number is not known, and is compared where the call is made.
"""

from __future__ import annotations

from ...bpf.jit.a64_encoding import SYSCALL
from .decode import ENDS, WORD_BYTES, kind_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BEFORE_WORDS = 24  # how far before the instruction its number may be loaded
_NUMBER = 8
_MOVZ, _MOVZ_MASK = 0x52800000, 0x7FE00000  # movz w or x, without a shift
_FORGETS = ENDS | {"call", "indirect_call"}


def find_calls(code: bytes, start_of: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """See `user.machine`."""
    at = code.find(SYSCALL)
    while at >= 0:
        if at % WORD_BYTES == 0:
            yield at, _number_before(code, at, start_of(at))
        at = code.find(SYSCALL, at + 1)


def _number_before(code: bytes, at: int, first: int) -> int:
    """The number that is loaded before the instruction at `at`, in the function that begins at `first`; -1 when that is not known."""
    low = max(at - _BEFORE_WORDS * WORD_BYTES, first, 0)
    for before in range(at - WORD_BYTES, low - 1, -WORD_BYTES):
        word = int.from_bytes(code[before : before + WORD_BYTES], "little")
        if word & _MOVZ_MASK == _MOVZ and word & 31 == _NUMBER:
            return word >> 5 & 0xFFFF
        if kind_of(word) in _FORGETS or _NUMBER in (word & 31, word >> 5 & 31, word >> 10 & 31):
            return -1
    return -1

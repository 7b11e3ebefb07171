"""What the stacks of stopped threads hold: counters of code that a signal interrupted, and return addresses.

A signal handler's frame (struct rt_sigframe, arch/x86/include/asm/sigframe.h) has the interrupted registers, which the thread takes back when the handler
returns. It is found by looking through the used part of the stack for the address in question, and recognised by what stands around it: the
handler's return address, which leads to `mov $15, %eax; syscall`, and the flags and code segment of 64-bit user code.
"""

from __future__ import annotations

from ..debuginfo.procmaps import find_mapping
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from .stopped import StoppedProcess

# Offsets from the saved rip in the frame.
_RETURN, _ALTERNATE, _FLAGS, _SEGMENTS = -176, -152, 8, 16
_SIGRETURNS = (b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", b"\xb8\x0f\x00\x00\x00\x0f\x05")
_USER_CS = 0x33
STACK_BYTES = 1 << 20  # of one thread that are looked at: a frame of the handler that runs is close to the top


class Slot(Record):
    """A word on the stack of thread `tid`, at `place`, that is the address `value`. `in_frame`: a signal handler's return goes there."""

    tid: int
    place: int
    value: int
    in_frame: bool


def iter_slots(
    stopped: StoppedProcess, tid: int, find: Callable[[memoryview], list[int]], limit: int = STACK_BYTES
) -> Iterator[Slot]:
    """Yield the words on a thread's stack that `find` picks: it is given the words and returns their indices."""
    registers = stopped.registers(tid)
    start = registers.sp & -8
    data = _used_stack(stopped, start, registers["fs_base"], limit)
    words = memoryview(data[: len(data) & -8]).cast("Q")
    for index in find(words):
        place = start + 8 * index
        yield Slot(tid, place, words[index], _is_saved_counter(stopped, place, start))


def find_values(words: memoryview, wanted: Collection[int]) -> list[int]:
    """The indices of words that are in `wanted`. A set's intersection is the fastest way through many words."""
    found = set(wanted).intersection(words)
    return [index for index, word in enumerate(words) if word in found] if found else []


def find_between(words: memoryview, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The indices of words that lie in a span. They are found by their upper five bytes: a search through bytes is faster than one through numbers."""
    data = words.tobytes()
    result = []
    for start, size in spans:
        for high in range(start >> 24, (start + size - 1 >> 24) + 1):
            pattern = high.to_bytes(5, "little")
            at = data.find(pattern)
            while at >= 0:
                index, odd = divmod(at - 3, 8)
                if not odd and start <= words[index] < start + size:
                    result.append(index)
                at = data.find(pattern, at + 1)
    return sorted(set(result))


def _used_stack(stopped: StoppedProcess, start: int, thread_pointer: int, limit: int) -> bytes:
    """The stack from its pointer to its end. A thread's pointer to its own data is there, with glibc and musl: else the mappings are asked."""
    end = thread_pointer
    if not start < end <= start + limit:
        mapping = find_mapping(stopped.mappings(), start)
        end = mapping.end if mapping is not None else start
    return stopped.read_some(start, min(end - start, limit))


def _is_saved_counter(stopped: StoppedProcess, place: int, sp: int) -> bool:
    """True when `place` is the rip of the frame of a handler that runs on the stack at `sp`."""
    data = stopped.read_some(place + _RETURN, 200)
    if len(data) < 200:
        return False
    back, stack, stack_size, flags, segments = (
        _word(data, at) for at in (_RETURN, _ALTERNATE, _ALTERNATE + 16, _FLAGS, _SEGMENTS)
    )
    if segments & 0xFFFF != _USER_CS or not flags & 2 or flags >> 22:
        return False
    if stack <= place < stack + stack_size and not stack <= sp < stack + stack_size:
        return False  # on a stack for signals that the thread is not on: another's, or what is left of an earlier one
    return stopped.read_some(back, 9).startswith(_SIGRETURNS) or _is_ours(stopped, back)


def _is_ours(stopped: StoppedProcess, address: int) -> bool:
    """True for an address in code of a sonde: the handler has a return probe."""
    mapping = find_mapping(stopped.mappings(), address)
    return mapping is not None and mapping.executable and mapping.path.startswith("/memfd:sonde-agent:")


def _word(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset - _RETURN : offset - _RETURN + 8], "little")

"""A place in a process to the window that a jump displaces there: addresses of the process, and the bytes that the file has.

What a file tells about its code (`x86.text`) is looked up once. Memory is held against the file wherever a jump depends on it: bytes that differ belong to somebody else,
another tracer or a kernel's breakpoint, and such a place is refused.
"""

from __future__ import annotations

from bisect import bisect_left

from ..errors import FormatError, ProbeError
from ..record import replace
from .x86.window import Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from .sites import Files, Site

    Read = Callable[[int, int], bytes]  # memory of the process: address, size

_BEFORE_BYTES = 7  # of another's jump, at most, that reach behind its first byte: with three prefixes


class NoWindowError(ProbeError):
    """A place where no jump fits."""


class Claims:
    """The stretches of code that jumps of ours displace or consist of: no two share a byte."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        """`spans` are those that there are: first address, first behind."""
        self._starts: list[int] = []
        self._ends: dict[int, int] = {}
        for start, end in spans:
            self.add(start, end)

    def add(self, start: int, end: int) -> bool:
        """Take a stretch, unless some of it is taken; return whether that was done."""
        index = bisect_left(self._starts, start)
        if index and self._ends[self._starts[index - 1]] > start:
            return False
        if index < len(self._starts) and self._starts[index] < end:
            return False
        self._starts.insert(index, start)
        self._ends[start] = end
        return True

    def remove(self, start: int) -> None:
        """Give back the stretch that begins at `start`."""
        self._starts.remove(start)
        del self._ends[start]

    def __contains__(self, start: object) -> bool:
        return start in self._ends


_JUMPS, _TRAP = ("nop", "relocated", "punned"), ("trap",)


def plan(site: Site, files: Files, *, early: bool = False, trap: bool = False) -> Window:
    """Return the window of a probe at a site, `early` as for `plan_window`; it is planned once. Raises NoWindowError where no jump fits.

    `trap`: that of a breakpoint, which fits wherever an instruction can be moved.
    """
    bias = site.address - site.vaddr
    key = files.name_of(site.path), site.vaddr, early, trap
    window = files.windows.get(key)
    if window is None:
        try:
            text = files.text(site.path)
            window = text.plan(site.vaddr, early=early, reserved=text.reserved, rungs=_TRAP if trap else _JUMPS)
        except (FormatError, OSError) as error:
            raise NoWindowError(f"{site.path} cannot be read: {error}", hint="the kernel engine can probe it") from None
        files.windows[key] = window
    if window.kind == "none":
        raise refused(site, window.reason)
    puns = tuple(replace(pun, low=pun.low + bias) for pun in window.puns)
    return replace(window, addr=window.addr + bias, puns=puns)


def expect(sites: Iterable[Site], files: Files) -> None:
    """Say which windows will be asked for: what takes longer for a few is made at once for many."""
    counts: dict[str, int] = {}
    for site in sites:
        counts[site.path] = counts.get(site.path, 0) + 1
    for path, count in counts.items():
        try:
            files.text(path).expect(count)
        except (FormatError, OSError):
            pass  # whoever asks is told


def fits(site: Site, files: Files, *, early: bool = False, trap: bool = False) -> bool:
    """Whether `plan` finds a window."""
    try:
        plan(site, files, early=early, trap=trap)
    except NoWindowError:
        return False
    return True


def refused(site: Site, reason: str) -> NoWindowError:
    """The error for a site where no jump fits."""
    return NoWindowError(
        f"{site.path}: no jump fits at {site.vaddr:#x}: {reason}", hint="the kernel engine can probe it"
    )


def original(site: Site, files: Files, start: int, size: int) -> bytes:
    """Return the bytes that the file has for `size` bytes of memory at `start`, close to a site."""
    elf = files.open(site.path)
    offset = elf.get_offset(site.vaddr) + start - site.address
    return bytes(elf.data[max(offset, 0) : offset + size])


def hold_against_file(name: str, site: Site, window: Window, files: Files, read: Read, ours: Container[int]) -> None:
    """Raise ProbeError where memory is not what the file has, in what the window displaces and what its jump will consist of.

    `read(address, size)` gives the memory of the process. The few bytes before may not have been changed either, as another's jump may reach from there into the window; but by a jump of
    ours at one of the addresses `ours`, which stays clear of it.
    """
    before = min(_BEFORE_BYTES, _room_before(site, window, files))
    if any(window.addr - n in ours for n in range(1, _BEFORE_BYTES + 1)):
        before = 0
    first, size = window.addr - before, before + max(window.length, window.keep)
    memory, expected = read(first, size), original(site, files, first, size)
    if memory != expected:
        raise ProbeError(
            f"{name}: the process has other instructions at {first:#x} than {site.path}: "
            f"{memory.hex(' ')} in place of {expected.hex(' ')}",
            hint="another tracer has changed them; end it, or use --engine kernel",
        )


def _room_before(site: Site, window: Window, files: Files) -> int:
    """How many bytes of the same segment are before a window."""
    elf = files.open(site.path)
    vaddr = site.vaddr + window.addr - site.address
    return next((vaddr - s.vaddr for s in elf.segments if s.type == 1 and s.vaddr <= vaddr < s.vaddr + s.file_size), 0)

"""The unwind tables of all code that a process has mapped, in memory that it may read: what `walking` follows.

    tables = UnwindTables(files)
    tables.study()                                   compiles; takes time, so while the process runs
    tables.publish(stopped, agent, private, ours)    when something has been mapped since

What was published stays where it is: a thread may be reading it. What is new is the index, and the tables of files that were not known; one word tells the process where
the newest index is. It is in memory that a child of fork gets a copy of, as the child does not have what is published afterwards.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from array import array
from bisect import bisect_right

from ..debuginfo import cfa
from ..debuginfo.ehframe import Row, UnwindTable, read_unwind_table
from ..debuginfo.elf import PT_LOAD, Elf
from ..debuginfo.unwinder import BY_FRAME_POINTER as BY_FRAME
from ..debuginfo.unwinder import walk
from ..errors import FormatError, PrivilegeError, TargetError
from ..record import Record
from . import frame
from .memory import page_up
from .walking import BY_FRAME_POINTER, OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..debuginfo.procmaps import Mapping
    from ..debuginfo.ptregs import PtRegs
    from ..spec.engine import Sample
    from .agent import Agent
    from .sites import Files
    from .stopped import StoppedProcess

    _Key = tuple[str, str, int]  # what tells one file from another: path, device, inode

_EXECUTABLE = 1
_MOST_TIMES = 4096  # that something is published: a process may load and unload for days
_VDSO = "[vdso]"
_OURS = "/memfd:sonde-agent"
_OUR_CODE = Row(cfa.STOP, 0, 0, cfa.LOST, 0)  # where a return address is ours, only the process knows what it was
_MOST_FRAMES = 127
_LOOK_NS, _STALE_NS = 100_000_000, 900_000_000
_NONE: _Key = ("", "", 0)


class _Span(Record):
    """Code: what the index says of it. `table` is a file's key, _NONE, or None for code of ours."""

    start: int
    end: int
    base: int
    table: _Key | None


class UnwindTables:
    """What of the code in a program the process knows how to unwind. What was compiled is kept with the files, also for the next program."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._places: dict[_Key, int] = {}  # of those that the process has
        self._index: frozenset[tuple[int, int, int, _Key | None]] = frozenset()
        self._times = 0

    def study(self) -> None:
        """Compile the tables of files that are new. Raises TargetError."""
        known = self._files.unwinding
        for mapping in self._files.mappings():
            if mapping.executable and _key(mapping) not in known:
                known[_key(mapping)] = self._compile(mapping)

    def _compile(self, mapping: Mapping) -> UnwindTable | None:
        """The table of what is mapped; None for what has none, or is not to be had any more."""
        try:
            table = read_unwind_table(self._open(mapping))
        except (FormatError, OSError):
            return None
        return table if table.pcs else None

    def _open(self, mapping: Mapping) -> Elf:
        if mapping.path == _VDSO:
            with open(f"/proc/{self._files.pid}/mem", "rb", buffering=0) as memory:
                memory.seek(mapping.start)
                return Elf(memory.read(mapping.end - mapping.start))
        if not mapping.is_file or mapping.deleted:
            raise FormatError("this is no file")
        return self._files.open(mapping.path)

    def publish(self, stopped: StoppedProcess, agent: Agent, private: int, ours: Iterable[tuple[int, int]]) -> None:
        """Let the process have the tables of all that it has mapped by now; nothing, if it has them. `ours` is our code in it (address, size).

        Raises TargetError, KernelError, PrivilegeError.
        """
        self.study()
        spans = self.find_spans()
        ends = [(start, start + size) for start, size in ours]
        spans = [span for span in spans if not any(start <= span.start < end for start, end in ends)]
        spans += [_Span(start, end, 0, None) for start, end in ends]
        spans.sort(key=lambda span: span.start)
        index = frozenset((span.start, span.end, span.base, span.table) for span in spans)
        if index <= self._index or self._times >= _MOST_TIMES:
            return
        fresh = [key for key in dict.fromkeys(span.table for span in spans) if key and key not in self._places]
        tables = {key: pack_table(table) for key in fresh if (table := self._files.unwinding.get(key)) is not None}
        offset = _align(8 + 32 * len(spans))
        shared = agent.share(stopped, page_up(offset + sum(map(len, tables.values()))), read_only=True)
        with mmap.mmap(shared.fd, shared.size) as memory:
            os.close(shared.fd)
            for key, data in tables.items():
                memory[offset : offset + len(data)] = data
                self._places[key] = shared.address + offset
                offset += len(data)
            head = b"".join(struct.pack("<4Q", span.start, span.end, span.base, self._place(span)) for span in spans)
            memory[: 8 + len(head)] = struct.pack("<Q", len(spans)) + head
        stopped.write(private + frame.UNWIND, shared.address.to_bytes(8, "little"))
        self._index = index
        self._times += 1

    def find_spans(self) -> list[_Span]:
        """Return what the process has mapped of code, by address."""
        return [self._span(mapping) for mapping in self._files.mappings() if mapping.executable]

    def _place(self, span: _Span) -> int:
        return OURS if span.table is None else self._places.get(span.table, BY_FRAME_POINTER)

    def _span(self, mapping: Mapping) -> _Span:
        if mapping.path.startswith(_OURS):
            return _Span(mapping.start, mapping.end, 0, None)
        key = _key(mapping)
        table = self._files.unwinding.get(key)
        bias = self._bias(mapping) if table is not None else None
        if table is None or bias is None:
            return _Span(mapping.start, mapping.end, 0, _NONE)
        return _Span(mapping.start, mapping.end, (table.base + bias) & (1 << 64) - 1, key)

    def _bias(self, mapping: Mapping) -> int | None:
        """How far the addresses of a file are from those of the process; None where no segment with code is mapped there."""
        size = mapping.end - mapping.start
        for segment in self._open(mapping).segments:
            overlaps = segment.offset < mapping.offset + size and mapping.offset < segment.offset + segment.file_size
            if segment.type == PT_LOAD and segment.flags & _EXECUTABLE and overlaps:
                return mapping.start - mapping.offset - (segment.vaddr - segment.offset)
        return None


class Unwinder:
    """Walks the stacks of samples: by the same tables, in sonde."""

    def __init__(self, files: Files, registers: PtRegs) -> None:
        self._files = files
        self._offsets = [registers.get_offset(name) for name in (registers.ip, registers.sp, registers.fp)]
        self._tables = UnwindTables(files)
        self._spans: list[_Span] = []
        self._look_at_ns = self._stale_at_ns = 0  # when the mappings may be read again, and when they must be

    def walk(self, sample: Sample) -> list[int]:
        """Return the addresses of a sample's stack, the innermost first; by frame pointers where it has no copy of the stack."""
        if not sample.stack:
            return list(sample.chain)
        if time.monotonic_ns() >= self._stale_at_ns:  # the program may be another one by now
            self._look()
        pc, sp, fp = (int.from_bytes(sample.registers[at : at + 8], "little") for at in self._offsets)

        def read(address: int) -> int | None:
            at = address - sp
            return (
                int.from_bytes(sample.stack[at : at + 8], "little")
                if 0 <= at <= len(sample.stack) - 8 and not at & 7
                else None
            )

        return walk(self._find, read, pc, sp, fp, _MOST_FRAMES)

    def _find(self, address: int) -> Row:
        span = self._find_span(address)
        if span is None and time.monotonic_ns() >= self._look_at_ns:
            self._look()
            span = self._find_span(address)
        table = self._files.unwinding.get(span.table) if span is not None and span.table is not None else None
        if span is None or table is None:
            return _OUR_CODE if span is not None and span.table is None else BY_FRAME
        return table.find(address - span.base + table.base)

    def _find_span(self, address: int) -> _Span | None:
        at = bisect_right(self._spans, address, key=lambda span: span.start) - 1
        return self._spans[at] if at >= 0 and address < self._spans[at].end else None

    def _look(self) -> None:
        """See what the process has mapped."""
        self._look_at_ns = time.monotonic_ns() + _LOOK_NS
        self._stale_at_ns = self._look_at_ns + _STALE_NS
        try:
            self._tables.study()
            self._spans = self._tables.find_spans()
        except (TargetError, PrivilegeError):
            return  # it has ended


def _key(mapping: Mapping) -> _Key:
    return (mapping.path, mapping.dev, mapping.inode) if mapping.is_file or mapping.path == _VDSO else _NONE


def pack_table(table: UnwindTable) -> bytes:
    """A table as the process reads it (see `walking`)."""
    padding = array("I", [0] * (len(table.pcs) & 1))
    return struct.pack("<Q", len(table.pcs)) + (table.pcs + padding).tobytes() + table.entries.tobytes()


def _align(size: int) -> int:
    return (size + 7) & -8

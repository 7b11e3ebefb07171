"""What processes map for execution while we look, told by the kernel: so that their addresses have names after their end.

A perf event that counts nothing, on each CPU, brings records of mappings (PERF_RECORD_MMAP2), forks and execs. They are
only read when an address is asked about, or when a ring is half full.
"""

from __future__ import annotations

import os
from struct import Struct

from ..debuginfo.procmaps import Mapping
from . import abi
from .cpus import online_cpus
from .perfbuf import Ring

RING_BYTES = 1 << 16  # of each CPU: some 60 programs started
MAX_PROCESSES = 8192  # the oldest are forgotten then

_COUNT_NOTHING = 9  # PERF_COUNT_SW_DUMMY
_SAMPLE_TIME = 1 << 2
_MMAP, _COMM, _TASK, _WATERMARK, _ID_ALL, _MMAP2, _COMM_EXEC = (1 << n for n in (8, 9, 13, 14, 18, 23, 24))
_RECORD_COMM, _RECORD_FORK, _RECORD_MMAP2 = 3, 7, 10
_MISC_EXEC = 1 << 13
_IDS = Struct("=II")  # pid, and: tid, or the parent's pid
_MAPPED = Struct("=QQQIIQ")  # start, size, offset, device major and minor, inode
_NAME_AT = 8 + 8 + 64  # header, ids, then what is fixed of struct mmap2


class MappingRecorder:
    """Records from now on. `find` may be asked at any time; close() ends it."""

    def __init__(self) -> None:
        import select

        self._rings: list[Ring] = []
        self._epoll = select.epoll()
        self._processes: dict[int, _Process] = {}
        flags = _MMAP | _COMM | _TASK | _WATERMARK | _ID_ALL | _MMAP2 | _COMM_EXEC
        attr = abi.perf_event_attr(
            abi.PERF_TYPE_SOFTWARE, _COUNT_NOTHING, flags=flags, sample_type=_SAMPLE_TIME, wakeup=RING_BYTES // 2
        )
        try:
            for cpu in online_cpus():
                self._rings.append(Ring(cpu, RING_BYTES, attr))
                self._epoll.register(self._rings[-1].fd, select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return a descriptor that is readable when `drain` should be called."""
        return self._epoll.fileno()

    def drain(self) -> None:
        """Take in what the kernel has told. Never blocks."""
        for ring in self._rings:
            ring.drain(_ignore, self._take)
        while len(self._processes) > MAX_PROCESSES:
            del self._processes[next(iter(self._processes))]

    def find(self, pid: int) -> list[Mapping]:
        """Return what process `pid` has mapped since we look, by address; of its parent too until it started a program."""
        self.drain()
        found: dict[int, Mapping] = {}
        for _, mapping in sorted(self._history(pid, 1 << 64, 8), key=lambda entry: entry[0]):
            found[mapping.start] = mapping
        return [found[start] for start in sorted(found)]

    def _history(self, pid: int, until_ns: int, depth: int) -> list[tuple[int, Mapping]]:
        process = self._processes.get(pid)
        if process is None:
            return []
        entries = [e for e in process.mappings if process.exec_ns <= e[0] < until_ns]
        if not process.exec_ns and process.parent and depth:
            entries += self._history(process.parent, process.fork_ns, depth - 1)
        return entries

    def close(self) -> None:
        """Close all rings. Closing twice is harmless."""
        rings, self._rings = self._rings, []
        for ring in rings:
            ring.close()
        self._epoll.close()

    def _take(self, kind: int, misc: int, record: memoryview, start: int, size: int) -> None:
        if kind not in (_RECORD_COMM, _RECORD_FORK, _RECORD_MMAP2):
            return
        pid, other = _IDS.unpack_from(record, start + 8)
        end = start + size - 8
        time_ns = int.from_bytes(record[end : end + 8], "little")
        if kind == _RECORD_FORK and pid == other:
            return  # a thread
        process = self._processes.get(pid)
        if process is None or kind == _RECORD_FORK:  # process ids are used again
            process = self._processes[pid] = _Process()
        if kind == _RECORD_MMAP2:
            process.mappings.append((time_ns, _mapping(record, start, end)))
        elif kind == _RECORD_FORK:
            process.parent, process.fork_ns = other, time_ns
        elif misc & _MISC_EXEC:
            process.exec_ns = max(process.exec_ns, time_ns)


class _Process:
    """What is known of one process. Records come in order from each CPU only: hence the times."""

    __slots__ = ("exec_ns", "fork_ns", "mappings", "parent")

    def __init__(self) -> None:
        self.parent = self.fork_ns = self.exec_ns = 0
        self.mappings: list[tuple[int, Mapping]] = []


def _mapping(record: memoryview, start: int, end: int) -> Mapping:
    addr, size, offset, major, minor, inode = _MAPPED.unpack_from(record, start + 16)
    name = bytes(record[start + _NAME_AT - 8 : end]).split(b"\0", 1)[0]
    path = "" if name == b"//anon" else os.fsdecode(name)
    return Mapping(addr, addr + size, "r-xp", offset, f"{major:02x}:{minor:02x}", inode, path)


def _ignore(buffer: memoryview, start: int, size: int) -> None:
    """There are no samples."""

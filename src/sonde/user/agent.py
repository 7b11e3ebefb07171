"""sonde's memory in a process: code that it can write and the process can execute, and a table of what was changed for it.

    with StoppedProcess(pid, all_threads=False) as stopped:
        agent = Agent.create(stopped, near=(text, text), size=65536)
    address = agent.place(machine_code)

The table is what a later sonde takes the changes back by, should this one be killed. Little-endian, at the start of the memory:

    offset  bytes  what                              an entry, 64 bytes each
    0       8      "SONDEAGT"                        0   4   kind: 1 a site, 2 memory
    8       4      version: 1                        4   4   site: number of bytes that were replaced
    12      4      bytes of an entry: 64             8   8   address
    16      4      pid of the owner                  16  24  site: the bytes before; memory: bytes (u64)
    20      4      number of entries                 40  24  site: the bytes in place now
    24      8      start time of the owner, in clock ticks since boot (field 22 of /proc/PID/stat)
    32      8      bytes of the whole memory
    40      8      offset of the code
    64             the entries

An entry is complete before the number says that it is there, and it is there before the process is changed.
"""

from __future__ import annotations

import mmap
import os
import struct

from ..errors import TargetError
from ..record import Record
from .memory import PAGE, PROT_EXEC, PROT_READ, PROT_WRITE, Shared, find_shared, page_up, share, unmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from .stopped import StoppedProcess

CODE_NAME, MAP_NAME = "sonde-agent", "sonde-map"
MAGIC, VERSION, HEADER_BYTES, ENTRY_BYTES = b"SONDEAGT", 1, 64, 64
_HEADER = struct.Struct("<8sIIIIQQQ")
_ENTRY = struct.Struct("<IIQ24s24s")
SITE, MEMORY = 1, 2
SITE_BYTES = 24  # of one site, at most


class Site(Record):
    """Bytes of a process that were replaced, as the table has them."""

    address: int
    original: bytes
    in_place: bytes


class AgentInfo(Record):
    """An agent as another sonde finds it. `memories` are the address and size of all its memory, the one with the code first."""

    pid: int
    owner_pid: int
    owner_start: int
    sites: tuple[Site, ...]
    memories: tuple[tuple[int, int], ...]

    @property
    def alive(self) -> bool:
        """True while the sonde that made it runs (in this pid namespace)."""
        return start_time(self.owner_pid) == self.owner_start


class Agent:
    """Memory with code, at `address` in the process, and its table. The memory stays when this object goes; `remove` takes it away.

    `memory` is ours to write: byte 0 is what the process has at `address`.
    """

    def __init__(self, shared: Shared, code_offset: int) -> None:
        """Use `create`."""
        self.address, self.size = shared.address, shared.size
        self.memory = mmap.mmap(shared.fd, shared.size)
        os.close(shared.fd)
        self._code_offset = self._next = code_offset
        self._entries = 0
        header = _HEADER.pack(
            MAGIC, VERSION, ENTRY_BYTES, os.getpid(), 0, start_time(os.getpid()), shared.size, code_offset
        )
        self.memory[: len(header)] = header
        self._add(MEMORY, 0, shared.address, shared.extent.to_bytes(8, "little"), b"")

    @classmethod
    def create(cls, stopped: StoppedProcess, near: tuple[int, int], size: int, *, entries: int = 62) -> Agent:
        """Make an agent with room for `size` bytes of code within 2 GiB of the addresses `near`, first to last, and `entries` sites and memories.

        Raises TargetError, KernelError, PrivilegeError.
        """
        table = page_up(HEADER_BYTES + ENTRY_BYTES * (entries + 1))
        return cls(share(stopped, CODE_NAME, table + size, PROT_READ | PROT_EXEC, near=near), table)

    def share(self, stopped: StoppedProcess, size: int, repeated: int = 0) -> Shared:
        """Make memory that the process may read and write (a map's), and enter it in the table. The descriptor is the caller's."""
        shared = share(stopped, MAP_NAME, size, PROT_READ | PROT_WRITE, repeated=repeated)
        self._add(MEMORY, 0, shared.address, shared.extent.to_bytes(8, "little"), b"")
        return shared

    def reserve(self, size: int, align: int = 16) -> int:
        """Set aside `size` bytes for code; return their address in the process. Raises TargetError when the memory is full."""
        start = (self._next + align - 1) & -align
        if start + size > self.size:
            raise TargetError(
                f"the memory for code in the process is full: {size} bytes more than {self.size - self._code_offset} were not planned for"
            )
        self._next = start + size
        return self.address + start

    def write(self, address: int, code: bytes) -> None:
        """Write at an address of the process that lies in this memory."""
        offset = address - self.address
        if not 0 <= offset <= offset + len(code) <= self.size:
            raise TargetError(f"{address:#x} is not in the memory of this agent")
        self.memory[offset : offset + len(code)] = code

    def place(self, code: bytes, align: int = 16) -> int:
        """Reserve room for `code` and write it there; return its address in the process."""
        address = self.reserve(len(code), align)
        self.write(address, code)
        return address

    def holds(self, address: int) -> bool:
        """True for addresses of the process in this memory."""
        return self.address <= address < self.address + self.size

    def enter_site(self, site: Site) -> None:
        """Enter a site in the table, before its bytes are replaced. Raises TargetError when the table is full."""
        self._add(SITE, len(site.original), site.address, site.original, site.in_place)

    def clear_sites(self, addresses: Collection[int]) -> None:
        """Take sites out of the table, after their bytes have been put back."""
        gone = set(addresses)
        kept = [entry for entry in self._iter_entries() if entry[0] != SITE or entry[2] not in gone]
        if len(kept) == self._entries:
            return
        for index, entry in enumerate(kept):  # at every moment the table has all of them
            _ENTRY.pack_into(self.memory, HEADER_BYTES + ENTRY_BYTES * index, *entry)
        self._set_count(len(kept))

    def memories(self) -> list[tuple[int, int]]:
        """Return address and size of all memory of this agent in the process."""
        return [
            (entry[2], int.from_bytes(entry[3][:8], "little")) for entry in self._iter_entries() if entry[0] == MEMORY
        ]

    def remove(self, stopped: StoppedProcess) -> None:
        """Unmap all memory of this agent in the process. No thread may be in it, and no jump lead to it. Raises KernelError, TargetError."""
        unmap(stopped, self.memories()[::-1])  # the table goes last
        self.close()

    def close(self) -> None:
        """Let go of our view of the memory; what the process has is not touched. Twice is harmless."""
        try:
            self.memory.close()
        except BufferError:
            pass  # somebody holds a view: it goes with that

    def _add(self, *entry: object) -> None:
        at = HEADER_BYTES + ENTRY_BYTES * self._entries
        if at + ENTRY_BYTES > self._code_offset:
            raise TargetError(f"the table of the agent is full: it has room for {self._entries} entries")
        _ENTRY.pack_into(self.memory, at, *entry)
        self._set_count(self._entries + 1)

    def _set_count(self, count: int) -> None:
        self._entries = count
        struct.pack_into("<I", self.memory, 20, count)

    def _iter_entries(self) -> list[tuple[int, int, int, bytes, bytes]]:
        return _decode(self.memory[: HEADER_BYTES + ENTRY_BYTES * self._entries], self._entries)


def _decode(data: bytes, count: int) -> list[tuple[int, int, int, bytes, bytes]]:
    return [_ENTRY.unpack_from(data, HEADER_BYTES + ENTRY_BYTES * index) for index in range(count)]


def start_time(pid: int) -> int:
    """Return when a process was started, in clock ticks since boot; 0 when it is not there."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b") ")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def find_agents(pid: int) -> list[AgentInfo]:
    """Return what sondes, living or dead, have left in a process. Raises TargetError, PrivilegeError."""
    found = []
    mappings = [m for m in find_shared(pid, CODE_NAME) if m.offset == 0]
    if not mappings:
        return []
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        from .refusal import explain

        raise explain(pid) from None
    try:
        for mapping in mappings:
            info = _read_table(fd, pid, mapping.start, mapping.end - mapping.start)
            if info is not None:
                found.append(info)
    finally:
        os.close(fd)
    return found


def _read_table(fd: int, pid: int, address: int, size: int) -> AgentInfo | None:
    """Decode the table of the memory at `address`; None when there is none, or one of another version."""
    try:
        data = os.pread(fd, PAGE, address)
        magic, version, entry_bytes, owner, count, start, _, code_offset = _HEADER.unpack_from(data)
        if (magic, version, entry_bytes) != (
            MAGIC,
            VERSION,
            ENTRY_BYTES,
        ) or HEADER_BYTES + ENTRY_BYTES * count > code_offset <= size:
            return None
        entries = _decode(os.pread(fd, HEADER_BYTES + ENTRY_BYTES * count, address), count)
    except (OSError, struct.error):
        return None
    sites = tuple(Site(e[2], e[3][: e[1]], e[4][: e[1]]) for e in entries if e[0] == SITE)
    memories = tuple((e[2], int.from_bytes(e[3][:8], "little")) for e in entries if e[0] == MEMORY)
    return AgentInfo(pid, owner, start, sites, memories)

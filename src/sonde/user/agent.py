"""sonde's memory in a process: code that it can write and the process can execute, and a table of what was changed for it.

    with StoppedProcess(pid, all_threads=False) as stopped:
        agent = Agent.create(stopped, near=(text, text), size=65536)
    address = agent.place(machine_code)

The table is what a later sonde takes the changes back by, should this one be killed. Little-endian, at the start of the memory:

    offset  bytes  what                         an entry, 64 bytes each
    0       8      "SONDEAGT"                   0   8   address
    8       4      version: 1                   8   4   number of bytes that were replaced
    12      4      bytes of an entry: 64        16  24  the bytes before
    16      4      number of entries            40  24  the bytes in place now
    24      8      offset of the code
    64             the entries

An entry is complete before the number says that it is there, and it is there before the process is changed. Whose memory it is says its name in the process's maps: what
it is for, the pid of its sonde, and when that was started, in clock ticks since boot (field 22 of /proc/PID/stat).
"""

from __future__ import annotations

import mmap
import os
import struct
from errno import EEXIST

from ..debuginfo.procmaps import read_maps
from ..errors import KernelError, TargetError
from ..record import Record
from .calls import Call, Result
from .memory import PAGE, PROT_EXEC, PROT_READ, PROT_WRITE, Shared, find_gap, page_up, share, share_at, unmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ..debuginfo.procmaps import Mapping
    from .stopped import StoppedProcess

MAGIC, VERSION, HEADER_BYTES, ENTRY_BYTES = b"SONDEAGT", 1, 64, 64
_CODE, _MAP = "sonde-agent", "sonde-map"
_HEADER = struct.Struct("<8sIIIIQ")
_ENTRY = struct.Struct("<QII24s24s")
_COUNT_AT = 16
_TRIES = 5
# At the end of a page behind which memory of the kernel is mapped: how much of it.
_LENT = struct.Struct("<8sQ")
LENT_MAGIC, _LENT_AT = b"SONDELNT", PAGE - _LENT.size
_KERNELS = "anon_inode:bpf-map"


_SHARED, _PRIVATE, _ANONYMOUS, _FIXED, _FIXED_NOREPLACE = 1, 2, 0x20, 0x10, 0x100000
_OPENAT = 257
_WIPEONFORK = 18  # of madvise(2)


class Site(Record):
    """Bytes of a process that were replaced, as the table has them."""

    address: int
    original: bytes
    in_place: bytes


class AgentInfo(Record):
    """What one sonde has in a process, as another finds it: sites, and its memory as addresses and sizes (`code`: the part that can be executed).

    `tables` are the addresses of memory that the process has for itself: of returns (`unwinding`).
    """

    pid: int
    owner_pid: int
    owner_start: int
    sites: tuple[Site, ...]
    code: tuple[tuple[int, int], ...]
    memories: tuple[tuple[int, int], ...]
    tables: tuple[int, ...] = ()

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
        self.inode = os.fstat(shared.fd).st_ino  # tells it from all others: a child of fork has the same
        os.close(shared.fd)
        self._code_offset = self._next = code_offset
        self._entries = 0
        self._memories = [(shared.address, shared.extent)]
        self.spans = [(shared.address, shared.size)]  # of code: address, size
        self._islands: list[mmap.mmap] = []
        header = _HEADER.pack(MAGIC, VERSION, ENTRY_BYTES, 0, 0, code_offset)
        self.memory[: len(header)] = header

    @classmethod
    def create(
        cls, stopped: StoppedProcess, near: tuple[int, int], size: int, *, entries: int = 63, reach: int = 1 << 31
    ) -> Agent:
        """Make an agent with room for `size` bytes of code within `reach` bytes of the addresses `near`, first to last, and `entries` sites.

        Raises TargetError, KernelError, PrivilegeError.
        """
        table = page_up(HEADER_BYTES + ENTRY_BYTES * entries)
        return cls(share(stopped, _name(_CODE), table + size, PROT_READ | PROT_EXEC, near=near, reach=reach), table)

    @property
    def memories(self) -> tuple[tuple[int, int], ...]:
        """All memory of this agent in the process: addresses and sizes."""
        return tuple(self._memories)

    def map_island(self, stopped: StoppedProcess, address: int, size: int) -> mmap.mmap | None:
        """Map memory for code, whole pages, at a given address of the process; return our view of it, None when something is there by now.

        It goes with this agent, and is found by its name as all of it is. Raises TargetError, KernelError, PrivilegeError.
        """
        shared = share_at(stopped, _name(_CODE), address, size, PROT_READ | PROT_EXEC)
        if shared is None:
            return None
        self._memories.append((shared.address, shared.size))
        self.spans.append((shared.address, shared.size))
        self._islands.append(mmap.mmap(shared.fd, shared.size))
        os.close(shared.fd)
        return self._islands[-1]

    def share(self, stopped: StoppedProcess, size: int, repeated: int = 0, *, read_only: bool = False) -> Shared:
        """Make memory that the process may read and write (a map's), or only read; it goes with this agent. The descriptor is the caller's."""
        protection = PROT_READ if read_only else PROT_READ | PROT_WRITE
        shared = share(stopped, _name(_MAP), size, protection, repeated=repeated)
        self._memories.append((shared.address, shared.extent))
        return shared

    def lend(self, stopped: StoppedProcess, fd: int, size: int, repeated: int = 0) -> int:
        """Map memory of ours, the memfd `fd`, in the process as well; return its address there. It goes with this agent.

        The process opens it through /proc, which it may do when it runs as the same user. Raises KernelError, TargetError.
        """
        size, repeated = page_up(size), page_up(repeated)
        address = find_gap(stopped.maps(), size + repeated, None)
        path = f"/proc/{os.getpid()}/fd/{fd}".encode() + b"\0"
        protection, fixed = PROT_READ | PROT_WRITE, _SHARED | _FIXED_NOREPLACE
        calls = [
            Call(_OPENAT, (-100, path, os.O_RDWR | os.O_CLOEXEC, 0)),
            Call("mmap", (address, size, protection, fixed, Result(0), 0)),
        ]
        if repeated:
            calls.append(Call("mmap", (address + size, repeated, protection, fixed, Result(0), size - repeated)))
        results = stopped.run([*calls, Call("close", (Result(0),))])
        failed = next((result for result in results[: len(calls)] if result < 0), 0)
        for result, length in zip(results[1 : len(calls)], (size, repeated)):
            if result > 0:
                self._memories.append((result, length))
        if failed:
            raise KernelError(f"process {stopped.pid} could not map memory that it shares with sonde", -failed)
        return address

    def borrow(self, stopped: StoppedProcess, fd: int, size: int) -> Shared:
        """Make a page of memory as `share` does, and map `size` bytes of what our descriptor `fd` is open for right behind it: kernel memory.

        It goes with this agent. The descriptor of the page is the caller's. Raises KernelError, TargetError.
        """
        from .passing import SCRATCH_BYTES, map_descriptor

        size = page_up(size)
        for _ in range(_TRIES):
            address = find_gap(stopped.maps(), PAGE + size, None)
            page = share_at(stopped, _name(_MAP), address, PAGE, PROT_READ | PROT_WRITE)
            if page is None:
                continue
            self._memories.append((address, PAGE))
            with mmap.mmap(page.fd, PAGE) as view:
                view[_LENT_AT:PAGE] = _LENT.pack(LENT_MAGIC, size)
                scratch = PAGE // 2
                with memoryview(view)[scratch : scratch + SCRATCH_BYTES] as room:
                    result = map_descriptor(stopped, fd, address + PAGE, size, room, address + scratch)
            if result == address + PAGE:
                self._memories.append((address + PAGE, size))
                return page
            os.close(page.fd)
            if result != -EEXIST:
                raise KernelError(f"process {stopped.pid} could not map an array of the kernel", -min(result, 0))
        raise TargetError(
            f"process {stopped.pid} maps memory faster than sonde finds free addresses in it", hint="try again"
        )

    def map_private(self, stopped: StoppedProcess, size: int, wiped: int) -> int:
        """Map memory that is the process's alone, a child of fork gets a copy of, and that goes with this agent; return its address.

        Its first `wiped` bytes are zeros in a child. They have no name in the maps of the process, so that they stay where a killed sonde is cleaned up after.
        Raises KernelError.
        """
        name = _name(_MAP).encode() + b"\0"
        calls = [
            Call("memfd_create", (name, 1)),
            Call("ftruncate", (Result(0), size)),
            Call("mmap", (0, size, PROT_READ | PROT_WRITE, _PRIVATE, Result(0), 0)),
            Call("mmap", (Result(2), wiped, PROT_READ | PROT_WRITE, _PRIVATE | _ANONYMOUS | _FIXED, -1, 0)),
            Call("madvise", (Result(2), wiped, _WIPEONFORK)),  # where it fails, a child keeps its parent's number
            Call("close", (Result(0),)),
        ]
        results = stopped.run(calls)
        failed = next((result for result in results[:4] if result < 0), 0)
        if results[2] > 0:
            self._memories.append((results[2], size))
        if failed:
            raise KernelError(f"process {stopped.pid} could not map {size >> 10} KiB of memory", -failed)
        return results[2]

    def reserve(self, size: int, align: int = 16) -> int:
        """Set aside `size` bytes for code; return their address in the process. Raises TargetError when the memory is full."""
        start = (self._next + align - 1) & -align
        if start + size > self.size:
            raise TargetError(
                f"the memory for code in the process is full: {size} bytes more than {self.size - self._code_offset} were not planned for"
            )
        self._next = start + size
        return self.address + start

    @property
    def room(self) -> tuple[int, int]:
        """How many bytes of code and how many sites there is still room for."""
        return self.size - self._next, (self._code_offset - HEADER_BYTES) // ENTRY_BYTES - self._entries

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
        at = HEADER_BYTES + ENTRY_BYTES * self._entries
        if at + ENTRY_BYTES > self._code_offset:
            raise TargetError(f"the table of the agent is full: it has room for {self._entries} sites")
        _ENTRY.pack_into(self.memory, at, site.address, len(site.original), 0, site.original, site.in_place)
        self._set_count(self._entries + 1)

    def clear_sites(self, addresses: Collection[int]) -> None:
        """Take sites out of the table, after their bytes have been put back."""
        gone = set(addresses)
        entries = list(_iter_entries(self.memory[: self._code_offset], self._entries))
        kept = [entry for entry in entries if entry[0] not in gone]
        for index, entry in enumerate(
            kept if len(kept) < len(entries) else ()
        ):  # at every moment the table has all of them
            _ENTRY.pack_into(self.memory, HEADER_BYTES + ENTRY_BYTES * index, *entry)
        self._set_count(len(kept))

    def site_addresses(self) -> list[int]:
        """Return the addresses of the sites in the table."""
        return [entry[0] for entry in _iter_entries(self.memory[: self._code_offset], self._entries)]

    def remove(self, stopped: StoppedProcess) -> None:
        """Unmap all memory of this agent in the process. No thread may be in it, and no jump lead to it. Raises KernelError, TargetError."""
        unmap(stopped, self._memories[::-1])  # the table goes last
        self.close()

    def close(self) -> None:
        """Let go of our view of the memory; what the process has is not touched. Twice is harmless."""
        for memory in (self.memory, *self._islands):
            try:
                memory.close()
            except BufferError:
                pass  # somebody holds a view: it goes with that

    def _set_count(self, count: int) -> None:
        self._entries = count
        struct.pack_into("<I", self.memory, _COUNT_AT, count)


def _iter_entries(data: bytes, count: int) -> Iterator[tuple[int, int, int, bytes, bytes]]:
    end = HEADER_BYTES + ENTRY_BYTES * count
    yield from _ENTRY.iter_unpack(data[HEADER_BYTES:end])


def _name(kind: str) -> str:
    """The name of memory of ours."""
    pid = os.getpid()
    if pid not in _started:
        _started[pid] = start_time(pid)
    return f"{kind}:{pid}:{_started[pid]}"


_started: dict[int, int] = {}  # of this process


def _owner(path: str) -> tuple[str, int, int] | None:
    """What memory is for and who made it, from its name in maps; None for other memory."""
    kind, _, rest = path.removeprefix("/memfd:").partition(":")
    pid, _, start = rest.partition(":")
    if kind not in (_CODE, _MAP) or not (pid + start).isdecimal():
        return None
    return kind, int(pid), int(start)


def start_time(pid: int) -> int:
    """Return when a process was started, in clock ticks since boot; 0 when it is not there."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b") ")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def find_agents(pid: int, within: Sequence[tuple[int, int]] | None = None) -> list[AgentInfo]:
    """Return what sondes, living or dead, have in a process, or in the memory `within` (addresses and sizes) of it. Raises TargetError, PrivilegeError."""
    found: dict[tuple[int, int], tuple[list[tuple[int, int]], list[tuple[int, int]], list[int]]] = {}
    before: Mapping | None = None
    lent: list[tuple[Mapping, Mapping]] = []  # kernel memory, with what is before it
    for mapping in read_maps(pid):
        owner = _owner(mapping.path)
        if within is not None and not any(start <= mapping.start < start + size for start, size in within):
            continue
        if owner is not None:
            code, memories, tables = found.setdefault(owner[1:], ([], [], []))
            memories.append((mapping.start, mapping.end - mapping.start))
            if owner[0] == _CODE:
                code.append(memories[-1])
            elif mapping.perms[3] == "p":
                tables.append(mapping.start)
        elif mapping.path == _KERNELS and before is not None and before.end == mapping.start:
            lent.append((before, mapping))
        before = mapping
    if not found:
        return []
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        from .refusal import explain

        raise explain(pid) from None
    try:
        for page, values in lent:
            owner = _owner(page.path)
            size = values.end - values.start
            if (
                owner is not None
                and owner[1:] in found
                and os.pread(fd, _LENT.size, page.start + _LENT_AT) == _LENT.pack(LENT_MAGIC, size)
            ):
                found[owner[1:]][1].append((values.start, size))
        return [
            AgentInfo(
                pid,
                *owner,
                tuple(s for span in code for s in _read_sites(fd, *span)),
                tuple(code),
                tuple(memories),
                tuple(tables),
            )
            for owner, (code, memories, tables) in found.items()
        ]
    finally:
        os.close(fd)


def _read_sites(fd: int, address: int, size: int) -> list[Site]:
    """Decode the table of the memory at `address`; nothing where there is none yet, or one of another version."""
    try:
        data = os.pread(fd, _HEADER.size, address)
        magic, version, entry_bytes, count, _, code_offset = _HEADER.unpack(data)
        end = HEADER_BYTES + ENTRY_BYTES * count
        if (magic, version, entry_bytes) != (MAGIC, VERSION, ENTRY_BYTES) or not end <= code_offset <= size:
            return []
        entries = list(_iter_entries(os.pread(fd, end, address), count))
    except (OSError, struct.error):
        return []
    return [Site(at, original[:length], in_place[:length]) for at, length, _, original, in_place in entries]

"""The same machine code in this process and in another, at other addresses, on the same maps, with no Python, kernel or C library behind it."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
import time
from collections.abc import Callable

import pytest

from sonde.bpf.asm import assemble
from sonde.bpf.interp import Machine, Program
from sonde.bpf.jit import translate
from sonde.bpf.jit.code import CodeReloc, MachineCode, bind
from sonde.bpf.jit.here import Placed
from sonde.bpf.jit.maps import make_plan
from sonde.bpf.maps import MapShape, SharedMap, create
from sonde.bpf.maps.hash import HashMap
from sonde.bpf.maps.ringbuf import RingMap
from sonde.bpf.runtime import helper_table
from sonde.bpf.verifier import MapInfo, verify

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs x86-64 machine code")

RUNS = 2000
# Counts in a hash map, changes another one, sends a record, and counts what was done in a per-CPU array.
TEXT = """
    r9 = {runs}
    again:
    *(u32 *)(r10 -4) = {key}
    r1 = map[fd:1]
    r2 = r10
    r2 += -4
    call map_lookup_elem
    if r0 == 0x0 goto other
    r1 = 1
    lock *(u64 *)(r0 +0) += r1
    other:
    r8 = r9
    r8 &= 15
    *(u64 *)(r10 -16) = r8
    *(u64 *)(r10 -24) = r8
    r1 = map[fd:2]
    r2 = r10
    r2 += -16
    r3 = r10
    r3 += -24
    r4 = 0
    call map_update_elem
    if r8 > 0x7 goto keep
    r1 = map[fd:2]
    r2 = r10
    r2 += -16
    call map_delete_elem
    keep:
    r1 = map[fd:3]
    r2 = 16
    r3 = 0
    call ringbuf_reserve
    if r0 == 0x0 goto full
    r1 = {key}
    *(u64 *)(r0 +0) = r1
    *(u64 *)(r0 +8) = r9
    r1 = r0
    r2 = 0
    call ringbuf_submit
    full:
    *(u32 *)(r10 -4) = 0
    r1 = map[fd:4]
    r2 = r10
    r2 += -4
    call map_lookup_elem
    if r0 == 0x0 goto round
    r1 = *(u64 *)(r0 +0)
    r1 += 1
    *(u64 *)(r0 +0) = r1
    round:
    r9 += -1
    if r9 != 0x0 goto again
    r0 = {key}
    exit
"""


class Shared:
    """The maps in memory that processes share, and machine code for them."""

    def __init__(self) -> None:
        cpus = 8
        self.maps: dict[int, SharedMap] = {
            1: create(MapShape("hash", 4, 8, 16, cpus=cpus), shared=True), 2: create(MapShape("hash", 8, 8, 12, cpus=cpus), shared=True),
            3: create(MapShape("ringbuf", 0, 0, 1 << 16), shared=True), 4: create(MapShape("percpu_array", 4, 8, 1, cpus=cpus), shared=True),
        }  # fmt: skip
        for key in range(1, 5):
            self.maps[1].update(key.to_bytes(4, "little"), bytes(8))

    def code(self, key: int, runs: int = RUNS) -> MachineCode:
        code = translate(assemble(TEXT.format(key=key, runs=runs)), "x86_64", plan=make_plan(self.maps))
        assert {reloc.kind for reloc in code.relocs} == {"map", "cpu", "owner"}
        return code

    def counts(self) -> list[int]:
        return [
            int.from_bytes((self.maps[1].lookup(key.to_bytes(4, "little")) or [b""])[0], "little")
            for key in range(1, 5)
        ]

    def close(self) -> None:
        for table in self.maps.values():
            table.close()


def map_fixed(fd: int, at: int, size: int, protection: int) -> int:
    """Map a file at an address where nothing is."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    found = libc.mmap(at, size, protection, mmap.MAP_SHARED | 0x100000, fd, 0)  # MAP_FIXED_NOREPLACE
    assert found == at, os.strerror(ctypes.get_errno())
    return at


def start_elsewhere(shared: Shared, key: int, runs: int = RUNS) -> int:
    """Fork a process that maps code and maps at addresses of its own choice, which are told to nobody but the one who binds the code; return its pid."""
    code, at = shared.code(key, runs), 0x5500_0000_0000 + key * 0x1_0000_0000
    places = {number: at + (number << 28) for number in shared.maps}
    text = bind(code, at, lambda reloc: place_of(reloc, places, at))
    fd = os.memfd_create("sonde-test")
    os.write(fd, text.ljust(8192, b"\0") + key.to_bytes(4, "little") + (100 + key).to_bytes(4, "little"))
    pid = os.fork()
    if not pid:
        try:
            map_fixed(fd, at, 12288, mmap.PROT_READ | mmap.PROT_EXEC)
            for number, table in shared.maps.items():
                size = table.layout.size
                map_fixed(table.region.fd, places[number], size, mmap.PROT_READ | mmap.PROT_WRITE)
                if isinstance(table, RingMap):  # its data once more, right behind
                    map_again(table, places[number])
            os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(at)(0) == key else 1)
        except BaseException:
            os._exit(2)
    os.close(fd)
    return pid


def map_again(table: RingMap, at: int) -> None:
    libc = ctypes.CDLL(None)
    size, total = table.max_entries, table.layout.size
    libc.mmap(
        ctypes.c_void_p(at + total),
        ctypes.c_size_t(size),
        3,
        mmap.MAP_SHARED | 0x100000,
        table.region.fd,
        ctypes.c_long(total - size),
    )


def place_of(reloc: CodeReloc, maps: dict[int, int], words: int) -> int:
    """Where things are in the other process: the CPU's number and the owner's stand behind the code."""
    return maps[reloc.value] if reloc.kind == "map" else words + (8192 if reloc.kind == "cpu" else 8196)


def finish(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def drain(reader: object) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    take: Callable[..., int] = reader.drain  # type: ignore[attr-defined]
    take(
        lambda data, at, size: found.append(
            (int.from_bytes(data[at : at + 8], "little"), int.from_bytes(data[at + 8 : at + 16], "little"))
        )
    )
    return found


def check_hash(table: SharedMap) -> None:
    """No claim is left, no entry is in two places, and the count is right."""
    assert isinstance(table, HashMap)
    words, first = table.region.words, table.cells >> 3
    assert not any(words[first + 2 * cell] >> 32 for cell in range(table.mask + 1))
    slots = [words[first + 2 * cell + 1] & 0xFFFFFFFF for cell in range(table.mask + 1)]
    used = [slot for slot in slots if slot]
    assert len(used) == len(set(used)) == len(table) == len(list(table.keys()))


def test_three_processes_at_once() -> None:
    """Two others and this one, on the same maps: no count is lost, records come whole and in order, and every change is either done or counted as given up."""
    shared = Shared()
    ring = shared.maps[3]
    assert isinstance(ring, RingMap)
    reader = ring.reader()
    others = [start_elsewhere(shared, key) for key in (2, 3)]
    cpu, owner = ctypes.c_uint32(1), ctypes.c_uint32(101)
    records: list[tuple[int, int]] = []
    words = {"cpu": ctypes.addressof(cpu), "owner": ctypes.addressof(owner)}
    with Placed(shared.code(1, 50), maps={n: t.region.address for n, t in shared.maps.items()}, **words) as placed:  # type: ignore[arg-type]
        for _ in range(RUNS // 50):
            assert placed.run() == 1
            records += drain(reader)
    assert [finish(pid) for pid in others] == [0, 0]
    records += drain(reader)
    assert shared.counts() == [RUNS, RUNS, RUNS, 0]
    sent = {key: [number for who, number in records if who == key] for key in (1, 2, 3)}
    assert sent[2] == sorted(sent[2], reverse=True) and sent[3] == sorted(sent[3], reverse=True)
    assert len(records) + ring.lost == 3 * RUNS
    assert [int.from_bytes(v, "little") for v in (shared.maps[4].lookup(bytes(4)) or [])][1:4] == [RUNS, RUNS, RUNS]
    check_hash(shared.maps[2])
    reader.close()
    shared.close()


def test_a_process_that_is_killed_anywhere() -> None:
    """Others go on with the maps; what the dead one had claimed is found by its number and freed."""
    shared, claims, unfinished = Shared(), 0, 0
    table, ring = shared.maps[2], shared.maps[3]
    assert isinstance(table, HashMap) and isinstance(ring, RingMap)
    reader = ring.reader()
    for _ in range(40):
        pid = start_elsewhere(shared, 2, 1 << 30)
        time.sleep(0.003)
        os.kill(pid, signal.SIGKILL)
        assert finish(pid) == -signal.SIGKILL
        before = shared.counts()[2]
        assert finish(start_elsewhere(shared, 3, 100)) == 0
        assert shared.counts()[2] == before + 100
        claims += table.repair(lambda owner: owner != 102)
        unfinished += ring.repair()
        drain(reader)
        assert reader.waiting_bytes == 0
    for number in range(16):  # all keys can be written, read and deleted
        key = number.to_bytes(8, "little")
        if len(table) < table.max_entries:
            table.update(key, key)
            assert table.lookup(key) == [key]
        table.delete(key)
    assert not list(table.keys())
    reader.close()
    shared.close()


def test_the_program_is_safe() -> None:
    """What runs elsewhere has been verified."""
    shared = Shared()
    known = {n: MapInfo("m", t.shape.kind, t.key_size, t.value_size, t.max_entries) for n, t in shared.maps.items()}
    assert verify(assemble(TEXT.format(key=1, runs=20)), "raw_tracepoint", known).safe
    shared.close()


def test_the_same_program_in_the_interpreter() -> None:
    """One run of each kind: what is in the maps afterwards is the same."""
    ours, theirs = Shared(), Shared()
    cpu, owner = ctypes.c_uint32(0), ctypes.c_uint32(9)
    words = {"cpu": ctypes.addressof(cpu), "owner": ctypes.addressof(owner)}
    with Placed(ours.code(1, 40), maps={n: t.region.address for n, t in ours.maps.items()}, **words) as placed:  # type: ignore[arg-type]
        assert placed.run() == 1
    assert Machine(helper_table(), maps=theirs.maps).run(Program(assemble(TEXT.format(key=1, runs=40)))) == 1
    for number in (1, 2, 4):
        assert sorted(ours.maps[number].items()) == sorted(theirs.maps[number].items())
    rings = [shared.maps[3] for shared in (ours, theirs)]
    assert bytes(rings[0].region.data[128:]) == bytes(rings[1].region.data[128:])
    for shared in (ours, theirs):
        shared.close()


def test_nothing_outside_is_needed() -> None:
    """Routines of every kind of map are one piece: no relocation but the words that say who asks."""
    from sonde.bpf.maps.layout import layout_of
    from sonde.bpf.maps.machine import _TEXTS, make_routine

    made = 0
    for kind, helper in [each for each in _TEXTS if each[0]]:
        sizes = {
            "ringbuf": (0, 0, 4096),
            "queue": (0, 24, 9),
            "stack": (0, 24, 9),
            "bloom_filter": (0, 24, 9),
            "lpm_trie": (8, 8, 9),
        }
        shape = MapShape(kind, *sizes.get(kind, (4, 24, 9)), flags=int(kind == "lpm_trie"))
        with create(shape) as table:
            layout = layout_of(table)
            assert layout is not None
            for arch in ("x86_64", "aarch64"):
                routine = make_routine(layout, helper)
                assert translate(routine.insns, arch, stack_bytes=routine.stack_bytes).relocs == ()
                made += 1
    assert made == 2 * (len(_TEXTS) - 1)

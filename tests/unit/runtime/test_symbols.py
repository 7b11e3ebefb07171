"""Addresses to names: this very process, JIT maps, processes that are gone, stacks by id."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.debuginfo.procmaps import Mapping, read_maps
from sonde.runtime.fake import FakeMap
from sonde.runtime.stacks import BuildIdStack, StackSource, split_addresses, split_build_ids
from sonde.runtime.symbols import LiveSymbolizer, Process, ProcessWatch, parse_perf_map
from sonde.spec.layout import Frame, Layout, LayoutField, Stack
from sonde.spec.object import EventSpec, MapSpec, ObjectSpec, ViewSpec, layout_kinds

PID = os.getpid()


def address_of(name: str) -> int:
    """Return where the C library has a function; in a program that is not PIE, the global scope answers with a PLT entry."""
    address = ctypes.cast(getattr(ctypes.CDLL("libc.so.6"), name), ctypes.c_void_p).value
    assert address is not None
    return address


def test_functions_of_this_process() -> None:
    symbolizer = LiveSymbolizer()
    frame = symbolizer.resolve("user", PID, address_of("malloc") + 2)
    assert (frame.symbol, frame.offset) == ("malloc", 2)
    assert "libc" in frame.module
    symbolizer.close()


def test_the_vdso_has_names() -> None:
    vdso = [m for m in read_maps(PID) if m.path == "[vdso]"]
    symbolizer = LiveSymbolizer()
    names = {symbolizer.resolve("user", PID, m.start + at).symbol for m in vdso for at in range(0, m.end - m.start, 16)}
    assert not vdso or any(name.startswith(("__vdso_", "__kernel_")) for name in names)
    symbolizer.close()


def test_unknown_addresses_stay_numbers() -> None:
    symbolizer = LiveSymbolizer()
    assert symbolizer.resolve("user", PID, 0x10) == Frame(0x10, "", 0, "")
    assert symbolizer.resolve("user", 1 << 22, 0x10) == Frame(0x10, "", 0, "")
    symbolizer.close()


def start_python() -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def code_of(pid: int, library: str) -> Mapping:
    return next(m for m in read_maps(pid) if library in m.path and m.executable)


def test_remembered_processes_have_names_after_their_end() -> None:
    child = start_python()
    libc = code_of(child.pid, "libc.so")
    ours = code_of(PID, "libc.so")
    address = address_of("malloc") - ours.start + libc.start
    symbolizer = LiveSymbolizer()
    symbolizer.remember(child.pid)
    child.communicate(b"\n")
    assert symbolizer.resolve("user", child.pid, address).symbol == "malloc"
    assert LiveSymbolizer().resolve("user", child.pid, address).symbol == ""
    symbolizer.close()


def test_a_new_mapping_is_found() -> None:
    import mmap

    process = Process(PID)
    process.reread()
    process._read_at = 0.0
    area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    anchor = ctypes.c_char.from_buffer(area)
    address = ctypes.addressof(anchor)
    found = process.find(address)
    assert found is not None
    assert found.start <= address < found.end
    del anchor
    area.close()


def test_jitted_code(tmp_path: object) -> None:
    """Memory without a file is looked up in the map that a JIT compiler wrote."""
    import mmap

    area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    anchor = ctypes.c_char.from_buffer(area)
    address = ctypes.addressof(anchor)
    path = f"/tmp/perf-{PID}.map"
    with open(path, "w") as file:
        file.write(f"{address + 16:x} 20 LazyCompile:~fib app.js:1\n")
    try:
        symbolizer = LiveSymbolizer()
        assert symbolizer.resolve("user", PID, address + 20).symbol == "LazyCompile:~fib app.js:1"
        assert symbolizer.resolve("user", PID, address + 20).offset == 4
        assert symbolizer.resolve("user", PID, address + 16 + 0x20).symbol == ""
        symbolizer.close()
    finally:
        os.unlink(path)
        del anchor


@given(st.text())
def test_any_perf_map_parses(text: str) -> None:
    entries = parse_perf_map(text)
    assert entries == sorted(entries)


def test_perf_map_takes_the_last_of_one_address() -> None:
    assert parse_perf_map("10 5 old\nzz\n20 1\n10 6 new name\n") == [(0x10, 6, "new name"), (0x20, 1, "")]


def spec_with(layout: Layout) -> ObjectSpec:
    event = EventSpec(1, "print", 8, (LayoutField("0", 8, Layout("tuple", 16, fields=(LayoutField("0", 0, layout),))),))
    return ObjectSpec((), events=(event,), views=(ViewSpec("@", "AT_", None, Layout("int", 8)),))


def test_kinds_of_nested_layouts() -> None:
    assert layout_kinds(spec_with(Layout("ustack", 16))) == {"tuple", "ustack", "int"}


def test_a_watched_process_is_looked_at_again_and_again() -> None:
    seen: list[int] = []
    watch = ProcessWatch(seen.append)
    watch.start(77)
    assert seen == [77]
    first = watch.next_at
    watch.look()
    assert seen == [77, 77]
    assert watch.next_at > first > 0


# Stacks by id -------------------------------------------------------------------------------------------------------


def decoded(kind: str, data: bytes, live: FakeMap, **params: object) -> Stack:
    layout = Layout(kind, len(data), params=tuple(params.items()))
    return StackSource({live.spec.name: live}).decoder(layout)(data)


def test_stacks_of_a_stack_trace_map() -> None:
    live = FakeMap(MapSpec("stacks_127", "stack_trace", 4, 32, 8))
    live.update(struct.pack("<I", 5), struct.pack("<4Q", 11, 22, 0, 0))
    stack = decoded("kstack", struct.pack("<q", 5), live)
    assert (stack.pcs, stack.error) == ((11, 22), 0)
    user = decoded("ustack", struct.pack("<qII", 5, 77, 0), live)
    assert (user.space, user.pid, user.ident) == ("user", 77, (5, 77))
    assert decoded("kstack", struct.pack("<q", 6), live).pcs == ()


def test_stacks_by_the_hash_of_their_content() -> None:
    live = FakeMap(MapSpec("stacks_3", "hash", 8, 32, 8))
    live.update(struct.pack("<Q", 1 << 40), struct.pack("<4Q", 2, 11, 0, 99))
    stack = decoded("kstack", struct.pack("<q", 1 << 40), live, map="stacks_3", hashed=True, mode="perf")
    assert (stack.pcs, stack.mode) == ((11, 0), "perf")


def test_stacks_with_build_ids() -> None:
    live = FakeMap(MapSpec("stacks_3", "stack_trace", 4, 96, 8))
    frames = struct.pack("<i20sQ", 1, bytes(range(1, 21)), 0x110E89) + struct.pack("<i20sQ", 2, bytes(20), 0x5555)
    live.update(struct.pack("<I", 1), frames + bytes(32))
    stack = decoded("ustack", struct.pack("<qII", 1, 7, 0), live, map="stacks_3", mode="build_id")
    assert isinstance(stack, BuildIdStack)
    ident = bytes(range(1, 21)).hex()
    assert stack.frames() == (Frame(0x110E89, "", 0x110E89, ident), Frame(0x5555, "", 0, ""))


@given(st.binary(max_size=100))
def test_any_captured_bytes_split(data: bytes) -> None:
    assert len(split_addresses(data)) <= len(data) // 8
    pcs, idents = split_build_ids(data)
    assert len(pcs) == len(idents) <= len(data) // 32


def test_equal_stacks_are_equal_keys() -> None:
    live = FakeMap(MapSpec("stacks_127", "stack_trace", 4, 8, 8))
    one, other = (decoded("kstack", struct.pack("<q", 5), live) for _ in range(2))
    assert one == other
    assert len({one, other}) == 1


def test_without_a_cache_nothing_is_kept() -> None:
    symbolizer = LiveSymbolizer(cache="NONE")
    child = start_python()
    libc, ours = code_of(child.pid, "libc.so"), code_of(PID, "libc.so")
    address = address_of("malloc") - ours.start + libc.start
    symbolizer.remember(child.pid)
    assert symbolizer.resolve("user", child.pid, address).symbol == "malloc"
    child.communicate(b"\n")
    assert symbolizer.resolve("user", child.pid, address).symbol == ""  # what it had mapped was not kept
    assert not symbolizer._processes and not symbolizer._frames and not symbolizer._files._files


def test_one_cache_for_all_processes_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process of a program is named by the mappings of the first, whatever its own are."""
    monkeypatch.setattr("os.stat", _same_executable(os.stat))
    address = address_of("malloc")
    names = {}
    for cache in ("PER_PID", "PER_PROGRAM"):
        symbolizer = LiveSymbolizer(cache=cache)
        assert symbolizer.resolve("user", PID, address).symbol == "malloc"
        names[cache] = symbolizer.resolve("user", OTHER_PID, address).symbol
        symbolizer.close()
    assert names == {"PER_PID": "", "PER_PROGRAM": "malloc"}


OTHER_PID = 1 << 22  # more than a process can have


def _same_executable(stat: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
    return lambda path, **more: stat(f"/proc/{PID}/exe" if path == f"/proc/{OTHER_PID}/exe" else path, **more)

"""Numbers and packed attributes of the kernel interface."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.errors import FeatureError, FormatError, UsageError
from sonde.kernel import abi, cpus, syscall
from sonde.kernel.attach.tracefs_probe import definition, find_leftovers
from sonde.kernel.attach.tracepoint import read_event_id
from sonde.spec.object import ProbeSpec


def test_numbers_of_types() -> None:
    assert (abi.map_type("ringbuf"), abi.map_type("arena")) == (27, 33)
    assert (abi.program_type("kprobe"), abi.program_type("tracing"), abi.program_type("netfilter")) == (2, 26, 32)
    assert abi.attach_type("") == 0
    assert (abi.attach_type("trace_raw_tp"), abi.attach_type("perf_event")) == (23, 41)
    assert (abi.attach_type("trace_kprobe_multi"), abi.attach_type("trace_uprobe_multi")) == (42, 48)
    assert abi.attach_type("trace_uprobe_session") == 57


@pytest.mark.parametrize("ask", [abi.map_type, abi.program_type, abi.attach_type])
def test_unknown_type(ask) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="'nonsense'"):
        ask("nonsense")


def test_sizes_of_attributes() -> None:
    """Offsets of the last members, from struct bpf_attr."""
    assert abi.MAP_CREATE.size == 72  # through map_extra
    assert abi.PROG_LOAD.size == 128  # through fd_array
    assert abi.PROG_TEST_RUN.size == 80
    assert abi.MAP_BATCH.size == 56
    assert abi.LINK_CREATE.size + abi.LINK_UPROBE_MULTI.size == 64
    assert abi.PERF_EVENT_ATTR.size == 112  # PERF_ATTR_SIZE_VER5


def test_perf_event_attr_places() -> None:
    attr = abi.perf_event_attr(5, 7, period=9, flags=1 << 10, breakpoint_type=2, config1=0x1234, config2=8)
    assert struct.unpack_from("=II", attr, 0) == (5, 112)
    assert struct.unpack_from("=QQ", attr, 8) == (7, 9)
    assert struct.unpack_from("=Q", attr, abi.ATTR_FLAGS_OFFSET) == (1 << 10,)
    assert struct.unpack_from("=IQQ", attr, 52) == (2, 0x1234, 8)


def test_object_names() -> None:
    assert abi.object_name("AT_bytes") == b"AT_bytes"
    assert abi.object_name("tracepoint:syscalls") == b"tracepoint_sysc"
    assert abi.object_name("größe") == b"gr__e"


def test_addresses_of_buffers() -> None:
    shared = bytearray(b"hello")
    assert ctypes.string_at(syscall.address(shared), 5) == b"hello"
    text = b"constant\0"
    assert ctypes.string_at(syscall.address(text)) == b"constant"
    assert syscall.address(b"") == syscall.address(bytearray()) == 0


def test_cpu_lists() -> None:
    assert cpus.parse_cpu_list("0\n") == [0]
    assert cpus.parse_cpu_list("0-3,8\n") == [0, 1, 2, 3, 8]
    assert cpus.possible_cpus() > max(cpus.online_cpus()) - 1


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "3-1", "0-99999999999"])
def test_bad_cpu_lists(text: str) -> None:
    with pytest.raises(FormatError):
        cpus.parse_cpu_list(text)


@given(st.text(alphabet="0123456789-, \nx", max_size=20))
def test_any_text_is_a_cpu_list_or_an_error(text: str) -> None:
    try:
        found = cpus.parse_cpu_list(text)
    except FormatError:
        return
    assert found and all(0 <= cpu < 1 << 16 for cpu in found)


def test_a_machine_without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscall, "_numbers", None)
    monkeypatch.setattr(syscall.os, "uname", lambda: type("Uname", (), {"machine": "vax"}))
    with pytest.raises(FeatureError, match="vax"):
        syscall.bpf(0, bytearray(8))


@pytest.mark.parametrize(
    ("text", "number"), [("300\n", 300), ("", None), ("x\n", None), ("-1\n", None), ("12 13\n", None)]
)
def test_event_ids(tmp_path: Path, text: str, number: int | None) -> None:
    folder = tmp_path / "events" / "c" / "e"
    folder.mkdir(parents=True)
    (folder / "id").write_text(text)
    probe = ProbeSpec("tracepoint:c:e", "tracepoint", "p", category="c", event="e")
    if number is not None:
        assert read_event_id(probe, str(tmp_path)) == number
        return
    with pytest.raises(FormatError):
        read_event_id(probe, str(tmp_path))


def test_definitions_for_tracefs() -> None:
    def line(**fields: object) -> str:
        return definition(ProbeSpec("n", program="p", **fields), "sonde_1_1")  # type: ignore[arg-type]

    assert line(type="kprobe", symbol="f") == "p:sonde/sonde_1_1 f"
    assert line(type="kretprobe", symbol="f", module="m") == "r:sonde/sonde_1_1 m:f"
    assert line(type="kprobe", symbol="f", offset=8, module="vmlinux") == "p:sonde/sonde_1_1 f+8"
    assert line(type="kprobe", address=0x1000) == "p:sonde/sonde_1_1 0x1000"
    assert line(type="usdt", path="/b", offset=16, semaphore_offset=32) == "p:sonde/sonde_1_1 /b:0x10(0x20)"


@given(st.lists(st.text(alphabet="pr:/ _sonde0123456789", max_size=30)))
def test_leftovers_are_ours_only(lines: list[str]) -> None:
    dead = f"sonde_{1 << 22}_1"
    found = find_leftovers([*lines, f"p:sonde/{dead} /bin/sh:0x10", "p:kprobes/sonde_4194304_1 f", "r:sonde/other f"])
    assert dead in found
    assert all(name.startswith("sonde_") for name in found)

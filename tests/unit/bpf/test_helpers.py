"""The helper table: well-formed, complete, and found by name and number."""

from __future__ import annotations

import pytest

from sonde.bpf.helpers import HELPERS

ARGUMENT_KINDS = {
    "ctx", "map", "key", "value", "value_out", "mem", "mem_out", "mem_rw", "fixed", "fixed_out", "fixed_rw", "size", "size0",
    "alloc_size", "scalar", "const_str", "func", "stack", "record", "sock", "sock_release", "btf", "percpu", "dynptr",
    "dynptr_out", "dynptr_release", "timer", "spin_lock", "kptr",
}  # fmt: skip
RESULT_KINDS = {"scalar", "void", "value", "mem", "record", "percpu_mem", "socket", "sock_common", "tcp_sock", "btf"}


def test_every_line_is_well_formed() -> None:
    assert len(HELPERS) == 211
    assert [h.ident for h in HELPERS] == list(range(1, 212))
    for helper in HELPERS:
        assert len(helper.args) <= 5
        assert {a.rstrip("?").partition(":")[0] for a in helper.args} <= ARGUMENT_KINDS, helper
        assert helper.result.rstrip("?").partition(":")[0] in RESULT_KINDS, helper
        assert set(helper.flags) <= {"constant", "quiet", "gpl", "sleeps"}, helper
        major, minor = helper.since.split(".")
        assert (3, 19) <= (int(major), int(minor)) <= (6, 2), helper


def test_a_size_follows_its_memory() -> None:
    for helper in HELPERS:
        for kind, after in zip(helper.args, (*helper.args[1:], "")):
            assert (kind.rstrip("?") in ("mem", "mem_out", "mem_rw")) == (after in ("size", "size0")), helper


def test_versions_never_go_back() -> None:
    """Numbers are given in the order of time."""
    versions = [tuple(int(v) for v in h.since.split(".")) for h in HELPERS]
    assert versions == sorted(versions)


@pytest.mark.parametrize(
    ("name", "ident", "result", "args"),
    [
        ("map_lookup_elem", 1, "value?", ("map", "key")),
        ("map_update_elem", 2, "scalar", ("map", "key", "value", "scalar")),
        ("probe_read_kernel", 113, "scalar", ("mem_out", "size0", "scalar")),
        ("get_current_comm", 16, "scalar", ("mem_out", "size")),
        ("ringbuf_reserve", 131, "record?", ("map", "alloc_size", "scalar")),
        ("ringbuf_submit", 132, "void", ("record", "scalar")),
        ("loop", 181, "scalar", ("scalar", "func", "stack?", "scalar")),
        ("cgrp_storage_delete", 211, "scalar", ("map", "btf:cgroup?")),
    ],
)
def test_prototypes(name: str, ident: int, result: str, args: tuple[str, ...]) -> None:
    helper = HELPERS[name]
    assert helper is HELPERS[ident]
    assert (helper.name, helper.ident, helper.result, helper.args) == (name, ident, result, args)


def test_flags() -> None:
    assert HELPERS["get_current_pid_tgid"].constant and not HELPERS["get_current_pid_tgid"].has_effect
    assert not HELPERS["ktime_get_ns"].constant and not HELPERS["ktime_get_ns"].has_effect
    assert HELPERS["map_update_elem"].has_effect and HELPERS["map_update_elem"].touches_memory
    assert HELPERS["get_current_comm"].touches_memory
    assert HELPERS["send_signal"].has_effect and not HELPERS["send_signal"].touches_memory
    assert [h.name for h in HELPERS if h.variadic] == ["trace_printk"]
    assert all(not h.touches_memory for h in HELPERS if h.constant)


@pytest.mark.parametrize("which", ["nosuch", "", "bpf_map_lookup_elem", 0, 212, -1])
def test_unknown_helpers(which: str | int) -> None:
    assert HELPERS.get(which) is None and which not in HELPERS
    with pytest.raises(KeyError):
        HELPERS[which]

"""A machine with one CPU: values of per-CPU maps are padded to 8 bytes on their way all the same."""

from __future__ import annotations

import ctypes

import pytest

from sonde.kernel import maps
from sonde.kernel.abi import BPF_MAP_LOOKUP_ELEM
from sonde.kernel.maps import MAP_ELEMENT, KernelMap
from sonde.spec.object import MapSpec


def test_values_are_cut_and_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[bytes] = []

    def bpf(command: int, attr: bytearray) -> int:
        _, _, value, _ = MAP_ELEMENT.unpack(attr)
        if command == BPF_MAP_LOOKUP_ELEM:
            ctypes.memmove(value, b"abcd\0\0\0\0", 8)
        else:
            stored.append(ctypes.string_at(value, 8))
        return 0

    monkeypatch.setattr(maps, "possible_cpus", lambda: 1)
    monkeypatch.setattr(maps.syscall, "bpf", bpf)
    table = KernelMap(-1, MapSpec("m", "percpu_array", 4, 4, 1))
    assert table.lookup(bytes(4)) == [b"abcd"]
    table.update(bytes(4), b"wxyz")
    assert stored == [b"wxyz\0\0\0\0"]

"""Calls of kernel functions: ids from the kernel's types and from modules', with the modules' descriptors in order."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from btf_builder import BtfBuilder

from sonde.debuginfo.btf import Btf
from sonde.errors import FeatureError
from sonde.kernel import kfuncs
from sonde.kernel.kfuncs import KernelFunctions
from sonde.kernel.programs import relocate
from sonde.spec.object import ProgramSpec, Reloc

CALL = struct.pack("<BBhi", 0x85, 0x20, 0, -1)
EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)


def types(*names: str, base: Btf | None = None, path: str = "") -> Btf:
    b = BtfBuilder()
    if base is not None:
        b = BtfBuilder(base.count_types() + 1, base._strings_end - base._strings)
    proto = b.func_proto(0, [])
    for name in names:
        b.func(name, proto)
    made = Btf.from_bytes(b.build(), base)
    made.path = path
    return made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """A kernel with two modules; the modules whose BTF was opened, with the descriptors."""
    kernel = types("bpf_of_kernel", "bpf_other")
    found: list[tuple[str, int]] = []

    def modules() -> Iterator[Btf]:
        yield types("bpf_of_one", base=kernel, path="/sys/kernel/btf/one")
        yield types("bpf_first_of_two", "bpf_of_two", base=kernel, path="/sys/kernel/btf/two")

    def open_module(name: str) -> int:
        found.append((name, os.open("/dev/null", os.O_RDONLY)))
        return found[-1][1]

    monkeypatch.setattr(kfuncs, "kernel_btf", lambda: kernel)
    monkeypatch.setattr(kfuncs, "iter_module_btf", modules)
    monkeypatch.setattr(kfuncs, "open_module_btf", open_module)
    yield found


def calls(*names: str) -> ProgramSpec:
    return ProgramSpec("p", "xdp", CALL * len(names) + EXIT, tuple(Reloc(i, "kfunc", n) for i, n in enumerate(names)))


def test_calls_get_ids_and_places_of_modules(opened: list[tuple[str, int]]) -> None:
    spec = calls("bpf_other", "bpf_of_two", "bpf_of_one", "bpf_first_of_two", "bpf_of_two")
    with KernelFunctions() as functions:
        code = relocate(spec, {}, None, functions)
        found = [struct.unpack_from("<BBhi", code, at) for at in range(0, 40, 8)]
        assert found == [
            (0x85, 0x20, 0, 3),
            (0x85, 0x20, 1, 6),
            (0x85, 0x20, 2, 5),
            (0x85, 0x20, 1, 5),
            (0x85, 0x20, 1, 6),
        ]
        assert [name for name, _ in opened] == ["two", "one"]
        assert functions.fd_array == struct.pack("=3i", 0, *(fd for _, fd in opened))
    for _, fd in opened:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_no_descriptors_without_modules(opened: list[tuple[str, int]]) -> None:
    with KernelFunctions() as functions:
        relocate(calls("bpf_of_kernel"), {}, None, functions)
        assert functions.fd_array == b"" and not opened


def test_a_function_that_nobody_has(opened: list[tuple[str, int]]) -> None:
    with KernelFunctions() as functions, pytest.raises(FeatureError, match="bpf_nobody") as caught:
        relocate(calls("bpf_nobody"), {}, None, functions)
    assert caught.value.feature == "kfunc:bpf_nobody"

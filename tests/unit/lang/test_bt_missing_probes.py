"""Attach points that nothing here matches: an error, a warning or nothing, as the script's configuration says."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from bt_typing import typed, warnings

from sonde.debuginfo.elf import Elf
from sonde.debuginfo.procmaps import read_maps
from sonde.errors import CompileError

THERE = "tracepoint:syscalls:sys_enter_openat"
GONE = "tracepoint:syscalls:sys_enter_opennot"
MESSAGE = "No matches for tracepoint syscalls:sys_enter_opennot."


def test_alone_it_is_an_error_at_its_place() -> None:
    with pytest.raises(CompileError) as caught:
        typed(f"{GONE} {{ exit() }}")
    fault = caught.value.diagnostics[0]
    assert fault.message == MESSAGE
    assert fault.span is not None and fault.span.column == 1


def test_beside_others_it_is_a_warning() -> None:
    """Old and new names of a function side by side are how tools span kernels."""
    assert warnings(f"{GONE},\n{THERE} {{ exit() }}") == [f"{MESSAGE} Skipping."]


def test_beside_others_it_is_an_error_where_that_was_chosen() -> None:
    with pytest.raises(CompileError) as caught:
        typed(f'config = {{ missing_probes = "error" }} {THERE}, {GONE} {{ exit() }}')
    assert caught.value.message == MESSAGE


def test_warned_of_and_left_out() -> None:
    text = f'config = {{ missing_probes = "warn" }} begin {{ exit() }} {GONE} {{ exit() }}'
    removed = "Probe has no valid attach points. It is being removed which may cause issues with program behavior."
    assert warnings(text) == [f"{MESSAGE} Skipping.", removed]
    assert len(typed(text).probes) == 1


def test_ignored() -> None:
    assert warnings(f'config = {{ missing_probes = "ignore" }} {THERE}, {GONE} {{ exit() }} {GONE} {{ exit() }}') == []


def test_a_wrong_form_is_an_error_whatever_was_chosen() -> None:
    with pytest.raises(CompileError, match="software"):
        typed(f'config = {{ missing_probes = "ignore" }} {THERE}, software:nosuch:1 {{ exit() }}')


def is_elf(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return os.path.getsize(path) > 64 and file.read(4) == b"\x7fELF"
    except OSError:
        return False


def code_with_functions(count: int) -> Iterator[tuple[str, list[int]]]:
    """Yield files that this process has mapped, with the addresses of so many functions of theirs."""
    for path in sorted({m.path for m in read_maps(os.getpid()) if m.executable and m.is_file}):
        if not is_elf(path):  # other tests of this run may have mapped /dev/zero, memory, files that are gone
            continue
        with Elf.open(path) as elf:
            found = sorted({symbol.vaddr for symbol in elf.iter_functions() if symbol.size > 8})
        if len(found) >= count:
            yield path, found[:count]


def test_a_file_is_opened_once_for_all_probes_of_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its symbols are decoded once then: hundreds of probes by address take no longer than their programs do."""
    opened, open_file = [], Elf.open

    def open_elf(path: str) -> Elf:
        opened.append(path)
        return open_file(path)

    monkeypatch.setattr(Elf, "open", open_elf)
    path, addresses = next(code_with_functions(20))
    script = " ".join(f"uprobe:{path}:{address:#x} {{ @[{address}] = count() }}" for address in addresses)
    opened.clear()
    assert len(typed(script).probes) == 20
    assert opened.count(path) == 1

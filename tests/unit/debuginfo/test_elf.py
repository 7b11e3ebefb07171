"""The ELF reader: symbols, addresses, debug files; and that corrupt files raise FormatError and nothing else."""

from __future__ import annotations

import errno
import lzma
import os
import struct
import zlib
from pathlib import Path

import pytest
from elfmaker import DATA_VADDR, VADDR, Symbols, make_elf
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.debuginfo.elf import Elf, open_debug_file
from sonde.errors import FormatError

CODE = VADDR + 0x1000


def symbols(*entries: tuple[object, ...], **options: object) -> Symbols:
    table = Symbols()
    for entry in entries:
        table.add(*entry, **options)  # type: ignore[arg-type]
    return table


def test_structure() -> None:
    elf = Elf(make_elf(symtab=symbols(("main", CODE, 16))))
    assert [s.name for s in elf.sections] == ["", ".text", ".data", ".strtab", ".symtab", ".shstrtab"]
    assert (elf.arch, elf.is_exec, elf.entry) == ("x86_64", True, CODE)
    assert [s.vaddr for s in elf.segments] == [VADDR, DATA_VADDR + 0x2000]
    text = elf.get_section(".text")
    assert text is not None and elf.read_section(text) == b"\xcc" * 0x100
    assert elf.get_section(".nothing") is None


def test_addresses_and_offsets() -> None:
    elf = Elf(make_elf())
    assert elf.get_offset(CODE + 5) == 0x1005
    assert elf.get_vaddr(0x1005) == CODE + 5
    assert elf.get_offset(DATA_VADDR + 0x2008) == 0x2008
    assert elf.get_offset(0x1234) == -1
    assert elf.get_vaddr(0x5000) == -1


def test_find_by_name() -> None:
    table = symbols(("__libc_malloc", CODE, 32), ("malloc", CODE, 32), ("lloc", CODE + 64, 1), ("m", CODE + 65, 1))
    elf = Elf(make_elf(symtab=table))
    for name, vaddr in (("__libc_malloc", CODE), ("malloc", CODE), ("lloc", CODE + 64), ("m", CODE + 65)):
        found = elf.get_function(name)
        assert found is not None and (found.name, found.vaddr) == (name, vaddr)
    for name in ("mallo", "alloc\0", "", "libc_malloc", "nope"):
        assert elf.get_function(name) is None


def test_a_name_that_is_the_tail_of_many() -> None:
    table = symbols(*((f"prefix{n}_x", CODE + n, 1) for n in range(20)), ("x", CODE + 40, 1))
    found = Elf(make_elf(symtab=table)).get_function("x")
    assert found is not None and found.vaddr == CODE + 40


def test_only_defined_functions_are_functions() -> None:
    table = symbols(("imported", 0, 0))
    table.entries = table.entries[:24]
    table.add("imported", 0, 0, section=0)
    table.add("variable", DATA_VADDR + 0x2000, 4, kind=1)
    table.add("resolver", CODE, 8, kind=10)
    elf = Elf(make_elf(symtab=table))
    assert elf.get_function("imported") is None
    assert elf.get_function("variable") is None
    variable = elf.get_symbol("variable")
    assert variable is not None and variable.vaddr == DATA_VADDR + 0x2000
    assert elf.get_symbol("imported") is None
    assert elf.function_names() == ["resolver"]
    assert [s.name for s in elf.iter_symbols()] == ["", "imported", "variable", "resolver"]


def test_the_default_version_wins() -> None:
    table = Symbols()
    table.add("memcpy", CODE, 8, hidden=True)
    table.add("memcpy", CODE + 16, 8)
    found = Elf(make_elf(dynsym=table)).get_function("memcpy")
    assert found is not None and found.vaddr == CODE + 16


def test_symbol_at_address() -> None:
    table = Symbols()
    table.add("_start_local", CODE, 32, binding=0)
    table.add("__work", CODE, 32)
    table.add("work", CODE, 32)
    table.add("weak_name", CODE, 32, binding=2)
    table.add("inner", CODE + 8, 4)
    table.add("no_size", CODE + 64, 0)
    table.add("last", CODE + 80, 4)
    elf = Elf(make_elf(symtab=table))

    def name_at(vaddr: int) -> str:
        found = elf.get_function_at(vaddr)
        return found.name if found else ""

    assert name_at(CODE) == "work"
    assert name_at(CODE + 9) == "inner"
    assert name_at(CODE + 20) == "work"  # behind the inner function, still inside the outer one
    assert name_at(CODE + 40) == ""
    assert name_at(CODE + 79) == "no_size"
    assert name_at(CODE + 83) == "last"
    assert name_at(CODE + 84) == ""
    assert name_at(0) == ""


def test_names_are_chosen_alike_for_the_first_questions_and_for_many() -> None:
    table = Symbols()
    for n in range(20):
        table.add(f"_local{n}", CODE + 16 * n, 16, binding=0)
        table.add(f"_name{n}", CODE + 16 * n, 16)
        table.add(f"name{n}", CODE + 16 * n, 16)
    elf = Elf(make_elf(symtab=table))
    found = [elf.get_function_at(CODE + 16 * n + 5) for n in range(20)]
    assert [symbol.name if symbol else "" for symbol in found] == [f"name{n}" for n in range(20)]
    assert elf.function_starts() == [CODE + 16 * n for n in range(20)]


def test_iter_functions_has_addresses() -> None:
    elf = Elf(make_elf(symtab=symbols(("a", CODE, 4), ("b", CODE + 4, 4))))
    assert [(s.name, s.vaddr, s.size) for s in elf.iter_functions()] == [("a", CODE, 4), ("b", CODE + 4, 4)]


def test_build_id_and_debug_link() -> None:
    elf = Elf(make_elf(build_id=bytes(range(20)), debug_link=(b"x.debug", 0x12345678)))
    assert elf.build_id() == bytes(range(20)).hex()
    assert elf.debug_link() == ("x.debug", 0x12345678)
    assert (Elf(make_elf()).build_id(), Elf(make_elf()).debug_link()) == ("", None)


def test_minidebuginfo() -> None:
    inner = make_elf(symtab=symbols(("hidden", CODE + 4, 4)))
    elf = Elf(make_elf(dynsym=symbols(("public", CODE, 4)), debugdata=lzma.compress(inner)))
    assert elf.function_names() == ["hidden", "public"]
    broken = Elf(make_elf(debugdata=b"nothing that xz knows"))
    with pytest.raises(FormatError, match="unpacked"):
        broken.function_names()


def test_debug_file_by_build_id(tmp_path: Path) -> None:
    ident = bytes.fromhex("aabbccdd")
    program = tmp_path / "program"
    program.write_bytes(make_elf(dynsym=symbols(("public", CODE, 4)), build_id=ident))
    folder = tmp_path / "debug" / ".build-id" / "aa"
    folder.mkdir(parents=True)
    debug = folder / "bbccdd.debug"
    debug.write_bytes(make_elf(symtab=symbols(("hidden", CODE + 4, 4)), build_id=b"other"))
    with Elf.open(str(program)) as elf:
        assert open_debug_file(elf, (str(tmp_path / "debug"),)) is None  # its build id differs
        debug.write_bytes(make_elf(symtab=symbols(("hidden", CODE + 4, 4)), build_id=ident))
        found = open_debug_file(elf, (str(tmp_path / "debug"),))
        assert found is not None and found.function_names() == ["hidden"]
        found.close()


def test_debug_file_by_link_and_crc(tmp_path: Path) -> None:
    debug = make_elf(symtab=symbols(("hidden", CODE + 4, 4)))
    for crc, expected in ((zlib.crc32(debug), ["hidden", "public"]), (1, ["public"])):
        program = tmp_path / "program"
        program.write_bytes(make_elf(dynsym=symbols(("public", CODE, 4)), debug_link=(b"program.debug", crc)))
        (tmp_path / ".debug").mkdir(exist_ok=True)
        (tmp_path / ".debug" / "program.debug").write_bytes(debug)
        with Elf.open(str(program)) as elf:
            assert elf.function_names() == expected
            assert (elf.get_function("hidden") is not None) == (len(expected) == 2)


def test_a_file_of_a_process_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path in /proc is one that nobody can follow any more: then there is no debug file beside it."""

    def gone(path: str) -> str:
        raise ProcessLookupError(errno.ESRCH, "No such process", path)

    monkeypatch.setattr(os.path, "realpath", gone)
    path = tmp_path / "stripped"
    path.write_bytes(make_elf(dynsym=symbols(("public", CODE, 4)), debug_link=(b"program.debug", 1)))
    with Elf.open(str(path)) as elf:
        assert elf.function_names() == ["public"]


def test_a_debug_file_that_links_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    path.write_bytes(make_elf(build_id=b"abcd", debug_link=(b"loop", 0)))
    with Elf.open(str(path)) as elf:
        assert elf.get_function("anything") is None
        assert elf.function_names() == []


def test_open_refuses(tmp_path: Path) -> None:
    good = make_elf()
    for name, data, words in (
        ("empty", b"", "not an ELF"),
        ("text", b"#!/bin/sh\n" * 20, "not an ELF"),
        ("elf32", good[:4] + b"\x01" + good[5:], "32-bit"),
        ("big", good[:5] + b"\x02" + good[6:], "big-endian"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(FormatError, match=words) as caught:
            Elf.open(str(path))
        assert caught.value.path == str(path)
    with pytest.raises(OSError):
        Elf.open(str(tmp_path / "missing"))
    fds = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(FormatError):
            Elf.open(str(tmp_path / "elf32"))
    assert len(os.listdir("/proc/self/fd")) == len(fds)


def test_tables_outside_the_file() -> None:
    data = bytearray(make_elf(symtab=symbols(("main", CODE, 16))))
    for offset in (32, 40):  # program headers, section headers
        broken = bytearray(data)
        struct.pack_into("<Q", broken, offset, 1 << 62)
        with pytest.raises(FormatError):
            use_everything(Elf(bytes(broken)))


def use_everything(elf: Elf) -> None:
    """Call each reader once; whatever a caller may do with a file."""
    _ = elf.segments, elf.sections, elf.debug_link(), elf.build_id()
    for section in elf.sections:
        if section.type == 7:
            list(elf.iter_notes(section))
    elf.get_function("work")
    elf.get_symbol("x")
    elf.function_names()
    elf.get_function_at(CODE + 3)
    elf.get_offset(CODE)
    elf.get_vaddr(0x1000)
    list(elf.iter_symbols())
    list(elf.iter_functions())


SAMPLE = make_elf(
    symtab=symbols(("work", CODE, 16), ("prefix_work", CODE + 16, 16)),
    dynsym=symbols(("x", CODE, 4)),
    build_id=b"12345678",
    debug_link=(b"a.debug", 7),
)
INTERESTING = [*range(64), *range(64, 176), *range(0x2040, len(SAMPLE))]  # everything but code and data


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(INTERESTING), st.integers(0, 255)), min_size=1, max_size=8))
def test_fuzz_changed_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLE)
    for at, value in changes:
        data[at] = value
    try:
        use_everything(Elf(bytes(data)))
    except FormatError:
        pass


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(SAMPLE)))
def test_fuzz_cut_files(size: int) -> None:
    try:
        use_everything(Elf(SAMPLE[:size]))
    except FormatError:
        pass

"""uprobe and USDT: which files are meant, which functions in them, at which offsets."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from elfmaker import DATA_VADDR, VADDR, Symbols, make_elf, stapsdt
from probe_machine import make_target

from sonde.debuginfo.demangle import demangle, have_demangler
from sonde.debuginfo.ldcache import get_library, parse_cache
from sonde.errors import FormatError, ProbeError
from sonde.probes.catalogue import context_of, expand_all, parse_attach_point
from sonde.probes.listing import iter_probes
from sonde.probes.model import Probe
from sonde.probes.scope import Machine

CODE = VADDR + 0x1000
PID = 4321


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A /proc with one process, which has the two programs mapped."""
    process = tmp_path / "proc" / str(PID)
    (process / "ns").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "ns").mkdir(parents=True)
    for pid in (str(PID), "self"):
        (tmp_path / "proc" / pid / "ns" / "mnt").symlink_to("mnt:[1]")
    symbols = Symbols()
    for at, name in enumerate(("main", "work", "work_more", "work.part.0", "_ZN2ns1fEi", "_ZN2ns1fEl")):
        symbols.add(name, CODE + 16 * at, 16)
    symbols.add("no_size", CODE + 0xF0, 0)
    notes = (
        stapsdt("app", "tick", "-4@%edi", CODE + 1)
        + stapsdt("app", "start", "", CODE + 2, 0, DATA_VADDR + 0x2010)
        + stapsdt("app", "tick", "8@%rsi", CODE + 3)
        + stapsdt("lib", "tick", "", CODE + 4)
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "program").write_bytes(make_elf(symtab=symbols, notes=notes))
    other = Symbols()
    other.add("main", CODE, 16)
    (tmp_path / "bin" / "other").write_bytes(make_elf(symtab=other))
    (tmp_path / "bin" / "script").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "again").symlink_to("program")
    for name in ("program", "other", "script"):
        (tmp_path / "bin" / name).chmod(0o755)
    (process / "exe").symlink_to(tmp_path / "bin" / "program")
    lines = [
        f"1000-2000 r-xp 0 00:00 {n} {tmp_path}/bin/{name}" for n, name in enumerate(("program", "other", "script"))
    ]
    (process / "maps").write_text("\n".join([*lines, "3000-4000 rw-p 0 00:00 0 [heap]", ""]))
    return Machine(tracefs=str(tmp_path), proc=str(tmp_path / "proc"))


def probes(text: str, machine: Machine, **options: object) -> list[Probe]:
    parts = tuple(text.split("|"))
    parsing = {k: v for k, v in options.items() if k != "missing"}
    patterns = parse_attach_point(parts, **parsing)  # type: ignore[arg-type]
    return expand_all(patterns, make_target(None, None), machine=machine, **options)  # type: ignore[arg-type]


def names(text: str, machine: Machine, **options: object) -> list[str]:
    return [p.name for p in probes(text, machine, **options)]


def test_functions(machine: Machine, tmp_path: Path) -> None:
    path = f"{tmp_path}/bin/program"
    (probe,) = probes(f"uprobe|{path}|work", machine)
    assert (probe.name, probe.program_type) == (f"uprobe:{path}:work", "kprobe")
    assert (probe.spec.path, probe.spec.offset, probe.spec.symbol, probe.spec.pid) == (path, 0x1010, "work", 0)
    assert names(f"uprobe|{path}|wor*", machine) == [f"uprobe:{path}:work", f"uprobe:{path}:work_more"]
    assert names(f"uretprobe|{path}|main", machine) == [f"uretprobe:{path}:main"]
    assert names(f"uprobe|{path}|no*", machine, missing="ignore") == []  # without a size nobody knows where it ends


def test_offsets_and_addresses(machine: Machine, tmp_path: Path) -> None:
    path = f"{tmp_path}/bin/program"
    (probe,) = probes(f"uprobe|{path}|work+4", machine)  # the code is int3, an instruction of one byte
    assert (probe.name, probe.spec.offset) == (f"uprobe:{path}:work+4", 0x1014)
    (probe,) = probes(f"uprobe|{path}|0x{CODE + 17:x}", machine)
    assert (probe.name, probe.spec.offset, probe.spec.symbol) == (f"uprobe:{path}:{CODE + 17}", 0x1011, "work")
    with pytest.raises(ProbeError, match="only 16 bytes"):
        probes(f"uprobe|{path}|work+16", machine)
    with pytest.raises(ProbeError, match="no code at 0x10 "):
        probes(f"uprobe|{path}|0x10", machine)
    with pytest.raises(ProbeError, match=r"resolved to: work\+1"):
        probes(f"uretprobe|{path}|0x{CODE + 17:x}", machine)


def test_the_middle_of_an_instruction(machine: Machine, tmp_path: Path) -> None:
    symbols = Symbols()
    symbols.add("call", CODE, 8)
    data = bytearray(make_elf(symtab=symbols))
    data[0x1000:0x1008] = bytes.fromhex("e80000000090c390")  # call; nop; ret; nop
    path = tmp_path / "code"
    path.write_bytes(data)
    assert len(probes(f"uprobe|{path}|call+5", machine)) == 1
    for target in ("call+3", f"0x{CODE + 3:x}"):
        with pytest.raises(ProbeError, match=r"middle of instruction: .*code:call\+3"):
            probes(f"uprobe|{path}|{target}", machine)
        assert len(probes(f"uprobe|{path}|{target}", machine, unsafe=True)) == 1


def test_missing_functions(machine: Machine, tmp_path: Path) -> None:
    path = f"{tmp_path}/bin/program"
    with pytest.raises(ProbeError) as caught:
        probes(f"uprobe|{path}|mian", machine)
    assert (caught.value.message, caught.value.close) == (
        f"No matches for uprobe {path}:mian.",
        (f"uprobe:{path}:main",),
    )
    for target in (f"{tmp_path}/nothing", f"{tmp_path}/bin", f"{tmp_path}/bin/script", "no-such-command", "libnope"):
        with pytest.raises(ProbeError, match=f"uprobe target file '{target}' does not exist or is not executable"):
            probes(f"uprobe|{target}|main", machine)
    broken = tmp_path / "broken"
    broken.write_bytes(make_elf()[:80] + bytes(100))
    for kind in ("uprobe", "usdt"):
        with pytest.raises(FormatError, match="broken"):
            probes(f"{kind}|{broken}|main", machine)
        assert names(f"{kind}|{tmp_path}/brok*|main", machine, missing="ignore") == []
    with pytest.raises(ProbeError, match="No DWARF"):
        probes(f"uprobe|{path}@a.c|3", machine)


def test_globs(machine: Machine, tmp_path: Path) -> None:
    folder = f"{tmp_path}/bin"
    found = names(f"uprobe|{folder}/*|main", machine)
    assert found == [f"uprobe:{folder}/again:main", f"uprobe:{folder}/other:main"]  # `again` and `program` are one file
    (tmp_path / "bin" / "[x]").write_bytes((tmp_path / "bin" / "other").read_bytes())
    assert names(f"uprobe|{folder}/[x*|main", machine) == [f"uprobe:{folder}/[x]:main"]


def test_commands_on_path(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/nothing:{tmp_path}/bin")
    assert names("uprobe|program|main", machine) == [f"uprobe:{tmp_path}/bin/program:main"]
    assert names("uprobe|o*|main", machine) == [f"uprobe:{tmp_path}/bin/other:main"]
    with pytest.raises(ProbeError, match="not executable"):
        probes("uprobe|script|main", machine)


def test_processes(machine: Machine, tmp_path: Path) -> None:
    program, other = f"{tmp_path}/bin/program", f"{tmp_path}/bin/other"
    (probe,) = probes("uprobe|main", machine, pid=PID)
    assert (probe.name, probe.spec.pid) == (f"uprobe:{program}:main", PID)
    assert names("uprobe|*|main", machine, pid=PID) == [f"uprobe:{program}:main", f"uprobe:{other}:main"]
    assert names("uprobe|main", machine, command_path=other) == [f"uprobe:{other}:main"]
    with pytest.raises(ProbeError, match="process 99 cannot be found"):
        probes("uprobe|main", machine, pid=99)


def test_processes_in_containers(machine: Machine, tmp_path: Path) -> None:
    mnt = tmp_path / "proc" / str(PID) / "ns" / "mnt"
    mnt.unlink()
    mnt.symlink_to("mnt:[2]")
    (tmp_path / "proc" / str(PID) / "root").symlink_to("/")
    (probe,) = probes("uprobe|main", machine, pid=PID)
    assert probe.spec.path == f"{tmp_path}/proc/{PID}/root{tmp_path}/bin/program"


def test_usdt(machine: Machine, tmp_path: Path) -> None:
    path = f"{tmp_path}/bin/program"
    found = probes(f"usdt|{path}|app|tick", machine)
    assert [(p.name, p.spec.offset, p.spec.cookie) for p in found] == [
        (f"usdt:{path}:app:tick", 0x1001, 0),
        (f"usdt:{path}:app:tick", 0x1003, 1),
    ]
    assert [[a.text for a in p.usdt_args] for p in found] == [["-4@%edi"], ["8@%rsi"]]
    assert context_of(found[0], make_target(None, None)).usdt_args == found[0].usdt_args
    (probe,) = probes(f"usdt|{path}|start", machine)
    assert (probe.name, probe.spec.semaphore_offset) == (f"usdt:{path}:app:start", 0x2010)
    assert names(f"usdt|{path}|*", machine) == [
        f"usdt:{path}:app:start", f"usdt:{path}:app:tick", f"usdt:{path}:app:tick", f"usdt:{path}:lib:tick",
    ]  # fmt: skip
    assert names(f"usdt|{path}|l*|t*", machine) == [f"usdt:{path}:lib:tick"]
    assert names("usdt|start", machine, pid=PID) == [f"usdt:{path}:app:start"]
    assert names("usdt||app|start", machine, pid=PID) == [f"usdt:{path}:app:start"]


def test_missing_usdt(machine: Machine, tmp_path: Path) -> None:
    path = f"{tmp_path}/bin/program"
    with pytest.raises(ProbeError) as caught:
        probes(f"usdt|{path}|strat", machine)
    assert (caught.value.message, caught.value.close) == (
        f"No matches for usdt {path}:strat.",
        (f"usdt:{path}:app:start",),
    )


@pytest.mark.skipif(not have_demangler(), reason="needs libstdc++ or libc++abi")
def test_cpp_names(machine: Machine, tmp_path: Path) -> None:
    path = f"{tmp_path}/bin/program"
    both = [f"uprobe:{path}:cpp:_ZN2ns1fEi", f"uprobe:{path}:cpp:_ZN2ns1fEl"]
    assert demangle("_ZN2ns1fEi") == "ns::f(int)"
    assert demangle("_Zbroken") == "_Zbroken"
    assert names(f"uprobe|{path}|cpp|ns::f", machine) == both
    assert names(f"uprobe|{path}|cpp|ns::f(long)", machine) == both[1:]
    assert names(f"uprobe|{path}|cpp|ns*", machine) == both
    assert names(f"uprobe|{path}|cpp|main", machine) == [f"uprobe:{path}:cpp:main"]
    assert list(iter_probes(f"uprobe:{path}:cpp:*f*", None, machine=machine)) == [
        f'uprobe:{path}:cpp:"ns::f(int)"', f'uprobe:{path}:cpp:"ns::f(long)"',
    ]  # fmt: skip


# The loader's cache -------------------------------------------------------------------------------------------------


def make_cache(*entries: tuple[str, str, int], before: bytes = b"") -> bytes:
    """A cache with (key, path, flags) entries; `before` is an older cache in the same file."""
    strings, table = b"", b""
    start = 48 + 24 * len(entries)
    for key, path, flags in entries:
        at = start + len(strings)
        strings += key.encode() + b"\0" + path.encode() + b"\0"
        table += struct.pack("<iIIIQ", flags, at, at + len(key) + 1, 0, 0)
    return before + b"glibc-ld.so.cache1.1" + struct.pack("<II20x", len(entries), len(strings)) + table + strings


CACHE = make_cache(
    ("libcrypt.so.1", "/lib/libcrypt.so.1", 0x303),
    ("libc.so.6", "/lib32/libc.so.6", 0x003),
    ("libc.so.6", "/lib64/libc.so.6", 0x303),
    ("libssl.so.3", "/lib64/libssl.so.3", 0x303),
    ("libssl.so", "/lib64/libssl.so", 0x303),
)


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("libc", ["/lib64/libc.so.6"]),
        ("libc.so", ["/lib64/libc.so.6"]),
        ("libc.so.6", ["/lib64/libc.so.6"]),
        ("libssl.so", ["/lib64/libssl.so", "/lib64/libssl.so.3"]),
        ("libcrypt", ["/lib/libcrypt.so.1"]),
        ("lib", []),
        ("libcry", []),
    ],
)
def test_libraries(name: str, paths: list[str]) -> None:
    assert parse_cache(CACHE, name, "x86_64") == paths


def test_cache_formats(tmp_path: Path) -> None:
    assert parse_cache(make_cache(("libc.so.6", "/c", 0x303), before=b"ld.so-1.7.0" + bytes(5)), "libc", "x86_64") == [
        "/c"
    ]
    for data in (b"", b"glibc-ld.so.cache1.1", make_cache(("a", "b", 0))[:60]):
        with pytest.raises(FormatError):
            parse_cache(data, "libc", "x86_64")
    for cut in range(len(CACHE)):
        try:
            parse_cache(CACHE[:cut], "libc", "x86_64")
        except FormatError:
            pass


def test_library_in_a_root(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert get_library("libc", "x86_64", root) == ""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libc.so").write_text("/* a linker script */")
    (tmp_path / "lib" / "libc.so.7").write_bytes(make_elf())
    assert get_library("libc", "x86_64", root) == "/lib/libc.so.7"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "ld.so.cache").write_bytes(CACHE)
    assert get_library("libc", "x86_64", root) == "/lib/libc.so.7"  # what the cache names is not there
    (tmp_path / "lib64").mkdir()
    os.link(tmp_path / "lib" / "libc.so.7", tmp_path / "lib64" / "libc.so.6")
    assert get_library("libc", "x86_64", root) == "/lib64/libc.so.6"

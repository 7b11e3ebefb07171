"""The object of clang's with CO-RE relocations of all kinds, for the tests that compare what is made of them."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.corerelo import KINDS

HERE = Path(__file__).parent
TYPE_EXISTS, TYPE_MATCHES = KINDS.index("type_exists"), KINDS.index("type_matches")


@dataclass
class ElfObject:
    """The sections of an object, by name: (offset in the file, bytes)."""

    data: bytearray

    def sections(self) -> dict[str, tuple[int, bytes]]:
        (start,) = struct.unpack_from("<Q", self.data, 40)
        count, names = struct.unpack_from("<HH", self.data, 60)
        heads = [struct.unpack_from("<IIQQQQIIQQ", self.data, start + 64 * i) for i in range(count)]
        text = heads[names][4]
        found = {}
        for head in heads:
            name = bytes(self.data[text + head[0] : self.data.index(b"\0", text + head[0])]).decode()
            found[name] = (head[4], bytes(self.data[head[4] : head[4] + head[5]]))
        return found


@dataclass
class Relocation:
    """One record of .BTF.ext; `place` is its offset in the section."""

    section: str
    pc: int
    type_id: int
    access: str
    kind: int
    place: int


def iter_relocations(extension: bytes, types: Btf) -> Iterator[Relocation]:
    (header,) = struct.unpack_from("<I", extension, 4)
    offset, size = struct.unpack_from("<II", extension, 24)
    at, end = header + offset + 4, header + offset + size
    while at < end:
        section, count = struct.unpack_from("<II", extension, at)
        at += 8
        for _ in range(count):
            insn, type_id, access, kind = struct.unpack_from("<IIII", extension, at)
            yield Relocation(types._name(section), insn // 8, type_id, types._name(access), kind, at)
            at += 16


def compile_core(folder: Path) -> Path:
    """Compile the object; those of its questions that stand in section core/matches are made into type_matches, which clang 14 lacks."""
    clang = next((c for c in ("clang", "clang-14", "clang-15", "clang-16", "clang-19") if shutil.which(c)), "")
    if not clang or not Path("/usr/include/bpf/libbpf.h").exists():
        pytest.skip("needs clang and libbpf's headers (Debian packages clang-14, libbpf-dev)")
    made = folder / "core.o"
    include = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    source = str(HERE / "core_accesses.bpf.c")
    subprocess.run([clang, "-O2", "-g", "-target", "bpf", include, "-c", source, "-o", str(made)], check=True)
    elf = ElfObject(bytearray(made.read_bytes()))
    sections = elf.sections()
    where, extension = sections[".BTF.ext"]
    for relocation in iter_relocations(extension, Btf.from_bytes(sections[".BTF"][1])):
        if relocation.section == "core/matches" and relocation.kind == TYPE_EXISTS:
            struct.pack_into("<I", elf.data, where + relocation.place + 12, TYPE_MATCHES)
    made.write_bytes(elf.data)
    return made

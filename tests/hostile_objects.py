"""Damaged objects: how they are made, and what every decoder of objects is put through with them. `bench/fuzz_objects.py` runs many.

Only FormatError, FeatureError and ProbeError may come of one, within SECONDS and BYTES. Files in tests/hostile are those that once did something
else; each is an input and says by its name which way it takes.
"""

from __future__ import annotations

import random
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sonde.api.dataaddresses import fill_addresses
from sonde.api.objectdump import dump_object
from sonde.api.structops import StructOps
from sonde.bpf.objfile.byteorder import to_big_endian
from sonde.bpf.objfile.combine import combine_objects
from sonde.bpf.objfile.read import read_object
from sonde.bpf.objfile.write import write_object
from sonde.debuginfo.btf import Btf
from sonde.debuginfo.btfcut import cut_btf
from sonde.debuginfo.btfdump import definition
from sonde.debuginfo.btfheader import iter_header
from sonde.debuginfo.btfrecords import add_btf
from sonde.debuginfo.btfwrite import BtfWriter
from sonde.debuginfo.corerelo import resolve
from sonde.debuginfo.elf import Elf
from sonde.errors import FeatureError, FormatError, ProbeError

FOLDER = Path(__file__).parent / "hostile"
OBJECTS = Path(__file__).parent / "objects"
SECONDS = 5  # of CPU time
BYTES = 1 << 30  # of address space, beyond what the process has
REFUSALS = (FormatError, FeatureError, ProbeError)
WORDS = (0, 1, 2, 3, 7, 8, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def read(data: bytes) -> None:
    """Read an object, show it, write it again, look at its addresses and sets of programs."""
    found = read_object(data, "hostile.o")
    for line in dump_object(found, types=True):
        assert line is not None
    StructOps(found)
    try:
        write_object(found)
    except FormatError:
        pass
    fill_addresses(found, _Nowhere())  # type: ignore[arg-type]


class _Nowhere:
    """A machine that has every symbol."""

    def ksym(self, name: str) -> int:
        return 1


def link(data: bytes) -> None:
    """Link an object to a sound one, in both orders; read what comes of it."""
    good = (OBJECTS / "linked_one.o").read_bytes()
    good = to_big_endian(good) if data[5:6] == b"\2" else good
    for pair in ((good, data), (data, good)):
        try:
            made = combine_objects([(f"{n}.o", each) for n, each in enumerate(pair)])
        except FormatError:
            continue
        try:
            read_object(made)
        except FormatError:
            pass


def btf(data: bytes) -> None:
    """Decode all types, print them as C one by one and as a header, merge them with themselves, split them from themselves."""
    types = Btf.from_bytes(data)
    for ident in range(1, min(types.count_types(), 3000) + 1):
        try:
            definition(types.type_by_id(ident))
        except FormatError:
            pass
    for text in iter_header(Btf.from_bytes(data)):
        assert text
    writer = BtfWriter()
    add_btf(writer, types)
    add_btf(writer, types)
    merged = Btf.from_bytes(writer.build())
    split = BtfWriter(merged)
    add_btf(split, types)
    Btf.from_bytes(split.build(), merged).count_types()


def core(data: bytes) -> None:
    """Ask the questions of sound objects of damaged kernel types, and cut those down."""
    types = Btf.from_bytes(data)
    asked = [
        fill.core
        for name in ("attached.o", "basic.o")
        for program in read_object((OBJECTS / name).read_bytes()).programs
        for fill in program.fills
        if fill.core is not None
    ]
    for each in asked:
        try:
            resolve(each, types)
        except FormatError:
            pass
    cut_btf(types, asked)


WAYS: dict[str, Callable[[bytes], None]] = {"read": read, "link": link, "btf": btf, "core": core}


def run(way: str, data: bytes) -> None:
    """Put a file through one way; raises whatever is none of the refusals, TimeoutError where it takes too long."""
    with time_limit(SECONDS):
        try:
            WAYS[way](data)
        except REFUSALS as error:
            assert str(error)


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    old = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


def sound_files() -> list[tuple[str, bytes]]:
    """Ways with what they start from: the objects of tests/objects, and their types."""
    found: list[tuple[str, bytes]] = []
    for path in sorted(OBJECTS.glob("*.o")):
        data = path.read_bytes()
        if not path.name.startswith("linked"):  # those need each other
            found.append(("read", data))
        if not path.name.startswith("linked_one"):
            found.append(("link", data))
        if data[5] == 1:
            section = Elf(data).get_section(".BTF")
            assert section is not None
            types = data[section.offset : section.offset + section.size]
            found += [("btf", types), ("core", types)]
    return found


def damage(data: bytes, chance: random.Random) -> bytes:
    """Change a few bytes, words or pieces of a file."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(made))
        kind = chance.randrange(7)
        if kind == 0:
            made[at] = chance.randrange(256)
        elif kind == 1:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 2 and len(made) >= 8:
            struct.pack_into("<I", made, at % (len(made) - 3) & ~3, chance.choice(WORDS))
        elif kind == 3 and len(made) >= 8:
            (word,) = struct.unpack_from("<I", made, place := at % (len(made) - 3) & ~3)
            struct.pack_into("<I", made, place, word + chance.choice((-8, -1, 1, 3, 8, 24)) & 0xFFFFFFFF)
        elif kind == 4:
            size = chance.randrange(1, 64)
            other = chance.randrange(len(made))
            made[at : at + size] = made[other : other + size][: len(made) - at].ljust(min(size, len(made) - at), b"\0")
        elif kind == 5 and chance.random() < 0.1:
            del made[at:]
        elif kind == 6:
            made[at : at + 4] = bytes(len(made[at : at + 4]))
        if not made:
            return b"\0"
    return bytes(made)

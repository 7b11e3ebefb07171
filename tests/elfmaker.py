"""Makes small ELF64 files by hand, for tests of what reads them: no compiler, every byte known."""

from __future__ import annotations

import struct

VADDR = 0x400000  # of the first byte of the file, plus PIE_BIAS of nothing: ET_EXEC addresses
TEXT_BYTES = 0x100
DATA_VADDR = 0x600000


def note(owner: bytes, kind: int, data: bytes) -> bytes:
    """One note, padded to 4 bytes."""
    name = owner + b"\0"
    return struct.pack("<III", len(name), len(data), kind) + _pad(name) + _pad(data)


def stapsdt(provider: str, name: str, args: str, pc: int, base: int = 0, semaphore: int = 0) -> bytes:
    """One USDT note."""
    strings = b"".join(s.encode() + b"\0" for s in (provider, name, args))
    return note(b"stapsdt", 3, struct.pack("<QQQ", pc, base, semaphore) + strings)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class Symbols:
    """A symbol table in the making. Strings are shared where one is the tail of another, as linkers do."""

    def __init__(self) -> None:
        self.entries = bytes(24)
        self.strings = b"\0"
        self.versions = bytes(2)

    def add(
        self, name: str, value: int, size: int, kind: int = 2, binding: int = 1, section: int = 1, hidden: bool = False
    ) -> None:
        wanted = name.encode() + b"\0"
        at = self.strings.find(wanted)
        if at < 0:
            at = len(self.strings)
            self.strings += wanted
        self.entries += struct.pack("<IBBHQQ", at, binding << 4 | kind, 0, section, value, size)
        self.versions += struct.pack("<H", 2 | (0x8000 if hidden else 0))


def make_elf(
    *,
    symtab: Symbols | None = None,
    dynsym: Symbols | None = None,
    notes: bytes = b"",
    base_vaddr: int = 0,
    build_id: bytes = b"",
    debug_link: tuple[bytes, int] | None = None,
    debugdata: bytes = b"",
    kind: int = 2,
    machine: int = 62,
) -> bytes:
    """Assemble a file: headers, 256 bytes of code at VADDR + 0x1000, 64 bytes of data at DATA_VADDR + 0x2000, the rest."""
    body = bytearray(0x1000) + bytearray(b"\xcc" * TEXT_BYTES)
    body += bytes(0x2000 - len(body)) + bytes(64)
    headers = [("", (0,) * 9)]

    def section(
        name: str, type_: int, data: bytes, *, flags: int = 0, addr: int = 0, link: int = 0, align: int = 4
    ) -> int:
        body.extend(bytes(-len(body) % 8))
        headers.append(
            (name, (type_, flags, addr, len(body), len(data), link, 0, align, 24 if type_ in (2, 11) else 0))
        )
        body.extend(data)
        return len(headers) - 1

    headers.append((".text", (1, 6, VADDR + 0x1000, 0x1000, TEXT_BYTES, 0, 0, 16, 0)))
    headers.append((".data", (1, 3, DATA_VADDR + 0x2000, 0x2000, 64, 0, 0, 8, 0)))
    for name, strings, table, type_ in ((".symtab", ".strtab", symtab, 2), (".dynsym", ".dynstr", dynsym, 11)):
        if table:
            link = section(strings, 3, table.strings)
            section(name, type_, table.entries, link=link, align=8)
    if dynsym:
        section(".gnu.version", 0x6FFFFFFF, dynsym.versions)
    if notes:
        section(".note.stapsdt", 7, notes)
    if base_vaddr:
        section(".stapsdt.base", 1, b"\0", addr=base_vaddr)
    if build_id:
        section(".note.gnu.build-id", 7, note(b"GNU", 3, build_id))
    if debug_link:
        section(".gnu_debuglink", 1, _pad(debug_link[0] + b"\0") + struct.pack("<I", debug_link[1]))
    if debugdata:
        section(".gnu_debugdata", 1, debugdata)
    return _finish(body, headers, section, kind, machine)


def _finish(body: bytearray, headers: list, section: object, kind: int, machine: int) -> bytes:  # type: ignore[type-arg]
    names = b"\0"
    offsets = []
    for name, _ in [*headers, (".shstrtab", ())]:
        offsets.append(len(names) if name else 0)
        names += name.encode() + b"\0" if name else b""
    section(".shstrtab", 3, names)  # type: ignore[operator]
    body.extend(bytes(-len(body) % 8))
    table = len(body)
    for offset, (_, values) in zip(offsets, headers):
        body += struct.pack("<IIQQQQIIQQ", offset, *values)
    loads = [(1, 5, 0, VADDR, 0x1100), (1, 6, 0x2000, DATA_VADDR + 0x2000, 64)]
    programs = b"".join(struct.pack("<IIQQQQQQ", t, f, o, v, v, s, s, 0x1000) for t, f, o, v, s in loads)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack(
        "<HHIQQQIHHHHHH", kind, machine, 1, VADDR + 0x1000, 64, table, 0, 64, 56, 2, 64, len(headers), len(headers) - 1
    )
    body[: 64 + len(programs)] = ident + head + programs
    return bytes(body)

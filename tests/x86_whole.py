"""Replaces the entry of every function of the libraries in this very process, works on, and takes all of it out again.

With two numbers as its arguments, windows at random instructions in place of the entries: a seed, and in how many instructions there is one.
A program of its own (`python tests/x86_whole.py [SEED EVERY]`), as what it does may kill it. Each trampoline counts its function's calls and then does what the window says. Prints a line of JSON:
for each library how many functions were replaced in which way and how many were called, and what went wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import random
import struct
import sys
import threading
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from sonde.debuginfo.elf import PT_LOAD, Elf
from sonde.debuginfo.x86length import measure
from sonde.user.x86.relocate import relocate
from sonde.user.x86.text import Text
from sonde.user.x86.window import Window

PAGE = 4096
AREA_BYTES = 16 << 20
MAP_FIXED_NOREPLACE = 0x100000
_libc = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def map_at(address: int, size: int) -> bool:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    found = _libc.mmap(address, size, 7, flags, -1, 0)
    if found == address:
        return True
    if found not in (None, (1 << 64) - 1):  # a kernel that does not know the flag
        _libc.munmap(ctypes.c_void_p(found), ctypes.c_size_t(size))
    return False


class Library:
    """One mapped file with its trampolines."""

    def __init__(self, path: str, first: int, end: int) -> None:
        self.path, self.elf = path, Elf.open(path)
        self.bias = first - min(s.vaddr & -PAGE for s in self.elf.segments if s.type == PT_LOAD)
        self.area = next(a for a in range((end + (1 << 24)) & -PAGE, end + (1 << 30), 1 << 24) if map_at(a, AREA_BYTES))
        self.at = self.area + AREA_BYTES // 8  # counters come first
        self.kinds: Counter[str] = Counter()
        self.patches: list[tuple[int, bytes]] = []  # address, bytes to write

    def plan(self, chance: random.Random | None) -> None:
        """Make a trampoline for each function, or with `chance` for instructions in it."""
        text = Text(self.elf)
        symbols = list(self.elf.iter_functions())
        # This thread is inside of pwrite when it replaces code there; nobody moves its program counter.
        busy = {symbol.vaddr for symbol in symbols if "pwrite" in symbol.name} if chance else set()
        sizes = {symbol.vaddr: symbol.size for symbol in symbols if symbol.size and symbol.vaddr not in busy}
        taken = 0
        for vaddr in sorted(sizes):
            for place in self._places(vaddr, sizes[vaddr], chance) if chance else [vaddr]:
                if (
                    place < taken or self.at > self.area + AREA_BYTES - PAGE
                ):  # two names a few bytes apart, no room left
                    continue
                window = text.plan(place)
                jump, kind = self._jump(window)
                self.kinds[kind] += 1
                if jump:
                    self.patches.append((window.addr + self.bias, jump))
                    taken = window.addr + max(window.keep, window.length)

    def _places(self, vaddr: int, size: int, chance: random.Random) -> list[int]:
        """Return some instructions of a function."""
        every = int(sys.argv[2])
        offset = self.elf.get_offset(vaddr)
        body = bytes(self.elf.data[offset : offset + size])
        places, at = [], 0
        with contextlib.suppress(IndexError):
            while at < size:
                if chance.random() * every < 1:
                    places.append(vaddr + at)
                at += measure(body, at)
        return places

    def _jump(self, window: Window) -> tuple[bytes, str]:
        """Return the bytes to write, and how the function was served."""
        addr = window.addr + self.bias
        if window.kind in ("nop", "relocated"):
            start = self.at
            self.at += self._write(start, window)
            return b"\xe9" + struct.pack("<i", start - addr - 5), window.kind
        for pun in window.puns:
            for start in range(pun.low + self.bias, pun.low + self.bias + min(pun.size, 16 * PAGE), PAGE):
                if (start & -PAGE) > 0x10000 and start < 1 << 47 and map_at(start & -PAGE, 2 * PAGE):
                    self._write(start, window)
                    head = len(pun.prefix) + 5
                    jump = pun.prefix + b"\xe9" + struct.pack("<i", start - addr - head)
                    return jump[: window.patch], "punned"
        return b"", "none" if window.kind == "none" else "not served"

    def _write(self, start: int, window: Window) -> int:
        """Write a trampoline: skip the red zone, keep the flags, count; then what the window held. Returns the bytes it takes."""
        counter = self.area + 8 * sum(self.kinds.values())
        code = bytes.fromhex("488d642480 9c 50 48b8") + struct.pack(
            "<Q", counter
        )  # lea -128(%rsp), %rsp; pushf; push %rax; movabs
        code += bytes.fromhex("48ff00 58 9d 488da42480000000")  # incq (%rax); pop; popf; lea
        code += relocate(window.code, window.addr + self.bias, start + len(code), patch=window.patch).code
        ctypes.memmove(start, code, len(code))
        return len(code) + 15 & -16

    def counts(self) -> list[int]:
        return list(struct.unpack(f"<{AREA_BYTES // 64}Q", ctypes.string_at(self.area, AREA_BYTES // 8)))


def find_libraries() -> list[Library]:
    bounds: dict[str, list[int]] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and ".so" in fields[5] and "/lib" in fields[5] and "python" not in fields[5]:
            low, high = (int(part, 16) for part in fields[0].split("-"))
            known = bounds.setdefault(fields[5], [low, high])
            known[1] = high
    return [Library(path, *found) for path, found in sorted(bounds.items())]


def work() -> str:
    """Use as many functions of these libraries as can be done in a second, and return what came out."""
    import hashlib
    import zlib

    found = []
    data = random.Random(1).randbytes(100_000)
    for name in sorted(hashlib.algorithms_available):
        with contextlib.suppress(ValueError):
            digest = hashlib.new(name, data)
            found.append(digest.hexdigest(16) if digest.digest_size == 0 else digest.hexdigest())
    found.append(hashlib.scrypt(b"x", salt=b"y", n=64, r=8, p=1).hex())
    found.append(hashlib.pbkdf2_hmac("sha512", b"x", b"y", 1000).hex())
    found.append(str(zlib.crc32(zlib.decompress(zlib.compress(data)))))
    with contextlib.suppress(ImportError):
        import ssl

        context = ssl.create_default_context()
        found.append(str(len(context.get_ciphers())))
        left, right = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(left, right, server_hostname="example.org").do_handshake()
        found.append(str(right.pending > 100))
    threads = [threading.Thread(target=lambda: found.sort()) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    found.append(str(os.waitpid(pid, 0)[1]))
    found.append(os.popen("echo from a shell").read())
    found.append(f"{float('1.5') ** 0.5:.17g} {sorted(os.listdir('/proc/self/task')) != []} {2.0**0.5!r}")
    with open("/proc/self/status") as status:
        found.append(str(len(status.readlines()) > 10))
    import decimal
    import locale
    import socket

    a, b = socket.socketpair()
    a.sendall(b"hello")
    found += [b.recv(5).decode(), locale.setlocale(locale.LC_ALL, "C"), str(decimal.Decimal(2).sqrt())]
    a.close()
    b.close()
    return "\n".join(found)


def main() -> None:
    import hashlib

    hashlib.new("sha1")  # what is loaded late is loaded now
    for name in ("libstdc++.so.6", "libm.so.6"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
    chance = random.Random(int(sys.argv[1])) if len(sys.argv) > 1 else None
    before = work()
    libraries = find_libraries()
    for library in libraries:
        library.plan(chance)
    memory = os.open("/proc/self/mem", os.O_RDWR)
    patches = [patch for library in libraries for patch in library.patches]
    originals = [os.pread(memory, len(jump), addr) for addr, jump in patches]
    wrong = []
    for addr, jump in patches:
        os.pwrite(memory, jump, addr)
    try:
        after = work()
    finally:
        for (addr, _), original in zip(patches, originals):
            os.pwrite(memory, original, addr)
    if after != before:
        wrong.append(f"the same work had another result: {before!r} {after!r}"[:2000])
    for library in libraries:
        for segment in library.elf.segments:
            if segment.type == PT_LOAD and segment.flags & 1:
                file = bytes(library.elf.data[segment.offset : segment.offset + segment.file_size])
                if os.pread(memory, len(file), segment.vaddr + library.bias) != file:
                    wrong.append(f"{library.path} is not as it was")
    result = {
        Path(lib.path).name: {**lib.kinds, "called": sum(n > 0 for n in lib.counts()), "calls": sum(lib.counts())}
        for lib in libraries
    }
    print(json.dumps({"libraries": result, "wrong": wrong}))


if __name__ == "__main__":
    main()

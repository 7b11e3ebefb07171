"""Debian kernels as test fixtures: find, fetch, unpack and cache them by series, never install them.

An apt configuration of our own (own lists, the mirror's address taken from this machine's sources) leaves the machine's
apt untouched. What comes out for each series: the bzImage, the uncompressed ELF vmlinux (boots faster by PVH), its modules, and
its BTF, which is a fixture for compiling that needs no boot.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SUITES = {
    "bookworm": "debian",
    "bookworm-backports": "debian",
    "bookworm-security": "debian-security",
    "bullseye-security": "debian-security",
    "trixie-backports": "debian",
}
DEFAULT_SERIES = ("5.10", "6.1", "6.12", "6.18")
FULL_SERIES = ("5.10", "6.1", "6.12", "6.18", "7.2")


class KernelUnavailable(Exception):
    """No such kernel in the cache and none to be fetched; the message says why."""


@dataclass(frozen=True)
class Kernel:
    """One unpacked kernel. `release` is what `uname -r` says in the guest."""

    series: str
    release: str
    package: str
    root: Path

    @property
    def bzimage(self) -> Path:
        return self.root / "bzimage"

    @property
    def vmlinux(self) -> Path:
        return self.root / "vmlinux"

    @property
    def btf(self) -> Path:
        return self.root / "vmlinux.btf"

    @property
    def modules(self) -> Path:
        for lib in ("lib", "usr/lib"):
            path = self.root / lib / "modules" / self.release
            if path.is_dir():
                return path
        raise KernelUnavailable(f"{self.package} has no modules directory")


def cache_dir() -> Path:
    """Return the cache directory ($SONDE_TEST_CACHE, or sonde/kernels in the user's cache), made if necessary."""
    base = os.environ.get("SONDE_TEST_CACHE")
    path = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sonde" / "kernels"
    path.mkdir(parents=True, exist_ok=True)
    return path


def get_kernel(series: str) -> Kernel:
    """Return the newest cloud kernel of a series ("6.1"), from the cache or from Debian; raises KernelUnavailable."""
    root = cache_dir() / series
    if not (root / "release").exists():
        _fetch(series, root)
    release, package = (root / "release").read_text().split()
    return Kernel(series, release, package, root)


def get_headers(kernel: Kernel) -> Path:
    """Return a tree with the headers that Debian packages for a kernel, as BCC_KERNEL_SOURCE wants it; raises KernelUnavailable.

    Debian has them in two packages, for all flavours and for one; here they are one tree.
    """
    root = cache_dir() / f"{kernel.series}-headers"
    tree = root / kernel.release
    if not tree.is_dir():
        apt = _AptConfig(cache_dir() / "apt")
        flavour = f"linux-headers-{kernel.release}"
        common = flavour.removesuffix("-amd64").removesuffix("-cloud") + "-common"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for package in (common, flavour):
            deb = apt.download(package, root)
            _run(["dpkg", "-x", str(deb), str(root)])
            deb.unlink()
            for part in ("arch/x86", "include"):
                shutil.copytree(root / "usr/src" / package / part, root / "partial" / part, dirs_exist_ok=True)
        for rest in ("usr", "lib"):
            shutil.rmtree(root / rest)
        (root / "partial").rename(tree)
    return tree


def _fetch(series: str, root: Path) -> None:
    for tool in ("apt-get", "dpkg", "apt-cache"):
        if not shutil.which(tool):
            raise KernelUnavailable(f"kernel {series} is not in {cache_dir()} and {tool} is not here to fetch it")
    apt = _AptConfig(cache_dir() / "apt")
    package = apt.find_kernel(series)
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for part in apt.parts(package):
        deb = apt.download(part, partial)
        _run(["dpkg", "-x", str(deb), str(partial)])
        deb.unlink()
    # Up to 7.1 the image is boot/vmlinuz-RELEASE; since then usr/lib/modules/RELEASE/vmlinuz.
    images = [*partial.glob("boot/vmlinuz-*"), *partial.glob("usr/lib/modules/*/vmlinuz")]
    if not images:
        raise KernelUnavailable(f"{package} holds no kernel image")
    image = images[0]
    release = image.parent.name if image.name == "vmlinuz" else image.name.removeprefix("vmlinuz-")
    image.rename(partial / "bzimage")
    vmlinux = extract_vmlinux((partial / "bzimage").read_bytes())
    (partial / "vmlinux").write_bytes(vmlinux)
    (partial / "vmlinux.btf").write_bytes(elf_section(vmlinux, b".BTF"))
    (partial / "release").write_text(f"{release} {package}\n")
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)


class _AptConfig:
    """A private apt: its own sources, lists and cache below `base`."""

    def __init__(self, base: Path) -> None:
        for sub in ("lists/partial", "cache/archives/partial", "etc"):
            (base / sub).mkdir(parents=True, exist_ok=True)
        (base / "status").touch()
        sources = base / "etc" / "sources.list"
        mirrors = _mirrors()
        key = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
        signed = f"[signed-by={key}] " if key.exists() else ""
        sources.write_text("".join(f"deb {signed}{mirrors[a]} {s} main\n" for s, a in SUITES.items()))
        options = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": base / "lists",
            "Dir::Cache": base / "cache",
            "Dir::State::status": base / "status",
            "APT::Architecture": "amd64",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        self.options = [word for k, v in options.items() for word in ("-o", f"{k}={v}")]
        # A suite that is gone must not hide the others: apt's own exit status is not looked at here.
        subprocess.run(["apt-get", *self.options, "update"], capture_output=True, timeout=300)

    def find_kernel(self, series: str) -> str:
        """Return the package name of the newest cloud kernel of `series`."""
        names = _run(["apt-cache", *self.options, "pkgnames", f"linux-image-{series}."]).split()
        pattern = re.compile(rf"linux-image-{re.escape(series)}\.[0-9][^ ]*-cloud-amd64$")
        found = [n for n in names if pattern.match(n) and "rt" not in n.split("-")]
        if not found:
            raise KernelUnavailable(f"Debian's archive offers no cloud kernel of series {series}")
        return max(found, key=lambda n: [int(x) for x in re.findall(r"\d+", n)])

    def parts(self, package: str) -> list[str]:
        """Return the packages that make up a kernel: one up to 7.1; image, binary and modules since."""
        depends = _run(["apt-cache", *self.options, "depends", package])
        return [package, *re.findall(r"Depends: (linux-(?:binary|modules)-\S+)", depends)]

    def download(self, package: str, where: Path) -> Path:
        """Download `package` into `where`."""
        done = subprocess.run(
            ["apt-get", *self.options, "download", package], cwd=where, capture_output=True, text=True
        )
        debs = list(where.glob("*.deb"))
        if done.returncode or not debs:
            raise KernelUnavailable(f"cannot download {package}: {done.stderr.strip()[-300:]}")
        return debs[0]


def _mirrors() -> dict[str, str]:
    """Return the archive addresses by archive name, as this machine's own sources give them."""
    found: dict[str, str] = {}
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.*"))]:
        if path.suffix not in (".list", ".sources") or not path.exists():
            continue
        text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        for url in re.findall(r"https?://[^\s\]]+/debian(?:-security)?(?=[/\s]|$)", text):
            found.setdefault(url.rsplit("/", 1)[1], url)
    for archive in set(SUITES.values()):
        if archive not in found:
            if not found:
                raise KernelUnavailable("no Debian mirror in this machine's apt sources")
            found[archive] = next(iter(found.values())).rsplit("/", 1)[0] + "/" + archive
    return found


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise KernelUnavailable(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def extract_vmlinux(image: bytes) -> bytes:
    """Return the ELF vmlinux inside a bzImage (xz, gzip, zstd, lz4 or bzip2 payload)."""
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(payload)
    if payload[:2] == b"\x1f\x8b":
        return gzip.decompress(payload[:-4])
    if payload[:3] == b"BZh":
        return bz2.BZ2Decompressor().decompress(payload)
    for magic, tool in ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\x02\x21\x4c\x18", "lz4")):
        if payload[:4] == magic:
            if not shutil.which(tool):
                raise KernelUnavailable(f"the kernel image is packed with {tool}, which is not installed")
            done = subprocess.run(
                [tool, "-dc"], input=payload, capture_output=True
            )  # trailing size word: ignore errors
            if done.stdout[:4] == b"\x7fELF":
                return done.stdout
    raise KernelUnavailable(f"unknown compression of the kernel image (magic {payload[:6].hex()})")


def elf_section(elf: bytes, name: bytes) -> bytes:
    """Return the bytes of a section of a 64-bit little-endian ELF file."""
    shoff = struct.unpack_from("<Q", elf, 0x28)[0]
    shentsize, shnum, shstrndx = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, shoff + i * shentsize) for i in range(shnum)]
    strings = headers[shstrndx][4]
    for header in headers:
        start = strings + header[0]
        if elf[start : elf.index(b"\0", start)] == name:
            return elf[header[4] : header[4] + header[5]]
    raise KernelUnavailable(f"the kernel has no section {name.decode()}")

"""Builds the guest's first file system: busybox, the modules that the kernel lacks built in, and an init script.

The modules' order is read from their own `.modinfo` sections, so that no depmod is needed; they are stored decompressed.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .kernels import Kernel, KernelUnavailable, elf_section

WANTED = ("virtio_pci", "virtio_console", "virtiofs", "overlay")

INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /host /over /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for m in $(/bin/busybox cat /modules.order); do /bin/busybox insmod /modules/$m || echo "insmod $m failed"; done
/bin/busybox mount -t virtiofs host /host || echo "mounting the host's files failed"
/bin/busybox mount -t tmpfs over /over
/bin/busybox mkdir -p /over/up /over/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/over/up,workdir=/over/work over /new || echo "overlay failed"
for d in proc sys dev; do /bin/busybox mount --move /$d /new/$d; done
/bin/busybox mount -t tmpfs run /new/run
/bin/busybox mount -t tracefs trace /new/sys/kernel/tracing
/bin/busybox mount -t debugfs debug /new/sys/kernel/debug
/bin/busybox mount -t bpf bpf /new/sys/fs/bpf
/bin/busybox mount -t securityfs sec /new/sys/kernel/security
/bin/busybox mount -t tmpfs cg /new/sys/fs/cgroup 2>/dev/null
/bin/busybox mount -t cgroup2 cg /new/sys/fs/cgroup
/bin/busybox mkdir -p /new/dev/shm /new/dev/pts
/bin/busybox mount -t tmpfs shm /new/dev/shm
/bin/busybox mount -t devpts pts /new/dev/pts
/bin/busybox ln -s /proc/self/fd /new/dev/fd
for n in 0:stdin 1:stdout 2:stderr; do /bin/busybox ln -s /proc/self/fd/${n%:*} /new/dev/${n#*:}; done
/bin/busybox ifconfig lo 127.0.0.1 up 2>/dev/null
/bin/busybox hostname guest
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
exec /bin/busybox switch_root /new $SONDE_PYTHON -u $SONDE_AGENT
"""


def build_initramfs(kernel: Kernel, python: str, agent: str) -> bytes:
    """Return a cpio archive that ends in the agent at path `agent` of the host's files, run by `python`."""
    busybox = shutil.which("busybox")
    if not busybox or not _is_static(Path(busybox)):
        raise KernelUnavailable("the test VM needs a static busybox (Debian package busybox-static)")
    modules = module_closure(kernel, WANTED)
    script = INIT.replace("$SONDE_PYTHON", python).replace("$SONDE_AGENT", agent)
    archive = _Cpio()
    for name in ("bin", "modules"):
        archive.add(name, b"", 0o040755)
    archive.add("bin/busybox", Path(busybox).read_bytes(), 0o100755)
    archive.add("init", script.encode(), 0o100755)
    archive.add("modules.order", "\n".join(p.name.split(".ko")[0] + ".ko" for p in modules).encode() + b"\n", 0o100644)
    for path in modules:
        archive.add("modules/" + path.name.split(".ko")[0] + ".ko", _decompress(path), 0o100644)
    return archive.finish()


def _is_static(path: Path) -> bool:
    data = path.read_bytes()
    return b"/ld-linux" not in data[:4096]


def _decompress(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    return data


def module_closure(kernel: Kernel, names: Sequence[str]) -> list[Path]:
    """Return the files of these modules and of what they depend on, dependencies first; built-in ones are left out."""
    files = {p.name.split(".ko")[0].replace("-", "_"): p for p in kernel.modules.rglob("*.ko*")}
    order: list[Path] = []

    def visit(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        info = elf_section(_decompress(path), b".modinfo").split(b"\0")
        for item in info:
            if item.startswith(b"depends=") and item != b"depends=":
                for dependency in item[8:].decode().split(","):
                    visit(dependency)
        order.append(path)

    for name in names:
        visit(name)
    return order


class _Cpio:
    """A writer of the "newc" cpio format."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def add(self, name: str, data: bytes, mode: int) -> None:
        self._inode += 1
        fields = [self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        header = b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
        self._parts += [header, b"\0" * (-len(header) % 4), data, b"\0" * (-len(data) % 4)]

    def finish(self) -> bytes:
        self.add("TRAILER!!!", b"", 0)
        return b"".join(self._parts)

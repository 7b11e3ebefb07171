"""A QEMU guest with a Debian kernel and the host's files: boot once, run many commands.

Software emulation, so that it works wherever QEMU does. The host's root is shared read-only by virtiofs, with a tmpfs
overlay above it: the guest sees this checkout, this Python and these tools, and can break nothing.
Trap: the share caches. A file that the guest once found missing stays missing for it, so send new code with the request.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .initramfs import build_initramfs
from .kernels import Kernel, KernelUnavailable

VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
BOOT_LIMIT_S = 120.0


class GuestDied(Exception):
    """The guest panicked, hung or went away; carries the tail of its console."""


@dataclass(frozen=True)
class Result:
    """How a command in the guest ended."""

    status: int
    out: str
    err: str
    timed_out: bool = False


def missing_tool() -> str:
    """Return what this machine lacks to run guests ("" when nothing)."""
    if os.uname().machine != "x86_64":
        return "an x86-64 machine"
    if not shutil.which("qemu-system-x86_64"):
        return "qemu-system-x86_64 (Debian package qemu-system-x86)"
    if not any(os.path.exists(p) for p in VIRTIOFSD):
        return "virtiofsd (Debian package qemu-system-common)"
    if not shutil.which("busybox"):
        return "busybox (Debian package busybox-static)"
    if os.geteuid() != 0:
        return "root, for virtiofsd to share the file system"
    return ""


class Guest:
    """One running guest. Use as a context manager, or call `close`."""

    def __init__(self, kernel: Kernel, *, cpus: int = 1, memory_mib: int = 1024, append: str = "", kaslr: bool = False):
        self.kernel = kernel
        self._dir = Path(tempfile.mkdtemp(prefix="sonde-vm-"))
        self._console = self._dir / "console"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._buffer = b""
        try:
            self._start(cpus, memory_mib, append, kaslr)
            ready = self._read_reply(BOOT_LIMIT_S)
            self.release: str = ready["ready"]
        except BaseException:
            self.close()
            raise

    def _start(self, cpus: int, memory_mib: int, append: str, kaslr: bool) -> None:
        initrd = self._dir / "initrd"
        agent = Path(__file__).with_name("agent.py").resolve()
        initrd.write_bytes(build_initramfs(self.kernel, os.path.realpath(sys.executable), str(agent)))
        share = self._dir / "share"
        daemon = next(p for p in VIRTIOFSD if os.path.exists(p))
        command = [daemon, f"--socket-path={share}", "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot",
                   "--rlimit-nofile=0", "-f"]  # fmt: skip
        self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self._wait_for(share)
        self._requests, requests_theirs = socket.socketpair()
        self._replies, replies_theirs = socket.socketpair()
        theirs = {"requests": requests_theirs, "replies": replies_theirs}
        image = self.kernel.bzimage if kaslr else self.kernel.vmlinux
        command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-M", "q35",
                   "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(cpus), "-m", str(memory_mib), "-no-reboot",
                   "-kernel", str(image), "-initrd", str(initrd),
                   "-append", f"console=ttyS0 panic=-1 oops=panic quiet {append}",
                   "-serial", f"file:{self._console}",
                   "-object", f"memory-backend-memfd,id=mem,size={memory_mib}M,share=on", "-numa", "node,memdev=mem",
                   "-chardev", f"socket,id=share,path={share}", "-device", "vhost-user-fs-pci,chardev=share,tag=host",
                   "-device", "virtio-serial-pci"]  # fmt: skip
        for name, end in theirs.items():
            command += ["-chardev", f"socket,id={name},fd={end.fileno()}",
                        "-device", f"virtserialport,chardev={name},name={name}"]  # fmt: skip
        log = (self._dir / "qemu.log").open("wb")
        fds = [end.fileno() for end in theirs.values()]
        self._processes.append(subprocess.Popen(command, pass_fds=fds, stdout=log, stderr=log))
        log.close()
        for end in theirs.values():
            end.close()

    def _wait_for(self, path: Path) -> None:
        end = time.monotonic() + 10
        while not path.exists():
            if time.monotonic() > end or self._processes[0].poll() is not None:
                raise KernelUnavailable("virtiofsd does not start here")
            time.sleep(0.01)

    def run(self, argv: list[str], *, timeout_s: float = 60, **request: Any) -> Result:
        """Run a command; `env`, `cwd` and `stdin` may be given."""
        return self._request({"argv": argv, "timeout": timeout_s, **request}, timeout_s)

    def python(self, source: str, *, timeout_s: float = 60, **request: Any) -> Result:
        """Run Python source in a fork of the warmed agent; `path` and `args` become sys.path entries and sys.argv."""
        return self._request({"python": source, "timeout": timeout_s, **request}, timeout_s)

    def _request(self, request: dict[str, Any], timeout_s: float) -> Result:
        self._requests.sendall(json.dumps(request).encode() + b"\n")
        reply = self._read_reply(timeout_s + 30)
        out, err = (base64.b64decode(reply[k]).decode(errors="replace") for k in ("out", "err"))
        return Result(reply["status"], out, err, reply["timeout"])

    def _read_reply(self, limit_s: float) -> dict[str, Any]:
        end = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._replies], [], [], 0.2)
            data = self._replies.recv(1 << 20) if ready else None
            if data:
                self._buffer += data
            elif data == b"" or self._processes[-1].poll() is not None or time.monotonic() > end:
                raise GuestDied(f"the guest {self.kernel.release} does not answer; its console ends:\n{self.console()}")
        line, self._buffer = self._buffer.split(b"\n", 1)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def console(self, lines: int = 40) -> str:
        """Return the last lines of the guest's console and of QEMU's own messages."""
        text = ""
        for path in (self._dir / "qemu.log", self._console):
            if path.exists():
                text += path.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """Stop the guest and remove its files; harmless when repeated."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes.clear()
        for name in ("_requests", "_replies"):
            if hasattr(self, name):
                getattr(self, name).close()
        shutil.rmtree(self._dir, ignore_errors=True)

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

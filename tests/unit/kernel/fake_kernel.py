"""A kernel for tests: answers bpf(2) and perf_event_open(2) with descriptors of /dev/null, refuses what it is told to."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from sonde.kernel import abi, syscall

GIVES_DESCRIPTOR = frozenset(
    [
        abi.BPF_MAP_CREATE,
        abi.BPF_PROG_LOAD,
        abi.BPF_LINK_CREATE,
        abi.BPF_RAW_TRACEPOINT_OPEN,
        abi.BPF_BTF_LOAD,
        abi.BPF_ITER_CREATE,
    ]
)


class FakeKernel:
    """Put `enter` in the place of `syscall.enter`.

    `refuse` maps the ordinal of a call to the errno that it gets; `refuse_always` maps commands ("bpf 28", "perf", "ioctl")
    to an errno for each such call. `calls` lists what was asked.
    """

    def __init__(self, machine: str = "x86_64") -> None:
        self.refuse: dict[int, int] = {}
        self.refuse_always: dict[str, int] = {}
        self.calls: list[str] = []
        self.log = b""
        self.bpf, self.perf, self.ioctl = syscall.NUMBERS[os.uname().machine]

    def enter(self, number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
        name = {self.bpf: f"bpf {a}", self.perf: "perf", self.ioctl: "ioctl"}[number]
        ordinal = len(self.calls)
        self.calls.append(name)
        refused = self.refuse.get(ordinal) or self.refuse_always.get(name, 0)
        if number == self.bpf and a == abi.BPF_PROG_LOAD and refused:
            self._write_log(b)
        if refused:
            return -refused
        if number == self.perf or (number == self.bpf and a in GIVES_DESCRIPTOR):
            return os.open("/dev/null", os.O_RDONLY)
        if number == self.bpf and a in (abi.BPF_MAP_LOOKUP_BATCH, abi.BPF_MAP_GET_NEXT_KEY, abi.BPF_MAP_LOOKUP_ELEM):
            return -errno.ENOENT
        return 0

    def _write_log(self, attr: int) -> None:
        packed = ctypes.string_at(attr, abi.PROG_LOAD.size)
        size, where = struct.unpack_from("=IQ", packed, 28)
        if size:
            ctypes.memmove(where, self.log + b"\0", min(len(self.log) + 1, size))


def open_descriptors() -> set[str]:
    """Return the descriptors of this process, to see what was left open."""
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}

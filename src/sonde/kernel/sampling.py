"""Samples of one process's threads, taken by the kernel and handed to us: for engines that run programs themselves.

A perf event on each thread (profile, software and hardware events, watchpoints) writes what a program may ask for into a ring: thread, time, registers, the stack
by frame pointers. Only user space is sampled, which everybody may do to processes of their own (kernel.perf_event_paranoid up to 2).
"""

from __future__ import annotations

import select
from errno import EINVAL, ESRCH
from struct import Struct, pack_into

from ..debuginfo.procmaps import list_threads
from ..debuginfo.ptregs import get_ptregs
from ..errors import FeatureError, KernelError, ProbeError, TargetError
from ..spec.engine import Sample
from . import abi
from .attach.counter import EVENTS, HINTS, TYPES
from .attach.watchpoint import HINTS as WATCH_HINTS
from .attach.watchpoint import MODES
from .perfbuf import Ring
from .refusal import attach_refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..spec.object import ProbeSpec

RING_BYTES = 1 << 15  # of each thread: some hundred samples
STACK_BYTES, STACK_RING_BYTES = (
    8192,
    1 << 17,
)  # of a stack that is copied; of each thread: some dozen samples with stacks
_IP, _TID, _TIME, _ADDR, _CALLCHAIN, _CPU, _PERIOD, _REGS_USER, _STACK_USER = (
    1 << n for n in (0, 1, 2, 3, 5, 7, 8, 12, 13)
)
_SAMPLE_TYPE = _IP | _TID | _TIME | _ADDR | _CPU | _PERIOD | _CALLCHAIN | _REGS_USER
_EXCLUDE_KERNEL, _EXCLUDE_HV, _EXCLUDE_CALLCHAIN_KERNEL, _USE_CLOCKID = (1 << n for n in (5, 6, 21, 25))
_REGS_AT, _STACK_AT, _CLOCK_AT = (
    80,
    88,
    92,
)  # of sample_regs_user, sample_stack_user and clockid in struct perf_event_attr
_CLOCK_MONOTONIC = 1  # a clock that may be read in an NMI, as breakpoints do
_RECORD_SAMPLE = 9
_CONTEXT = -4096 & (1 << 64) - 1  # what is above in a call chain says whose addresses follow
_HEAD = Struct("<QIIQQIIQQ")  # ip, pid, tid, time, addr, cpu, reserved, period, length of the chain
_HEADER_BYTES = 8

# The registers in the order of arch/x86/include/uapi/asm/perf_regs.h, by their names in pt_regs; "": not in it.
_ORDER = {
    "x86_64": (
        "ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip", "flags", "cs", "ss", "", "", "", "",
        *(f"r{n}" for n in range(8, 16)),
    ),
    "aarch64": (*(f"r{n}" for n in range(31)), "sp", "pc"),
}  # fmt: skip


class Sampler:
    """Samples the threads of `probe.pid`. New threads are sampled from the next `look` on. Raises AttachError, PrivilegeError, ProbeError, TargetError."""

    def __init__(self, probe: ProbeSpec, arch: str, *, stacks: bool = False) -> None:
        """`stacks`: each sample has a copy of the stack, from the stack pointer on."""
        layout = get_ptregs(arch)
        if arch not in _ORDER or layout is None:
            raise FeatureError(f"samples of {arch} are not known here", feature="arch")
        self.probe = probe
        self._order = [(bit, layout.get_offset(name)) for bit, name in enumerate(_ORDER[arch]) if name]
        self._regs_bytes = 8 * len(layout.names)
        self._stacks = stacks
        self._attr = _attr_of(probe, sum(1 << bit for bit, _ in self._order), STACK_BYTES if stacks else 0)
        self._rings: dict[int, Ring] = {}
        self._epoll = select.epoll()
        self.lost = 0  # samples that found no room
        try:
            if not self.look():
                raise TargetError(f"attach {probe.name}: there is no process {probe.pid}")
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return a descriptor that is readable when there are samples."""
        return self._epoll.fileno()

    def look(self) -> int:
        """Begin with threads that are new, forget those that have ended; return how many there are."""
        tids = list_threads(self.probe.pid)
        for tid in tids:
            if tid not in self._rings:
                self._begin(tid)
        for tid in [tid for tid in self._rings if tid not in tids]:
            self._rings.pop(tid).close()
        return len(self._rings)

    def _begin(self, tid: int) -> None:
        try:
            ring = Ring(-1, STACK_RING_BYTES if self._stacks else RING_BYTES, self._attr, pid=tid)
        except (KernelError, OSError) as error:
            errno = error.errno or EINVAL
            if errno == ESRCH:
                return  # it has just ended
            hints = WATCH_HINTS if self.probe.type == "watchpoint" else HINTS
            raise attach_refusal(self.probe.name, errno, hint=hints.get(errno, "")) from None
        self._rings[tid] = ring
        self._epoll.register(ring.fd, select.EPOLLIN)

    def drain(self, handle: Callable[[Sample], object]) -> None:
        """Hand over the samples that wait. Never blocks."""

        def take(kind: int, misc: int, record: memoryview, start: int, size: int) -> None:
            if kind == _RECORD_SAMPLE:
                handle(self._decode(record, start + _HEADER_BYTES))

        for ring in list(self._rings.values()):
            ring.drain(None, take)
            self.lost += ring.lost
            ring.lost = 0

    def _decode(self, record: memoryview, at: int) -> Sample:
        ip, pid, tid, time_ns, addr, cpu, _, period, length = _HEAD.unpack_from(record, at)
        at += _HEAD.size
        chain = memoryview(bytes(record[at : at + 8 * length])).cast("Q")
        at += 8 * length
        registers = bytearray(self._regs_bytes)
        abi_of_registers = int.from_bytes(record[at : at + 8], "little")  # 0: none, a thread of the kernel
        at += 8
        if abi_of_registers:
            for _, offset in self._order:
                registers[offset : offset + 8] = record[at : at + 8]
                at += 8
        pcs = tuple(pc for pc in chain if pc < _CONTEXT)
        stack = _read_stack(record, at) if self._stacks else b""
        return Sample(pid, tid, cpu, time_ns, addr, period, pcs or (ip,), bytes(registers), stack)

    def close(self) -> None:
        """End sampling. Twice is harmless."""
        while self._rings:
            self._rings.popitem()[1].close()
        if not self._epoll.closed:
            self._epoll.close()


def _read_stack(record: memoryview, at: int) -> bytes:
    """What was copied of the stack: a size, so many bytes, and how many of them are of the stack."""
    size = int.from_bytes(record[at : at + 8], "little")
    end = at + 8 + size
    return bytes(record[at + 8 : end])[: int.from_bytes(record[end : end + 8], "little")] if size else b""


def _attr_of(probe: ProbeSpec, registers: int, stack: int) -> bytearray:
    kind, config, period, flags, breakpoint_type = abi.PERF_TYPE_SOFTWARE, 0, probe.count or 1, 0, 0
    if probe.type == "profile":
        config, period = abi.PERF_COUNT_SW_CPU_CLOCK, probe.period_ns or probe.frequency_hz
        flags = 0 if probe.period_ns else abi.ATTR_FREQ
    elif probe.type in TYPES:
        if probe.event not in EVENTS[probe.type]:
            raise ProbeError(
                f"there is no {probe.type} event {probe.event!r}", hint=f"there are: {', '.join(EVENTS[probe.type])}"
            )
        kind, config = TYPES[probe.type], EVENTS[probe.type][probe.event]
    elif probe.type == "watchpoint":
        kind, period = abi.PERF_TYPE_BREAKPOINT, 1
        breakpoint_type = sum(MODES[letter] for letter in set(probe.mode))
    else:
        raise ProbeError(f"{probe.name}: {probe.type} probes are not sampled")
    flags |= _EXCLUDE_KERNEL | _EXCLUDE_HV | _EXCLUDE_CALLCHAIN_KERNEL | _USE_CLOCKID
    attr = abi.perf_event_attr(
        kind, config, period=period, flags=flags, sample_type=_SAMPLE_TYPE | (_STACK_USER if stack else 0), wakeup=1, breakpoint_type=breakpoint_type,
        config1=probe.address, config2=probe.length,
    )  # fmt: skip
    pack_into("<Q", attr, _REGS_AT, registers)
    pack_into("<I", attr, _STACK_AT, stack)
    pack_into("<i", attr, _CLOCK_AT, _CLOCK_MONOTONIC)
    return attr

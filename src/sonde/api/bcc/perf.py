"""BCC's `perf`: struct perf_event_attr as a ctypes structure, and events that are opened for their side effects."""

from __future__ import annotations

import ctypes as ct
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _SamplePeriod(ct.Union):
    _fields_ = [("sample_period", ct.c_ulong), ("sample_freq", ct.c_ulong)]


class _Wakeup(ct.Union):
    _fields_ = [("wakeup_events", ct.c_uint), ("wakeup_watermark", ct.c_uint)]


class _Config1(ct.Union):
    _fields_ = [(n, ct.c_ulong) for n in ("bp_addr", "kprobe_func", "uprobe_path", "config1")]


class _Config2(ct.Union):
    _fields_ = [(n, ct.c_ulong) for n in ("bp_len", "kprobe_addr", "probe_offset", "config2")]


# The bits of the attribute, in order; precise_ip has two.
_BITS = (
    "disabled inherit pinned exclusive exclude_user exclude_kernel exclude_hv exclude_idle mmap comm freq inherit_stat "
    "enable_on_exec task watermark precise_ip:2 mmap_data sample_id_all exclude_host exclude_guest "
    "exclude_callchain_kernel exclude_callchain_user mmap2 comm_exec use_clockid context_switch write_backward "
    "namespaces ksymbol bpf_event aux_output cgroup text_poke build_id inherit_thread remove_on_exec sigtrap"
)


def _bit_fields() -> list[tuple[str, Any, int]]:
    fields: list[tuple[str, Any, int]] = []
    for word in _BITS.split():
        name, _, width = word.partition(":")
        fields.append((name, ct.c_ulong, int(width or 1)))
    used = sum(width for _, _, width in fields)
    return [*fields, ("__reserved_1", ct.c_ulong, 64 - used)]


class PerfEventAttr(ct.Structure):
    """struct perf_event_attr, version 6 and what came after it in its bits."""

    _anonymous_ = ["_sample_period_union", "_wakeup_events_union", "_bp_addr_union", "_bp_len_union"]
    _fields_ = [
        ("type", ct.c_uint),
        ("size", ct.c_uint),
        ("config", ct.c_ulong),
        ("_sample_period_union", _SamplePeriod),
        ("sample_type", ct.c_ulong),
        ("read_format", ct.c_ulong),
        *_bit_fields(),
        ("_wakeup_events_union", _Wakeup),
        ("bp_type", ct.c_uint),
        ("_bp_addr_union", _Config1),
        ("_bp_len_union", _Config2),
        ("branch_sample_type", ct.c_ulong),
        ("sample_regs_user", ct.c_ulong),
        ("sample_stack_user", ct.c_uint),
        ("clockid", ct.c_int),
        ("sample_regs_intr", ct.c_ulong),
        ("aux_watermark", ct.c_uint),
        ("sample_max_stack", ct.c_uint16),
        ("__reserved_2", ct.c_uint16),
        ("aux_sample_size", ct.c_uint),
        ("__reserved_3", ct.c_uint),
    ]

    def __init__(self, *args: Any, **members: Any) -> None:
        super().__init__(*args, **members)
        self.size = ct.sizeof(type(self))


class Perf:
    """Perf events that nobody reads: opening one switches on what the kernel does for it."""

    perf_event_attr = PerfEventAttr
    PERF_TYPE_HARDWARE, PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT, PERF_TYPE_HW_CACHE = range(4)
    PERF_SAMPLE_RAW = 1024
    PERF_FLAG_FD_CLOEXEC = 8
    PERF_EVENT_IOC_SET_FILTER, PERF_EVENT_IOC_ENABLE = 1074275334, 9216

    @staticmethod
    def perf_event_open(tpoint_id: int, pid: int = -1, ptype: int = 2, freq: int = 0) -> None:
        """Open a tracepoint (or event `ptype`:`tpoint_id`) on each online CPU, to stay open as long as the process. Raises OSError."""
        attr = PerfEventAttr()
        attr.config = tpoint_id
        attr.type = ptype
        attr.sample_type = Perf.PERF_SAMPLE_RAW
        attr.freq = int(freq > 0)
        attr.sample_period = freq if freq > 0 else 1
        attr.wakeup_events = 9999999  # never wake anybody up
        Perf.perf_custom_event_open(attr, pid)

    @staticmethod
    def perf_custom_event_open(attr: PerfEventAttr, pid: int = -1, cpu: int = -1) -> None:
        """Open the event that `attr` describes on `cpu`, or on each online CPU. Raises OSError."""
        from .utils import get_online_cpus

        for number in [cpu] if cpu >= 0 else get_online_cpus():
            _open(attr, pid, number)


def _open(attr: PerfEventAttr, pid: int, cpu: int) -> None:
    from ...kernel import abi, syscall
    from ...kernel.perf_event import open_event

    fd = open_event(bytearray(bytes(attr)), pid, cpu)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    if attr.type == Perf.PERF_TYPE_TRACEPOINT:
        nobody = b"common_pid == -17\0"  # so that no sample is taken
        result = syscall.ioctl(fd, Perf.PERF_EVENT_IOC_SET_FILTER, syscall.address(nobody))
        if result < 0:
            raise OSError(-result, os.strerror(-result))
    result = syscall.ioctl(fd, abi.PERF_EVENT_IOC_ENABLE)
    if result < 0:
        raise OSError(-result, os.strerror(-result))

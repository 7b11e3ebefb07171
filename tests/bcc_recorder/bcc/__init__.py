"""A stand-in for BCC's Python module that traces nothing: it writes down what a tool hands to BPF() and attaches, then ends the tool.

What a tool asks of the kernel before (has a struct a member? is there a tracepoint?) is answered from the running kernel.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import curses
import glob
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.environ["BCC_RECORDER_SONDE"])
__path__ += list(glob.glob("/usr/lib/python3/dist-packages/bcc"))

RECORD: dict[str, object] = {"texts": []}
TYPES = {1: "socket_filter", 2: "kprobe", 3: "sched_cls", 4: "sched_act", 5: "tracepoint", 6: "xdp", 7: "perf_event", 8: "cgroup_skb",
         9: "cgroup_sock", 17: "raw_tracepoint"}  # fmt: skip


class Done(BaseException):
    """The tool has come to where it would wait for events."""


def _finish() -> None:
    with open(os.environ["BCC_RECORDER_OUT"], "w") as file:
        json.dump(RECORD, file)


atexit.register(_finish)
_hook = sys.excepthook


def _quiet(kind, value, trace):
    if not issubclass(kind, Done):
        RECORD["error"] = f"{kind.__name__}: {value}"
        _hook(kind, value, trace)


sys.excepthook = _quiet


def _wait(*_: object, **__: object) -> None:
    raise Done


time.sleep = threading.Event.wait = _wait
_open = builtins.open
# Facts that this kernel or machine may lack, and that some tool wants to see before it hands over its text.
_ADDED = {
    "/proc/kallsyms": "".join(f"0000000000000000 d {name}\n" for name in (
        "btrfs_file_operations", "ext4_file_operations", "vm_zone_stat", "vm_stat", "zpl_file_operations")),
    "/proc/cpuinfo": "vendor_id\t: GenuineIntel\nflags\t\t: vmx\n",
}  # fmt: skip


def _open_more(path, mode="r", *args, **named):
    if path not in _ADDED or "b" in mode:
        return _open(path, mode, *args, **named)
    with _open(path) as file:
        return io.StringIO(_ADDED[path] + file.read())


builtins.open = _open_more
_check_output = subprocess.check_output


def _check_output_more(command, *args, **named):
    """kvmexit asks for an Intel processor by a shell's pipe."""
    return b"vendor_id : GenuineIntel" if "vendor_id" in str(command) else _check_output(command, *args, **named)


subprocess.check_output = _check_output_more
curses.wrapper = lambda function, *args, **named: function(Anything(), *args, **named)


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else value


class Anything:
    """Stands for whatever a tool asks of a table or a function."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *args, **named):
        return Anything()

    def __iter__(self):
        return iter(())

    def __getitem__(self, key):
        return ctypes.c_int(0)

    def __setitem__(self, key, value):
        pass

    def __len__(self):
        return 0

    def Key(self, *args):
        return ctypes.c_int(*args[:1])

    Leaf = Key
    fd = 0


class PerfType:
    HARDWARE, SOFTWARE, TRACEPOINT, HW_CACHE, RAW, BREAKPOINT = range(6)


class PerfHWConfig:
    CPU_CYCLES, INSTRUCTIONS, CACHE_REFERENCES, CACHE_MISSES = range(4)


class PerfSWConfig:
    CPU_CLOCK, TASK_CLOCK, PAGE_FAULTS = range(3)


class PerfEventSampleFormat:
    CPU, RAW = 128, 1024


def _btf():
    from sonde.kernel.btf import kernel_btf

    return kernel_btf()


class BPF:
    SOCKET_FILTER, KPROBE, SCHED_CLS, SCHED_ACT, TRACEPOINT, XDP, PERF_EVENT, CGROUP_SKB, CGROUP_SOCK = range(1, 10)
    RAW_TRACEPOINT = 17
    XDP_PASS = 2

    def __init__(self, src_file=b"", hdr_file=b"", text=None, debug=0, cflags=(), usdt_contexts=(), **_):
        signal.signal(signal.SIGALRM, _wait)  # for tools that bound `sleep` before they met this module
        signal.setitimer(signal.ITIMER_REAL, 2)
        if src_file:
            with open(_text(src_file)) as file:
                text = file.read()
        self.programs: dict[str, str] = {}
        self.record = {"text": _text(text), "cflags": [_text(c) for c in cflags], "programs": self.programs}
        RECORD["texts"].append(self.record)
        for usdt in usdt_contexts:
            self.programs.update(dict.fromkeys(usdt.functions, "usdt"))

    def _add(self, fn_name, kind):
        self.programs[_text(fn_name)] = kind

    def attach_kprobe(self, event=b"", event_off=0, fn_name=b"", event_re=b""):
        self._add(fn_name, "kprobe")

    def attach_kretprobe(self, event=b"", fn_name=b"", event_re=b"", maxactive=0):
        self._add(fn_name, "kprobe")

    def attach_uprobe(self, name=b"", sym=b"", sym_re=b"", addr=None, fn_name=b"", pid=-1, sym_off=0):
        self._add(fn_name, "uprobe")

    attach_uretprobe = attach_uprobe

    def attach_tracepoint(self, tp=b"", tp_re=b"", fn_name=b""):
        self._add(fn_name, "tracepoint")

    def attach_raw_tracepoint(self, tp=b"", fn_name=b""):
        self._add(fn_name, "raw_tracepoint")

    def attach_perf_event(self, ev_type=-1, ev_config=-1, fn_name=b"", *args, **named):
        self._add(fn_name, "perf_event")

    def load_func(self, name, kind, *args):
        self._add(name, TYPES[kind])
        return Anything()

    def get_table(self, *args, **named):
        return Anything()

    def __getitem__(self, name):
        return Anything()

    perf_buffer_poll = ring_buffer_poll = kprobe_poll = trace_fields = trace_print = trace_readline = trace_open = _wait

    def num_open_kprobes(self):
        return 1

    num_open_uprobes = num_open_tracepoints = num_open_kprobes

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    @staticmethod
    def get_syscall_prefix():
        return b"__x64_sys_"

    @staticmethod
    def get_syscall_fnname(name):
        return b"__x64_sys_" + (name if isinstance(name, bytes) else name.encode())

    fix_syscall_fnname = staticmethod(lambda name: name)

    @staticmethod
    def get_kprobe_functions(regex):
        pattern = re.compile(_text(regex).encode())
        with open("/proc/kallsyms", "rb") as file:
            names = {line.split()[2] for line in file if line.split()[1] in b"tT"}
        return sorted(n for n in names if pattern.fullmatch(n))

    @staticmethod
    def get_user_functions_and_addresses(*args):
        return [(b"dispatch_command", 0)]

    @staticmethod
    def get_user_functions(*args):
        return [b"dispatch_command"]

    @staticmethod
    def tracepoint_exists(category, event):
        return os.path.isdir(f"/sys/kernel/tracing/events/{_text(category)}/{_text(event)}")

    @staticmethod
    def get_tracepoints(regex):
        names = [p.split("/")[-2:] for p in glob.glob("/sys/kernel/tracing/events/*/*")]
        return [f"{c}:{e}".encode() for c, e in names if re.fullmatch(_text(regex), f"{c}:{e}")]

    @staticmethod
    def kernel_struct_has_field(struct, field):
        found = _btf().get_type(f"struct {_text(struct)}")
        return -1 if found is None else int(found.get_member(_text(field)) is not None)

    support_kfunc = staticmethod(lambda: os.environ.get("BCC_RECORDER_KFUNC") == "1")
    support_raw_tracepoint = staticmethod(lambda: True)
    support_raw_tracepoint_in_module = staticmethod(lambda: True)
    get_probe_limit = staticmethod(lambda: 1000)
    monotonic_time = staticmethod(lambda: 0)
    ksym = ksymname = sym = staticmethod(lambda *a, **k: b"")
    find_library = find_exe = staticmethod(lambda name: b"/bin/true")
    generate_auto_includes = staticmethod(lambda words: "")

    class Function:
        pass


class USDT:
    def __init__(self, pid=None, path=None):
        self.functions: list[str] = []

    def enable_probe(self, probe, fn_name):
        self.functions.append(_text(fn_name))

    enable_probe_or_bail = enable_probe

    def get_text(self):
        return ""

    def get_probe_arg_ctype(self, probe, index):
        return "u64"

    def enumerate_probes(self):
        return []

    enumerate_active_probes = enumerate_probes

    def get_context(self):
        return None


class USDTException(Exception):
    pass


class ArgString:
    def __init__(self, arg):
        self.s = arg

    def __bytes__(self):
        return self.s.encode()

    def __str__(self):
        return self.s


class StrcmpRewrite:
    """As in bcc.utils, which the tool would get it from."""

    def __new__(cls):
        from bcc import utils

        return utils.StrcmpRewrite()

    @staticmethod
    def rewrite_expr(*args):
        from bcc import utils

        return utils.StrcmpRewrite.rewrite_expr(*args)

"""Class BPF: a C text becomes programs, tables and events, with BCC's methods and in BCC's words.

    from bcc import BPF
    b = BPF(text="int kprobe__sys_clone(void *ctx) { bpf_trace_printk("Hello\\n"); return 0; }")
    b.trace_print()

Everything that it makes hangs on descriptors: `cleanup` drops them, so does the end of the process.
"""

from __future__ import annotations

import os

from ...errors import UsageError
from .network import Network
from .output import Output
from .perf_events import PerfEvents
from .programs import Function
from .symbols import Symbols
from .tables import Table
from .tracepoints import Tracepoints
from .trampolines import Trampolines
from .unit import find_header, open_unit, read_source
from .user_probes import UserProbes
from .utils import to_bytes, to_str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .usdt import USDT

_AUTO_INCLUDES = {
    "linux/time.h": ("time",),
    "linux/fs.h": ("fs", "file"),
    "linux/blkdev.h": ("bio", "request"),
    "linux/slab.h": ("alloc",),
    "linux/netdevice.h": ("sk_buff", "net_device"),
}


class BPF(Trampolines, Tracepoints, UserProbes, PerfEvents, Network, Output, Symbols):
    """A BPF object: compile a text, load its functions, attach them, read its tables and events.

    One of `text` and `src_file` (also looked for beside the script) is needed. `cflags` are a C compiler's: -D -U -I -include. `debug` shows
    stages of the compilation (DEBUG_* bits), and how each probe was attached; so does SONDE_BCC_VERBOSE. Functions whose names
    begin with kprobe__, kretprobe__, tracepoint__, raw_tracepoint__, kfunc__, kretfunc__, lsm__ are attached at once.
    Raises ProgramError for a text with errors, SondeError for what the kernel refuses; then nothing is left behind.

    A context manager; without one, it is cleaned up when the process ends.
    """

    Table = staticmethod(Table)
    Function = Function

    def __init__(
        self,
        src_file: str | bytes = b"",
        hdr_file: str | bytes = b"",
        text: str | bytes | None = None,
        debug: int = 0,
        cflags: Sequence[str] = (),
        usdt_contexts: Sequence[USDT] = (),
        allow_rlimit: bool = True,
        device: Any = None,
        attach_usdt_ignore_pid: bool = False,
    ) -> None:
        if text and src_file:
            raise UsageError("BPF() takes text or src_file, not both")
        source, path = to_bytes(text or b""), ""
        if src_file:
            source, path = read_source(to_bytes(src_file))
        if debug:
            from .debug import show_text

            show_text(debug, source)
        unit = open_unit(source, path, find_header(to_bytes(hdr_file)), [to_str(flag) for flag in cflags])
        super().__init__(unit, debug, bool(debug) or bool(os.environ.get("SONDE_BCC_VERBOSE")))
        self._init_kprobes()
        self._init_tracepoints()
        self._init_trampolines()
        self._init_user_probes()
        self._init_perf_events()
        self._init_network()
        self._init_output()
        try:
            for context in usdt_contexts:
                context.attach_uprobes(self, attach_usdt_ignore_pid)
            self._trace_autoload()
        except BaseException:
            self.cleanup()
            raise
        import atexit

        atexit.register(self.cleanup)

    def _trace_autoload(self) -> None:
        """Attach the functions whose names say where."""
        for text in self.unit.programs:
            name = text.encode()
            for prefix, attach in _AUTOLOAD:
                if name.startswith(prefix):
                    attach(self, name, name[len(prefix) :])
                    break

    @classmethod
    def generate_auto_includes(cls, program_words: Sequence[str]) -> str:
        """Return the #include lines for headers that some words of a program suggest ("sk_buff": linux/netdevice.h)."""
        return "".join(
            f"#include <{header}>\n"
            for header, keywords in _AUTO_INCLUDES.items()
            if any(keyword in word for keyword in keywords for word in program_words)
        )

    def donothing(self) -> None:
        """Do nothing; BCC has a method of this name."""

    def close(self) -> None:
        """Drop all programs and tables. What is attached goes with them."""
        self.cleanup()

    def cleanup(self) -> None:
        """Detach and drop everything. Twice is harmless."""
        from . import quota

        quota.add(-sum(map(len, self.kprobe_fds.values())) - len(self.uprobe_fds))
        for links in (self.kprobe_fds, self.uprobe_fds, self.tracepoint_fds, self.raw_tracepoint_fds,
                      self.kfunc_entry_fds, self.kfunc_exit_fds, self.fmod_ret_fds, self.lsm_fds,
                      self.open_perf_events, self.func_links):  # fmt: skip
            links.clear()
        self._close_output()
        self.funcs.clear()
        self._loaded.clear()
        self._close_object()

    def __enter__(self) -> BPF:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()


def _attach_kprobe(bpf: BPF, name: bytes, rest: bytes) -> None:
    bpf.attach_kprobe(event=bpf.fix_syscall_fnname(rest), fn_name=name)


def _attach_kretprobe(bpf: BPF, name: bytes, rest: bytes) -> None:
    bpf.attach_kretprobe(event=bpf.fix_syscall_fnname(rest), fn_name=name)


def _attach_tracepoint(bpf: BPF, name: bytes, rest: bytes) -> None:
    bpf.attach_tracepoint(tp=rest.replace(b"__", b":", 1), fn_name=name)


def _attach_raw_tracepoint(bpf: BPF, name: bytes, rest: bytes) -> None:
    bpf.attach_raw_tracepoint(tp=rest, fn_name=name)


_AUTOLOAD = (
    (b"kprobe__", _attach_kprobe),
    (b"kretprobe__", _attach_kretprobe),
    (b"tracepoint__", _attach_tracepoint),
    (b"raw_tracepoint__", _attach_raw_tracepoint),
    (b"kfunc__", lambda bpf, name, rest: bpf.attach_kfunc(name)),
    (b"kretfunc__", lambda bpf, name, rest: bpf.attach_kretfunc(name)),
    (b"lsm__", lambda bpf, name, rest: bpf.attach_lsm(name)),
)

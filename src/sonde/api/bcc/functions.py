"""Which functions of the kernel can be probed, and what system calls are called there.

Every source of facts may be missing (a kernel without kprobes, tracefs that may not be read): then the others answer. Where the kernel has
no kprobes at all, only system calls are left, through their tracepoints.
"""

from __future__ import annotations

import os
from functools import lru_cache

from ...debuginfo.syscalls import syscall_number
from ...errors import SondeError
from .inprocess import is_wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SYSCALL_PREFIXES = (
    b"sys_", b"__x64_sys_", b"__x32_compat_sys_", b"__ia32_compat_sys_", b"__arm64_sys_", b"__s390x_sys_",
    b"__s390_sys_", b"__riscv_sys_",
)  # fmt: skip
_FOREIGN = (b"__x32_compat_sys_", b"__ia32_compat_sys_")  # their tracepoints are not those of the native calls
_NATIVE = {"x86_64": b"__x64_sys_", "aarch64": b"__arm64_sys_"}
# Functions of these forms are never traceable: marked by the kernel, part of perf itself, static calls, cold parts.
_NEVER = (b"_kbl_addr_", b"__perf", b"perf_", b"__SCT__")


def find_functions(event_re: bytes) -> set[bytes]:
    """Return the names of the functions that kprobes can go to and that match a regular expression from their start."""
    found = find_any(event_re)
    if have_kprobes():
        return found
    return {name for name in found if syscall_tracepoint(name)}


def find_any(event_re: bytes) -> set[bytes]:
    """Return the functions that match and that kprobes could go to if the kernel had any."""
    import re

    matches = re.compile(event_re).match
    blacklist = read_blacklist()
    return {name for name in _candidates() if matches(name) and name not in blacklist and not _is_cold(name)}


def _candidates() -> Iterator[bytes]:
    """The functions of the kernel and of modules, without those of __init and interrupt entry sections."""
    try:
        with open("/proc/kallsyms", "rb") as file:
            lines = file.readlines()
    except OSError:
        return
    skip_until = b""
    for line in lines:
        words = line.split()
        if len(words) < 3:
            continue
        name = words[2]
        if skip_until:
            if name == skip_until:
                skip_until = b""
        elif name in _SECTIONS:
            skip_until = _SECTIONS[name]
        elif words[1] in b"tTwW" and not name.startswith(_NEVER):
            yield name


_SECTIONS = {b"__init_begin": b"__init_end", b"__irqentry_text_start": b"__irqentry_text_end"}


def _is_cold(name: bytes) -> bool:
    head, dot, tail = name.rpartition(b".cold")
    return bool(head and dot) and (not tail or (tail[:1] == b"." and tail[1:].isdigit()))


def read_blacklist() -> set[bytes]:
    """Return the functions on which the kernel refuses kprobes; none where it does not say."""
    for root in ("/sys/kernel/debug", "/sys/kernel/tracing/.."):
        try:
            with open(f"{root}/kprobes/blacklist", "rb") as file:
                return {words[1] for words in map(bytes.split, file) if len(words) > 1}
        except OSError:
            continue
    return set()


def have_kprobes() -> bool:
    """Whether this kernel has kprobes, and programs run in it."""
    if is_wanted():
        return False
    if not _kprobes:
        _kprobes.append(_find_kprobes())
    return _kprobes[0]


_kprobes: list[bool] = []  # what was found


def _find_kprobes() -> bool:
    if os.path.exists("/sys/bus/event_source/devices/kprobe/type"):
        return True
    from ...debuginfo.tracefs import find_root

    try:
        return os.path.exists(f"{find_root()}/kprobe_events")
    except SondeError:
        return False


def syscall_name(function: bytes) -> str:
    """Return the system call that a function with a known prefix implements ("__x64_sys_openat": "openat"), or ""."""
    for prefix in SYSCALL_PREFIXES:
        if function.startswith(prefix):
            return function[len(prefix) :].decode(errors="replace")
    return ""


def syscall_tracepoint(function: bytes) -> str:
    """Return the system call of a function if that has tracepoints, or ""."""
    name = native_syscall(function)
    return name if name and tracepoint_exists("syscalls", f"sys_enter_{name}") else ""


def native_syscall(function: bytes) -> str:
    """Return the system call of a function unless it is one for programs of another architecture (32 bits), or ""."""
    return "" if function.startswith(_FOREIGN) else syscall_name(function)


def is_unreachable(function: bytes) -> bool:
    """Whether no system call of this machine leads to a function that exists and is named as if one did.

    The kernel makes a tracepoint for each function that its table of system calls names. `__x64_sys_stat`, which newstat has
    replaced, is in the kernel all the same, and a kprobe on it never fires.
    """
    from .symbols import kernel_address

    return (
        function.startswith(native_prefix())
        and not syscall_tracepoint(function)
        and tracepoint_exists("syscalls", "sys_enter_read")
        and kernel_address(function.decode(errors="replace")) != -1
    )


def tracepoint_exists(category: str, event: str) -> bool:
    """Whether there is such a tracepoint here; where programs run in a process, those of system calls."""
    if is_wanted():
        return (category, event) in _process_events()
    from ...debuginfo.tracefs import find_root

    try:
        return os.path.isdir(f"{find_root()}/events/{category}/{event}")
    except SondeError:
        return False


@lru_cache(maxsize=1)
def _process_events() -> list[tuple[str, str]]:
    """The tracepoints that are served in a process: those of this machine's system calls."""
    from ...debuginfo.syscallargs import syscall_events

    machine = os.uname().machine
    return [
        (category, event)
        for category, event in syscall_events()
        if category == "raw_syscalls"
        or syscall_number(event.removeprefix("sys_enter_").removeprefix("sys_exit_"), machine) >= 0
    ]


class Name(str):
    """A name that scripts may treat as text or as bytes that they decode: some of BCC's own tools do so with tracepoints."""

    def decode(self, *_: object) -> str:
        """Return the name."""
        return str(self)


def find_tracepoints(tp_re: bytes) -> list[str]:
    """Return the tracepoints ("category:event") that match a regular expression from their start."""
    import re

    from ...debuginfo.tracefs import find_root, iter_events

    matches = re.compile(tp_re.decode()).match
    events = _process_events() if is_wanted() else iter_events(find_root())
    names = (Name(f"{category}:{event}") for category, event in events)
    return [name for name in names if matches(name)]


def native_prefix() -> bytes:
    """The prefix of system calls on this machine, where kallsyms does not say."""
    return _NATIVE.get(os.uname().machine, SYSCALL_PREFIXES[0])

"""The registry of functions: for each name what it takes, where it may be called, and how it runs.

What a call gives, and what else there is to check, is in `typing_calls` (one small function for each rule) and for what
only maps take in `typing_maps`. The values without arguments (`pid`, `comm`) are in `builtins`.
"""

from __future__ import annotations

from ...record import Record


class Function(Record, eq=False):
    """Facts about one function or builtin.

    `kinds` has a word for each argument: "int", "str", "ptr", "mode" want a value of that kind, with "!" a literal; "-" is
    checked elsewhere. `probes` are the types of probes that may call it, () for all; `inside`: others that may where the program runs inside a process.
    """

    name: str
    min_args: int = 0
    max_args: int = 0
    kinds: tuple[str, ...] = ()
    asynchronous: bool = False  # runs in user space, some time after the event
    unsafe: bool = False
    void: bool = False
    library: bool = False  # a macro of bpftrace's library: words its messages about arguments differently
    probes: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()


_MANY = 128
_REGISTERS = (
    "kprobe", "kretprobe", "uprobe", "uretprobe", "usdt", "profile", "interval", "software", "hardware", "watchpoint",
)  # fmt: skip
_TRACING = ("fentry", "fexit", "kprobe", "kretprobe", "tracepoint", "rawtracepoint")

# name: (fewest arguments, most, kinds, flags). Flags: a(synchronous), u(nsafe), v(oid), l(ibrary).
_FACTS = {
    "avg": (1, 1, "", ""),
    "bswap": (1, 1, "", ""),
    "buf": (1, 2, "- int", ""),
    "cat": (1, _MANY, "str!", "av"),
    "cgroup_path": (1, 2, "int str!", ""),
    "cgroupid": (1, 1, "str!", ""),
    "clear": (1, 1, "", "av"),
    "comm": (0, 1, "", "l"),
    "count": (0, 0, "", ""),
    "debugf": (1, _MANY, "str!", "v"),
    "default_str_length": (0, 0, "", "l"),
    "delete": (1, _MANY, "", "l"),
    "dw_ustack": (0, 1, "", "l"),
    "errorf": (1, _MANY, "str!", "av"),
    "exit": (0, 1, "int", "av"),
    "fail": (1, _MANY, "", "v"),
    "find": (3, 3, "", "l"),
    "has_key": (2, 2, "", "l"),
    "hist": (1, 2, "", ""),
    "is_array": (1, 1, "", "l"),
    "is_integer": (1, 1, "", "l"),
    "is_literal": (1, 1, "", "l"),
    "is_ptr": (1, 1, "", "l"),
    "is_scalar": (1, 1, "", "l"),
    "is_str": (1, 1, "", "l"),
    "is_unsigned_integer": (1, 1, "", "l"),
    "join": (1, 2, "- str!", "av"),
    "kaddr": (1, 1, "str!", ""),
    "kfunc_allowed": (1, 1, "str!", "l"),
    "kfunc_exist": (1, 1, "str!", "l"),
    "kptr": (1, 1, "", ""),
    "kstack": (0, 2, "", ""),
    "ksym": (1, 1, "", ""),
    "len": (1, 1, "", "l"),
    "lhist": (4, 4, "", ""),
    "macaddr": (1, 1, "", ""),
    "max": (1, 1, "", ""),
    "memcmp": (3, 3, "- - int", "l"),
    "min": (1, 1, "", ""),
    "nsecs": (0, 1, "mode", ""),
    "ntop": (1, 2, "", ""),
    "override": (1, 1, "int", "uvl"),
    "path": (1, 2, "- int!", ""),
    "percpu_kaddr": (1, 2, "str! int", ""),
    "pid": (0, 1, "", ""),
    "print": (1, 3, "- int! int!", "av"),
    "printf": (1, _MANY, "str!", "av"),
    "pton": (1, 1, "", ""),
    "reg": (1, 1, "str!", ""),
    "signal": (1, 1, "", "uvl"),
    "signal_name": (1, 1, "int", "l"),
    "signal_thread": (1, 1, "", "uvl"),
    "skboutput": (4, 4, "str! ptr int int", "a"),
    "socket_cookie": (1, 1, "ptr", ""),
    "static_assert": (2, 2, "", "vl"),
    "stats": (1, 1, "", ""),
    "str": (1, 2, "- int", ""),
    "str_concat": (2, 2, "str str", "l"),
    "strcap": (1, 1, "str", "l"),
    "strcontains": (2, 2, "str str", "l"),
    "strerror": (1, 1, "int", "l"),
    "strftime": (2, 2, "str! int", ""),
    "strlen": (1, 1, "", "l"),
    "strncmp": (3, 3, "str str int", ""),
    "strstr": (2, 2, "str str", "l"),
    "sum": (1, 1, "", ""),
    "syscall_name": (1, 1, "int", "l"),
    "system": (1, _MANY, "str!", "auv"),
    "tid": (0, 1, "", ""),
    "time": (0, 1, "str!", "av"),
    "tseries": (3, 4, "", ""),
    "typeinfo": (1, 1, "", ""),
    "uaddr": (1, 1, "str!", "l"),
    "unwatch": (1, 1, "int", "av"),
    "uptr": (1, 1, "", ""),
    "ustack": (0, 2, "", ""),
    "usym": (1, 1, "", ""),
    "warnf": (1, _MANY, "str!", "av"),
    "write_user": (3, 3, "- - int", "ul"),
    "zero": (1, 1, "", "av"),
}  # fmt: skip

_PROBES = {
    "reg": _REGISTERS,
    "uaddr": ("uprobe", "uretprobe", "usdt"),
    "skboutput": _TRACING,
    "socket_cookie": _TRACING,
    "override": ("kprobe",),
}
_INSIDE = {"override": ("uprobe", "uretprobe")}

AGGREGATIONS = frozenset(["avg", "count", "hist", "lhist", "max", "min", "stats", "sum", "tseries"])
FORMATTED = frozenset(["cat", "debugf", "errorf", "printf", "system", "warnf"])

_found: dict[str, Function] = {}


def get_function(name: str) -> Function | None:
    """Return the facts about the function `name`; None if there is none."""
    found = _found.get(name)
    if found is None and name in _FACTS:
        few, many, kinds, flags = _FACTS[name]
        found = _found[name] = Function(
            name, few, many, tuple(kinds.split()), "a" in flags, "u" in flags, "v" in flags, "l" in flags,
            _PROBES.get(name, ()), _INSIDE.get(name, ()),
        )  # fmt: skip
    return found


def iter_names() -> tuple[str, ...]:
    """Return the names of all functions."""
    return tuple(_FACTS)

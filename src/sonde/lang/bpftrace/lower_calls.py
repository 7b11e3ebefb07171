"""Calls and builtins: a registry from each name to the file, and there to the function, that lowers it.

A function in `CALLS` of its file gives an operand; one in `WRITERS` writes its result straight into memory of our own. Only the
files of what a script calls are read.
"""

from __future__ import annotations

from .lower_values import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from . import ast
    from .lower_frame import Frame
    from .lower_values import Operand

_FILES = {
    "lower_builtins": "args cgroup comm cpid cpu ctx curtask elapsed func gid has_cpid jiffies ncpus nsecs numaid pid probe "
    "rand retval tid uid usermode username arg sarg",
    "lower_events": "printf errorf warnf cat system print exit time clear zero join",
    "lower_maps": "delete has_key find",
    "lower_stacks": "kstack ustack len",
    "lower_strings": "str buf strlen strncmp strcontains strstr str_concat memcmp path strcap",
    "lower_functions": "reg kaddr uaddr percpu_kaddr kptr uptr ksym usym strftime strerror signal_name syscall_name cgroupid "
    "cgroup_path ntop pton macaddr bswap signal signal_thread override debugf socket_cookie skboutput write_user unwatch "
    "config typeinfo "
    "static_assert assert fail",
}


def _find(name: str) -> ModuleType:
    """Return the module that lowers calls of `name`."""
    for file, names in _FILES.items():
        if name in names.split():
            return __import__(f"{__package__}.{file}", fromlist=["CALLS"])
    raise AssertionError(f"nobody lowers {name}()")


def _plain_name(name: str) -> str:
    """`arg0`, `arg1` … are one builtin."""
    stem = name.rstrip("0123456789")
    return stem if stem in ("arg", "sarg") and stem != name else name


def lower_call(f: Frame, node: ast.Node) -> Operand:
    """Lower a call or a builtin to an operand."""
    info = f.calls[node]
    name = _plain_name(info.name)
    module: Any = _find(name)
    function = module.CALLS.get(name)
    outer, f.b.span = f.b.span, node.span
    if function is not None:
        result: Operand = function(f, node, info)
    else:
        result = place = f.temp(f.type(node).ctype, name)
        module.WRITERS[name](f, node, info, place, True)
    f.b.span = outer
    return result


def write_call(f: Frame, node: ast.Node, place: Memory, pad: bool) -> bool:
    """Write the result of a call straight into memory; False when it does not come that way."""
    info = f.calls.get(node)
    if info is None:
        return False
    name = _plain_name(info.name)
    module: Any = _find(name)
    writer = getattr(module, "WRITERS", {}).get(name)
    if writer is None or name in module.CALLS:
        return False
    outer, f.b.span = f.b.span, node.span
    writer(f, node, info, place, pad)
    f.b.span = outer
    return True

"""The registry of builtins: values that a program reads by their bare name, or called without arguments.

The simple ones have their type here; those that depend on the probe have a rule in `typing_builtins`.
"""

from __future__ import annotations

from ...debuginfo.ctype import BOOL, UINT8, UINT32, UINT64, CType
from .functions import Function
from .stype import Str, Username

COMM_SIZE = 16

_SIMPLE: dict[str, CType] = {
    "cgroup": UINT64,
    "comm": Str(COMM_SIZE),
    "cpid": UINT64,
    "cpu": UINT64,
    "elapsed": UINT64,
    "gid": UINT64,
    "has_cpid": BOOL,
    "jiffies": UINT64,
    "ncpus": UINT64,
    "nsecs": UINT64,
    "numaid": UINT64,
    "pid": UINT32,
    "rand": UINT64,
    "tid": UINT32,
    "uid": UINT64,
    "usermode": UINT8,
    "username": Username(),
}

_BY_RULE = frozenset(
    ["args", "config", "ctx", "curtask", "dw_ustack", "func", "kstack", "probe", "probetype", "retval", "ustack"]
)

_found: dict[str, Function] = {}


def simple_type(name: str) -> CType | None:
    """Return the type of a builtin that has the same one in every probe; None for others."""
    return _SIMPLE.get(name)


def is_builtin(name: str) -> bool:
    """Tell whether `name` is a builtin of the language."""
    return name in _SIMPLE or name in _BY_RULE or argument_index(name) >= 0 or argument_index(name, "sarg") >= 0


def argument_index(name: str, prefix: str = "arg") -> int:
    """Return N for `argN` (or `sargN`), -1 for other names."""
    digits = name[len(prefix) :]
    return int(digits) if name.startswith(prefix) and digits.isdigit() and digits.isascii() else -1


def get_builtin(name: str) -> Function | None:
    """Return the facts about the builtin `name`; None if there is none."""
    found = _found.get(name)
    if found is None and is_builtin(name):
        found = _found[name] = Function(name)
    return found


def iter_names() -> tuple[str, ...]:
    """Return the names of all builtins but the numbered arguments."""
    return (*_SIMPLE, *sorted(_BY_RULE))

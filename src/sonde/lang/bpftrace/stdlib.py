"""The parts of the standard library that are macros. Each is parsed when a script first uses its name.

What would need casts and address arithmetic to be said here, or more than its meaning to be compiled well (strings,
memory, maps), is a builtin of the compiler instead; a script's own macro takes precedence over either.
"""

from __future__ import annotations

from ..source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import ast

MACROS = {
    "assert": """
macro assert(condition, message) {
  if (!(condition)) {
    errorf("assert failed: %s", message);
    exit(1);
  }
}
""",
    "container_of": """
macro container_of(member_ptr, type, member) {
  (type*)((uint64)(member_ptr) - offsetof(type, member))
}
""",
    "is_err": """
macro is_err(ptr) {
  (int64)(ptr) < 0 && (int64)(ptr) >= -4095
}
""",
    "leader_comm": """
macro leader_comm(task) { task.group_leader.comm }
macro leader_comm() { curtask.group_leader.comm }
""",
    "leader_tid": """
macro leader_tid(task) { task.group_leader.pid }
macro leader_tid() { curtask.group_leader.pid }
""",
    "pcomm": """
macro pcomm(task) { task.real_parent.comm }
macro pcomm() { curtask.real_parent.comm }
""",
    "ppid": """
macro ppid(task) { task.real_parent.pid }
macro ppid() { curtask.real_parent.pid }
""",
}

# Functions of the standard library that bpftrace implements as macros: a script may overload them by arity and kind.
OVERLOADABLE = frozenset(
    [
        "cgroup", "comm", "config", "cpid", "cpu", "curtask", "default_str_length", "delete", "dw_ustack", "elapsed", "find",
        "func", "gid", "has_cpid", "has_key", "is_array", "is_integer", "is_literal", "is_ptr", "is_str",
        "is_unsigned_integer", "jiffies", "kfunc_allowed", "kfunc_exist", "len", "memcmp", "ncpus", "numaid", "override",
        "probe", "probetype", "rand", "retval", "signal", "signal_name", "signal_thread", "socket_cookie", "static_assert",
        "str_concat", "strcap", "strcontains", "strerror", "strlen", "strstr", "syscall_name", "uaddr", "uid", "usermode",
        "username", "write_user",
    ]
)  # fmt: skip


def load_macros(name: str) -> tuple[ast.Macro, ...]:
    """Return the standard library's macros of this name, parsed anew; empty if there are none."""
    text = MACROS.get(name)
    if text is None:
        return ()
    from .parser import parse

    return parse(Source(f"stdlib/{name}.bt", text.lstrip("\n"))).macros

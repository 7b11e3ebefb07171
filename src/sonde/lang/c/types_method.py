"""Methods of BCC's tables: `table.lookup(&key)` and its like, to types; which kinds of tables have which.

The argument's types are BCC's own. A pointer to something that is smaller than what the kernel will read is an error here: BCC lets it pass.
"""

from __future__ import annotations

from ...debuginfo.ctype import VOID, CType, Pointer, Void, sizeof, strip
from ...probes.close import close_names
from . import ast
from .arithmetic import INT, UINT, ULLONG, compatible, decayed, is_integer, shown
from .conversions import convert, value
from .types_decl import did_you_mean
from .types_ops import mark_written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .analysis import Table
    from .checker import Checker

# The arguments of each method, a letter each ("?" behind one: may be left out), and its result:
#   k pointer to a key     l pointer to a leaf     K a key itself    n a number    i an index    s a size    c the context
#   p any pointer          o pointer to a leaf that is written
# Results: v none, i int, u u64, p pointer to anything, l pointer to a leaf.
_METHODS = {
    "lookup": ("k", "l"), "lookup_or_init": ("kl", "l"), "lookup_or_try_init": ("kl", "l"), "update": ("kl", "i"), "insert": ("kl", "i"),
    "delete": ("k", "i"), "increment": ("Kn?", "v"), "atomic_increment": ("Kn?", "v"), "call": ("ci", "v"),
    "perf_submit": ("cps", "i"), "perf_submit_skb": ("csps", "i"), "perf_read": ("n", "u"), "perf_counter_value": ("nps", "i"),
    "ringbuf_output": ("psn", "i"), "ringbuf_reserve": ("s", "p"), "ringbuf_submit": ("pn", "v"), "ringbuf_discard": ("pn", "v"),
    "ringbuf_query": ("n", "u"), "get_stackid": ("cn", "i"), "check_current_task": ("n", "i"), "push": ("ln", "i"), "pop": ("o", "i"),
    "peek": ("o", "i"), "redirect_map": ("nn", "i"), "sock_map_update": ("pkn", "i"), "sock_hash_update": ("pkn", "i"),
    "msg_redirect_hash": ("pkn", "i"), "sk_redirect_hash": ("pkn", "i"), "msg_redirect_map": ("pnn", "i"),
    "sk_redirect_map": ("pnn", "i"), "get_local_storage": ("n", "l"), "sk_storage_get": ("pp?n", "p"), "sk_storage_delete": ("p", "i"),
    "inode_storage_get": ("pp?n", "p"), "inode_storage_delete": ("p", "i"), "task_storage_get": ("pp?n", "p"),
    "task_storage_delete": ("p", "i"),
}  # fmt: skip
_COMMON = (
    "lookup",
    "lookup_or_init",
    "lookup_or_try_init",
    "update",
    "insert",
    "delete",
    "increment",
    "atomic_increment",
)
# By BCC's word for the kind; those not listed have what hashes have.
_OF_KIND: dict[str, tuple[str, ...]] = {
    "perf_output": ("perf_submit", "perf_submit_skb"),
    "ringbuf_output": ("ringbuf_output", "ringbuf_reserve", "ringbuf_submit", "ringbuf_discard", "ringbuf_query"),
    "ringbuf": ("ringbuf_output", "ringbuf_reserve", "ringbuf_submit", "ringbuf_discard", "ringbuf_query"),
    "perf_array": ("perf_read", "perf_counter_value"),
    "perf_event_array": ("perf_read", "perf_counter_value", "perf_submit", "perf_submit_skb"),
    "cgroup_array": ("check_current_task",),
    "prog": ("call", "lookup", "update", "delete"),
    "prog_array": ("call", "lookup", "update", "delete"),
    "queue": ("push", "pop", "peek"),
    "stack": ("push", "pop", "peek"),
    "devmap": ("redirect_map",),
    "cpumap": ("redirect_map",),
    "xskmap": ("redirect_map", "lookup"),
    "sockmap": ("sock_map_update", "sk_redirect_map", "msg_redirect_map", "update", "delete", "lookup"),
    "sockhash": ("sock_hash_update", "sk_redirect_hash", "msg_redirect_hash", "update", "delete", "lookup"),
    "cgroup_storage": ("get_local_storage",),
    "percpu_cgroup_storage": ("get_local_storage",),
    "sk_storage": ("sk_storage_get", "sk_storage_delete"),
    "inode_storage": ("inode_storage_get", "inode_storage_delete"),
    "task_storage": ("task_storage_get", "task_storage_delete"),
}
_OF_KIND |= dict.fromkeys(
    ("stacktrace", "stacktrace_build_id", "stacktrace_buildid", "stack_trace"), ("get_stackid", *_COMMON)
)


def call_method(ck: Checker, node: ast.Call, table: Table, method: str) -> CType:
    """Check a call of a method. Raises CompileError."""
    allowed = _OF_KIND.get(table.bcc_kind, _COMMON)
    if method not in _METHODS:
        close = close_names(method, allowed)
        raise ck.fail(node, f"table '{table.name}' has no method '{method}'", hint=did_you_mean(close))
    if method not in allowed:
        words = f"a table of kind '{table.bcc_kind}' has no method '{method}'"
        raise ck.fail(node, words, hint=f"it has {', '.join(allowed)}", notes=ck.note(table.span, "the table is here"))
    shape, result = _METHODS[method]
    letters = _match(ck, node, table, method, shape)
    for arg, letter in zip(node.args, letters):
        _check_argument(ck, arg, letter, table, method)
    ck.methods[node] = table, method
    return _result(table, result)


def _match(ck: Checker, node: ast.Call, table: Table, method: str, shape: str) -> str:
    letters = shape.replace("?", "")
    required = len(letters) - shape.count("?")
    given = len(node.args)
    if not required <= given <= len(letters):
        wanted = str(required) if required == len(letters) else f"{required} or {len(letters)}"
        raise ck.fail(node, f"'{table.name}.{method}' takes {wanted} arguments, {given} given")
    return letters


def _check_argument(ck: Checker, node: ast.Expr, letter: str, table: Table, method: str) -> None:
    ctype = value(ck, node)
    if letter in ("k", "l", "o"):
        _check_pointer(ck, node, ctype, table, method, table.key if letter == "k" else table.leaf, letter)
    elif letter == "K" and table.key is not None:
        convert(ck, node, ctype, decayed(table.key), "passing to")
    elif letter in ("c", "p"):
        if not isinstance(strip(ctype), Pointer) and ck.constants.get(node) != 0 and not is_integer(ctype):
            raise ck.fail(node, f"'{table.name}.{method}' takes a pointer here, not {shown(ctype)}")
        _mark_address(ck, node)
    else:
        convert(ck, node, ctype, {"n": ULLONG, "i": INT, "s": UINT}.get(letter, ULLONG), "passing to")


def _check_pointer(
    ck: Checker, node: ast.Expr, ctype: CType, table: Table, method: str, wanted: CType | None, letter: str
) -> None:
    """A pointer to a key or leaf: to the very type, or to something as large."""
    what = "key" if letter == "k" else "leaf"
    if wanted is None:
        raise ck.fail(node, f"table '{table.name}' has no {what}")
    inner = strip(ctype)
    if not isinstance(inner, Pointer):
        if ck.constants.get(node) == 0 and letter == "l":
            return
        hint = f"write &{node.name}" if isinstance(node, ast.Name) else ""
        words = f"'{table.name}.{method}' takes a pointer to the {what}, {shown(wanted)}, not {shown(ctype)}"
        raise ck.fail(node, words, hint=hint)
    _mark_address(ck, node)
    target = strip(inner.target)
    if isinstance(target, Void) or compatible(target, wanted):
        return
    size, needed = sizeof(target), sizeof(wanted)
    words = f"'{table.name}.{method}' takes a pointer to the {what}, {shown(wanted)}, not {shown(ctype)}"
    if size == needed and is_integer(target) and is_integer(wanted):
        return
    if isinstance(node, ast.Unary) and node.op == "&" and isinstance(node.operand, ast.Name) and size < needed:
        note = ck.note(table.span, f"the {what} has {needed} bytes, '{node.operand.name}' has {size}")
        raise ck.fail(node, words, notes=note)
    ck.warn(node, words)


def _mark_address(ck: Checker, node: ast.Expr) -> None:
    if isinstance(node, ast.Unary) and node.op == "&":
        mark_written(ck, node.operand)


def _result(table: Table, letter: str) -> CType:
    if letter == "l":
        return Pointer(table.leaf if table.leaf is not None else VOID)
    return {"v": VOID, "i": INT, "u": ULLONG, "p": Pointer(VOID)}[letter]

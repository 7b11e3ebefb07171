"""C prototypes of what a program may call without declaring it: kernel helpers and GNU builtins.

A helper's prototype follows from the kinds of its arguments in the machine's table; the lines here add what the kinds do not say (which
results are unsigned, which numbers are addresses), as bpf_helper_defs.h of libbpf has it.
"""

from __future__ import annotations

from ...compiler.helpers import get_helper
from ...debuginfo.ctype import BOOL, CHAR, VOID, CType, FuncProto, Param, Pointer, Qualified
from .arithmetic import INT, LLONG, LONG, UINT, ULLONG, USHORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_VOID_POINTER = Pointer(VOID)
_CONST_POINTER = Pointer(Qualified("const", VOID))
_CONST_TEXT = Pointer(Qualified("const", CHAR))

_UNSIGNED_RESULTS = frozenset(
    [
        "ktime_get_ns",
        "ktime_get_boot_ns",
        "ktime_get_coarse_ns",
        "ktime_get_tai_ns",
        "jiffies64",
        "get_current_pid_tgid",
        "get_current_uid_gid",
        "get_current_task",
        "get_current_cgroup_id",
        "get_current_ancestor_cgroup_id",
        "get_socket_cookie",
        "get_netns_cookie",
        "get_attach_cookie",
        "get_func_ip",
        "get_func_arg_cnt",
        "perf_event_read",
        "sk_cgroup_id",
        "sk_ancestor_cgroup_id",
        "skb_cgroup_id",
        "skb_ancestor_cgroup_id",
        "skb_cgroup_classid",
        "ringbuf_query",
        "xdp_get_buff_len",
    ]
)
_UINT_RESULTS = frozenset(
    [
        "get_prandom_u32",
        "get_smp_processor_id",
        "get_cgroup_classid",
        "get_route_realm",
        "get_hash_recalc",
        "get_socket_uid",
    ]
)
_SIGNED_RESULTS = frozenset(["csum_diff", "csum_update"])
# Numbers that are addresses: the index of the argument, and whether the memory is only read.
_ADDRESSES = {
    "probe_read": (2, True), "probe_read_str": (2, True), "probe_read_kernel": (2, True), "probe_read_user": (2, True),
    "probe_read_kernel_str": (2, True), "probe_read_user_str": (2, True), "probe_write_user": (0, False),
    "copy_from_user": (2, True), "copy_from_user_task": (2, True),
}  # fmt: skip
_RESULT_STRUCTS = {"socket": "bpf_sock", "sock_common": "bpf_sock", "tcp_sock": "bpf_tcp_sock"}
_NUMBERS = {"scalar": ULLONG, "size": UINT, "size0": UINT, "alloc_size": ULLONG}
_READ_KINDS = frozenset(["key", "value", "mem", "fixed", "percpu"])


def helper_prototype(name: str, find_struct: Callable[[str], CType | None]) -> FuncProto | None:
    """Return the prototype of the helper `name` (without `bpf_`), or None when there is no such helper.

    `find_struct` gives a struct by its name, for results that point to one. trace_printk is variadic behind its first two arguments.
    """
    helper = get_helper(name)
    if helper is None:
        return None
    params = [_param_type(name, index, kind) for index, kind in enumerate(helper.args)]
    if name == "trace_printk":
        params = [_CONST_TEXT, UINT]
    return FuncProto(
        _result_type(name, helper.result, find_struct),
        tuple(Param("", p) for p in params),
        variadic=name == "trace_printk",
    )


def _param_type(name: str, index: int, kind: str) -> CType:
    address = _ADDRESSES.get(name)
    if address and address[0] == index:
        return _CONST_POINTER if address[1] else _VOID_POINTER
    kind = kind.rstrip("?")
    if kind in _NUMBERS:
        return _NUMBERS[kind]
    if kind == "const_str":
        return _CONST_TEXT
    return _CONST_POINTER if kind in _READ_KINDS else _VOID_POINTER


def _result_type(name: str, kind: str, find_struct: Callable[[str], CType | None]) -> CType:
    kind = kind.rstrip("?")
    if kind == "void":
        return VOID
    if kind == "scalar":
        if name in _UNSIGNED_RESULTS:
            return ULLONG
        return UINT if name in _UINT_RESULTS else LLONG if name in _SIGNED_RESULTS else LONG
    struct = _RESULT_STRUCTS.get(kind) or (kind[4:] if kind.startswith("btf:") else "")
    found = find_struct(struct) if struct else None
    return Pointer(found) if found is not None else _VOID_POINTER


# Builtins ---------------------------------------------------------------------------------------------------------

# Those with a fixed prototype: result, then parameters. The others are typed by rules of their own (`types_builtin`).
_LETTERS: dict[str, CType] = {
    "v": VOID, "b": BOOL, "i": INT, "u": UINT, "h": USHORT, "l": LONG, "L": LLONG, "U": ULLONG, "m": ULLONG, "p": _VOID_POINTER,
    "c": _CONST_POINTER, "s": _CONST_TEXT,
}  # fmt: skip
_BUILTINS = {
    "memcpy": "ppcU", "memmove": "ppcU", "memset": "ppiU", "memcmp": "iccU", "strlen": "Us", "strcmp": "iss",
    "strncmp": "issU", "bswap16": "hh", "bswap32": "uu", "bswap64": "UU", "ctz": "iu", "ctzl": "iU", "ctzll": "iU", "clz": "iu",
    "clzl": "iU", "clzll": "iU", "popcount": "iu", "popcountl": "iU", "popcountll": "iU", "parity": "iu", "parityl": "iU",
    "parityll": "iU", "ffs": "ii", "ffsl": "il", "ffsll": "iL", "abs": "ii", "labs": "ll", "llabs": "LL", "trap": "v",
    "unreachable": "v", "object_size": "Uci", "assume": "vb",
}  # fmt: skip


def builtin_prototype(name: str) -> FuncProto | None:
    """Return the prototype of `__builtin_NAME` where it has a fixed one, or None."""
    letters = _BUILTINS.get(name)
    if letters is None:
        return None
    result, *params = (_LETTERS[letter] for letter in letters)
    return FuncProto(result, tuple(Param("", p) for p in params))


def builtin_names() -> list[str]:
    """Return the names (without `__builtin_`) that have a fixed prototype."""
    return list(_BUILTINS)

"""Declarations of maps: BCC's tables by its macros, and libbpf's structs in section `.maps`, to `Table`."""

from __future__ import annotations

from ...debuginfo.ctype import Array, CType, Member, Pointer, Struct, sizeof, strip
from ...record import replace
from . import ast
from .analysis import FunctionSymbol, Table
from .arithmetic import INT, UCHAR, UINT, is_incomplete, is_integer, shown
from .checker import POISON
from .constants import constant_value
from .conversions import complete_object
from .types_decl import did_you_mean, type_name
from .types_init import initialise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...errors import CompileError
    from .analysis import Variable
    from .checker import Checker

# BCC's words for what the kernel calls otherwise.
_KINDS = {
    "perf_output": "perf_event_array", "perf_array": "perf_event_array", "ringbuf_output": "ringbuf", "prog": "prog_array",
    "stacktrace": "stack_trace", "stacktrace_build_id": "stack_trace", "stacktrace_buildid": "stack_trace",
    "lru_percpu_hash": "lru_percpu_hash", "cgroup_array": "cgroup_array", "queue": "queue",
}  # fmt: skip
KERNEL_KINDS = frozenset(
    ["hash", "array", "prog_array", "perf_event_array", "percpu_hash", "percpu_array", "stack_trace", "cgroup_array", "lru_hash", "lru_percpu_hash", "lpm_trie", "array_of_maps", "hash_of_maps", "devmap", "sockmap", "cpumap", "xskmap", "sockhash", "cgroup_storage", "reuseport_sockarray", "percpu_cgroup_storage", "queue", "stack", "sk_storage", "devmap_hash", "struct_ops", "ringbuf", "inode_storage", "task_storage", "bloom_filter", "user_ringbuf", "cgrp_storage", "arena"]
)  # fmt: skip
_BARE = frozenset(["ringbuf", "user_ringbuf", "arena"])  # neither keys nor values
_KEYLESS = _BARE | {"queue", "stack", "bloom_filter"}
_INDEXED = frozenset(
    [
        "array",
        "percpu_array",
        "prog_array",
        "perf_event_array",
        "cgroup_array",
        "array_of_maps",
        "cpumap",
        "devmap",
        "xskmap",
    ]
)
_BUILD_ID, _NUMA_NODE = 1 << 5, 1 << 2
DEFAULT_ENTRIES = 10240


def declare_table(ck: Checker, node: ast.TableDecl) -> None:
    """Declare a table of BCC. Raises CompileError."""
    _check_name(ck, node, node.name)
    ck.declare(node.name, POISON, node.span)
    word, shared, inner = _split_kind(node.kind, node.extra)
    key = None if node.key is None else type_name(ck, node.key)
    leaf = None if node.leaf is None else type_name(ck, node.leaf)
    kind = _KINDS.get(word, word)
    if word == "histogram":
        kind = "hash" if key is not None and not is_integer(key) else "array"
    if kind not in KERNEL_KINDS and word != "extern":
        from ...probes.close import close_names

        close = close_names(word, [*KERNEL_KINDS, *_KINDS])
        raise ck.fail(node, f"unknown kind of table '{word}'", hint=did_you_mean(close))
    for ctype, what in ((key, "key"), (leaf, "leaf")):
        if ctype is not None and kind not in ("ringbuf",):
            complete_object(ck, node, ctype, f"the {what} of table '{node.name}'")
    flags = 0 if node.flags is None else constant_value(ck, node.flags, "the flags of a table")
    if word.startswith("stacktrace_"):
        flags |= _BUILD_ID
    entries = DEFAULT_ENTRIES if node.max_entries is None else _entries(ck, node)
    if kind == "stack_trace":
        entries = 1 << max(entries - 1, 0).bit_length()
    _check_shape(ck, node, kind, key, leaf)
    pinning = node.extra if shared.startswith("pinned") else ""
    made = Table(
        node.name,
        kind,
        key,
        leaf,
        entries,
        flags,
        node.span,
        word,
        pinning,
        inner,
        shared in ("public", "shared"),
    )
    _add(ck, made)


def _split_kind(kind: str, extra: str) -> tuple[str, str, str]:
    """Split BCC's word: the kind itself, how it is shared ("pinned", "public", "shared", ""), the inner map's name.

    BCC writes "array_of_maps$inner" and "map in a section" words; a path or a name may stand in `extra`.
    """
    word, dollar, inner = kind.partition("$")
    shared = ""
    for prefix in ("pinned", "public", "shared"):
        for form in (prefix + "_", prefix + ":", prefix + "/"):
            if word.startswith(form):
                word, shared = word[len(form) :], prefix
    if word.endswith("_of_maps") and not dollar:
        inner = extra
    elif extra.startswith("/"):
        shared = "pinned"
    return word, shared, inner


def _entries(ck: Checker, node: ast.TableDecl) -> int:
    assert node.max_entries is not None
    entries = constant_value(ck, node.max_entries, "the number of entries of a table")
    if not 0 <= entries < 1 << 32:
        raise ck.fail(node.max_entries, f"a table cannot have {entries} entries")
    return entries


def _check_shape(ck: Checker, node: ast.Node, kind: str, key: CType | None, leaf: CType | None) -> None:
    """Check what the kernel asks of keys of this kind of map."""
    if kind in _INDEXED and key is not None and sizeof(key) != 4:
        raise ck.fail(node, f"the key of a map of kind '{kind}' has 4 bytes, not the {sizeof(key)} of {shown(key)}")
    if key is not None and kind == "hash" and sizeof(key) == 0:
        raise ck.fail(node, f"{shown(key)} has no bytes and cannot be a key")
    if kind == "lpm_trie" and key is not None and sizeof(key) < 5:
        raise ck.fail(node, f"the key of a trie begins with u32 prefixlen; {shown(key)} is too small")


def _check_name(ck: Checker, node: ast.Node, name: str) -> None:
    if ck.file_scope.names.get(name) is not None:
        raise ck.fail(node, f"redefinition of '{name}'", notes=ck.previous(name))


def _add(ck: Checker, table: Table) -> None:
    ck.file_scope.names[table.name] = table
    ck.file_scope.spans[table.name] = table.span
    ck.tables[table.name] = table


def table_struct(ck: Checker, table: Table) -> Struct:
    """Return the type of a table's name: a struct with members key, leaf, max_entries and flags, as `typeof(t.leaf)` wants it."""
    found = ck.table_structs.get(table)
    if found is None:
        fields = [("key", table.key), ("leaf", table.leaf), ("max_entries", UINT), ("flags", UINT)]
        members = tuple(Member(name, ctype, 0) for name, ctype in fields if ctype is not None)
        found = ck.table_structs[table] = Struct("struct", f"{table.name}_table_t", 8, members, align=8)
    return found


# libbpf's maps ----------------------------------------------------------------------------------------------------


def table_of_struct(ck: Checker, variable: Variable, node: ast.Declarator) -> Table:
    """Read the definition of a map out of the type of a variable in section `.maps`. Raises CompileError.

    `__uint(max_entries, 16)` is a pointer to an array of 16, `__type(key, u32)` a pointer to the type, `__array(values, …)`
    an array of pointers to the inner map's struct.
    """
    struct = strip(variable.ctype)
    if not isinstance(struct, Struct):
        raise ck.fail(node, f"map '{variable.name}' must be a struct of __uint and __type, not {shown(variable.ctype)}")
    numbers: dict[str, int] = {}
    types: dict[str, CType] = {}
    inner: Struct | None = None
    for member in struct.members:
        ctype = strip(member.ctype)
        target = ctype.target if isinstance(ctype, (Pointer, Array)) else None
        if isinstance(ctype, Array) and member.name == "values":
            pointed = strip(ctype.element)
            found = strip(pointed.target) if isinstance(pointed, Pointer) else None
            inner = found if isinstance(found, Struct) else None
        elif isinstance(ctype, Pointer) and isinstance(target, Array) and member.name not in ("key", "value"):
            numbers[member.name] = target.count
        elif isinstance(ctype, Pointer) and target is not None:
            types[member.name] = target
        else:
            raise ck.fail(node, f"member '{member.name}' of map '{variable.name}' is neither __uint nor __type")
    return _map_of(ck, variable, node, numbers, types, inner)


def _map_of(
    ck: Checker,
    variable: Variable,
    node: ast.Declarator,
    numbers: dict[str, int],
    types: dict[str, CType],
    inner: Struct | None,
) -> Table:
    if "type" not in numbers:
        raise ck.fail(node, f"map '{variable.name}' has no __uint(type, BPF_MAP_TYPE_…)")
    kind = _kernel_kind(ck, node, numbers["type"])
    key, value = (
        types.get(name) or (Array(UCHAR, numbers[name + "_size"]) if name + "_size" in numbers else None)
        for name in ("key", "value")
    )
    if kind in _INDEXED and key is None:
        key = INT
    if value is None and kind in ("prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "hash_of_maps"):
        value = UINT
    for ctype, what in ((key, "key"), (value, "value")):
        if ctype is None and kind not in _BARE and not (what == "key" and kind in _KEYLESS):
            raise _no_type(ck, node, variable.name, what)

    def check() -> None:
        for ctype, what in ((key, "key"), (value, "value")):
            if ctype is not None and is_incomplete(ctype):
                raise _no_type(ck, node, variable.name, what)
        _check_shape(ck, node, kind, key, value)

    ck.at_end.append(check)  # as in C, a pointer to a struct does not ask what is in it: it may be defined below
    pinning = "by_name" if numbers.get("pinning") == 1 else ""
    entries, flags = numbers.get("max_entries", 0), numbers.get("map_flags", 0)
    made = Table(variable.name, kind, key, value, entries, flags, variable.span, "", pinning)
    if inner is not None and kind.endswith("_of_maps"):
        made = _with_inner(ck, made, inner, node)
    return made


def _no_type(ck: Checker, node: ast.Node, name: str, what: str) -> CompileError:
    return ck.fail(node, f"map '{name}' has no __type({what}, …) that is complete")


def _with_inner(ck: Checker, table: Table, inner: Struct, node: ast.Declarator) -> Table:
    """Make the table of the inner map's template, and name it in the outer one."""
    from .analysis import Variable

    name = f"{table.name}.inner"
    template = Variable(name, inner, "global", table.span)
    ck.tables[name] = table_of_struct(ck, template, node)
    return replace(table, inner=name)


def with_values(ck: Checker, table: Table, variable: Variable, init: ast.Init) -> Table:
    """Add what an initialiser such as `{ .values = { &inner } }` puts into a map. Raises CompileError."""
    struct = strip(variable.ctype)
    values = struct.get_member("values") if isinstance(struct, Struct) else None
    _, entries = initialise(ck, init, variable.ctype, static=True, flexible=True)
    initial: list[tuple[int, str]] = []
    for entry in entries:
        node = entry.value
        while isinstance(node, (ast.Cast, ast.Unary)):
            node = node.operand
        symbol = ck.symbols.get(node)
        if values is None or entry.offset < values.offset or not isinstance(symbol, (Table, FunctionSymbol)):
            raise ck.fail(entry.value, f"a map is initialised by '.values' with maps or programs only ('{table.name}')")
        initial.append(((entry.offset - values.offset) // 8, symbol.name))
    return replace(table, initial=tuple(initial))


def _kernel_kind(ck: Checker, node: ast.Node, number: int) -> str:
    """Return the kernel's name of a map type in lower case. The numbers are those of `enum bpf_map_type`, which never change."""
    kinds = [
        "unspec",
        "hash",
        "array",
        "prog_array",
        "perf_event_array",
        "percpu_hash",
        "percpu_array",
        "stack_trace",
        "cgroup_array",
        "lru_hash",
        "lru_percpu_hash",
        "lpm_trie",
        "array_of_maps",
        "hash_of_maps",
        "devmap",
        "sockmap",
        "cpumap",
        "xskmap",
        "sockhash",
        "cgroup_storage",
        "reuseport_sockarray",
        "percpu_cgroup_storage",
        "queue",
        "stack",
        "sk_storage",
        "devmap_hash",
        "struct_ops",
        "ringbuf",
        "inode_storage",
        "task_storage",
        "bloom_filter",
        "user_ringbuf",
        "cgrp_storage",
        "arena",
    ]
    if not 0 < number < len(kinds):
        raise ck.fail(node, f"there is no map type {number}")
    return kinds[number]


def add_map(ck: Checker, table: Table, ctype: CType) -> None:
    """Declare a map that `table_of_struct` read out of `ctype`."""
    _add(ck, table)
    struct = strip(ctype)
    if isinstance(struct, Struct):
        ck.table_structs[table] = struct

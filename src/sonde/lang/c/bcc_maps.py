"""Tables to map specs: the kernel's map type, sizes and flags of each kind of BCC table."""

from __future__ import annotations

from ...debuginfo.ctype import sizeof
from ...errors import CompileError
from ...spec.clayout import layout_of
from ...spec.object import MapSpec
from ..source import diagnose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...spec.target import Target
    from .analysis import Table

_POWERS = frozenset(["stack_trace"])  # kinds whose size BCC rounds up to a power of two
_NO_KEY = frozenset(["ringbuf", "queue", "stack", "bloom_filter", "user_ringbuf", "arena"])
_FOUR_BYTES = frozenset(["perf_event_array", "cgroup_array", "prog_array"])  # keys and values are u32
_PER_CPU = frozenset(["perf_event_array"])  # one entry for each CPU where no size is given
_STACK_DEPTH, _BUILD_ID_DEPTH = 127, 127
_NO_PREALLOC = 1
_LOCAL_STORAGE = frozenset(["sk_storage", "inode_storage", "task_storage", "cgrp_storage"])
_CGROUP_STORAGE = frozenset(["cgroup_storage", "percpu_cgroup_storage"])
BUILD_ID_FLAG = 1 << 5  # BPF_F_STACK_BUILD_ID


def map_spec(table: Table, tables: Mapping[str, Table], target: Target) -> MapSpec:
    """Return the map of a table. Raises CompileError for what no map can be."""
    kind = table.kind
    key_size = 0 if table.key is None else sizeof(table.key)
    value_size = 0 if table.leaf is None else sizeof(table.leaf)
    entries, flags = table.max_entries, table.flags
    if kind in _NO_KEY:
        key_size = 0
    if kind in ("ringbuf", "user_ringbuf"):
        value_size = 0
        entries = _ring_bytes(entries, target) if table.bcc_kind else entries
    elif kind in _FOUR_BYTES:
        key_size, value_size = 4, 4
        if kind == "perf_event_array" and (entries <= 1 or table.bcc_kind):
            entries = max(entries if entries > 1 else 0, target.possible_cpus)
    elif kind == "stack_trace":
        entries = 1 << max(entries - 1, 0).bit_length()
        key_size = 4
        value_size = value_size or 8 * _STACK_DEPTH
    elif kind in ("array_of_maps", "hash_of_maps"):
        value_size = 4
        key_size = key_size or 4
    elif kind in _LOCAL_STORAGE:
        key_size, entries, flags = key_size or 4, 0, flags | _NO_PREALLOC
    elif kind in _CGROUP_STORAGE:
        entries = 0
        key_size = key_size or 8
    elif kind == "lpm_trie":
        flags |= _NO_PREALLOC
    inner = _inner(table, tables, target) if kind in ("array_of_maps", "hash_of_maps") else None
    key = layout_of(table.key) if table.key is not None and key_size == sizeof(table.key) else None
    value = layout_of(table.leaf) if table.leaf is not None and value_size == sizeof(table.leaf) else None
    return MapSpec(
        table.name,
        kind,
        key_size,
        value_size,
        entries,
        flags,
        inner=inner,
        pinning=table.pinning,
        key=key,
        value=value,
        values=table.initial,
        key_type=table.key if key is not None else None,
        value_type=table.leaf if value is not None else None,
    )


def _ring_bytes(pages: int, target: Target) -> int:
    """BPF_RINGBUF_OUTPUT gives the size in pages."""
    return pages * target.page_bytes


def _inner(table: Table, tables: Mapping[str, Table], target: Target) -> MapSpec:
    template = tables.get(table.inner)
    if template is None:
        message = f"map {table.name} holds maps like {table.inner!r}, which this text does not define"
        raise CompileError([diagnose(table.span, message, hint="declare the inner map before it")])
    return map_spec(template, tables, target)

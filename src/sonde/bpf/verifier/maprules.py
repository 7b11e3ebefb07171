"""Which helper may be given a map of which type: the kernel's `check_map_func_compatibility`, as one table."""

from __future__ import annotations

from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import MapInfo

_STORAGE = "{0}_storage_get {0}_storage_delete"
# Types of maps that only some helpers take. A type that is in neither table is refused.
_HELPERS_OF = {
    "prog_array": "tail_call",
    "perf_event_array": "perf_event_read perf_event_read_value perf_event_output skb_output xdp_output",
    "ringbuf": "ringbuf_output ringbuf_reserve ringbuf_query ringbuf_reserve_dynptr",
    "user_ringbuf": "user_ringbuf_drain",
    "stack_trace": "get_stackid",
    "cgroup_array": "skb_under_cgroup current_task_under_cgroup",
    "devmap": "redirect_map",
    "devmap_hash": "redirect_map",
    "cpumap": "redirect_map",
    "xskmap": "redirect_map",
    "array_of_maps": "map_lookup_elem",
    "hash_of_maps": "map_lookup_elem",
    "queue": "map_push_elem map_pop_elem map_peek_elem",
    "stack": "map_push_elem map_pop_elem map_peek_elem",
    "bloom_filter": "map_push_elem map_peek_elem",
    "task_storage": _STORAGE.format("task"),
    "sk_storage": _STORAGE.format("sk"),
    "inode_storage": _STORAGE.format("inode"),
    "cgrp_storage": _STORAGE.format("cgrp"),
    "reuseport_sockarray": "sk_select_reuseport",
    "sockmap": "sk_redirect_map msg_redirect_map map_delete_elem sk_select_reuseport",
    "sockhash": "sk_redirect_hash msg_redirect_hash map_delete_elem sk_select_reuseport",
}
# Types with keys and plain values, and what they do not have of the helpers for those.
_KEYED = "map_lookup_elem map_update_elem map_delete_elem for_each_map_elem timer_init"
_PLAIN = {
    "hash": _KEYED,
    "lru_hash": _KEYED,
    "percpu_hash": _KEYED + " map_lookup_percpu_elem",
    "lru_percpu_hash": _KEYED + " map_lookup_percpu_elem",
    "array": _KEYED,
    "percpu_array": _KEYED + " map_lookup_percpu_elem",
    "lpm_trie": "map_lookup_elem map_update_elem map_delete_elem",
}


def check_map(helper: str, table: MapInfo) -> None:
    """Check that a helper may be given this map. Raises Problem."""
    allowed = (_HELPERS_OF.get(table.kind) or _PLAIN.get(table.kind, "")).split()
    if helper not in allowed:
        if table.kind in _HELPERS_OF and helper in _KEYED.split():
            raise Problem(
                f"map {table.name} is of type {table.kind}, which has no keys that programs may use with bpf_{helper}"
            )
        takes = [kind for kinds in (_HELPERS_OF, _PLAIN) for kind, names in kinds.items() if helper in names.split()]
        wants = f"bpf_{helper} takes a map of type {' or '.join(takes)}" if takes else ""
        raise Problem(f"map {table.name} is of type {table.kind}, which bpf_{helper} does not take", wants)
    if table.read_only and helper in ("map_update_elem", "map_delete_elem"):
        raise Problem(f"map {table.name} is read-only for programs")

"""The tables of a BPF object: maps of the kernel as Python mappings, one class for each kind."""

from __future__ import annotations

from ....errors import FeatureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....kernel.maps import KernelMap

# The kernel's map type to the file and class that shows it.
CLASSES = {
    "hash": ("base", "HashTable"),
    "lru_hash": ("base", "LruHash"),
    "lpm_trie": ("base", "LpmTrie"),
    "hash_of_maps": ("base", "MapInMapHash"),
    "sockhash": ("base", "HashTable"),
    "devmap_hash": ("base", "HashTable"),
    "sk_storage": ("base", "HashTable"),
    "inode_storage": ("base", "HashTable"),
    "task_storage": ("base", "HashTable"),
    "cgrp_storage": ("base", "HashTable"),
    "cgroup_storage": ("base", "HashTable"),
    "array": ("arrays", "Array"),
    "prog_array": ("arrays", "ProgArray"),
    "cgroup_array": ("arrays", "CgroupArray"),
    "devmap": ("arrays", "DevMap"),
    "cpumap": ("arrays", "CpuMap"),
    "xskmap": ("arrays", "XskMap"),
    "sockmap": ("arrays", "XskMap"),
    "array_of_maps": ("arrays", "MapInMapArray"),
    "percpu_hash": ("percpu", "PerCpuHash"),
    "lru_percpu_hash": ("percpu", "LruPerCpuHash"),
    "percpu_array": ("percpu", "PerCpuArray"),
    "percpu_cgroup_storage": ("percpu", "PerCpuHash"),
    "stack_trace": ("stacktrace", "StackTrace"),
    "queue": ("queues", "QueueStack"),
    "stack": ("queues", "QueueStack"),
    "perf_event_array": ("buffers", "PerfEventArray"),
    "ringbuf": ("buffers", "RingBuf"),
}


def __getattr__(name: str) -> Any:
    """Find a class of tables by its name, for scripts that ask isinstance()."""
    for kind, (_, known) in CLASSES.items():
        if known == name:
            return find_class(kind)
    if name in ("TableBase", "ArrayBase"):
        module = "base" if name == "TableBase" else "arrays"
        return getattr(__import__(f"{__name__}.{module}", fromlist=[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def find_class(kind: str) -> Any:
    """Return the class of tables of a map type. Raises FeatureError for one that has no face in Python."""
    found = CLASSES.get(kind)
    if found is None:
        raise FeatureError(f"there are no tables of map type {kind}", feature=f"map:{kind}")
    return getattr(__import__(f"{__name__}.{found[0]}", fromlist=[found[1]]), found[1])


def Table(bpf: Any, live: KernelMap, keytype: Any, leaftype: Any, name: bytes, **options: Any) -> Any:
    """Make the table of a live map."""
    return find_class(live.spec.type)(bpf, live, keytype, leaftype, name, **options)

"""Where a process runs, as helpers number it: its control group (bpf_get_current_cgroup_id), the memory node of a CPU (bpf_get_numa_node_id).

The number of a group is that of its folder in the unified hierarchy; where that is mounted nowhere, nobody can tell it from outside of the kernel.
"""

from __future__ import annotations

import os


def find_cgroup_id(pid: int) -> int | None:
    """Return the number of the control group that a process is in, None where it cannot be told."""
    try:
        with open(f"/proc/{pid}/cgroup", errors="surrogateescape") as file:
            path = next(line[3:].rstrip("\n") for line in file if line.startswith("0::"))
        return os.stat(f"{_find_unified()}{path.removesuffix(' (deleted)')}").st_ino
    except (OSError, StopIteration):
        return None


def _find_unified() -> str:
    """The place where the unified hierarchy is mounted. Raises StopIteration when it is not, OSError."""
    with open("/proc/self/mounts", errors="surrogateescape") as file:
        return next(words[1] for words in map(str.split, file) if words[2] == "cgroup2")


def find_node(cpu: int) -> int:
    """Return the memory node of a CPU; 0 where the machine has no such thing."""
    try:
        names = os.listdir(f"/sys/devices/system/cpu/cpu{cpu}")
    except OSError:
        return 0
    return next((int(name[4:]) for name in names if name.startswith("node") and name[4:].isdecimal()), 0)

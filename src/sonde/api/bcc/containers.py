"""BCC's `containers`: the C text that lets a tool see the processes of some containers only.

The sets of cgroups and of mount namespaces are pinned hash maps that somebody else fills.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOTHING = "static inline int {name}() {{ return 0; }}\n"

_CGROUP = """
BPF_TABLE_PINNED("hash", u64, u64, cgroupset, 1024, "{path}");

static inline int _cgroup_filter() {{
    u64 cgroupid = bpf_get_current_cgroup_id();
    return cgroupset.lookup(&cgroupid) == NULL;
}}
"""

# Tools that define struct mnt_namespace themselves leave it out when MNT_NAMESPACE_DEFINED is defined. The kernel's own definition comes
# from BTF here, so there is nothing to define.
_MOUNT_NAMESPACE = """
#include <linux/nsproxy.h>
#include <linux/mount.h>
#include <linux/ns_common.h>
#define MNT_NAMESPACE_DEFINED

BPF_TABLE_PINNED("hash", u64, u32, mount_ns_set, 1024, "{path}");

static inline int _mntns_filter() {{
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    u64 ns_id = task->nsproxy->mnt_ns->ns.inum;
    return mount_ns_set.lookup(&ns_id) == NULL;
}}
"""

_FILTER = """
static inline int container_should_be_filtered() {
    return _cgroup_filter() || _mntns_filter();
}
"""


def filter_by_containers(args: Any) -> str:
    """Return the C text of container_should_be_filtered() for the options `cgroupmap` and `mntnsmap` (paths of pins, or None)."""
    cgroups = _CGROUP.format(path=args.cgroupmap) if args.cgroupmap else _NOTHING.format(name="_cgroup_filter")
    mounts = _MOUNT_NAMESPACE.format(path=args.mntnsmap) if args.mntnsmap else _NOTHING.format(name="_mntns_filter")
    return cgroups + mounts + _FILTER

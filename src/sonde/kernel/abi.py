"""Numbers and record layouts of bpf(2) and perf_event_open(2): include/uapi/linux/bpf.h and perf_event.h.

Types are tuples of the kernel's names in lower case; the number of a name is its index. Attributes are packed with
`struct` into a bytearray that is as long as the newest field in use, so that old kernels need not know of newer ones.
"""

from __future__ import annotations

from struct import Struct

from ..errors import UsageError

# Commands of bpf(2).
BPF_MAP_CREATE, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM, BPF_MAP_GET_NEXT_KEY = range(5)
BPF_PROG_LOAD, BPF_OBJ_PIN, BPF_OBJ_GET = 5, 6, 7
BPF_PROG_ATTACH, BPF_PROG_DETACH, BPF_PROG_TEST_RUN = 8, 9, 10
BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID = 11, 12, 13, 14
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_RAW_TRACEPOINT_OPEN, BPF_BTF_LOAD, BPF_BTF_GET_FD_BY_ID = 17, 18, 19
BPF_MAP_LOOKUP_AND_DELETE_ELEM, BPF_MAP_FREEZE, BPF_BTF_GET_NEXT_ID = 21, 22, 23
BPF_MAP_LOOKUP_BATCH, BPF_MAP_LOOKUP_AND_DELETE_BATCH, BPF_MAP_UPDATE_BATCH, BPF_MAP_DELETE_BATCH = 24, 25, 26, 27
BPF_LINK_CREATE, BPF_ENABLE_STATS, BPF_ITER_CREATE = 28, 32, 33

MAP_TYPES = (
    "unspec", "hash", "array", "prog_array", "perf_event_array", "percpu_hash", "percpu_array", "stack_trace",
    "cgroup_array", "lru_hash", "lru_percpu_hash", "lpm_trie", "array_of_maps", "hash_of_maps", "devmap", "sockmap",
    "cpumap", "xskmap", "sockhash", "cgroup_storage", "reuseport_sockarray", "percpu_cgroup_storage", "queue", "stack",
    "sk_storage", "devmap_hash", "struct_ops", "ringbuf", "inode_storage", "task_storage", "bloom_filter",
    "user_ringbuf", "cgrp_storage", "arena",
)  # fmt: skip

PROGRAM_TYPES = (
    "unspec", "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event", "cgroup_skb",
    "cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "sock_ops", "sk_skb", "cgroup_device", "sk_msg", "raw_tracepoint",
    "cgroup_sock_addr", "lwt_seg6local", "lirc_mode2", "sk_reuseport", "flow_dissector", "cgroup_sysctl",
    "raw_tracepoint_writable", "cgroup_sockopt", "tracing", "struct_ops", "ext", "lsm", "sk_lookup", "syscall",
    "netfilter",
)  # fmt: skip

ATTACH_TYPES = (
    "cgroup_inet_ingress", "cgroup_inet_egress", "cgroup_inet_sock_create", "cgroup_sock_ops",
    "sk_skb_stream_parser", "sk_skb_stream_verdict", "cgroup_device", "sk_msg_verdict", "cgroup_inet4_bind",
    "cgroup_inet6_bind", "cgroup_inet4_connect", "cgroup_inet6_connect", "cgroup_inet4_post_bind",
    "cgroup_inet6_post_bind", "cgroup_udp4_sendmsg", "cgroup_udp6_sendmsg", "lirc_mode2", "flow_dissector",
    "cgroup_sysctl", "cgroup_udp4_recvmsg", "cgroup_udp6_recvmsg", "cgroup_getsockopt", "cgroup_setsockopt",
    "trace_raw_tp", "trace_fentry", "trace_fexit", "modify_return", "lsm_mac", "trace_iter",
    "cgroup_inet4_getpeername", "cgroup_inet6_getpeername", "cgroup_inet4_getsockname", "cgroup_inet6_getsockname",
    "xdp_devmap", "cgroup_inet_sock_release", "xdp_cpumap", "sk_lookup", "xdp", "sk_skb_verdict",
    "sk_reuseport_select", "sk_reuseport_select_or_migrate", "perf_event", "trace_kprobe_multi", "lsm_cgroup",
    "struct_ops", "netfilter", "tcx_ingress", "tcx_egress", "trace_uprobe_multi", "cgroup_unix_connect",
    "cgroup_unix_sendmsg", "cgroup_unix_recvmsg", "cgroup_unix_getpeername", "cgroup_unix_getsockname",
    "netkit_primary", "netkit_peer", "trace_kprobe_session", "trace_uprobe_session",
)  # fmt: skip

# Flags of maps, programs, updates and multi links.
BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG, BPF_F_MMAPABLE = 1 << 0, 1 << 7, 1 << 10
BPF_F_SLEEPABLE = 1 << 4
BPF_F_PROBE_MULTI_RETURN = 1

# struct bpf_attr of each command, as far as it is used here.
MAP_CREATE = Struct("=IIIIIII16sIIIIIQ")
MAP_ELEMENT = Struct("=I4xQQQ")  # map_fd, key, value or next_key, flags
MAP_BATCH = Struct("=QQQQIIQQ")  # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
MAP_BATCH_COUNT_OFFSET = 32
PROG_ATTACH = Struct("=IIIII")  # target_fd, attach_bpf_fd, attach_type, attach_flags, replace_bpf_fd
PROG_LOAD = Struct("=IIQQIIQII16sIIIIQIIQIIIIQ")
PROG_TEST_RUN = Struct("=IIIIQQIIIIQQIII4x")
TEST_RUN_RETVAL_OFFSET = 4
OBJ_PIN = Struct("=QII")  # pathname, bpf_fd, file_flags
OBJ_INFO = Struct("=IIQ")  # bpf_fd, info_len, info
MAP_INFO = Struct("=IIIIII")  # the start of struct bpf_map_info: type, id, key_size, value_size, max_entries, flags
RAW_TRACEPOINT_OPEN = Struct("=QI4xQ")  # name, prog_fd, cookie
RAW_TRACEPOINT_OPEN_OLD = Struct("=QI4x")
BTF_LOAD = Struct("=QQIII4x")  # btf, log_buf, btf_size, log_size, log_level
GET_ID = Struct("=III4x")  # start_id or id, next_id, open_flags
LINK_CREATE = Struct("=IIII")  # prog_fd, target_fd, attach_type, flags; a part by attach type follows
LINK_PERF_EVENT = Struct("=Q")  # bpf_cookie
LINK_TRACING = Struct("=I4xQ")  # target_btf_id, cookie
LINK_KPROBE_MULTI = Struct("=IIQQQ")  # flags, cnt, syms, addrs, cookies
LINK_UPROBE_MULTI = Struct("=QQQQIIII")  # path, offsets, ref_ctr_offsets, cookies, cnt, flags, pid, -
ITER_CREATE = Struct("=II")  # link_fd, flags

# perf_event_open(2).
PERF_TYPE_HARDWARE, PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT, PERF_TYPE_BREAKPOINT = 0, 1, 2, 5
PERF_COUNT_SW_CPU_CLOCK, PERF_COUNT_SW_BPF_OUTPUT = 0, 10
PERF_SAMPLE_RAW = 1 << 10
PERF_FLAG_FD_CLOEXEC = 8
PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_SET_BPF = 0x2400, 0x40042408
ATTR_DISABLED, ATTR_INHERIT, ATTR_FREQ, ATTR_INHERIT_THREAD = 1 << 0, 1 << 1, 1 << 10, 1 << 35
ATTR_INHERIT_THREADS = ATTR_INHERIT | ATTR_INHERIT_THREAD  # by threads, not by child processes
ATTR_FLAGS_OFFSET = 40  # of the 64 bits of flags in struct perf_event_attr
PERF_EVENT_ATTR = Struct("=IIQQQQQIIQQ40x")  # PERF_ATTR_SIZE_VER5, Linux 4.1

ENOTSUPP = 524  # the kernel's own "not supported", which has no name outside


def map_type(name: str) -> int:
    """Return the number of a map type. Raises UsageError for an unknown name."""
    return _index(MAP_TYPES, name, "map type")


def program_type(name: str) -> int:
    """Return the number of a program type. Raises UsageError for an unknown name."""
    return _index(PROGRAM_TYPES, name, "program type")


def attach_type(name: str) -> int:
    """Return the number of an attach type, 0 for "". Raises UsageError for an unknown name."""
    return _index(ATTACH_TYPES, name, "attach type") if name else 0


def _index(names: tuple[str, ...], name: str, what: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise UsageError(f"there is no {what} {name!r}") from None


def object_name(name: str) -> bytes:
    """Return `name` as the kernel takes names of maps and programs: 15 letters, digits, dots or underscores."""
    text = "".join(c if c.isascii() and (c.isalnum() or c in "._") else "_" for c in name)
    return text[:15].encode()


def perf_event_attr(
    kind: int,
    config: int,
    *,
    period: int = 0,
    flags: int = 0,
    sample_type: int = 0,
    wakeup: int = 0,
    breakpoint_type: int = 0,
    config1: int = 0,
    config2: int = 0,
) -> bytearray:
    """Pack struct perf_event_attr. `period` is the frequency in Hz when `flags` has ATTR_FREQ."""
    size = PERF_EVENT_ATTR.size
    return bytearray(
        PERF_EVENT_ATTR.pack(
            kind, size, config, period, sample_type, 0, flags, wakeup, breakpoint_type, config1, config2
        )
    )

"""The helper functions that programs may call: numbers, prototypes, and the oldest kernel that has each.

One line of text for each helper in the order of the numbers (`enum bpf_func_id`, which ends at 211: what came later are kernel
functions, found by BTF). Importing this costs nothing; a line is parsed when somebody asks for its helper. Prototypes
were read from the `bpf_func_proto` objects of a running kernel 7.2; kernels differ only in accepting more.

Kinds of arguments; a "?" after one means that null is accepted:

    ctx          the program's context
    map          a map
    key value    pointers to a key or value of that map, read; value_out: written
    mem          pointer to bytes that are read; their number is the next argument
    mem_out      pointer to bytes that are written, and need not be initialised
    mem_rw       pointer to bytes that are written, but must be initialised before
    fixed fixed_out fixed_rw   pointers to memory of a size that the helper fixes
    size size0   number of bytes of the pointer before it: 1 or more, 0 or more
    alloc_size   a constant number of bytes to be had
    scalar       any number, addresses that the helper will read included
    const_str    pointer to a NUL-terminated string in a read-only map
    func stack   a callback, and the pointer that is handed to it
    record       what ringbuf_reserve returned; given back
    sock sock_release    a socket; sock_release takes the reference
    btf:NAME     a trusted kernel pointer to struct NAME
    percpu       address of a per-CPU kernel variable
    dynptr dynptr_out dynptr_release   a dynamic pointer, on the stack
    timer spin_lock kptr   pointers to such a field in a map value

Kinds of results: scalar, void, or a pointer ("?" after it: perhaps null) to value (of the map), mem (as large as the argument
alloc_size), record (mem that must be submitted or discarded), percpu_mem, socket, sock_common, tcp_sock, btf:NAME.

Flags:

    constant   the same result throughout one run of a program, and no effect: may be called once, or not at all
    quiet      no effect, and nothing of the program's memory read or written, but each call may return another result
    gpl        only for programs under a licence compatible with the GPL
    sleeps     only for sleepable programs
"""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Helper(Record):
    """One helper. `args` and `result` are kinds as listed above; `since` is the oldest kernel ("5.8")."""

    ident: int
    name: str
    result: str
    args: tuple[str, ...]
    since: str
    flags: tuple[str, ...] = ()

    @property
    def constant(self) -> bool:
        """True when one call in a run of the program is as good as many."""
        return "constant" in self.flags

    @property
    def has_effect(self) -> bool:
        """False when a call whose result nobody uses may be left out."""
        return not ("constant" in self.flags or "quiet" in self.flags)

    @property
    def touches_memory(self) -> bool:
        """True when a call may read or write memory that the program sees: stack, map values, records."""
        return self.has_effect and any(kind.rstrip("?") not in _PASSIVE for kind in self.args)

    @property
    def variadic(self) -> bool:
        """True for trace_printk, which takes up to three scalars after its prototype."""
        return self.ident == 6


_PASSIVE = frozenset(["ctx", "map", "size", "size0", "alloc_size", "scalar", "const_str", "sock"])

# Name, oldest kernel, result, arguments ("-": none), and after a semicolon flags. The first line is helper 1.
_TABLE = """
map_lookup_elem 3.19 value? map key
map_update_elem 3.19 scalar map key value scalar
map_delete_elem 3.19 scalar map key
probe_read 4.1 scalar mem_out size0 scalar ; gpl
ktime_get_ns 4.1 scalar - ; quiet
trace_printk 4.1 scalar mem size ; gpl
get_prandom_u32 4.1 scalar - ; quiet
get_smp_processor_id 4.1 scalar - ; constant
skb_store_bytes 4.1 scalar ctx scalar mem size scalar
l3_csum_replace 4.1 scalar ctx scalar scalar scalar scalar
l4_csum_replace 4.1 scalar ctx scalar scalar scalar scalar
tail_call 4.2 void ctx map scalar
clone_redirect 4.2 scalar ctx scalar scalar
get_current_pid_tgid 4.2 scalar - ; constant
get_current_uid_gid 4.2 scalar - ; constant
get_current_comm 4.2 scalar mem_out size
get_cgroup_classid 4.3 scalar ctx ; constant
skb_vlan_push 4.3 scalar ctx scalar scalar
skb_vlan_pop 4.3 scalar ctx
skb_get_tunnel_key 4.3 scalar ctx mem_out size scalar
skb_set_tunnel_key 4.3 scalar ctx mem size scalar
perf_event_read 4.3 scalar map scalar ; quiet gpl
redirect 4.4 scalar scalar scalar
get_route_realm 4.4 scalar ctx
perf_event_output 4.4 scalar ctx map scalar mem size0 ; gpl
skb_load_bytes 4.5 scalar ctx scalar mem_out size
get_stackid 4.6 scalar ctx map scalar ; gpl
csum_diff 4.6 scalar mem? size0 mem? size0 scalar
skb_get_tunnel_opt 4.6 scalar ctx mem_out size
skb_set_tunnel_opt 4.6 scalar ctx mem size
skb_change_proto 4.8 scalar ctx scalar scalar
skb_change_type 4.8 scalar ctx scalar
skb_under_cgroup 4.8 scalar ctx map scalar
get_hash_recalc 4.8 scalar ctx
get_current_task 4.8 scalar - ; constant gpl
probe_write_user 4.8 scalar scalar mem size ; gpl
current_task_under_cgroup 4.9 scalar map scalar
skb_change_tail 4.9 scalar ctx scalar scalar
skb_pull_data 4.9 scalar ctx scalar
csum_update 4.9 scalar ctx scalar
set_hash_invalid 4.9 scalar ctx
get_numa_node_id 4.10 scalar - ; constant
skb_change_head 4.10 scalar ctx scalar scalar
xdp_adjust_head 4.10 scalar ctx scalar
probe_read_str 4.11 scalar mem_out size0 scalar ; gpl
get_socket_cookie 4.12 scalar ctx
get_socket_uid 4.12 scalar ctx
set_hash 4.13 scalar ctx scalar
setsockopt 4.13 scalar ctx scalar scalar mem size
skb_adjust_room 4.13 scalar ctx scalar scalar scalar
redirect_map 4.14 scalar map scalar scalar
sk_redirect_map 4.14 scalar ctx map scalar scalar
sock_map_update 4.14 scalar ctx map key scalar
xdp_adjust_meta 4.15 scalar ctx scalar
perf_event_read_value 4.15 scalar map scalar mem_out size ; gpl
perf_prog_read_value 4.15 scalar ctx mem_out size ; gpl
getsockopt 4.15 scalar ctx scalar scalar mem_out size
override_return 4.16 scalar ctx scalar ; gpl
sock_ops_cb_flags_set 4.16 scalar ctx scalar
msg_redirect_map 4.17 scalar ctx map scalar scalar
msg_apply_bytes 4.17 scalar ctx scalar
msg_cork_bytes 4.17 scalar ctx scalar
msg_pull_data 4.17 scalar ctx scalar scalar scalar
bind 4.17 scalar ctx mem size
xdp_adjust_tail 4.18 scalar ctx scalar
skb_get_xfrm_state 4.18 scalar ctx scalar mem_out size scalar
get_stack 4.18 scalar ctx mem_out size0 scalar ; gpl
skb_load_bytes_relative 4.18 scalar ctx scalar mem_out size scalar
fib_lookup 4.18 scalar ctx mem_rw size scalar ; gpl
sock_hash_update 4.18 scalar ctx map key scalar
msg_redirect_hash 4.18 scalar ctx map key scalar
sk_redirect_hash 4.18 scalar ctx map key scalar
lwt_push_encap 4.18 scalar ctx scalar mem size
lwt_seg6_store_bytes 4.18 scalar ctx scalar mem size
lwt_seg6_adjust_srh 4.18 scalar ctx scalar scalar
lwt_seg6_action 4.18 scalar ctx scalar mem size
rc_repeat 4.18 scalar ctx ; gpl
rc_keydown 4.18 scalar ctx scalar scalar scalar ; gpl
skb_cgroup_id 4.18 scalar ctx
get_current_cgroup_id 4.18 scalar - ; constant
get_local_storage 4.19 value map scalar
sk_select_reuseport 4.19 scalar ctx map key scalar
skb_ancestor_cgroup_id 4.19 scalar ctx scalar
sk_lookup_tcp 4.20 socket? ctx mem size0 scalar scalar
sk_lookup_udp 4.20 socket? ctx mem size0 scalar scalar
sk_release 4.20 scalar sock_release
map_push_elem 4.20 scalar map value scalar
map_pop_elem 4.20 scalar map value_out
map_peek_elem 4.20 scalar map value_out
msg_push_data 4.20 scalar ctx scalar scalar scalar
msg_pop_data 5.0 scalar ctx scalar scalar scalar
rc_pointer_rel 5.0 scalar ctx scalar scalar ; gpl
spin_lock 5.1 void spin_lock
spin_unlock 5.1 void spin_lock
sk_fullsock 5.1 socket? sock
tcp_sock 5.1 tcp_sock? sock
skb_ecn_set_ce 5.1 scalar ctx
get_listener_sock 5.1 socket? sock
skc_lookup_tcp 5.2 sock_common? ctx mem size0 scalar scalar
tcp_check_syncookie 5.2 scalar sock mem size mem size ; gpl
sysctl_get_name 5.2 scalar ctx mem_rw size scalar
sysctl_get_current_value 5.2 scalar ctx mem_out size
sysctl_get_new_value 5.2 scalar ctx mem_out size
sysctl_set_new_value 5.2 scalar ctx mem size
strtol 5.2 scalar mem size scalar fixed_out
strtoul 5.2 scalar mem size scalar fixed_out
sk_storage_get 5.2 value? map sock value? scalar
sk_storage_delete 5.2 scalar map sock
send_signal 5.3 scalar scalar
tcp_gen_syncookie 5.3 scalar sock mem size mem size ; gpl
skb_output 5.5 scalar btf:sk_buff map scalar mem size0 ; gpl
probe_read_user 5.5 scalar mem_out size0 scalar ; gpl
probe_read_kernel 5.5 scalar mem_out size0 scalar ; gpl
probe_read_user_str 5.5 scalar mem_out size0 scalar ; gpl
probe_read_kernel_str 5.5 scalar mem_out size0 scalar ; gpl
tcp_send_ack 5.6 scalar btf:tcp_sock scalar
send_signal_thread 5.6 scalar scalar
jiffies64 5.6 scalar - ; quiet
read_branch_records 5.6 scalar ctx mem_rw? size0 scalar ; gpl
get_ns_current_pid_tgid 5.7 scalar scalar scalar mem_out size
xdp_output 5.7 scalar btf:xdp_buff map scalar mem size0 ; gpl
get_netns_cookie 5.7 scalar ctx? ; constant
get_current_ancestor_cgroup_id 5.7 scalar scalar ; constant
sk_assign 5.7 scalar ctx sock scalar
ktime_get_boot_ns 5.8 scalar - ; quiet
seq_printf 5.8 scalar btf:seq_file mem size mem? size0 ; gpl
seq_write 5.8 scalar btf:seq_file mem size0 ; gpl
sk_cgroup_id 5.8 scalar sock
sk_ancestor_cgroup_id 5.8 scalar sock scalar
ringbuf_output 5.8 scalar map mem size0 scalar
ringbuf_reserve 5.8 record? map alloc_size scalar
ringbuf_submit 5.8 void record scalar
ringbuf_discard 5.8 void record scalar
ringbuf_query 5.8 scalar map scalar ; quiet
csum_level 5.8 scalar ctx scalar
skc_to_tcp6_sock 5.9 btf:tcp6_sock? sock
skc_to_tcp_sock 5.9 btf:tcp_sock? sock
skc_to_tcp_timewait_sock 5.9 btf:tcp_timewait_sock? sock
skc_to_tcp_request_sock 5.9 btf:tcp_request_sock? sock
skc_to_udp6_sock 5.9 btf:udp6_sock? sock
get_task_stack 5.9 scalar btf:task_struct mem_out size0 scalar
load_hdr_opt 5.10 scalar ctx mem_rw size scalar
store_hdr_opt 5.10 scalar ctx mem size scalar
reserve_hdr_opt 5.10 scalar ctx scalar scalar
inode_storage_get 5.10 value? map btf:inode? value? scalar
inode_storage_delete 5.10 scalar map btf:inode?
d_path 5.10 scalar btf:path mem_rw size0
copy_from_user 5.10 scalar mem_out size0 scalar ; sleeps
snprintf_btf 5.10 scalar mem_rw size mem size scalar
seq_printf_btf 5.10 scalar btf:seq_file mem size0 scalar ; gpl
skb_cgroup_classid 5.10 scalar ctx
redirect_neigh 5.10 scalar scalar mem? size0 scalar
per_cpu_ptr 5.10 percpu_mem? percpu scalar ; constant
this_cpu_ptr 5.10 percpu_mem percpu ; constant
redirect_peer 5.10 scalar scalar scalar
task_storage_get 5.11 value? map btf:task_struct? value? scalar
task_storage_delete 5.11 scalar map btf:task_struct?
get_current_task_btf 5.11 btf:task_struct - ; constant gpl
bprm_opts_set 5.11 scalar btf:linux_binprm scalar
ktime_get_coarse_ns 5.11 scalar - ; quiet
ima_inode_hash 5.11 scalar btf:inode mem_out size ; sleeps
sock_from_file 5.11 btf:socket? btf:file
check_mtu 5.12 scalar ctx scalar fixed_rw scalar scalar ; gpl
for_each_map_elem 5.13 scalar map func stack? scalar
snprintf 5.13 scalar mem_rw? size0 const_str mem? size0 ; gpl
sys_bpf 5.14 scalar scalar mem size ; sleeps
btf_find_by_name_kind 5.14 scalar mem size scalar scalar ; sleeps
sys_close 5.14 scalar scalar ; sleeps
timer_init 5.15 scalar timer map scalar ; gpl
timer_set_callback 5.15 scalar timer func ; gpl
timer_start 5.15 scalar timer scalar scalar ; gpl
timer_cancel 5.15 scalar timer ; gpl
get_func_ip 5.15 scalar ctx ; constant
get_attach_cookie 5.15 scalar ctx ; constant
task_pt_regs 5.15 btf:pt_regs btf:task_struct ; constant gpl
get_branch_snapshot 5.16 scalar mem_out size0 ; gpl
trace_vprintk 5.16 scalar mem size mem? size0 ; gpl
skc_to_unix_sock 5.16 btf:unix_sock? sock
kallsyms_lookup_name 5.16 scalar mem size0 scalar fixed_out
find_vma 5.17 scalar btf:task_struct scalar func stack? scalar
loop 5.17 scalar scalar func stack? scalar
strncmp 5.17 scalar mem size const_str
get_func_arg 5.17 scalar ctx scalar fixed_out
get_func_ret 5.17 scalar ctx fixed_out
get_func_arg_cnt 5.17 scalar ctx ; constant
get_retval 5.18 scalar - ; quiet
set_retval 5.18 scalar scalar
xdp_get_buff_len 5.18 scalar ctx
xdp_load_bytes 5.18 scalar ctx scalar mem_out size
xdp_store_bytes 5.18 scalar ctx scalar mem size
copy_from_user_task 5.18 scalar mem_out size0 scalar btf:task_struct scalar ; gpl sleeps
skb_set_tstamp 5.18 scalar ctx scalar scalar
ima_file_hash 5.18 scalar btf:file mem_out size ; sleeps
kptr_xchg 5.19 btf? kptr btf?
map_lookup_percpu_elem 5.19 value? map key scalar
skc_to_mptcp_sock 5.19 btf:mptcp_sock? sock
dynptr_from_mem 5.19 scalar mem_out size0 scalar dynptr_out
ringbuf_reserve_dynptr 5.19 scalar map scalar scalar dynptr_out
ringbuf_submit_dynptr 5.19 void dynptr_release scalar
ringbuf_discard_dynptr 5.19 void dynptr_release scalar
dynptr_read 5.19 scalar mem_out size0 dynptr scalar scalar
dynptr_write 5.19 scalar dynptr scalar mem size0 scalar
dynptr_data 5.19 mem? dynptr scalar alloc_size
tcp_raw_gen_syncookie_ipv4 6.0 scalar fixed mem size0 ; gpl
tcp_raw_gen_syncookie_ipv6 6.0 scalar fixed mem size0 ; gpl
tcp_raw_check_syncookie_ipv4 6.0 scalar fixed fixed ; gpl
tcp_raw_check_syncookie_ipv6 6.0 scalar fixed fixed ; gpl
ktime_get_tai_ns 6.1 scalar - ; quiet
user_ringbuf_drain 6.1 scalar map func stack? scalar
cgrp_storage_get 6.2 value? map btf:cgroup? value? scalar
cgrp_storage_delete 6.2 scalar map btf:cgroup?
"""


class Helpers:
    """All helpers, by name or by number. Looking one up parses its line; unknown ones raise KeyError."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._idents: dict[str, int] = {}
        self._parsed: dict[int, Helper] = {}

    def _load(self) -> None:
        self._lines = _TABLE.strip().split("\n")
        self._idents = {line.partition(" ")[0]: ident for ident, line in enumerate(self._lines, 1)}

    def __getitem__(self, which: str | int) -> Helper:
        if not self._lines:
            self._load()
        ident = which if isinstance(which, int) else self._idents[which]
        if ident not in self._parsed:
            if not 1 <= ident <= len(self._lines):
                raise KeyError(which)
            prototype, _, flags = self._lines[ident - 1].partition(" ; ")
            name, since, result, *args = prototype.split()
            arguments = () if args == ["-"] else tuple(args)
            self._parsed[ident] = Helper(ident, name, result, arguments, since, tuple(flags.split()))
        return self._parsed[ident]

    def get(self, which: str | int) -> Helper | None:
        """Return the helper of this name or number, or None."""
        try:
            return self[which]
        except KeyError:
            return None

    def __contains__(self, which: str | int) -> bool:
        return self.get(which) is not None

    def __iter__(self) -> Iterator[Helper]:
        if not self._lines:
            self._load()
        return (self[ident] for ident in range(1, len(self._lines) + 1))

    def __len__(self) -> int:
        if not self._lines:
            self._load()
        return len(self._lines)


HELPERS = Helpers()

// Active TCP connections over IPv4 and IPv6: entry and return of a function, sockets read by CO-RE, a union for both families.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#define AF_INET 2
#define AF_INET6 10
#define PORTS_MAX 8
const volatile int ports[PORTS_MAX] = {};
const volatile int ports_count = 0;
const volatile uid_t only_uid = -1;

union address { __u32 v4; __u8 v6[16]; };
struct event { union address from, to; char comm[16]; __u64 ts_us; __u32 family, pid, uid; __u16 port; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8192); __type(key, u32); __type(value, struct sock *); __uint(map_flags, BPF_F_NO_PREALLOC); } socks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); } events SEC(".maps");

static __always_inline bool is_port_wanted(__u16 port)
{
	if (!ports_count)
		return true;
	for (int i = 0; i < ports_count && i < PORTS_MAX; i++)
		if (port == ports[i])
			return true;
	return false;
}

static int enter(struct sock *sk)
{
	__u32 tid = bpf_get_current_pid_tgid();

	if (only_uid != (uid_t)-1 && only_uid != (uid_t)bpf_get_current_uid_gid())
		return 0;
	bpf_map_update_elem(&socks, &tid, &sk, 0);
	return 0;
}

static int leave(struct pt_regs *ctx, int result, int family)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tid = id;
	struct sock **found = bpf_map_lookup_elem(&socks, &tid), *sk;
	struct event event = {};
	__u16 port;

	if (!found)
		return 0;
	if (result)
		goto out;
	sk = *found;
	BPF_CORE_READ_INTO(&port, sk, __sk_common.skc_dport);
	port = bpf_ntohs(port);
	if (!is_port_wanted(port))
		goto out;
	event.family = family;
	event.pid = id >> 32;
	event.uid = bpf_get_current_uid_gid();
	event.ts_us = bpf_ktime_get_ns() / 1000;
	event.port = port;
	if (family == AF_INET) {
		BPF_CORE_READ_INTO(&event.from.v4, sk, __sk_common.skc_rcv_saddr);
		BPF_CORE_READ_INTO(&event.to.v4, sk, __sk_common.skc_daddr);
	} else {
		BPF_CORE_READ_INTO(&event.from.v6, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32);
		BPF_CORE_READ_INTO(&event.to.v6, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32);
	}
	bpf_get_current_comm(event.comm, sizeof(event.comm));
	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &event, sizeof(event));
out:
	bpf_map_delete_elem(&socks, &tid);
	return 0;
}

SEC("kprobe/tcp_v4_connect") int BPF_KPROBE(on_v4, struct sock *sk) { return enter(sk); }
SEC("kretprobe/tcp_v4_connect") int BPF_KRETPROBE(on_v4_return, int ret) { return leave(ctx, ret, AF_INET); }
SEC("kprobe/tcp_v6_connect") int BPF_KPROBE(on_v6, struct sock *sk) { return enter(sk); }
SEC("kretprobe/tcp_v6_connect") int BPF_KRETPROBE(on_v6_return, int ret) { return leave(ctx, ret, AF_INET6); }

char LICENSE[] SEC("license") = "GPL";

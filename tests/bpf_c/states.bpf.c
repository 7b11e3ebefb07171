// TCP connections change their state: how long they were in each, from a tracepoint with addresses as byte arrays.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct event { __u8 from[16], to[16]; __u64 ts, in_state_us; void *sk; __u32 pid; int old, now; __u16 family, sport, dport; char comm[16]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 10240); __type(key, void *); __type(value, __u64); } since SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, sizeof(int)); __uint(value_size, sizeof(int)); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, TCP_MAX_STATES); __type(key, __u32); __type(value, __u64); } reached SEC(".maps");

SEC("tracepoint/sock/inet_sock_set_state")
int on_state(struct trace_event_raw_inet_sock_set_state *ctx)
{
	void *sk = (void *)ctx->skaddr;
	__u64 now = bpf_ktime_get_ns(), *before, *count;
	struct event e = { .sk = sk, .ts = now / 1000, .old = ctx->oldstate, .now = ctx->newstate };
	__u32 state = ctx->newstate;

	if (ctx->protocol != IPPROTO_TCP)
		return 0;
	before = bpf_map_lookup_elem(&since, &sk);
	e.in_state_us = before ? (now - *before) / 1000 : 0;
	e.family = ctx->family;
	e.sport = ctx->sport;
	e.dport = ctx->dport;
	e.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(&e.comm, sizeof(e.comm));
	if (e.family == 2) {
		__builtin_memcpy(e.from, ctx->saddr, 4);
		__builtin_memcpy(e.to, ctx->daddr, 4);
	} else {
		__builtin_memcpy(e.from, ctx->saddr_v6, 16);
		__builtin_memcpy(e.to, ctx->daddr_v6, 16);
	}
	if ((count = bpf_map_lookup_elem(&reached, &state)) != NULL)
		++*count;
	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &e, sizeof(e));
	if (ctx->newstate == TCP_CLOSE)
		bpf_map_delete_elem(&since, &sk);
	else
		bpf_map_update_elem(&since, &sk, &now, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

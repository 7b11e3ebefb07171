// TCP sessions from birth to death with the bytes that went both ways: map values with pointers as keys, tcp_sock by a cast.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

struct birth { __u64 ts; __u32 pid; char comm[16]; };
struct life { __u64 span_us, rx_bytes, tx_bytes; __u32 pid, saddr, daddr; __u16 lport, dport, family; char comm[16]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 10240); __type(key, struct sock *); __type(value, struct birth); } births SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 18); } lives SEC(".maps");

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(on_state, const struct sock *sk, const int old, const int new)
{
	const struct tcp_sock *tp = (const struct tcp_sock *)sk;
	const struct inet_sock *inet = (const void *)sk;
	struct birth *birth, made = {};
	struct sock *key = (struct sock *)sk;
	struct life *life;

	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	if (new < TCP_FIN_WAIT1) {
		made.ts = bpf_ktime_get_ns();
		made.pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(made.comm, sizeof(made.comm));
		bpf_map_update_elem(&births, &key, &made, BPF_ANY);
	}
	if (new != TCP_CLOSE)
		return 0;
	birth = bpf_map_lookup_elem(&births, &key);
	if (!birth)
		return 0;
	life = bpf_ringbuf_reserve(&lives, sizeof(*life), 0);
	if (life) {
		life->span_us = (bpf_ktime_get_ns() - birth->ts) / 1000;
		life->rx_bytes = BPF_CORE_READ(tp, bytes_received);
		life->tx_bytes = BPF_CORE_READ(tp, bytes_acked);
		life->pid = birth->pid;
		life->family = BPF_CORE_READ(sk, __sk_common.skc_family);
		life->saddr = BPF_CORE_READ(inet, inet_saddr);
		life->daddr = BPF_CORE_READ(sk, __sk_common.skc_daddr);
		life->lport = BPF_CORE_READ(sk, __sk_common.skc_num);
		life->dport = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
		__builtin_memcpy(life->comm, birth->comm, sizeof(life->comm));
		bpf_ringbuf_submit(life, 0);
	}
	bpf_map_delete_elem(&births, &key);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

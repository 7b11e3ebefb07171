#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct sock { int unused; } __attribute__((preserve_access_index));
struct tcp_sock { unsigned snd_cwnd; unsigned snd_ssthresh; } __attribute__((preserve_access_index));
struct ack_sample;
struct rate_sample;
struct tcp_congestion_ops {
	unsigned (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, unsigned ack, unsigned acked);
	unsigned (*undo_cwnd)(struct sock *sk);
	void (*init)(struct sock *sk);
	char name[16];
	unsigned flags;
};

long started, asked;

SEC("struct_ops/sonde_init") void BPF_PROG(sonde_init, struct sock *sk) { __sync_fetch_and_add(&started, 1); }
SEC("struct_ops/sonde_ssthresh") unsigned BPF_PROG(sonde_ssthresh, struct sock *sk) { __sync_fetch_and_add(&asked, 1); return 2; }
SEC("struct_ops/sonde_undo") unsigned BPF_PROG(sonde_undo, struct sock *sk) { return ((struct tcp_sock *)sk)->snd_cwnd; }
SEC("struct_ops/sonde_avoid") void BPF_PROG(sonde_avoid, struct sock *sk, unsigned ack, unsigned acked) { __sync_fetch_and_add(&asked, 1); }

SEC(".struct_ops.link") struct tcp_congestion_ops sonde_test = {
	.init = (void *)sonde_init, .ssthresh = (void *)sonde_ssthresh, .cong_avoid = (void *)sonde_avoid, .undo_cwnd = (void *)sonde_undo,
	.name = "sonde_test",
};
char LICENSE[] SEC("license") = "GPL";

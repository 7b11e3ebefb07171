// Tail calls through a table that is filled by name, and by number at run time; a chain of parsers that share state on each CPU.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

enum parser { P_ETHERNET, P_IPV4, P_UDP, P_MAX };
struct state { __u32 offset, depth, seen[P_MAX]; };
int parse_ethernet(struct xdp_md *ctx);
int parse_ipv4(struct xdp_md *ctx);
int parse_udp(struct xdp_md *ctx);
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, P_MAX);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} parsers SEC(".maps") = {
	.values = {
		[P_ETHERNET] = (void *)&parse_ethernet,
		[P_IPV4] = (void *)&parse_ipv4,
		[P_UDP] = (void *)&parse_udp,
	},
};
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct state); } states SEC(".maps");

static __always_inline struct state *get_state(enum parser who)
{
	__u32 zero = 0;
	struct state *s = bpf_map_lookup_elem(&states, &zero);

	if (s && who < P_MAX)
		s->seen[who]++;
	return s;
}

static __always_inline void *header(struct xdp_md *ctx, struct state *s, __u32 size)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 offset = s->offset;

	if (offset > 256)
		return NULL;
	data += offset;
	return data + size > end ? NULL : data;
}

SEC("xdp")
int parse_ethernet(struct xdp_md *ctx)
{
	struct state *s = get_state(P_ETHERNET);
	struct ethhdr *eth;

	if (!s)
		return XDP_PASS;
	s->offset = s->depth = 0;
	eth = header(ctx, s, sizeof(struct ethhdr));
	if (!eth)
		return XDP_DROP;
	s->offset += 14;
	if (eth->h_proto == bpf_htons(0x0800))
		bpf_tail_call(ctx, &parsers, P_IPV4);
	return XDP_PASS;
}

SEC("xdp")
int parse_ipv4(struct xdp_md *ctx)
{
	struct state *s = get_state(P_IPV4);
	struct iphdr *ip = s ? header(ctx, s, 20) : NULL;

	if (!ip)
		return XDP_DROP;
	s->offset += ip->ihl * 4;
	s->depth++;
	bpf_tail_call_static(ctx, &parsers, ip->protocol == 17 ? P_UDP : P_MAX);
	return XDP_PASS;
}

SEC("xdp")
int parse_udp(struct xdp_md *ctx)
{
	struct state *s = get_state(P_UDP);
	struct udphdr *udp = s ? header(ctx, s, sizeof(*udp)) : NULL;

	return udp && udp->len ? XDP_PASS : XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";

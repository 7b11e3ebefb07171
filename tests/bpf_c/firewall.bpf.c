// Packets at XDP: headers within checked bounds, a trie of blocked networks, a rate for each source, counters by action on each CPU.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define ETH_P_8021Q 0x8100
struct network { __u32 bits; __u32 address; };
struct rate { __u64 last_ns, tokens; };
struct vlan { __be16 tci, proto; };
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __type(key, struct network); __type(value, __u64); __uint(max_entries, 1024); __uint(map_flags, BPF_F_NO_PREALLOC); } blocked SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __type(key, __be32); __type(value, struct rate); __uint(max_entries, 4096); } rates SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 5); } actions SEC(".maps");
const volatile __u64 per_second = 1000, burst = 100;
const volatile __u16 closed_port = 7;

static __always_inline int count(int action)
{
	__u32 key = action;
	__u64 *n = bpf_map_lookup_elem(&actions, &key);

	if (n)
		*n += 1;
	return action;
}

static __always_inline bool may_pass(__be32 source)
{
	struct rate *r = bpf_map_lookup_elem(&rates, &source), fresh = { bpf_ktime_get_ns(), burst };
	__u64 now = fresh.last_ns, gained;

	if (!r) {
		bpf_map_update_elem(&rates, &source, &fresh, BPF_ANY);
		return true;
	}
	gained = (now - r->last_ns) * per_second / 1000000000;
	if (gained) {
		r->tokens = r->tokens + gained > burst ? burst : r->tokens + gained;
		r->last_ns = now;
	}
	if (!r->tokens)
		return false;
	r->tokens--;
	return true;
}

static __noinline int look_at_ports(struct xdp_md *ctx, __u32 offset, __u8 protocol)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (offset > 128)
		return XDP_ABORTED;
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = data + offset;
		if ((void *)(tcp + 1) > end)
			return XDP_DROP;
		return bpf_ntohs(tcp->dest) == closed_port && tcp->syn && !tcp->ack ? XDP_DROP : XDP_PASS;
	}
	if (protocol == IPPROTO_UDP) {
		struct udphdr *udp = data + offset;
		if (udp + 1 > (struct udphdr *)end)
			return XDP_DROP;
		return udp->dest == bpf_htons(closed_port) ? XDP_DROP : XDP_PASS;
	}
	return XDP_PASS;
}

SEC("xdp")
int firewall(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *at;
	struct ethhdr *eth = data;
	__be16 proto;

	if (data + sizeof(*eth) > end)
		return count(XDP_DROP);
	proto = eth->h_proto;
	at = eth + 1;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct vlan *tag = at;
		if (proto != bpf_htons(ETH_P_8021Q))
			break;
		if ((void *)(tag + 1) > end)
			return count(XDP_DROP);
		proto = tag->proto;
		at = tag + 1;
	}
	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = at;
		struct network key = { .bits = 32 };
		__u32 size;

		if ((void *)(ip + 1) > end)
			return count(XDP_DROP);
		size = ip->ihl * 4;
		if (size < sizeof(*ip))
			return count(XDP_DROP);
		key.address = ip->saddr;
		if (bpf_map_lookup_elem(&blocked, &key) || !may_pass(ip->saddr))
			return count(XDP_DROP);
		return count(look_at_ports(ctx, at - data + size, ip->protocol));
	}
	if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = at;

		if ((void *)(ip6 + 1) > end)
			return count(XDP_DROP);
		return count(look_at_ports(ctx, at - data + sizeof(*ip6), ip6->nexthdr));
	}
	return count(XDP_PASS);
}

char LICENSE[] SEC("license") = "GPL";

// A load balancer at XDP: a hash of the flow chooses a server, packets are rewritten with their checksums and sent back out; IP-in-IP on request.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define SERVERS 8
struct server { __be32 address; __u8 mac[6]; __u8 weight, up; __u64 packets, bytes; };
struct flow { __be32 from, to; __be16 sport, dport; __u8 protocol, pad[3]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, SERVERS); __type(key, __u32); __type(value, struct server); } servers SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 65536); __type(key, struct flow); __type(value, __u32); } flows SEC(".maps");
const volatile __be32 virtual_address = 0;

static __always_inline __u32 rotate(__u32 v, int n) { return v << n | v >> (32 - n); }

static __noinline __u32 hash_of(const struct flow *flow)
{
	const __u32 *words = (const __u32 *)flow;
	__u32 h = 0x9747b28c;

	if (!flow)
		return 0;
#pragma unroll
	for (int i = 0; i < (int)(sizeof(*flow) / 4); i++) {
		__u32 k = words[i] * 0xcc9e2d51;
		h ^= rotate(k, 15) * 0x1b873593;
		h = rotate(h, 13) * 5 + 0xe6546b64;
	}
	h ^= h >> 16;
	return h * 0x85ebca6b;
}

static __always_inline __u16 fold(__u64 sum)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		if (sum >> 16)
			sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u16 checksum_of(struct iphdr *ip)
{
	__u16 *p = (__u16 *)ip;
	__u64 sum = 0;

	ip->check = 0;
	for (int i = 0; i < 10; i++)
		sum += p[i];
	return fold(sum);
}

SEC("xdp")
int balance(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct { __be16 source, dest; } *ports;
	struct flow flow = {};
	struct server *server;
	__u32 *known, chosen;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(0x0800) || ip->ihl != 5)
		return XDP_PASS;
	if (ip->daddr != virtual_address || (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP))
		return XDP_PASS;
	ports = (void *)(ip + 1);
	if ((void *)(ports + 1) > end)
		return XDP_DROP;
	flow.from = ip->saddr;
	flow.to = ip->daddr;
	flow.sport = ports->source;
	flow.dport = ports->dest;
	flow.protocol = ip->protocol;
	known = bpf_map_lookup_elem(&flows, &flow);
	chosen = known ? *known : hash_of(&flow) % SERVERS;
	server = bpf_map_lookup_elem(&servers, &chosen);
	if (!server || !server->up)
		return XDP_DROP;
	if (!known)
		bpf_map_update_elem(&flows, &flow, &chosen, BPF_ANY);
	ip->daddr = server->address;
	ip->ttl--;
	ip->check = checksum_of(ip);
	__builtin_memcpy(eth->h_source, eth->h_dest, 6);
	__builtin_memcpy(eth->h_dest, server->mac, 6);
	__sync_fetch_and_add(&server->packets, 1);
	__sync_fetch_and_add(&server->bytes, end - data);
	return XDP_TX;
}

char LICENSE[] SEC("license") = "GPL";

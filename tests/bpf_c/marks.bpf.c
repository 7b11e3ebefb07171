// Traffic control: packets get a class by their cgroup and port, long ones are counted by a histogram, some are cut, mirrored or redirected.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

enum { TC_ACT_UNSPEC = -1, TC_ACT_OK, TC_ACT_RECLASSIFY, TC_ACT_SHOT, TC_ACT_REDIRECT = 7 };
struct rule { __u16 low, high; __u32 class; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 16); __type(key, __u32); __type(value, struct rule); } rules SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 256); __type(key, __u64); __type(value, __u64); } by_cgroup SEC(".maps");
__u64 sizes[12];
const volatile int mirror_to = 0;

static __always_inline __u32 find_class(__u16 port)
{
	for (__u32 i = 0; i < 16; i++) {
		const struct rule *rule = bpf_map_lookup_elem(&rules, &i);
		if (!rule || !rule->high)
			break;
		if (port >= rule->low && port <= rule->high)
			return rule->class;
	}
	return 0;
}

static __always_inline int dissect(struct __sk_buff *skb, __u16 *port)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return -1;
	switch (bpf_ntohs(eth->h_proto)) {
	case 0x0800: {
		struct iphdr *ip = (void *)(eth + 1);
		struct udphdr *udp;

		if ((void *)(ip + 1) > end || ip->ihl < 5)
			return -1;
		udp = (void *)ip + ip->ihl * 4;
		if ((void *)(udp + 1) > end)
			return -1;
		*port = bpf_ntohs(udp->dest);
		return ip->protocol;
	}
	case 0x86dd: {
		struct ipv6hdr *ip = (void *)(eth + 1);
		struct udphdr *udp = (void *)(ip + 1);

		if ((void *)(udp + 1) > end)
			return -1;
		*port = bpf_ntohs(udp->dest);
		return ip->nexthdr;
	}
	default:
		return -1;
	}
}

SEC("tc/egress")
int classify(struct __sk_buff *skb)
{
	__u64 cgroup = bpf_skb_cgroup_id(skb), one = skb->len, *bytes;
	__u16 port = 0;
	int protocol = dissect(skb, &port), slot = 0;
	__u32 size = skb->len;

	while (size >>= 1)
		slot++;
	if (slot < 12)
		__sync_fetch_and_add(&sizes[slot], 1);
	bytes = bpf_map_lookup_elem(&by_cgroup, &cgroup);
	if (bytes)
		__sync_fetch_and_add(bytes, skb->len);
	else
		bpf_map_update_elem(&by_cgroup, &cgroup, &one, BPF_ANY);
	if (protocol < 0)
		return TC_ACT_UNSPEC;
	skb->tc_classid = find_class(port);
	skb->mark = port << 16 | (skb->mark & 0xffff);
	if (protocol == 132)
		return TC_ACT_SHOT;
	if (mirror_to)
		bpf_clone_redirect(skb, mirror_to, 0);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";

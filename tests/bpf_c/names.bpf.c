// Names that are asked of the DNS, from UDP packets at the traffic control layer: a loop over labels, bytes loaded by a helper, lower case.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define NAME_MAX_BYTES 64
#define TC_ACT_OK 0
#define ETH_HLEN 14
#define ETH_P_IP 0x0800
struct header { __be16 id, flags, questions, answers, authorities, more; };
struct question { __u16 type, id; __u32 from; __u8 length; char name[NAME_MAX_BYTES]; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 16); } questions SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096); __type(key, char[NAME_MAX_BYTES]); __type(value, __u32); } asked SEC(".maps");

static __always_inline char lower(char c) { return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c; }

SEC("tc")
int on_packet(struct __sk_buff *skb)
{
	struct iphdr ip;
	struct udphdr udp;
	struct header dns;
	struct question *q;
	__u32 at = ETH_HLEN, one = 1, *n;
	__u8 left = 0, i;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return TC_ACT_OK;
	if (ip.protocol != IPPROTO_UDP || ip.version != 4)
		return TC_ACT_OK;
	at += ip.ihl << 2;
	if (bpf_skb_load_bytes(skb, at, &udp, sizeof(udp)) || udp.dest != bpf_htons(53))
		return TC_ACT_OK;
	at += sizeof(udp);
	if (bpf_skb_load_bytes(skb, at, &dns, sizeof(dns)) || dns.flags & bpf_htons(0x8000) || !dns.questions)
		return TC_ACT_OK;
	at += sizeof(dns);
	q = bpf_ringbuf_reserve(&questions, sizeof(*q), 0);
	if (!q)
		return TC_ACT_OK;
	__builtin_memset(q, 0, sizeof(*q));
	q->id = bpf_ntohs(dns.id);
	q->from = bpf_ntohl(ip.saddr);
	for (i = 0; i < NAME_MAX_BYTES - 1; i++) {
		char c;
		if (bpf_skb_load_bytes(skb, at + i, &c, 1) < 0)
			break;
		if (!left) {
			left = c;
			if (!left)
				break;
			if (i)
				q->name[i - 1] = '.';
			continue;
		}
		q->name[i - 1] = lower(c);
		left--;
	}
	q->length = i;
	n = bpf_map_lookup_elem(&asked, q->name);
	if (n)
		__sync_fetch_and_add(n, 1);
	else
		bpf_map_update_elem(&asked, q->name, &one, BPF_ANY);
	bpf_ringbuf_submit(q, 0);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";

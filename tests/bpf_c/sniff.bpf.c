// HTTP requests on sockets: a socket filter that finds the payload, compares methods, and hands on the first bytes of variable size.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define PAYLOAD_BYTES 128
struct message { __u32 from, to; __u16 sport, dport, size; char method[8]; char payload[PAYLOAD_BYTES]; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 18); } messages SEC(".maps");
static const char methods[][8] = { "GET ", "POST ", "PUT ", "DELETE " };

static __always_inline int method_of(const char *text)
{
	for (int i = 0; i < 4; i++) {
		bool same = true;
		for (int j = 0; j < 4; j++)
			same &= text[j] == methods[i][j];
		if (same)
			return i;
	}
	return -1;
}

SEC("socket")
int on_packet(struct __sk_buff *skb)
{
	__u8 protocol, ihl, doff;
	__u32 at = 14, left, size;
	struct message *m;
	char start[8] = {};
	__be16 proto;
	int which;

	bpf_skb_load_bytes(skb, 12, &proto, 2);
	if (bpf_ntohs(proto) != 0x0800)
		return 0;
	bpf_skb_load_bytes(skb, at + offsetof(struct iphdr, protocol), &protocol, 1);
	if (protocol != IPPROTO_TCP)
		return 0;
	bpf_skb_load_bytes(skb, at, &ihl, 1);
	at += (ihl & 15) << 2;
	bpf_skb_load_bytes(skb, at + 12, &doff, 1);
	__u32 tcp = at;
	at += (doff >> 4) << 2;
	if (skb->len <= at || bpf_skb_load_bytes(skb, at, start, 4))
		return 0;
	which = method_of(start);
	if (which < 0)
		return 0;
	m = bpf_ringbuf_reserve(&messages, sizeof(*m), 0);
	if (!m)
		return 0;
	__builtin_memset(m, 0, sizeof(*m));
	bpf_skb_load_bytes(skb, 14 + offsetof(struct iphdr, saddr), &m->from, 8);
	bpf_skb_load_bytes(skb, tcp, &m->sport, 4);
	__builtin_memcpy(m->method, methods[which & 3], sizeof(m->method));
	left = skb->len - at;
	size = left < PAYLOAD_BYTES ? left : PAYLOAD_BYTES;
	if (size > 0 && size <= PAYLOAD_BYTES)
		bpf_skb_load_bytes(skb, at, m->payload, size);
	m->size = size;
	bpf_ringbuf_submit(m, 0);
	return skb->len;
}

char LICENSE[] SEC("license") = "GPL";

// Sockets of a cgroup: where they may connect and bind, options that are set, round-trip times; maps in maps and a spin lock.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

struct limit { struct bpf_spin_lock lock; __u32 used, most; };
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, __u16); __type(value, __u32); };
struct inner ports_of_root SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} ports SEC(".maps") = { .values = { [0] = &ports_of_root } };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 8); __type(key, __u32); __type(value, struct limit); } limits SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, __u64); } times SEC(".maps");
const volatile __u32 redirect_to = 0;

SEC("cgroup/connect4")
int on_connect(struct bpf_sock_addr *ctx)
{
	__u32 uid = bpf_get_current_uid_gid() & 3, key = uid, *allowed;
	__u16 port = bpf_ntohs(ctx->user_port);
	void *table = bpf_map_lookup_elem(&ports, &uid);
	struct limit *limit = bpf_map_lookup_elem(&limits, &key);
	int verdict = 1;

	if (table && (allowed = bpf_map_lookup_elem(table, &port)) && !*allowed)
		return 0;
	if (!limit)
		return 1;
	bpf_spin_lock(&limit->lock);
	if (limit->most && limit->used >= limit->most)
		verdict = 0;
	else
		limit->used++;
	bpf_spin_unlock(&limit->lock);
	if (redirect_to)
		ctx->user_ip4 = bpf_htonl(redirect_to);
	return verdict;
}

SEC("cgroup/sock_create")
int on_create(struct bpf_sock *ctx) { return ctx->family == 2 || ctx->family == 10 ? 1 : ctx->type != 3; }

SEC("cgroup/setsockopt")
int on_option(struct bpf_sockopt *ctx)
{
	__u8 *value = ctx->optval, *end = ctx->optval_end;

	if (ctx->level == 6 && ctx->optname == 1 && value + 4 <= end && value[0] == 0)
		return 0;
	ctx->optlen = ctx->optlen > 4096 ? -1 : ctx->optlen;
	return 1;
}

SEC("sockops")
int on_event(struct bpf_sock_ops *ops)
{
	__u64 *seen;

	switch (ops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		if (!ops->sk)
			break;
		seen = bpf_sk_storage_get(&times, ops->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (seen)
			*seen = *seen ? (*seen * 7 + ops->srtt_us) / 8 : ops->srtt_us;
		break;
	default:
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";

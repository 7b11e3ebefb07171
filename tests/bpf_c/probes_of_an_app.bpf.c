// USDT probes: arguments of several sizes, latency between two of them, errors that name a reason out of a table.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>

static const char *const reasons[4] = { "none", "timeout", "refused", "closed" };
struct query { __u64 start_ns; char text[64]; };
struct result { __u64 took_ns; __u32 rows; char reason[16]; char text[64]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __type(key, __u32); __type(value, struct query); } running SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 16); } results SEC(".maps");

SEC("?usdt")
int BPF_USDT(begin, const char *text, int number)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct query q = { .start_ns = bpf_ktime_get_ns() + (number > 5) };

	bpf_probe_read_user_str(q.text, sizeof(q.text), text);
	bpf_map_update_elem(&running, &tid, &q, BPF_ANY);
	return 0;
}

SEC("kprobe")
int BPF_KPROBE(done, long rows, unsigned int reason)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct query *q = bpf_map_lookup_elem(&running, &tid);
	struct result *r;

	if (!q)
		return 0;
	r = bpf_ringbuf_reserve(&results, sizeof(struct result), 0);
	if (!r)
		return 0;
	r->took_ns = bpf_ktime_get_ns() - q->start_ns;
	r->rows = rows > 0 ? rows : 0;
	bpf_probe_read_kernel_str(r->reason, sizeof(r->reason), reasons[reason < 4 ? reason : 0]);
	__builtin_memcpy(r->text, q->text, sizeof(r->text));
	bpf_ringbuf_submit(r, 0);
	bpf_map_delete_elem(&running, &tid);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

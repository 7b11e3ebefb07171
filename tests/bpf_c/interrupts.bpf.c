// Interrupt handlers, hard and soft: time and counts by name or number, a dynamic string of a tracepoint, several programs sharing code.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#define NR_SOFT 10
struct irq_key { char name[32]; };
struct info { __u64 count, total, worst; __u32 slots[20]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 256); __type(key, struct irq_key); __type(value, struct info); } hard SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, u64); } hard_start SEC(".maps"), soft_start SEC(".maps");
__u64 soft_time[NR_SOFT], soft_count[NR_SOFT];

static __always_inline int begin(void *map)
{
	u64 ts = bpf_ktime_get_ns();
	u32 key = 0;
	bpf_map_update_elem(map, &key, &ts, 0);
	return 0;
}

static __always_inline u64 took(void *map)
{
	u32 key = 0;
	u64 *ts = bpf_map_lookup_elem(map, &key);
	return ts && *ts ? bpf_ktime_get_ns() - *ts : 0;
}

SEC("tp/irq/irq_handler_entry") int hard_enter(void *ctx) { return begin(&hard_start); }

SEC("tp/irq/irq_handler_exit")
int hard_leave(struct trace_event_raw_irq_handler_exit *ctx) { (void)ctx->ret; took(&hard_start); return 0; }

SEC("raw_tp/irq_handler_exit")
int BPF_PROG(hard_leave_raw, int irq, struct irqaction *action)
{
	struct irq_key key = {};
	struct info *info, zero = {};
	u64 delta = took(&hard_start);
	int slot = 0;

	bpf_probe_read_kernel_str(&key.name, sizeof(key.name), BPF_CORE_READ(action, name));
	info = bpf_map_lookup_elem(&hard, &key);
	if (!info) {
		bpf_map_update_elem(&hard, &key, &zero, BPF_NOEXIST);
		info = bpf_map_lookup_elem(&hard, &key);
		if (!info)
			return 0;
	}
	info->count += 1;
	info->total += delta;
	info->worst = delta > info->worst ? delta : info->worst;
	while (delta >>= 1) {
		if (++slot >= 19)
			break;
	}
	if (slot >= 0 && slot < 20)
		info->slots[slot]++;
	return 0;
}

SEC("tp_btf/softirq_entry") int BPF_PROG(soft_enter, unsigned int vec) { return vec >= NR_SOFT ? 0 : begin(&soft_start); }

SEC("tp_btf/softirq_exit")
int BPF_PROG(soft_leave, unsigned int vec)
{
	u64 delta = took(&soft_start);

	if (vec >= NR_SOFT || !delta)
		return 0;
	__sync_fetch_and_add(&soft_time[vec], delta);
	__sync_fetch_and_add(&soft_count[vec], 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

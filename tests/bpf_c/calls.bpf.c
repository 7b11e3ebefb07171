// System calls: counts and latency by number or by process, with options in .rodata that cut code away.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

const volatile bool measure_latency = true, count_by_process = false, failed_only = false;
const volatile int filter_errno = 0;
const volatile pid_t filter_pid = 0;
struct data { __u64 count, total_ns; char comm[16]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8192); __type(key, u32); __type(value, u64); } start SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8192); __type(key, u32); __type(value, struct data); } data SEC(".maps");

static __always_inline void *lookup_or_try_init(void *map, const void *key, const void *init)
{
	void *value = bpf_map_lookup_elem(map, key);
	long error;

	if (value)
		return value;
	error = bpf_map_update_elem(map, key, init, BPF_NOEXIST);
	if (error && error != -17)
		return 0;
	return bpf_map_lookup_elem(map, key);
}

SEC("tracepoint/raw_syscalls/sys_enter")
int on_enter(struct trace_event_raw_sys_enter *args)
{
	u64 id = bpf_get_current_pid_tgid(), now;
	u32 tid = id;

	if (filter_pid && id >> 32 != filter_pid)
		return 0;
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&start, &tid, &now, 0);
	return 0;
}

SEC("tracepoint/raw_syscalls/sys_exit")
int on_exit(struct trace_event_raw_sys_exit *args)
{
	static const struct data zero;
	u64 id = bpf_get_current_pid_tgid(), *begun, spent = 0;
	u32 tid = id, key;
	struct data *value;

	if (filter_pid && id >> 32 != filter_pid)
		return 0;
	if (failed_only && args->ret >= 0)
		return 0;
	if (filter_errno && args->ret != -filter_errno)
		return 0;
	if (args->id == -1) // rt_sigreturn and the like, when they were interrupted
		return 0;
	if (measure_latency) {
		begun = bpf_map_lookup_elem(&start, &tid);
		if (!begun)
			return 0;
		spent = bpf_ktime_get_ns() - *begun;
	}
	key = count_by_process ? id >> 32 : args->id;
	value = lookup_or_try_init(&data, &key, &zero);
	if (value) {
		__sync_fetch_and_add(&value->count, 1);
		if (measure_latency)
			__sync_fetch_and_add(&value->total_ns, spent);
		if (count_by_process)
			bpf_get_current_comm(&value->comm, sizeof(value->comm));
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// Time that threads spend off the processor, by their stacks; the same body for a BTF tracepoint and a raw one.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#define PF_KTHREAD 0x00200000
struct from { u64 at; struct what { u32 pid, tgid; int user, kernel; } what; };
struct slept { u64 ns; char comm[16]; };
struct task_struct___old { long state; } __attribute__((preserve_access_index));
const volatile u64 least_us = 1, most_us = -1;
const volatile long wanted_state = -1;
const volatile bool kernel_threads = false, user_threads = false;
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, u32); __type(value, struct from); __uint(max_entries, 8192); } left SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __uint(key_size, sizeof(u32)); __uint(value_size, 127 * sizeof(u64)); __uint(max_entries, 1024); } stacks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, struct what); __type(value, struct slept); __uint(max_entries, 8192); } slept SEC(".maps");

static __always_inline long state_of(void *task)
{
	struct task_struct *new = task;

	if (bpf_core_field_exists(new->__state))
		return BPF_CORE_READ(new, __state);
	return BPF_CORE_READ((struct task_struct___old *)task, state);
}

static bool is_wanted(struct task_struct *task)
{
	u32 flags = BPF_CORE_READ(task, flags);

	if (user_threads && flags & PF_KTHREAD)
		return false;
	if (kernel_threads && !(flags & PF_KTHREAD))
		return false;
	return wanted_state == -1 || state_of(task) == wanted_state;
}

static int switched(void *ctx, struct task_struct *prev, struct task_struct *next)
{
	struct from *from, made;
	struct slept *value, zero = {};
	s64 delta;
	u32 pid;

	if (is_wanted(prev)) {
		__builtin_memset(&made, 0, sizeof(made));
		pid = BPF_CORE_READ(prev, pid);
		made.what.pid = pid;
		made.what.tgid = BPF_CORE_READ(prev, tgid);
		made.at = bpf_ktime_get_ns();
		made.what.user = BPF_CORE_READ(prev, flags) & PF_KTHREAD ? -1 : bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
		made.what.kernel = bpf_get_stackid(ctx, &stacks, 0);
		bpf_map_update_elem(&left, &pid, &made, 0);
	}
	pid = BPF_CORE_READ(next, pid);
	from = bpf_map_lookup_elem(&left, &pid);
	if (!from)
		return 0;
	delta = (s64)(bpf_ktime_get_ns() - from->at);
	if (delta < 0)
		goto out;
	delta /= 1000U;
	if (delta < least_us || delta > most_us)
		goto out;
	value = bpf_map_lookup_elem(&slept, &from->what);
	if (!value) {
		bpf_probe_read_kernel_str(&zero.comm, sizeof(zero.comm), BPF_CORE_READ(next, comm));
		bpf_map_update_elem(&slept, &from->what, &zero, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&slept, &from->what);
		if (!value)
			goto out;
	}
	__sync_fetch_and_add(&value->ns, delta);
out:
	bpf_map_delete_elem(&left, &pid);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next) { return switched(ctx, prev, next); }

SEC("raw_tp/sched_switch")
int BPF_PROG(on_switch_raw, bool preempt, struct task_struct *prev, struct task_struct *next) { return switched(ctx, prev, next); }

char LICENSE[] SEC("license") = "GPL";

// Contention of kernel locks: begin and end of waiting matched on each thread, types by flags, stacks of the waiters, worst cases kept.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

enum kind { SPIN, MUTEX, SEMAPHORE, OTHER, KINDS };
static const char *const kinds[KINDS] = { [SPIN] = "spinlock", [MUTEX] = "mutex", [SEMAPHORE] = "semaphore", [OTHER] = "other" };
struct wait { u64 lock, since; u32 flags; s32 stack; };
struct worst { u64 ns, lock; s32 stack; u32 pid; char kind[12], comm[16]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 10240); __type(key, u32); __type(value, struct wait); } waits SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __uint(max_entries, 4096); __type(key, u32); __uint(value_size, 64 * sizeof(u64)); } stacks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, KINDS); __type(key, u32); __type(value, struct worst); } worst SEC(".maps");

static enum kind kind_of(u32 flags)
{
	switch (flags & 0x3f) {
	case 0x01: return SPIN;
	case 0x02 ... 0x07: return SEMAPHORE;
	case 0x20:
	case 0x21: return MUTEX;
	}
	return OTHER;
}

SEC("tp_btf/contention_begin")
int BPF_PROG(on_begin, void *lock, unsigned int flags)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct wait w = { (u64)lock, bpf_ktime_get_ns(), flags, bpf_get_stackid(ctx, &stacks, 0) };

	bpf_map_update_elem(&waits, &tid, &w, BPF_ANY);
	return 0;
}

SEC("tp_btf/contention_end")
int BPF_PROG(on_end, void *lock, int ret)
{
	u32 tid = bpf_get_current_pid_tgid(), kind;
	struct wait *w = bpf_map_lookup_elem(&waits, &tid);
	struct worst *known;
	u64 ns;

	if (!w || w->lock != (u64)lock)
		return 0;
	ns = bpf_ktime_get_ns() - w->since;
	kind = kind_of(w->flags);
	known = bpf_map_lookup_elem(&worst, &kind);
	if (known && ns > known->ns) {
		known->ns = ns;
		known->lock = w->lock;
		known->stack = w->stack;
		known->pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(known->comm, sizeof(known->comm));
		bpf_probe_read_kernel_str(known->kind, sizeof(known->kind), kinds[kind & 3]);
	}
	bpf_map_delete_elem(&waits, &tid);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

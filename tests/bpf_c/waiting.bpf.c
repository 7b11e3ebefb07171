// Time from wake-up to running, as histograms of powers of two by process: direct reads of trusted pointers, nested maps of structs.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#define SLOTS 26
struct hist { __u32 slots[SLOTS]; char comm[16]; };
const volatile bool by_process = true;
const volatile pid_t only = 0;
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 10240); __type(key, u32); __type(value, u64); } woken SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __type(key, u32); __type(value, struct hist); } hists SEC(".maps");
static struct hist empty;

static __always_inline u64 log2_of(u32 v)
{
	u32 shift, r;

	r = (v > 0xffff) << 4; v >>= r;
	shift = (v > 0xff) << 3; v >>= shift; r |= shift;
	shift = (v > 0xf) << 2; v >>= shift; r |= shift;
	shift = (v > 0x3) << 1; v >>= shift; r |= shift;
	return r | (v >> 1);
}

static __always_inline u64 log2_of_long(u64 v)
{
	u32 high = v >> 32;
	return high ? log2_of(high) + 32 : log2_of(v);
}

static int note(u32 tgid, u32 pid)
{
	u64 now = bpf_ktime_get_ns();

	if (!pid || (only && only != tgid))
		return 0;
	bpf_map_update_elem(&woken, &pid, &now, 0);
	return 0;
}

static bool is_running(struct task_struct *task)
{
	return task->__state == 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *p) { return note(p->tgid, p->pid); }

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(on_wakeup_new, struct task_struct *p) { return note(p->tgid, p->pid); }

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct hist *h;
	u64 *at, slot;
	s64 delta;
	u32 pid, key = -1;

	if (is_running(prev))
		note(prev->tgid, prev->pid);
	pid = next->pid;
	at = bpf_map_lookup_elem(&woken, &pid);
	if (!at)
		return 0;
	delta = bpf_ktime_get_ns() - *at;
	if (delta < 0)
		goto out;
	if (by_process)
		key = next->tgid;
	h = bpf_map_lookup_elem(&hists, &key);
	if (!h) {
		bpf_map_update_elem(&hists, &key, &empty, BPF_NOEXIST);
		h = bpf_map_lookup_elem(&hists, &key);
		if (!h)
			goto out;
		bpf_probe_read_kernel_str(&h->comm, sizeof(h->comm), next->comm);
	}
	slot = log2_of_long(delta / 1000U);
	if (slot >= SLOTS)
		slot = SLOTS - 1;
	__sync_fetch_and_add(&h->slots[slot], 1);
out:
	bpf_map_delete_elem(&woken, &pid);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

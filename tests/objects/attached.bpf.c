/* Programs that are attached by their sections, a value with a lock, a kernel function, and CO-RE of the 12 kinds that clang 14 knows. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct { int tgid; unsigned sched_reset_on_fork : 1; char comm[16]; };
struct task_struct___none { int no_such_member; };
struct no_such_struct { int x; };
enum pid_type { PIDTYPE_PID, PIDTYPE_TGID = 7 };
struct trace_event_raw_sys_enter { long id; unsigned long args[6]; };
#pragma clang attribute pop

struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8192); __type(key, unsigned); __type(value, long); } calls SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
struct value { struct bpf_spin_lock lock; long count; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, struct value); } locked SEC(".maps");
int questions(void *ctx);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __uint(key_size, 4); __array(values, int(void *)); } jumps SEC(".maps") = { .values = { [1] = (void *)&questions } };

long answers[12];
extern void no_such_kfunc(void) __ksym __weak;

static void count(unsigned key)
{
	long one = 1, *n = bpf_map_lookup_elem(&calls, &key);
	if (n)
		__sync_fetch_and_add(n, 1);
	else
		bpf_map_update_elem(&calls, &key, &one, 0);
}

SEC("tp/syscalls/sys_enter_getppid") int on_getppid(struct trace_event_raw_sys_enter *ctx)
{
	count(bpf_get_current_pid_tgid() >> 32);
	return 0;
}

SEC("raw_tp") int questions(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct___none *none = (void *)task;

	answers[0] = BPF_CORE_READ(task, tgid);
	answers[1] = bpf_core_field_exists(none->no_such_member) ? BPF_CORE_READ(none, no_such_member) : -1;
	answers[2] = bpf_core_field_size(task->comm);
	answers[3] = BPF_CORE_READ_BITFIELD_PROBED(task, sched_reset_on_fork);
	answers[4] = bpf_core_type_exists(struct no_such_struct);
	answers[5] = bpf_core_type_exists(struct task_struct);
	answers[6] = bpf_core_type_size(struct task_struct);
	answers[7] = bpf_core_enum_value(enum pid_type, PIDTYPE_TGID);
	answers[8] = bpf_core_enum_value_exists(enum pid_type, PIDTYPE_PID);
	answers[9] = bpf_core_type_id_kernel(struct task_struct);
	answers[10] = bpf_core_type_id_local(struct task_struct);
	answers[11] = bpf_core_field_exists(task->comm[5]);
	if (!bpf_core_type_exists(struct task_struct))
		no_such_kfunc();
	return 0;
}

SEC("?kprobe/no_such_function") int optional(void *ctx) { return 0; }
SEC("xdp") int drop(struct xdp_md *ctx)
{
	int zero = 0;
	struct value *v = bpf_map_lookup_elem(&locked, &zero);
	if (v) {
		bpf_spin_lock(&v->lock);
		v->count++;
		bpf_spin_unlock(&v->lock);
	}
	return XDP_DROP;
}

SEC("perf_event") int sample(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";

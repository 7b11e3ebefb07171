// Programs that start, with their arguments read from the new process's memory: a record of varying size, built in a per-CPU map.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define ARGS_MAX 20
#define ARG_BYTES 64
#define SPACE_BYTES (ARGS_MAX * ARG_BYTES)

struct started {
	pid_t pid, ppid;
	uid_t uid;
	__u32 count, size;
	char comm[16];
	char args[SPACE_BYTES];
};
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct started); } scratch SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 256 * 1024); } events SEC(".maps");

SEC("tp/sched/sched_process_exec")
int on_exec(struct trace_event_raw_sched_process_exec *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	unsigned long at = BPF_CORE_READ(task, mm, arg_start), last = BPF_CORE_READ(task, mm, arg_end);
	__u32 zero = 0;
	struct started *e = bpf_map_lookup_elem(&scratch, &zero);

	if (!e)
		return 0;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->ppid = BPF_CORE_READ(task, real_parent, tgid);
	e->uid = bpf_get_current_uid_gid();
	e->count = e->size = 0;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	for (int i = 0; i < ARGS_MAX && at < last; i++) {
		if (e->size > SPACE_BYTES - ARG_BYTES)
			break;
		long n = bpf_probe_read_user_str(&e->args[e->size], ARG_BYTES, (void *)at);
		if (n <= 0)
			break;
		e->size += n;
		e->count++;
		at += n;
	}
	__u64 size = offsetof(struct started, args) + e->size;
	if (size <= sizeof(*e))
		bpf_ringbuf_output(&events, e, size, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

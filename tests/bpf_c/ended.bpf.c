// Processes that end: age, exit code, signal, and the most memory that they had, through kernel structs.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct ended { __u64 age_ns; int code, signal; pid_t pid, tid, ppid; __s64 pages; char comm[16]; bool dumped; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 16); } ended SEC(".maps");

SEC("tp/sched/sched_process_exit")
int on_exit(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 id = bpf_get_current_pid_tgid();
	struct ended *e;
	int code;

	if ((__u32)id != id >> 32) // a thread, not the process
		return 0;
	if (!(e = bpf_ringbuf_reserve(&ended, sizeof(*e), 0)))
		return 0;
	code = BPF_CORE_READ(task, exit_code);
	e->pid = id >> 32;
	e->tid = id;
	e->ppid = BPF_CORE_READ(task, real_parent, tgid);
	e->age_ns = bpf_ktime_get_ns() - BPF_CORE_READ(task, start_time);
	e->code = code >> 8;
	e->signal = code & 0x7f;
	e->dumped = code & 0x80 ? true : false;
	e->pages = BPF_CORE_READ(task, signal, maxrss);
	bpf_core_read_str(&e->comm, sizeof(e->comm), &task->comm);
	bpf_ringbuf_submit(e, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";

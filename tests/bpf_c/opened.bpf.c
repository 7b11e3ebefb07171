// Files that processes open, with what came of it and how long it took: entry and return of two system calls joined by the thread.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define NAME_BYTES 128
#define TASK_COMM_LEN 16

struct pending { const char *name; int flags; __u64 start_ns; };
struct opened {
	__u64 took_ns;
	__u32 pid, uid;
	int result, flags;
	char comm[TASK_COMM_LEN];
	char name[NAME_BYTES];
};
const volatile __u32 wanted_pid = 0;
const volatile bool failed_only = false;
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, struct pending);
} pending SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

static __always_inline bool is_wanted(__u64 id)
{
	return !wanted_pid || wanted_pid == id >> 32;
}

static int begin(const char *name, int flags)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)id;
	struct pending p = { .name = name, .flags = flags, .start_ns = bpf_ktime_get_ns() };

	if (is_wanted(id))
		bpf_map_update_elem(&pending, &tid, &p, BPF_ANY);
	return 0;
}

static int end(void *ctx, long result)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct pending *p = bpf_map_lookup_elem(&pending, &tid);
	struct opened event = {};

	if (!p)
		return 0;
	if (failed_only && result >= 0)
		goto out;
	event.took_ns = bpf_ktime_get_ns() - p->start_ns;
	event.pid = bpf_get_current_pid_tgid() >> 32;
	event.uid = bpf_get_current_uid_gid();
	event.result = result;
	event.flags = p->flags;
	bpf_get_current_comm(&event.comm, sizeof(event.comm));
	bpf_probe_read_user_str(&event.name, sizeof(event.name), p->name);
	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &event, sizeof(event));
out:
	bpf_map_delete_elem(&pending, &tid);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_openat")
int enter_openat(struct trace_event_raw_sys_enter *ctx) { return begin((const char *)ctx->args[1], (int)ctx->args[2]); }

SEC("tracepoint/syscalls/sys_exit_openat")
int exit_openat(struct trace_event_raw_sys_exit *ctx) { return end(ctx, ctx->ret); }

SEC("tracepoint/syscalls/sys_enter_openat2")
int enter_openat2(struct trace_event_raw_sys_enter *ctx)
{
	struct open_how how = {};

	bpf_probe_read_user(&how, sizeof(how), (void *)ctx->args[2]);
	return begin((const char *)ctx->args[1], how.flags);
}

SEC("tracepoint/syscalls/sys_exit_openat2")
int exit_openat2(struct trace_event_raw_sys_exit *ctx) { return end(ctx, ctx->ret); }

char LICENSE[] SEC("license") = "GPL";

// Processes that the kernel kills for want of memory, signals that processes send, and capabilities that they ask for.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

struct oom { __u32 by, victim; __u64 pages; char by_comm[16], comm[16]; };
struct sent { pid_t from, to; int signal, result; char comm[16]; };
struct asked { struct { __u32 pid, capability; } who; __u64 times; };
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); } ooms SEC(".maps"), signals SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 1024); __type(key, __u64); __type(value, struct asked); } asked SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __type(key, __u32); __type(value, struct sent); } sending SEC(".maps");

SEC("kprobe/oom_kill_process")
int BPF_KPROBE(on_oom, struct oom_control *oc, const char *message)
{
	struct oom o = { .by = bpf_get_current_pid_tgid() >> 32 };

	o.victim = BPF_CORE_READ(oc, chosen, tgid);
	o.pages = BPF_CORE_READ(oc, totalpages);
	bpf_get_current_comm(&o.by_comm, sizeof(o.by_comm));
	bpf_probe_read_kernel(&o.comm, sizeof(o.comm), BPF_CORE_READ(oc, chosen, comm));
	bpf_perf_event_output(ctx, &ooms, BPF_F_CURRENT_CPU, &o, sizeof(o));
	return 0;
}

SEC("ksyscall/kill")
int BPF_KSYSCALL(on_kill, pid_t pid, int signal)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct sent s = { bpf_get_current_pid_tgid() >> 32, pid, signal };

	bpf_get_current_comm(s.comm, sizeof(s.comm));
	bpf_map_update_elem(&sending, &tid, &s, BPF_ANY);
	return 0;
}

SEC("kretsyscall/kill")
int BPF_KRETPROBE(on_kill_return, long ret)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct sent *s = bpf_map_lookup_elem(&sending, &tid);

	if (!s)
		return 0;
	s->result = ret;
	bpf_perf_event_output(ctx, &signals, BPF_F_CURRENT_CPU, s, sizeof(*s));
	bpf_map_delete_elem(&sending, &tid);
	return 0;
}

SEC("kprobe/cap_capable")
int BPF_KPROBE(on_capable, const struct cred *cred, struct user_namespace *ns, int cap, unsigned int opts)
{
	__u64 key = bpf_get_current_pid_tgid() >> 32 | (__u64)cap << 32;
	struct asked *a = bpf_map_lookup_elem(&asked, &key);

	if (opts & 2)
		return 0;
	if (a) {
		a->times++;
		return 0;
	}
	struct asked made = { .who = { .pid = key, .capability = cap }, .times = 1 };
	bpf_map_update_elem(&asked, &key, &made, BPF_NOEXIST);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

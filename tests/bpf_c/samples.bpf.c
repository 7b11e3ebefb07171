// Where the processors are: stacks of kernel and user by process, sampled; keys with padding that must be zero.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

struct key { u32 pid; u64 kernel_ip; int user_stack, kernel_stack; char name[16]; };
const volatile bool kernel_only = false, user_only = false, with_idle = false;
const volatile pid_t only_pid = -1, only_tid = -1;
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __type(key, u32); __uint(value_size, 127 * sizeof(u64)); __uint(max_entries, 16384); } stacks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, struct key); __type(value, u64); __uint(max_entries, 40960); } counts SEC(".maps");

static __always_inline bool is_kernel_address(u64 address) { return (s64)address < 0; }

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	static const u64 zero;
	u64 id = bpf_get_current_pid_tgid(), ip = PT_REGS_IP(&ctx->regs), *count;
	u32 pid = id >> 32, tid = id;
	struct key key = {};

	if (!with_idle && tid == 0)
		return 0;
	if ((only_pid != -1 && pid != only_pid) || (only_tid != -1 && tid != only_tid))
		return 0;
	key.pid = pid;
	bpf_get_current_comm(&key.name, sizeof(key.name));
	key.kernel_stack = user_only ? -1 : bpf_get_stackid(&ctx->regs, &stacks, 0);
	key.user_stack = kernel_only ? -1 : bpf_get_stackid(&ctx->regs, &stacks, BPF_F_USER_STACK);
	if (key.kernel_stack >= 0 && is_kernel_address(ip))
		key.kernel_ip = ip;
	count = bpf_map_lookup_elem(&counts, &key);
	if (!count) {
		bpf_map_update_elem(&counts, &key, &zero, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&counts, &key);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

// Memory that a process allocates and does not free: uprobes on the C library, bit-fields packed into one atomic number, a macro that makes programs.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct block { __u64 size, at; int stack; };
union summary { __u64 bits; struct { __u64 bytes : 40, count : 24; }; };
const volatile size_t smallest = 0, largest = -1;
const volatile __u64 every = 1;
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, pid_t); __type(value, u64); __uint(max_entries, 10240); } asked SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, u64); __type(value, struct block); __uint(max_entries, 1000000); __uint(map_flags, BPF_F_NO_PREALLOC); } blocks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, u64); __type(value, union summary); __uint(max_entries, 10240); } by_stack SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __type(key, u32); __uint(value_size, 64 * 8); __uint(max_entries, 10240); } stacks SEC(".maps");

static void account(u64 stack, u64 bytes, bool more)
{
	static const union summary none;
	union summary *sum = bpf_map_lookup_elem(&by_stack, &stack), change = { .bytes = bytes, .count = 1 };

	if (!sum) {
		bpf_map_update_elem(&by_stack, &stack, &none, BPF_NOEXIST);
		if (!(sum = bpf_map_lookup_elem(&by_stack, &stack)))
			return;
	}
	if (more)
		__sync_fetch_and_add(&sum->bits, change.bits);
	else
		__sync_fetch_and_sub(&sum->bits, change.bits);
}

static int asks(size_t size)
{
	if (size < smallest || size > largest)
		return 0;
	if (every > 1 && bpf_ktime_get_ns() % every)
		return 0;
	const pid_t pid = bpf_get_current_pid_tgid() >> 32;
	const u64 value = size;
	bpf_map_update_elem(&asked, &pid, &value, BPF_ANY);
	return 0;
}

static int gets(void *ctx, u64 address)
{
	const pid_t pid = bpf_get_current_pid_tgid() >> 32;
	struct block block = {};
	u64 *size = bpf_map_lookup_elem(&asked, &pid);

	if (!size)
		return 0;
	block.size = *size;
	bpf_map_delete_elem(&asked, &pid);
	if (!address)
		return 0;
	block.at = bpf_ktime_get_ns();
	block.stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	bpf_map_update_elem(&blocks, &address, &block, BPF_ANY);
	account(block.stack, block.size, true);
	return 0;
}

static int frees(const void *p)
{
	const u64 address = (u64)p;
	const struct block *block = bpf_map_lookup_elem(&blocks, &address);

	if (!block)
		return 0;
	account(block->stack, block->size, false);
	bpf_map_delete_elem(&blocks, &address);
	return 0;
}

#define RETURNS(name) SEC("uretprobe") int BPF_URETPROBE(name##_returns) { return gets(ctx, PT_REGS_RC(ctx)); }
SEC("uprobe") int BPF_UPROBE(malloc_enters, size_t size) { return asks(size); }
RETURNS(malloc)
SEC("uprobe") int BPF_UPROBE(calloc_enters, size_t count, size_t size) { return asks(count * size); }
RETURNS(calloc)
SEC("uprobe") int BPF_UPROBE(realloc_enters, void *old, size_t size) { frees(old); return asks(size); }
RETURNS(realloc)
SEC("uprobe") int BPF_UPROBE(free_enters, void *address) { return frees(address); }

char LICENSE[] SEC("license") = "Dual BSD/GPL";

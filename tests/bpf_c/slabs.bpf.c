// Kernel memory: allocations by size class and caller, flags as text, tracepoint records with addresses; two maps of histograms in one struct.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define CLASSES 16
struct class { __u64 count, asked, given; };
struct site { __u64 count, bytes; __s32 worst_waste; __u32 flags; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096); __type(key, __u64); __type(value, struct site); } sites SEC(".maps");
struct class classes[CLASSES];

static int class_of(__u64 size)
{
	int n = 0;

	do {
		size >>= 1;
		n++;
	} while (size && n < CLASSES - 1);
	return n;
}

SEC("tracepoint/kmem/kmalloc")
int on_kmalloc(struct trace_event_raw_kmalloc *ctx)
{
	__u64 asked = ctx->bytes_req, given = ctx->bytes_alloc, caller = ctx->call_site;
	int n = class_of(given), waste = given - asked;
	struct site *site, first = { 1, given, waste, (__u32)ctx->gfp_flags };

	if (n < 0 || n >= CLASSES)
		return 0;
	classes[n].count++;
	classes[n].asked += asked;
	classes[n].given += given;
	site = bpf_map_lookup_elem(&sites, &caller);
	if (!site) {
		bpf_map_update_elem(&sites, &caller, &first, BPF_NOEXIST);
		return 0;
	}
	__sync_fetch_and_add(&site->count, 1);
	__sync_fetch_and_add(&site->bytes, given);
	site->flags |= (__u32)ctx->gfp_flags;
	if (waste > site->worst_waste)
		site->worst_waste = waste;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

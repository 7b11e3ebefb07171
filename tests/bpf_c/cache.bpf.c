// Hits and misses of the page cache from tracepoints, ratios as fixed-point numbers of 128 bits, by file system in a per-CPU hash.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct dev_stats { u64 added, removed, dirtied; u32 average; };
struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 64); __type(key, u32); __type(value, struct dev_stats); } devices SEC(".maps");
u64 added, removed;

static struct dev_stats *stats_of(u32 dev)
{
	static struct dev_stats zero = {};
	struct dev_stats *s = bpf_map_lookup_elem(&devices, &dev);

	if (!s) {
		bpf_map_update_elem(&devices, &dev, &zero, BPF_NOEXIST);
		s = bpf_map_lookup_elem(&devices, &dev);
	}
	return s;
}

static u32 ratio(u64 part, u64 whole)
{
	unsigned __int128 scaled = (unsigned __int128)part << 32;

	return whole ? scaled / whole : 0;
}

SEC("tracepoint/filemap/mm_filemap_add_to_page_cache")
int on_add(struct trace_event_raw_mm_filemap_op_page_cache *ctx)
{
	struct dev_stats *s = stats_of(ctx->s_dev);

	__sync_fetch_and_add(&added, 1);
	if (s) {
		s->added++;
		s->average = ratio(s->removed, s->added);
	}
	return 0;
}

SEC("tracepoint/filemap/mm_filemap_delete_from_page_cache")
int on_remove(struct trace_event_raw_mm_filemap_op_page_cache *ctx)
{
	struct dev_stats *s = stats_of(ctx->s_dev);

	__sync_fetch_and_add(&removed, 1);
	if (s)
		s->removed++;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

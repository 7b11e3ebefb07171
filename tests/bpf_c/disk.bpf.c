// Latency of disk requests by device and direction: raw tracepoints whose arguments changed between kernels, enumerators and members by CO-RE.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#define SLOTS 27
#define OP_MASK 0xff
struct key { u32 dev; u8 op; u8 pad[3]; };
struct hist { u32 slots[SLOTS]; };
struct request_queue___with_disk { struct gendisk *disk; } __attribute__((preserve_access_index));
struct request___with_disk { struct gendisk *rq_disk; } __attribute__((preserve_access_index));
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 10240); __type(key, struct request *); __type(value, u64); } start SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 256); __type(key, struct key); __type(value, struct hist); } hists SEC(".maps");
static const struct hist zero;
extern int LINUX_KERNEL_VERSION __kconfig;

static __always_inline struct gendisk *disk_of(void *request)
{
	struct request___with_disk *r = request;

	if (bpf_core_field_exists(r->rq_disk))
		return BPF_CORE_READ(r, rq_disk);
	return BPF_CORE_READ((struct request___with_disk *)r, rq_disk);
}

static __always_inline u32 device_of(struct request *rq)
{
	struct request_queue___with_disk *q = (void *)BPF_CORE_READ(rq, q);
	struct gendisk *disk;

	if (bpf_core_field_exists(q->disk))
		disk = BPF_CORE_READ(q, disk);
	else
		disk = disk_of(rq);
	return disk ? BPF_CORE_READ(disk, major) << 20 | BPF_CORE_READ(disk, first_minor) : 0;
}

static int begin(struct request *rq)
{
	u64 now = bpf_ktime_get_ns();
	bpf_map_update_elem(&start, &rq, &now, 0);
	return 0;
}

SEC("raw_tp/block_rq_issue")
int BPF_PROG(on_issue)
{
	// until 5.11 the request came behind its queue
	if (LINUX_KERNEL_VERSION >= KERNEL_VERSION(5, 11, 0))
		return begin((void *)ctx[0]);
	return begin((void *)ctx[1]);
}

SEC("raw_tp/block_rq_complete")
int BPF_PROG(on_complete, struct request *rq, int error, unsigned int bytes)
{
	u64 *begun = bpf_map_lookup_elem(&start, &rq), slot = 0;
	struct key key = {};
	struct hist *h;

	if (!begun)
		return 0;
	u64 us = (bpf_ktime_get_ns() - *begun) / 1000;
	key.dev = device_of(rq);
	key.op = BPF_CORE_READ(rq, cmd_flags) & OP_MASK;
	if (!(h = bpf_map_lookup_elem(&hists, &key))) {
		bpf_map_update_elem(&hists, &key, &zero, BPF_NOEXIST);
		if (!(h = bpf_map_lookup_elem(&hists, &key)))
			goto out;
	}
	for (int i = 0; i < 64 && us > 1; i++, us >>= 1)
		slot++;
	if (slot >= SLOTS)
		slot = SLOTS - 1;
	__sync_fetch_and_add(&h->slots[slot], 1);
out:
	bpf_map_delete_elem(&start, &rq);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

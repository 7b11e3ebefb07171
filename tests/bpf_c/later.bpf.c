// Work that is put off: timers, callbacks over a map, queues, a user's ring, and a loop with a callback.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define CLOCK_MONOTONIC 1
struct job { struct bpf_timer timer; __u64 runs; __u32 every_ms; };
struct command { __u32 kind; __u64 value; };
struct totals { __u64 sum; __u32 entries, most; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, int); __type(value, struct job); } jobs SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 128); __type(key, __u32); __type(value, __u64); } sums SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 16); __type(value, struct command); } queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK); __uint(max_entries, 16); __type(value, __u64); } stack SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_USER_RINGBUF); __uint(max_entries, 4096); } commands SEC(".maps");
struct totals totals;
__u64 taken;

static int on_timer(void *map, int *key, struct job *job)
{
	job->runs++;
	bpf_timer_start(&job->timer, job->every_ms * 1000000ULL, 0);
	return 0;
}

static long add_up(void *map, __u32 *key, __u64 *value, struct totals *t)
{
	t->sum += *value;
	t->entries++;
	if (*value > t->most)
		t->most = *value;
	return t->entries > 100;
}

static long take(struct bpf_dynptr *dynptr, void *context)
{
	const struct command *c = bpf_dynptr_data(dynptr, 0, sizeof(*c));

	if (!c)
		return 0;
	bpf_map_push_elem(&queue, c, BPF_EXIST);
	return 0;
}

static long pop_one(__u32 index, void *context)
{
	__u64 *count = context;
	struct command c;

	if (bpf_map_pop_elem(&queue, &c))
		return 1;
	*count += 1;
	bpf_map_push_elem(&stack, &c.value, BPF_EXIST);
	return 0;
}

SEC("tc")
int work(struct __sk_buff *ctx)
{
	struct totals t = {};
	__u64 count = 0;
	int key = 0;
	struct job *job = bpf_map_lookup_elem(&jobs, &key);

	if (job && !job->every_ms) {
		job->every_ms = 50;
		bpf_timer_init(&job->timer, &jobs, CLOCK_MONOTONIC);
		bpf_timer_set_callback(&job->timer, on_timer);
		bpf_timer_start(&job->timer, 0, 0);
	}
	bpf_user_ringbuf_drain(&commands, take, &count, 0);
	bpf_loop(16, pop_one, &count, 0);
	bpf_for_each_map_elem(&sums, add_up, &t, 0);
	totals = t;
	taken += count;
	return count;
}

char LICENSE[] SEC("license") = "GPL";

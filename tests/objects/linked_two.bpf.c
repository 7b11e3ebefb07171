#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct hidden { int x; struct event *back; };
struct event { int pid, parent; struct hidden *behind; };
struct task_struct { int tgid; struct task_struct *real_parent; } __attribute__((preserve_access_index));
extern struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, int); __type(value, struct event); } seen SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, struct hidden); } hidden_values SEC(".maps");

struct hidden kept = { .x = 3 };
static int counter = 100;
extern int shared;
extern int CONFIG_HZ __kconfig __weak;
int of_two SEC(".data.two") = 77;
int answer = 9;

static __noinline int helper(int x) { counter += 10; return x * 2; }
__noinline int other(int x)
{
	int key = 1;
	struct event *e = bpf_map_lookup_elem(&seen, &key);
	shared++;
	return helper(x) + counter + (e ? e->pid : 0) * 1000;
}
__noinline int choice(int x) { return x + 7; }

SEC("raw_tp") int second(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	return other(0) * 0 + choice(BPF_CORE_READ(task, tgid)) + (CONFIG_HZ > 0) * 0;
}
char LICENSE[] SEC("license") = "GPL";

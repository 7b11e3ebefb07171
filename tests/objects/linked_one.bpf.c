#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct hidden;
struct event { int pid, parent; struct hidden *behind; };
struct task_struct { int tgid; struct task_struct *real_parent; } __attribute__((preserve_access_index));
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, long); } cell SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, int); __type(value, struct event); } seen SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, int); __array(values, struct inner); } outer SEC(".maps") = { .values = { [1] = &cell } };

static int counter = 5;
int shared = 40;
const volatile int constant = 2;
extern int of_two;
extern int CONFIG_HZ __kconfig __weak;
extern const void vfs_read __ksym;
int answer __weak = 1;
long results[8];

int other(int x);
extern int tuned(int x) __weak;
static __noinline int helper(int x) { counter++; return x + 1; }
__weak __noinline int choice(int x) { return x + 1000; }
__weak __noinline int only_weak(int x) { return x * 3; }

SEC("raw_tp") int first(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct event e = {};
	int key = 1, zero = 0; void *m; long *v;
	e.pid = BPF_CORE_READ(task, tgid);
	e.parent = BPF_CORE_READ(task, real_parent, tgid);
	bpf_map_update_elem(&seen, &key, &e, 0);
	m = bpf_map_lookup_elem(&outer, &key);
	if (m) { v = bpf_map_lookup_elem(m, &zero); if (v) *v = 42; }
	results[0] = other(helper(constant));
	results[1] = choice(1);
	results[2] = only_weak(2);
	results[3] = answer;
	results[4] = of_two;
	results[5] = CONFIG_HZ;
	results[6] = (long)&vfs_read;
	results[7] = counter;
	return shared;
}
char LICENSE[] SEC("license") = "GPL";

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

struct task_struct { int tgid; struct task_struct *real_parent; } __attribute__((preserve_access_index));
struct event { int pid, parent; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __type(key, int); __type(value, struct event); } seen SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, long); } one SEC(".maps"), two SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, int); __array(values, struct inner); } outer SEC(".maps") = { .values = { [1] = &one, [3] = &two } };

const volatile int wanted = 0;
int total = 7;
static long hidden[4];
char name[8] SEC(".data.names") = "sonde";
extern const void vfs_read __ksym;
extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool CONFIG_BPF_SYSCALL __kconfig __weak;
long version, configured, address, sum, parity;

static __noinline int twice(int x) { return x * 2 + total; }
__noinline int again(int x) { return twice(x) + 1; }
static long each(__u32 i, long *acc) { *acc += i; hidden[i & 3]++; return 0; }

SEC("raw_tp") int run(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct event e = {};
	int key = 3; long acc = 0;
	void *m; long *v;
	e.pid = BPF_CORE_READ(task, tgid);
	e.parent = BPF_CORE_READ(task, real_parent, tgid);
	bpf_map_update_elem(&seen, &e.pid, &e, 0);
	version = LINUX_KERNEL_VERSION; configured = CONFIG_BPF_SYSCALL; address = (long)&vfs_read;
	m = bpf_map_lookup_elem(&outer, &key);
	if (m) { int zero = 0; v = bpf_map_lookup_elem(m, &zero); if (v) *v = 42; }
	bpf_loop(10, each, &acc, 0);
	sum = acc; parity = hidden[1];
	return again(wanted) + name[0];
}
char LICENSE[] SEC("license") = "GPL";

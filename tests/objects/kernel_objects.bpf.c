/* What programs have of the kernel: functions, variables, timers, kernel pointers, storage of tasks; jumps between programs. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct task_struct;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern void bpf_no_such_function(void) __ksym __weak;
extern const int no_such_variable __ksym __weak;
extern const void no_such_symbol __ksym __weak;
extern int CONFIG_HZ __kconfig __weak;
extern int CONFIG_NO_SUCH_OPTION __kconfig __weak;

struct alarm { struct bpf_timer timer; int rings; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, struct alarm); } alarms SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_TASK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, long); } storage SEC(".maps");
int two(void *ctx);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4); __array(values, int(void *)); }
	next SEC(".maps") = { .values = { [2] = &two } };
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 3); __type(key, int); __type(value, long); } cpus SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 8); __uint(map_flags, BPF_F_NO_PREALLOC); __uint(key_size, 8); __uint(value_size, 4); } routes SEC(".maps");

long hz, option, missing, rings;
static const char text[] = "a constant";
char copy[16];

static int on_ring(void *map, int *key, struct alarm *alarm) { alarm->rings++; rings++; return 0; }

SEC("syscall") int locks(void *ctx)
{
	int zero = 0;
	struct alarm *alarm = bpf_map_lookup_elem(&alarms, &zero);

	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	if (bpf_no_such_function)
		bpf_no_such_function();
	missing = (&no_such_variable ? 1 : 0) + (&no_such_symbol ? 2 : 0);
	hz = CONFIG_HZ;
	option = CONFIG_NO_SUCH_OPTION;
	__builtin_memcpy(copy, text, sizeof(text));
	if (alarm) {
		bpf_timer_init(&alarm->timer, &alarms, 1);
		bpf_timer_set_callback(&alarm->timer, on_ring);
	}
	return 5;
}

SEC("raw_tp") int one(void *ctx) { bpf_tail_call(ctx, &next, 2); return 1; }
SEC("raw_tp") int two(void *ctx)
{
	int last = 2;
	long *n = bpf_map_lookup_elem(&cpus, &last);
	if (n)
		*n += 3;
	return 2;
}
SEC("tp_btf/sys_enter") int BPF_PROG(stored, void *regs, long id)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	long *n = bpf_task_storage_get(&storage, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (n)
		++*n;
	return 0;
}
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct seq_file { int unused; };
struct bpf_iter_meta { __bpf_md_ptr(struct seq_file *, seq); };
struct bpf_iter__task { __bpf_md_ptr(struct bpf_iter_meta *, meta); __bpf_md_ptr(struct task_struct *, task); };
#pragma clang attribute pop

SEC("iter/task") int listed(struct bpf_iter__task *ctx)
{
	if (ctx->task)
		BPF_SEQ_PRINTF(ctx->meta->seq, "task\n");
	return 0;
}
char LICENSE[] SEC("license") = "GPL";

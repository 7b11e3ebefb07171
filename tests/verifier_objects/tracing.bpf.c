/* What tracing programs do with helpers and kernel functions that hand something out: each program is one way that the kernel accepts. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct { int pid; int tgid; struct task_struct *real_parent; struct task_struct *group_leader; char comm[16]; struct mm_struct *mm; };
struct vm_area_struct { unsigned long vm_start; unsigned long vm_end; };
struct mm_struct { unsigned long task_size; };
struct file { int unused; };
struct cgroup { int level; };
struct seq_file { int unused; };
struct bpf_iter_meta { __bpf_md_ptr(struct seq_file *, seq); };
struct bpf_iter__task { __bpf_md_ptr(struct bpf_iter_meta *, meta); __bpf_md_ptr(struct task_struct *, task); };
#pragma clang attribute pop
struct bpf_iter_num { __u64 opaque[1]; } __attribute__((aligned(8)));
struct bpf_iter_task { __u64 opaque[3]; } __attribute__((aligned(8)));
struct bpf_iter_task_vma { __u64 opaque[1]; } __attribute__((aligned(8)));

extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, unsigned flags) __ksym;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym;
extern int bpf_iter_task_vma_new(struct bpf_iter_task_vma *it, struct task_struct *task, unsigned long addr) __ksym;
extern struct vm_area_struct *bpf_iter_task_vma_next(struct bpf_iter_task_vma *it) __ksym;
extern void bpf_iter_task_vma_destroy(struct bpf_iter_task_vma *it) __ksym;

struct counter { struct bpf_spin_lock lock; long count; };
struct alarm { struct bpf_timer timer; long rings; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, int); __type(value, struct counter); } counters SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, struct alarm); } alarms SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, char[256]); } buffers SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_USER_RINGBUF); __uint(max_entries, 4096); } commands SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_TASK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, long); } storage SEC(".maps");

long sums[16];
char text[64];

SEC("tp_btf/sys_enter") int BPF_PROG(spin_lock, void *regs, long id)
{
	int key = id & 63;
	struct counter *c = bpf_map_lookup_elem(&counters, &key);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	if (c->count > 100)
		c->count = 0;
	c->count++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

static int on_ring(void *map, int *key, struct alarm *alarm)
{
	alarm->rings++;
	bpf_timer_start(&alarm->timer, 1000000, 0);
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(timer, void *regs, long id)
{
	int zero = 0;
	struct alarm *alarm = bpf_map_lookup_elem(&alarms, &zero);
	if (alarm && !bpf_timer_init(&alarm->timer, &alarms, 1)) {
		bpf_timer_set_callback(&alarm->timer, on_ring);
		bpf_timer_start(&alarm->timer, 1000, 0);
	}
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(acquire, void *regs, long id)
{
	struct task_struct *task = bpf_get_current_task_btf(), *ours;
	ours = bpf_task_acquire(task);
	if (ours) {
		sums[0] += ours->pid;
		bpf_task_release(ours);
	}
	ours = bpf_task_from_pid(id);
	if (!ours)
		return 0;
	sums[1] = ours->tgid;
	bpf_task_release(ours);
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(numbers, void *regs, long id)
{
	struct bpf_iter_num it;
	int *n;
	bpf_iter_num_new(&it, 0, 16);
	while ((n = bpf_iter_num_next(&it))) {
		unsigned at = *n;
		if (at < 16)
			sums[at] += id;
	}
	bpf_iter_num_destroy(&it);
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(tasks, void *regs, long id)
{
	struct bpf_iter_task it;
	struct task_struct *task;
	long count = 0;
	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, 0, 0);
	while ((task = bpf_iter_task_next(&it)))
		if (task->tgid == task->pid)
			count++;
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
	sums[2] = count;
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(vmas, void *regs, long id)
{
	struct bpf_iter_task_vma it;
	struct vm_area_struct *vma;
	long size = 0;
	bpf_iter_task_vma_new(&it, bpf_get_current_task_btf(), 0);
	while ((vma = bpf_iter_task_vma_next(&it)))
		size += vma->vm_end - vma->vm_start;
	bpf_iter_task_vma_destroy(&it);
	sums[3] = size;
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(dynptr_ring, void *regs, long id)
{
	struct bpf_dynptr ptr;
	long *data;
	if (bpf_ringbuf_reserve_dynptr(&ring, 64, 0, &ptr)) {
		bpf_ringbuf_discard_dynptr(&ptr, 0);
		return 0;
	}
	bpf_dynptr_write(&ptr, 8, &id, sizeof(id), 0);
	data = bpf_dynptr_data(&ptr, 0, 8);
	if (data)
		*data = id;
	bpf_ringbuf_submit_dynptr(&ptr, 0);
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(dynptr_local, void *regs, long id)
{
	int zero = 0;
	struct bpf_dynptr ptr;
	char *buffer = bpf_map_lookup_elem(&buffers, &zero);
	if (!buffer)
		return 0;
	if (bpf_dynptr_from_mem(buffer, 256, 0, &ptr))
		return 0;
	bpf_dynptr_read(text, 16, &ptr, id & 63, 0);
	return 0;
}

static long on_command(struct bpf_dynptr *ptr, void *context)
{
	long *first = bpf_dynptr_data(ptr, 0, 8);
	if (first)
		*(long *)context += *first;
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(drain, void *regs, long id)
{
	long sum = 0;
	bpf_user_ringbuf_drain(&commands, on_command, &sum, 0);
	sums[4] = sum;
	return 0;
}

static long on_vma(struct task_struct *task, struct vm_area_struct *vma, void *context)
{
	*(long *)context = vma->vm_start;
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(find_vma, void *regs, long id)
{
	long start = 0;
	bpf_find_vma(bpf_get_current_task_btf(), id, on_vma, &start, 0);
	sums[5] = start;
	return 0;
}

static long on_round(unsigned index, long *sum) { *sum += index; return index > 40; }
static long on_counter(void *map, int *key, struct counter *c, long *sum) { *sum += *key; return 0; }

SEC("tp_btf/sys_enter") int BPF_PROG(callbacks, void *regs, long id)
{
	long sum = 0, limit = id & 7;
	bpf_loop(100, on_round, &sum, 0);
	bpf_for_each_map_elem(&counters, on_counter, &sum, 0);
	sums[limit] = sum;
	return 0;
}

SEC("tp_btf/sys_enter") int BPF_PROG(walk, void *regs, long id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	long *n = bpf_task_storage_get(&storage, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (n)
		*n += task->real_parent->tgid;
	sums[6] = task->mm->task_size;
	return 0;
}

SEC("iter/task") int listed(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	if (!task)
		return 0;
	BPF_SEQ_PRINTF(ctx->meta->seq, "%d %s\n", task->pid, task->comm);
	return 0;
}
char LICENSE[] SEC("license") = "GPL";

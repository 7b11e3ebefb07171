// What differs between kernels, asked by CO-RE: members, types, enumerators, sizes, bit-fields; configuration and symbols.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

struct kernfs_node___old { struct { u32 ino; }; } __attribute__((preserve_access_index));
struct mm_struct___rss { struct percpu_counter rss_stat[4]; } __attribute__((preserve_access_index));
struct renamed___unknown { int x; } __attribute__((preserve_access_index));
enum cgroup_subsys_id___local { memory_cgrp_id___local = 123 };
extern bool CONFIG_CGROUPS __kconfig __weak;
extern int CONFIG_HZ __kconfig __weak;
extern const void init_task __ksym __weak;
struct answers { u32 has_rss, has_type, task_bytes, comm_offset, memory_id, hz, cgroups; u64 state, swapper; u8 in_iowait, nothing; char comm[16]; };
struct answers answers;

SEC("raw_tp/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct mm_struct___rss *mm = (void *)BPF_CORE_READ(child, mm);

	answers.has_rss = bpf_core_field_exists(mm->rss_stat);
	answers.has_type = bpf_core_type_exists(struct task_struct) + 2 * bpf_core_type_exists(struct renamed___unknown);
	answers.task_bytes = bpf_core_type_size(struct task_struct);
	answers.comm_offset = bpf_core_field_offset(struct task_struct, comm);
	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		answers.memory_id = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	answers.in_iowait = BPF_CORE_READ_BITFIELD_PROBED(child, in_iowait);
	answers.state = bpf_core_field_size(child->__state) == 4 ? BPF_CORE_READ(child, __state) : 0;
	answers.hz = CONFIG_HZ;
	answers.cgroups = CONFIG_CGROUPS;
	answers.swapper = (u64)&init_task;
	BPF_CORE_READ_STR_INTO(&answers.comm, child, comm);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

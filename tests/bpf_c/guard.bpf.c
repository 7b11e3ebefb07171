// Security hooks: no program of a list of names may be executed, bpf(2) is watched, files get a mark of who wrote them.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#define EPERM 1
#define MAY_WRITE 2
static const char *const forbidden[] = { "nc", "telnet", "rsh" };
struct mark { __u32 writer; __u64 times; };
struct { __uint(type, BPF_MAP_TYPE_INODE_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, struct mark); } marks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_TASK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, __u32); } loads SEC(".maps");
__u64 refused;

static bool is_forbidden(const char *name)
{
	for (int i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
		if (!__builtin_strncmp(name, forbidden[i], 8))
			return true;
	return false;
}

SEC("lsm/bprm_check_security")
int BPF_PROG(on_exec, struct linux_binprm *bprm, int ret)
{
	char name[8] = {};

	if (ret)
		return ret;
	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(bprm, file, f_path.dentry, d_name.name));
	if (!is_forbidden(name))
		return 0;
	__sync_fetch_and_add(&refused, 1);
	return -EPERM;
}

SEC("lsm/bpf")
int BPF_PROG(on_bpf, int cmd, union bpf_attr *attr, unsigned int size)
{
	__u32 *n;

	if (cmd != BPF_PROG_LOAD)
		return 0;
	n = bpf_task_storage_get(&loads, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (n)
		*n += 1;
	return 0;
}

SEC("lsm/file_permission")
int BPF_PROG(on_permission, struct file *file, int mask, int ret)
{
	struct mark *m;

	if (ret || !(mask & MAY_WRITE))
		return ret;
	m = bpf_inode_storage_get(&marks, file->f_inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (m) {
		m->writer = bpf_get_current_pid_tgid() >> 32;
		m->times++;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

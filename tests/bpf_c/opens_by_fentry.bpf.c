// Trampolines: arguments and results of functions with their types, direct loads, several levels deep; arrays in structs.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

struct open { u64 inode, size; u32 pid, uid, flags; int result; char name[32], fstype[16]; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 18); } opens SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __type(key, u64); __type(value, u64); } unlinked SEC(".maps");

SEC("fexit/vfs_open")
int BPF_PROG(on_open, const struct path *path, struct file *file, int ret)
{
	struct dentry *dentry = path->dentry;
	struct open *o = bpf_ringbuf_reserve(&opens, sizeof(*o), 0);

	if (!o)
		return 0;
	o->pid = bpf_get_current_pid_tgid() >> 32;
	o->uid = bpf_get_current_task_btf()->cred->uid.val;
	o->result = ret;
	o->flags = file->f_flags;
	o->inode = dentry->d_inode->i_ino;
	o->size = dentry->d_inode->i_size;
	bpf_probe_read_kernel_str(o->name, sizeof(o->name), dentry->d_name.name);
	bpf_probe_read_kernel_str(o->fstype, sizeof(o->fstype), dentry->d_sb->s_type->name);
	bpf_ringbuf_submit(o, 0);
	return 0;
}

SEC("fentry/vfs_unlink")
int BPF_PROG(on_unlink, struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry)
{
	u64 inode = BPF_CORE_READ(dentry, d_inode, i_ino), now = bpf_ktime_get_ns();

	bpf_map_update_elem(&unlinked, &inode, &now, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

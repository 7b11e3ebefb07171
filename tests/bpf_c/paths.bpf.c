// Whole paths of files that are read, from the directory entries upwards: pointer chains in a bounded loop, mount points by container_of.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#define PARTS 16
#define PART_BYTES 32
struct record { __u32 pid, parts; __u64 bytes, inode; umode_t mode; char comm[16]; char part[PARTS][PART_BYTES]; };
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, struct record); } scratch SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 20); } records SEC(".maps");

static __always_inline struct mount *mount_of(struct vfsmount *mnt) { return container_of(mnt, struct mount, mnt); }

SEC("kprobe/vfs_read")
int BPF_KPROBE(on_read, struct file *file, char *buf, size_t count)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry), *parent, *root;
	struct vfsmount *mnt = BPF_CORE_READ(file, f_path.mnt);
	struct mount *mount = mount_of(mnt);
	struct record *r;
	int zero = 0, i;

	r = bpf_map_lookup_elem(&scratch, &zero);
	if (!r)
		return 0;
	r->pid = bpf_get_current_pid_tgid() >> 32;
	r->bytes = count;
	r->inode = BPF_CORE_READ(dentry, d_inode, i_ino);
	r->mode = BPF_CORE_READ(dentry, d_inode, i_mode);
	r->parts = 0;
	bpf_get_current_comm(r->comm, sizeof r->comm);
	for (i = 0; i < PARTS; i++) {
		root = BPF_CORE_READ(mount, mnt.mnt_root);
		if (dentry == root) { // go on at the mount point, unless this is the top
			struct mount *above = BPF_CORE_READ(mount, mnt_parent);
			if (above == mount)
				break;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = above;
			continue;
		}
		bpf_probe_read_kernel_str(r->part[r->parts & (PARTS - 1)], PART_BYTES, BPF_CORE_READ(dentry, d_name.name));
		r->parts++;
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry)
			break;
		dentry = parent;
	}
	bpf_ringbuf_output(&records, r, sizeof(*r), 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

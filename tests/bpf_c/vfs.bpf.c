// Calls of the file system's functions a second: counters indexed by an enumeration, programs made by a macro, for trampolines and kprobes.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

enum stat { S_READ = 1, S_WRITE, S_FSYNC, S_OPEN, S_CREATE, S_MAX };
__u64 stats[S_MAX] = {};

static __always_inline int count(enum stat key) { __atomic_add_fetch(&stats[key], 1, __ATOMIC_RELAXED); return 0; }

#define COUNTED(function, key) \
	SEC("kprobe/" #function) int BPF_KPROBE(kprobe_##function) { return count(key); } \
	SEC("?fentry/" #function) int BPF_PROG(fentry_##function) { return count(key); }
COUNTED(vfs_read, S_READ)
COUNTED(vfs_write, S_WRITE)
COUNTED(vfs_fsync, S_FSYNC)
COUNTED(vfs_open, S_OPEN)
COUNTED(vfs_create, S_CREATE)

char LICENSE[] SEC("license") = "GPL";

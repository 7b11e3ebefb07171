/* Questions of every CO-RE kind about kernel types, each added to a sum: what an instruction holds is what libbpf answered.
 * In section core/matches all questions are turned into the kind type_matches, which clang 14 cannot ask. */
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct list_head { struct list_head *next, *prev; };
struct rlimit { unsigned long rlim_cur, rlim_max; };
struct signal_struct { int nr_threads; struct rlimit rlim[16]; };
struct upid { int nr; };
struct upid___flavour { int nr; };
struct pid { unsigned int level; struct upid numbers[]; };
struct task_struct {
    int pid, tgid, exit_state;
    unsigned int flags;
    unsigned sched_reset_on_fork:1, in_execve:1, brk_randomized:1;
    long state;
    unsigned int __state;
    struct list_head tasks;
    char comm[16];
    struct signal_struct *signal;
    int no_such_member;
    char *prio; /* an integer in the kernel */
    unsigned long nvcsw;
    unsigned char policy;
};
struct task_struct___old { long state; };
struct inode {
    unsigned long i_ino, i_state;
    unsigned short i_mode;
    union { const unsigned int i_nlink; unsigned int __i_nlink; };
};
struct file { unsigned f_mode; unsigned long long f_pos; };
struct sock_common {
    unsigned short skc_family;
    unsigned char skc_reuse:4, skc_reuseport:1, skc_ipv6only:1;
    unsigned short skc_num;
};
struct sock { struct sock_common __sk_common; unsigned short sk_protocol, sk_type; int sk_rcvbuf; unsigned int sk_mark; };
struct sk_buff { unsigned int len; __u8 pkt_type:3, ip_summed:2, nohdr:1; __u16 protocol, queue_mapping; unsigned int hash; };
struct request { unsigned int cmd_flags, rq_flags; int tag; unsigned int __data_len; unsigned short nr_phys_segments; };
struct bio { unsigned short bi_flags; };
struct page { unsigned long flags; };
struct rq { unsigned int nr_running; };
union bpf_iter_link_info { struct { __u32 map_fd; } map; };
struct no_such_struct { int x; };
#pragma clang attribute pop
enum pid_type { PIDTYPE_PID, PIDTYPE_TGID, PIDTYPE_PGID, PIDTYPE_SID, PIDTYPE_MAX };
enum bpf_map_type { BPF_MAP_TYPE_UNSPEC, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_RINGBUF = 99, NO_SUCH_MAP_TYPE };
enum zone_stat_item { NR_FREE_PAGES, NR_MLOCK, NR_BOUNCE };
enum no_such_enum { NO_SUCH_ENUMERATOR = 5 };
typedef unsigned int gfp_t;
typedef struct { int counter; } atomic_t;
typedef unsigned long no_such_t;

volatile __u64 sum;

#define ADD(value) sum += (value)
#define FIELD(struct_, f) do { \
    struct_ *p_ = (void *)ctx; \
    ADD(__CORE_RELO(p_, f, BYTE_OFFSET)); ADD(__CORE_RELO(p_, f, BYTE_SIZE)); ADD(__CORE_RELO(p_, f, SIGNED)); \
    ADD(__CORE_RELO(p_, f, LSHIFT_U64)); ADD(__CORE_RELO(p_, f, RSHIFT_U64)); ADD(bpf_core_field_exists(p_->f)); \
} while (0)
#define EXISTS(struct_, f) do { struct_ *p_ = (void *)ctx; ADD(bpf_core_field_exists(p_->f)); } while (0)
#define PLACE(struct_, f) do { \
    struct_ *p_ = (void *)ctx; \
    ADD(__CORE_RELO(p_, f, BYTE_OFFSET)); ADD(__CORE_RELO(p_, f, BYTE_SIZE)); ADD(bpf_core_field_exists(p_->f)); \
} while (0)
#define TYPE(type) do { \
    ADD(bpf_core_type_exists(type)); ADD(bpf_core_type_size(type)); \
    ADD(bpf_core_type_id_kernel(type)); ADD(bpf_core_type_id_local(type)); \
} while (0)
#define NUMBER(type, name) do { \
    ADD(bpf_core_enum_value_exists(type, name)); ADD(bpf_core_enum_value(type, name)); \
} while (0)

SEC("core/fields") int fields(void *ctx)
{
    FIELD(struct task_struct, pid); FIELD(struct task_struct, flags); FIELD(struct task_struct, exit_state);
    FIELD(struct task_struct, sched_reset_on_fork); FIELD(struct task_struct, in_execve);
    FIELD(struct task_struct, brk_randomized); FIELD(struct task_struct, nvcsw); FIELD(struct task_struct, policy);
    EXISTS(struct task_struct, state); EXISTS(struct task_struct, __state); EXISTS(struct task_struct___old, state);
    EXISTS(struct task_struct, no_such_member); EXISTS(struct task_struct, prio); EXISTS(struct no_such_struct, x);
    FIELD(struct inode, i_ino); FIELD(struct inode, i_state); FIELD(struct inode, i_mode); FIELD(struct inode, i_nlink);
    FIELD(struct file, f_mode); FIELD(struct file, f_pos);
    FIELD(struct sock, __sk_common.skc_reuse); FIELD(struct sock, __sk_common.skc_reuseport);
    FIELD(struct sock, __sk_common.skc_ipv6only); FIELD(struct sock, __sk_common.skc_num);
    FIELD(struct sock, sk_protocol); FIELD(struct sock, sk_type); FIELD(struct sock, sk_rcvbuf); FIELD(struct sock, sk_mark);
    FIELD(struct sk_buff, pkt_type); FIELD(struct sk_buff, ip_summed); FIELD(struct sk_buff, nohdr);
    FIELD(struct sk_buff, protocol); FIELD(struct sk_buff, len); FIELD(struct sk_buff, hash); FIELD(struct sk_buff, queue_mapping);
    FIELD(struct request, cmd_flags); FIELD(struct request, rq_flags); FIELD(struct request, tag);
    FIELD(struct request, __data_len); FIELD(struct request, nr_phys_segments);
    FIELD(struct page, flags); FIELD(struct rq, nr_running); FIELD(struct bio, bi_flags);
    PLACE(struct task_struct, comm); PLACE(struct task_struct, comm[3]); PLACE(struct task_struct, tasks.next);
    PLACE(struct signal_struct, rlim[7].rlim_max); PLACE(struct signal_struct, rlim[3]);
    PLACE(struct pid, numbers[2].nr);
    struct task_struct *t = (void *)ctx;
    ADD((__u64)__builtin_preserve_access_index(&t[2].pid) - (__u64)t);
    return 0;
}

SEC("core/types") int types(void *ctx)
{
    TYPE(struct task_struct); TYPE(struct sk_buff); TYPE(union bpf_iter_link_info); TYPE(enum pid_type); TYPE(gfp_t);
    TYPE(atomic_t); TYPE(no_such_t); TYPE(struct no_such_struct); TYPE(enum no_such_enum);
    TYPE(struct upid___flavour); TYPE(struct task_struct___old);
    NUMBER(enum bpf_map_type, BPF_MAP_TYPE_RINGBUF); NUMBER(enum bpf_map_type, NO_SUCH_MAP_TYPE);
    NUMBER(enum no_such_enum, NO_SUCH_ENUMERATOR); NUMBER(enum zone_stat_item, NR_BOUNCE);
    NUMBER(enum zone_stat_item, NR_MLOCK); NUMBER(enum pid_type, PIDTYPE_SID);
    return 0;
}

SEC("core/matches") int matches(void *ctx)
{
    ADD(bpf_core_type_exists(struct list_head)); ADD(bpf_core_type_exists(struct rlimit));
    ADD(bpf_core_type_exists(enum pid_type)); ADD(bpf_core_type_exists(struct upid)); ADD(bpf_core_type_exists(atomic_t));
    ADD(bpf_core_type_exists(struct task_struct)); ADD(bpf_core_type_exists(struct no_such_struct));
    ADD(bpf_core_type_exists(enum bpf_map_type)); ADD(bpf_core_type_exists(enum zone_stat_item));
    ADD(bpf_core_type_exists(gfp_t)); ADD(bpf_core_type_exists(struct task_struct___old));
    ADD(bpf_core_type_exists(struct inode)); ADD(bpf_core_type_exists(struct pid)); ADD(bpf_core_type_exists(struct file));
    ADD(bpf_core_type_exists(struct sock_common)); ADD(bpf_core_type_exists(union bpf_iter_link_info));
    ADD(bpf_core_type_exists(struct upid___flavour)); ADD(bpf_core_type_exists(enum no_such_enum));
    return 0;
}

SEC("core/loads") int loads(__u64 *ctx)
{
    struct task_struct *t = (void *)ctx[0];
    struct inode *i = (void *)ctx[1];
    struct request *r = (void *)ctx[2];
    struct sock *s = (void *)ctx[3];
    ADD(t->pid); ADD(t->flags); ADD(t->nvcsw); ADD(t->exit_state); ADD(t->policy); ADD(t->comm[2]); ADD(t->no_such_member);
    ADD(i->i_state); ADD(i->i_ino); ADD(i->i_mode); ADD(r->cmd_flags); ADD(r->rq_flags); ADD(r->tag); ADD(s->sk_mark);
    ADD(s->sk_protocol); ADD(s->__sk_common.skc_num); ADD(t->signal->rlim[3].rlim_cur);
    t->flags = 5; t->tgid = t->pid; t->policy = 3; i->i_state = 7; r->nr_phys_segments = 1;
    return 0;
}

char LICENSE[] SEC("license") = "GPL";

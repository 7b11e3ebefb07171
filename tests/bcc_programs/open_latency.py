"""How long opening a file takes, with its name: entry and return of the kernel's own function, or of the system call where that
cannot be traced."""

import sys

from bcc import BPF

head = r"""
#include <uapi/linux/ptrace.h>
#include <linux/sched.h>
#include <linux/limits.h>

struct start_t {
    u64 ns;
    const char *name;
};

struct event_t {
    u64 delta_ns;
    u32 pid;
    int ret;
    char comm[TASK_COMM_LEN];
    char name[NAME_MAX];
};
BPF_HASH(start, u64, struct start_t);
BPF_PERF_OUTPUT(events);

static int enter(const char *name)
{
    u64 id = bpf_get_current_pid_tgid();
    struct start_t s = {};
    char comm[TASK_COMM_LEN], wanted[] = COMM;

    bpf_get_current_comm(&comm, sizeof(comm));
    for (int i = 0; i < sizeof(wanted); i++)
        if (comm[i] != wanted[i])
            return 0;
    s.ns = bpf_ktime_get_ns();
    s.name = name;
    start.update(&id, &s);
    return 0;
}

static int leave(void *ctx, int ret)
{
    u64 id = bpf_get_current_pid_tgid();
    struct start_t *s = start.lookup(&id);
    struct event_t event = {};

    if (s == 0)
        return 0; // missed the entry
    event.delta_ns = bpf_ktime_get_ns() - s->ns;
    event.pid = id >> 32;
    event.ret = ret;
    bpf_get_current_comm(&event.comm, sizeof(event.comm));
    bpf_probe_read_user_str(&event.name, sizeof(event.name), (void *)s->name);
    events.perf_submit(ctx, &event, sizeof(event));
    start.delete(&id);
    return 0;
}
"""
by_kprobe = r"""
int trace_entry(struct pt_regs *ctx, int dfd, const char __user *filename)
{
    return enter(filename);
}

int trace_return(struct pt_regs *ctx)
{
    return leave(ctx, PT_REGS_RC(ctx));
}
"""
by_tracepoint = r"""
TRACEPOINT_PROBE(syscalls, sys_enter_openat)
{
    return enter(args->filename);
}

TRACEPOINT_PROBE(syscalls, sys_exit_openat)
{
    return leave(args, args->ret);
}
"""
function = next((f for f in (b"do_sys_openat2", b"do_sys_open") if BPF.get_kprobe_functions(b"^" + f + b"$")), None)
text = head + (by_kprobe if function else by_tracepoint)
b = BPF(text=text, cflags=['-DCOMM="%s"' % sys.argv[1][:15]])
if function:
    b.attach_kprobe(event=function, fn_name="trace_entry")
    b.attach_kretprobe(event=function, fn_name="trace_return")


def show(cpu, data, size):
    e = b["events"].event(data)
    print(
        "%-16s %-7d %-4d %10.3f us %s" % (e.comm.decode(), e.pid, e.ret, e.delta_ns / 1000, e.name.decode()), flush=True
    )


b["events"].open_perf_buffer(show, page_cnt=64)
print("Tracing by %s... Hit Ctrl-C to end." % (function.decode() if function else "tracepoints"), flush=True)
try:
    while True:
        b.perf_buffer_poll()
except KeyboardInterrupt:
    print()
print("unfinished: %d" % len(b["start"]))

"""Hypercalls of KVM guests: number, arguments, and how long the host was busy with each.

Three tracepoints of module kvm in a row, with the state of a virtual CPU's thread in a map: the guest leaves (kvm_exit), it was a hypercall
(kvm_hypercall), the guest goes on (kvm_entry).
"""

from bcc import BPF

text = r"""
struct pending_t {
    u64 exit_ns;
    u64 nr;
    u64 a0;
    u64 a1;
    u32 reason;
    u8 is_hypercall;
};

struct event_t {
    u32 pid;
    u32 reason;
    u64 nr;
    u64 a0;
    u64 a1;
    u64 delta_ns;
    char comm[TASK_COMM_LEN];
};

BPF_HASH(pending, u32, struct pending_t);
BPF_HASH(exits, u32, u64);
BPF_PERF_OUTPUT(events);

TRACEPOINT_PROBE(kvm, kvm_exit)
{
    u32 tid = bpf_get_current_pid_tgid();
    u32 reason = args->exit_reason;
    struct pending_t state = {.exit_ns = bpf_ktime_get_ns(), .reason = reason};

    exits.increment(reason);
    pending.update(&tid, &state);
    return 0;
}

TRACEPOINT_PROBE(kvm, kvm_hypercall)
{
    u32 tid = bpf_get_current_pid_tgid();
    struct pending_t *state = pending.lookup(&tid);

    if (!state)
        return 0;
    state->nr = args->nr;
    state->a0 = args->a0;
    state->a1 = args->a1;
    state->is_hypercall = 1;
    return 0;
}

TRACEPOINT_PROBE(kvm, kvm_entry)
{
    u64 id = bpf_get_current_pid_tgid();
    u32 tid = id;
    struct pending_t *state = pending.lookup(&tid);
    struct event_t event = {};

    if (!state)
        return 0;
    if (state->is_hypercall) {
        event.pid = id >> 32;
        event.reason = state->reason;
        event.nr = state->nr;
        event.a0 = state->a0;
        event.a1 = state->a1;
        event.delta_ns = bpf_ktime_get_ns() - state->exit_ns;
        bpf_get_current_comm(&event.comm, sizeof(event.comm));
        events.perf_submit(args, &event, sizeof(event));
    }
    pending.delete(&tid);
    return 0;
}
"""

b = BPF(text=text)


def show(cpu, data, size):
    event = b["events"].event(data)
    print(
        "%-16s %-7d reason %#x nr %-3d a0 %#x a1 %#x %.3f us"
        % (event.comm.decode(), event.pid, event.reason, event.nr, event.a0, event.a1, event.delta_ns / 1000),
        flush=True,
    )


b["events"].open_perf_buffer(show)
print("Tracing hypercalls... Hit Ctrl-C to end.", flush=True)
try:
    while True:
        b.perf_buffer_poll()
except KeyboardInterrupt:
    print()
for reason, count in sorted(b["exits"].items(), key=lambda item: item[0].value):
    print("exits for reason %#x: %d" % (reason.value, count.value))
print("unanswered: %d" % len(b["pending"]))

"""A first BCC program: one tracepoint, one event with two members, printed as it comes. Ends when its input does."""

import os
import sys

from bcc import BPF

TEXT = """
struct event { u32 pid; char comm[16]; };
BPF_PERF_OUTPUT(events);
TRACEPOINT_PROBE(syscalls, sys_enter_getppid)
{
    struct event event = {};
    event.pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(&event.comm, sizeof(event.comm));
    events.perf_submit(args, &event, sizeof(event));
    return 0;
}
"""
b = BPF(text=TEXT)


def show(cpu, data, size):
    event = b["events"].event(data)
    if event.pid == os.getpid():
        print("hello,", event.comm.decode(), flush=True)


b["events"].open_perf_buffer(show)
os.getppid()
b.perf_buffer_poll(10_000)
sys.stdin.read()

"""The programs that the benchmarks compile and run, in the dialect that bpftrace 0.17 and 0.27 both accept."""

from __future__ import annotations

# The six typical programs whose instructions are counted together.
SIX = {
    "count by comm": "tracepoint:raw_syscalls:sys_enter { @[comm] = count(); }",
    "openat printf": 'tracepoint:syscalls:sys_enter_openat { printf("%d %s %s\\n", pid, comm, str(args->filename)); }',
    "read latency histogram": "tracepoint:syscalls:sys_enter_read { @start[tid] = nsecs; } "
    "tracepoint:syscalls:sys_exit_read /@start[tid]/ { @ns = hist(nsecs - @start[tid]); delete(@start[tid]); }",
    "profile stacks": "profile:hz:99 { @[kstack, ustack, comm] = count(); }",
    "runqlat": "tracepoint:sched:sched_wakeup { @q[args->pid] = nsecs; } "
    "tracepoint:sched:sched_switch { if (args->prev_state == 0) { @q[args->prev_pid] = nsecs; } "
    "$ns = @q[args->next_pid]; if ($ns) { @usecs = hist((nsecs - $ns) / 1000); delete(@q[args->next_pid]); } }",
    "sum+avg+lhist": "tracepoint:syscalls:sys_exit_read /args->ret > 0/ { @s[pid] = sum(args->ret); "
    "@a[pid] = avg(args->ret); @h = lhist(args->ret, 0, 1000, 100); }",
}

FIRST_EVENT = 'BEGIN { printf("x\\n"); exit(); }'
OPENAT = 'tracepoint:syscalls:sys_enter_openat { printf("%s %s\\n", comm, str(args->filename)); }'

# One hit of these is timed by the kernel's own statistics; `pid` keeps them to the benchmark's own process.
HITS = {
    "@ = count()": "@ = count();",
    "@[comm] = count()": "@[comm] = count();",
    "@ = hist(x)": "@ = hist(nsecs);",
}

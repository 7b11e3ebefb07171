"""Debian's own bpftrace tools (package bpftrace 0.17), a workload for each, and what must be seen of it.

`needs` is what the kernel must have: "" (works wherever tracepoints and uprobes do) or "kprobe". `expect` is a regular expression
on the output (text and maps) that only the workload, or a header plus the workload, can produce.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tool:
    """One tool with its check."""

    name: str
    workload: str
    expect: str
    needs: str = ""
    note: str = ""  # for the parity table, where a check is weaker than the others


PY = "python3 -S -c"
TCP = (
    f'{PY} \'import socket,threading;s=socket.socket();s.bind(("127.0.0.1",0));s.listen(1);'
    't=threading.Thread(target=lambda:s.accept()[0].sendall(b"x"*4096));t.start();'
    "c=socket.create_connection(s.getsockname());c.recv(4096);c.close();t.join();s.close()'"
)
REFUSED = f"{PY} 'import socket;s=socket.socket();s.connect_ex((\"127.0.0.1\",9))'"
WRITE = "dd if=/dev/zero of=/tmp/sonde-io bs=64k count=16 conv=fsync; rm -f /tmp/sonde-io"

TOOLS = (
    Tool("bashreadline.bt", "printf 'echo hidden-word\\n' | script -qec 'bash --norc -i' /dev/null", r"hidden-word"),
    Tool("biolatency.bt", WRITE, r"Tracing block device I/O", "kprobe"),
    Tool("biosnoop.bt", WRITE, r"TIME\(ms\)\s+DISK\s+COMM", "kprobe"),
    Tool("biostacks.bt", WRITE, r"Tracing block I/O with init stacks", "kprobe"),
    Tool("bitesize.bt", WRITE + "; sync", r"Tracing block device I/O|@"),
    Tool("capable.bt", "setpriv --reuid 65534 chown 0 /dev/null; true", r"CAP_(CHOWN|SETUID)", "kprobe"),
    Tool("cpuwalk.bt", f"{PY} 'for i in range(10**7): pass'", r"@cpu:\s*\n\[0, 1\)"),
    Tool("dcsnoop.bt", "ls /no-such-sonde-file", r"no-such-sonde-file", "kprobe"),
    Tool("execsnoop.bt", "/bin/echo a-word-to-see", r"/bin/echo a-word-to-see"),
    Tool("gethostlatency.bt", "getent ahosts localhost", r"getent\s.*localhost"),
    Tool("killsnoop.bt", "sleep 9 & kill -USR1 $!", r"\s10\s+\d+\s+0"),
    Tool("loads.bt", "sleep 1.2", r"load averages: \d+\.\d+ \d+\.\d+ \d+\.\d+", "data symbols"),
    Tool("mdflush.bt", "true", r"Tracing md flush events", "kprobe-md"),
    Tool(
        "naptime.bt",
        f"{PY} 'import ctypes;ctypes.CDLL(None).syscall(35,(ctypes.c_long*2)(0,250000000),None)'",
        r"python3\s+0\.250",
    ),
    Tool("oomkill.bt", "true", r"Tracing oom_kill_process", "kprobe"),
    Tool("opensnoop.bt", "cat /etc/hostname", r"cat\s+\d+\s+0\s+/etc/hostname"),
    Tool("pidpersec.bt", "for i in 1 2 3; do /bin/true; done; sleep 1.2", r"PIDs/sec: @: [3-9]"),
    Tool("runqlat.bt", "ls -R /etc", r"@usecs:\s*\n[\[(]"),
    Tool("runqlen.bt", f"{PY} 'for i in range(10**7): pass'", r"@runqlen:\s*\n\[0, 1\)", "cfs_rq.nr_running"),
    Tool("setuids.bt", "setpriv --reuid 65534 --clear-groups true", r"setpriv|setresuid"),
    Tool("ssllatency.bt", "true", r"Tracing SSL/TLS handshake", "openssl-1"),
    Tool("sslsnoop.bt", "true", r"Tracing SSL/TLS handshake", "openssl-1"),
    Tool("statsnoop.bt", "stat /etc/hostname", r"stat\s+0\s+/etc/hostname"),
    Tool("swapin.bt", "sleep 1.2", r"\d\d:\d\d:\d\d", "kprobe"),
    Tool("syncsnoop.bt", "sync", r"sync\s+tracepoint:syscalls:sys_enter_sync"),
    Tool("syscount.bt", "ls -R /etc", r"Top 10 syscalls IDs:[\s\S]*@syscall\[\d+\]: \d+[\s\S]*@process\[ls\]: \d+"),
    Tool("tcpaccept.bt", TCP, r"127\.0\.0\.1\s+\d+\s+127\.0\.0\.1\s+\d+\s+0/1", "kprobe"),
    Tool("tcpconnect.bt", TCP, r"127\.0\.0\.1\s+\d+\s+127\.0\.0\.1\s+\d+", "kprobe"),
    Tool("tcpdrop.bt", REFUSED, r"127\.0\.0\.1"),
    Tool("tcplife.bt", TCP, r"127\.0\.0\.1\s+\d+\s+127\.0\.0\.1\s+\d+", "kprobe"),
    Tool("tcpretrans.bt", "true", r"Tracing tcp retransmits", "kprobe"),
    Tool("tcpsynbl.bt", TCP, r"@backlog\[\d+\]:", "kprobe"),
    Tool("threadsnoop.bt", "true", r"TIME\(ms\)\s+PID\s+COMM\s+FUNC", note="glibc 2.34 emptied libpthread: no events"),
    Tool("undump.bt", "true", r"Dump UNIX socket packages RX", "kprobe"),
    Tool("vfscount.bt", "cat /etc/hostname", r"@\[vfs_(read|open)\]: \d+", "kprobe"),
    Tool("vfsstat.bt", "cat /etc/hostname; sleep 1.2", r"@\[vfs_read\]: \d+", "kprobe"),
    Tool("writeback.bt", WRITE + "; sync", r"Tracing writeback"),
    Tool("xfsdist.bt", "true", r"Tracing XFS operation latency", "xfs"),
)

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
    series: str = "6.1"  # the guest's kernel: Debian 12's, or an older one that still has the functions
    compared: bool = True  # also with Debian's bpftrace in the guest, on the same workload
    note: str = ""  # for the parity table, where a check is weaker than the others


PY = "python3 -S -c"
TCP = (
    f'{PY} \'import socket,threading;s=socket.socket();s.bind(("127.0.0.1",0));s.listen(1);'
    't=threading.Thread(target=lambda:s.accept()[0].sendall(b"x"*4096));t.start();'
    "c=socket.create_connection(s.getsockname());c.recv(4096);c.close();t.join();s.close()'"
)
# Packets on the loopback device have no socket. One that is sent when its route has gone has, and is dropped.
DROPPED = (
    f"{PY} 'import ctypes,fcntl,socket,struct;ctypes.CDLL(None).unshare(0x40000000);u=socket.socket(2,2);"
    'lo=lambda on:fcntl.ioctl(u,0x8914,struct.pack("16sh14x",b"lo",on));lo(1);s=socket.socket();s.bind(("127.0.0.1",0));'
    's.listen(1);c=socket.create_connection(s.getsockname());a=s.accept()[0];lo(0);c.send(b"x")\''
)
WRITE = "dd if=/dev/zero of=/tmp/sonde-io bs=64k count=16 conv=fsync; rm -f /tmp/sonde-io"

# A loop device on a file in memory: guests have no disk. MODULES stands for where the kernel's modules are.
BLOCK = (
    "cd /tmp; f=$(find MODULES -name 'loop.ko*'); case $f in *.xz) xz -dc $f;; *) cat $f;; esac > loop.ko; busybox insmod loop.ko; "
    "truncate -s 8M disk; mknod /dev/loop9 b 7 9; losetup /dev/loop9 disk; "
    "dd if=/dev/zero of=/dev/loop9 bs=64k count=16 oflag=direct; losetup -d /dev/loop9"
)
TLS = (
    "d=$(mktemp -d); cd $d; openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout k -out c -days 1; "
    "openssl s_server -key k -cert c -port 41433 -quiet & sleep 1.2; (echo hello; sleep 0.3) | openssl s_client -connect 127.0.0.1:41433 -quiet & "
    "sleep 1.8; kill %1 %2; rm -r $d"
)
INLINED = "6.1 has the functions inlined: 0.17 warns and sees nothing; sonde says so and stops, or warns with BPFTRACE_MISSING_PROBES=warn"

TOOLS = (
    Tool("bashreadline.bt", "printf 'echo hidden-word\\n' | script -qec 'bash --norc -i' /dev/null", r"hidden-word"),
    Tool("biolatency.bt", BLOCK, r"@usecs:\s*\n[\[(]", "kprobe", "5.10", False, INLINED),
    Tool("biosnoop.bt", BLOCK, r"\s+dd\s+\d+\s+\d+", "inlined", compared=False, note=INLINED),
    Tool("biostacks.bt", BLOCK, r"@usecs\[[^\]]*submit_bio[^\]]*\]:", "kprobe", "5.10", False, INLINED),
    Tool("bitesize.bt", WRITE + "; sync", r"Tracing block device I/O|@"),
    Tool("capable.bt", "setpriv --reuid 65534 chown 0 /dev/null; true", r"CAP_(CHOWN|SETUID)", "kprobe"),
    Tool("cpuwalk.bt", f"{PY} 'for i in range(10**7): pass'", r"@cpu:\s*\n\[0, 1\)"),
    Tool("dcsnoop.bt", "ls /no-such-sonde-file", r"no-such-sonde-file", "kprobe"),
    Tool("execsnoop.bt", "/bin/echo a-word-to-see", r"/bin/echo a-word-to-see"),
    Tool("gethostlatency.bt", "getent ahosts localhost", r"getent\s.*localhost"),
    Tool("killsnoop.bt", "sleep 9 & kill -USR1 $!", r"\s10\s+\d+\s+0"),
    Tool("loads.bt", "sleep 1.2", r"load averages: \d+\.\d+ \d+\.\d+ \d+\.\d+", "data symbols"),
    Tool("mdflush.bt", "true", r"Tracing md flush events", "kprobe-md", compared=False),
    Tool(
        "naptime.bt",
        f"{PY} 'import ctypes;ctypes.CDLL(None).syscall(35,(ctypes.c_long*2)(0,250000000),None)'",
        r"python3\s+0\.250",
    ),
    Tool("oomkill.bt", "true", r"Tracing oom_kill_process", "kprobe"),
    Tool("opensnoop.bt", "cat /etc/hostname", r"cat\s+\d+\s+0\s+/etc/hostname"),
    Tool("pidpersec.bt", "for i in 1 2 3; do /bin/true; done; sleep 1.2", r"PIDs/sec: @: ([3-9]|\d\d)"),
    Tool(
        "runqlat.bt",
        "ls -R /etc",
        r"@usecs:\s*\n[\[(]",
        compared=False,
        note="0.17 needs the headers of the running kernel, which are not in the guest",
    ),
    Tool("runqlen.bt", f"{PY} 'for i in range(10**7): pass'", r"@runqlen:\s*\n\[0, 1\)", "cfs_rq.nr_running"),
    Tool("setuids.bt", "setpriv --reuid 65534 --clear-groups true", r"setpriv|setresuid"),
    Tool("ssllatency.bt", TLS, r"@histF\[\w+, \w+\]|@histF\[\w*SSL\w*|@hist\w*\[", compared=False),
    Tool("sslsnoop.bt", TLS, r"openssl\s+.*SSL_\w+|SSL_\w+.*openssl"),
    Tool("statsnoop.bt", "stat /etc/hostname", r"stat\s+0\s+/etc/hostname"),
    Tool("swapin.bt", "sleep 1.2", r"\d\d:\d\d:\d\d", "kprobe"),
    Tool("syncsnoop.bt", "sync", r"sync\s+tracepoint:syscalls:sys_enter_sync"),
    Tool("syscount.bt", "ls -R /etc", r"Top 10 syscalls IDs:[\s\S]*@syscall\[\d+\]: \d+[\s\S]*@process\[ls\]: \d+"),
    Tool("tcpaccept.bt", TCP, r"127\.0\.0\.1\s+\d+\s+127\.0\.0\.1\s+\d+\s+0/1", "kprobe"),
    Tool("tcpconnect.bt", TCP, r"127\.0\.0\.1\s+\d+\s+127\.0\.0\.1\s+\d+", "kprobe"),
    Tool(
        "tcpdrop.bt",
        DROPPED,
        r"127\.0\.0\.1:\d+\s+127\.0\.0\.1:\d+\s+ESTABLISHED[\s\S]*tcp_",
        compared=False,
        note="0.17 needs the kernel's headers, 0.27 refuses the script",
    ),
    Tool("tcplife.bt", TCP, r"127\.0\.0\.1\s+\d+\s+127\.0\.0\.1\s+\d+", "kprobe"),
    Tool("tcpretrans.bt", "true", r"Tracing tcp retransmits", "kprobe"),
    Tool("tcpsynbl.bt", TCP, r"@backlog\[\d+\]:", "kprobe", compared=False),
    Tool(
        "threadsnoop.bt",
        f"{PY} 'import threading;t=threading.Thread(target=int);t.start();t.join()'",
        r"\d+\s+\d+\s+python3\s+\w+",
        note="libpthread's functions are in libc since glibc 2.34: found there; 0.17 sees nothing, 0.27 refuses",
        compared=False,
    ),
    Tool("undump.bt", "true", r"Dump UNIX socket packages RX", "kprobe", compared=False),
    Tool("vfscount.bt", "cat /etc/hostname", r"@\[vfs_(read|open)\]: \d+", "kprobe", compared=False),
    Tool("vfsstat.bt", "cat /etc/hostname; sleep 1.2", r"@\[vfs_read\]: \d+", "kprobe", compared=False),
    Tool("writeback.bt", WRITE + "; sync", r"Tracing writeback", compared=False),
    Tool("xfsdist.bt", "true", r"Tracing XFS operation latency", "xfs", compared=False),
)

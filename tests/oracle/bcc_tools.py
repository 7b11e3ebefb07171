"""Debian's BCC tools (package bpfcc-tools 0.26), a workload for each, and what must be seen of it.

`needs` is what the kernel must have: "" (works wherever tracepoints, uprobes and perf events do) or "kprobe": those run in a guest. `expect`
is a regular expression on the output that only the workload, or a header plus the workload, can produce; where `least` is given, its first
group is a number that is no less, since other processes may do the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from oracle.tools import DROPPED, PY, TCP, WRITE


@dataclass(frozen=True)
class Tool:
    """One tool with its check. {pid} in arguments is that of the process that runs the test; {own} a file that the workload makes."""

    name: str
    args: str
    workload: str
    expect: str
    least: int = 0
    needs: str = ""
    series: str = "6.1"  # the guest's kernel
    note: str = ""


TLS = (
    "d=$(mktemp -d); cd $d; openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout k -out c -days 1; "
    "openssl s_server -key k -cert c -port 41434 -quiet & for i in 1 2 3 4 5; do sleep 0.7; "
    "(echo hello; sleep 0.5) | openssl s_client -connect 127.0.0.1:41434 -quiet & sleep 2; kill $!; done; kill %1; rm -r $d"
)
BUSY = f"{PY} 'import time; e=time.process_time()+0.5\nwhile time.process_time()<e: pass'"
LOOKUP = f"{PY} 'import ctypes; c=ctypes.CDLL(None); [c.getaddrinfo(b\"localhost\",None,None,ctypes.byref(ctypes.c_void_p())) for _ in range(3)]'"
PPID = f"{PY} 'import os; [os.getppid() for _ in range(7777)]'"
LIBC_PPID = f"{PY} 'import ctypes; c=ctypes.CDLL(None); [c.getppid() for _ in range(77)]'"
KILL = f"{PY} 'import os; os.kill(os.getpid(), 0)'"
THREAD = f"{PY} 'import threading; t=threading.Thread(target=print); t.start(); t.join()'"
SHM = (
    f"{PY} 'import ctypes; c=ctypes.CDLL(None); i=c.shmget(0x51515,8192,0o1600); a=c.shmat; a.restype=ctypes.c_void_p; "
    "p=a(i,None,0); c.shmdt(ctypes.c_void_p(p)); c.shmctl(i,0,None)'"
)
READS = f"{PY} 'import os; f=os.open(\"/dev/zero\",0); [os.read(f,999) for _ in range(500)]'"
FIFO = "mkfifo /tmp/sonde-fifo; (sleep 0.5; echo x) >/tmp/sonde-fifo & cat /tmp/sonde-fifo; rm /tmp/sonde-fifo"
BIND = f"{PY} 'import socket; s=socket.socket(); s.bind((\"127.0.0.1\",45999)); s.listen(7)'"

TOOLS = (
    Tool("argdist", "-C t:syscalls:sys_enter_getppid() -i 1", PPID, r"^\s*(\d+) +total calls", 7777),
    Tool("bashreadline", "", "printf 'echo hidden-word\\n' | script -qec 'bash --norc -i' /dev/null", r"hidden-word"),
    Tool("bitesize", "", WRITE + "; sync", r"Process Name = .+\n\s+Kbytes\s+: count     distribution"),
    Tool(
        "biopattern", "1", WRITE + "; sync; sleep 1.2", r"TIME\s+DISK\s+%RND\s+%SEQ\s+COUNT\s+KBYTES\n[\d:]+ +\S+ +\d+"
    ),
    Tool("cpudist", "-O -p {pid} 30 1", BUSY, r"Tracing off-CPU time"),
    Tool("cpuunclaimed", "1", BUSY + "; sleep 1", r"%CPU +\d+\.\d+%, unclaimed idle +\d"),
    Tool("execsnoop", "", "/bin/ls -d /proc/sys", r"ls +\d+ +\d+ +0 /bin/ls -d /proc/sys"),
    Tool("exitsnoop", "-x", "sh -c 'exit 7'", r"sh +\d+ +\d+ +\d+ +\d+\.\d+ +code 7"),
    Tool("funccount", "t:syscalls:sys_enter_getppid", PPID, r"sys_enter_getppid +(\d+)", 7777),
    Tool("funccount", "c:getppid", LIBC_PPID, r"getppid +(\d+)", 77),
    Tool(
        "funclatency",
        "c:getppid",
        LIBC_PPID,
        r"nsecs +: count +distribution\n +0 -> 1 ",
    ),
    Tool("funcinterval", "c:getppid", LIBC_PPID, r"nsecs +: count +distribution\n.*-> "),
    Tool(
        "funcslower",
        "-u 1 c:nanosleep c:clock_nanosleep",
        "sleep 0.1",
        r"sleep +\d+ +\d+\.\d\d +\S+ c:(clock_)?nanosleep",
    ),
    Tool("gethostlatency", "", LOOKUP, r"python3 +\d+\.\d+ localhost"),
    Tool("hardirqs", "", WRITE + "; sync", r"HARDIRQ +TOTAL_usecs\n\S+ +\d+"),
    Tool("killsnoop", "", KILL, r"python3 +0 +\d+ +0"),
    Tool("memleak", "-c 'sleep 9' 1 2", "sleep 2", r"Top \d+ stacks with outstanding allocations"),
    Tool("mountsnoop", "", "unshare -m true", r"unshare +\d+ +\d+ +\d+ +(u?mount|mount)\("),
    Tool("netqtop", "-n lo -i 1", f"{TCP}; sleep 1", r"TX\n QueueID +avg_size.*\n 0 +[1-9]"),
    Tool("opensnoop", "", "cat /proc/sys/kernel/ostype", r"cat +\d+ +0 /proc/sys/kernel/ostype"),
    Tool("profile", "-F 99 -U", BUSY, r"-  +python3 \(\d+\)\n +\d+"),
    Tool("runqlat", "30 1", BUSY, r"usecs +: count +distribution\n(.*\n)* +\d+ -> \d+ +: [1-9]"),
    Tool("runqlen", "30 1", BUSY, r"runqlen +: count +distribution\n +0 +: \d+"),
    Tool("runqslower", "1", BUSY, r"Tracing run queue latency higher than 1 us\n.*\n.*\d+ +\d+"),
    Tool("shmsnoop", "", SHM, r"python3 +SHMGET +\S+ key: 0x51515, size: 8192"),
    Tool("softirqs", "", WRITE + "; sync", r"SOFTIRQ +TOTAL_usecs\n\S+ +\d+"),
    Tool("sslsniff", "", TLS, r"WRITE/SEND +\d+\.\d+ +openssl +\d+ +6[\s\S]*hello"),
    Tool("stackcount", "t:syscalls:sys_enter_getppid", PPID, r"^ +(\d{4,})$", 3000),
    Tool("statsnoop", "", "stat /no-such-sonde-file", r"stat +-1 +2 /no-such-sonde-file"),
    Tool("syncsnoop", "", "sync", r"\d+\.\d+ +b?'?sync"),
    Tool("syscount", "-p {pid}", "true", r"Tracing syscalls, printing top 10"),
    Tool("syscount", "", READS, r"^read +(\d+)", 500),
    Tool("tcpcong", "", TCP, r"LAddrPort +RAddrPort"),
    Tool("tcpdrop", "", DROPPED, r"127\.0\.0\.1:\d+ +> 127\.0\.0\.1:\d+ +ESTABLISHED"),
    Tool("tcplife", "", TCP, r"python3 +127\.0\.0\.1 +\d+ 127\.0\.0\.1 +\d+ +4 +0 \d"),
    Tool(
        "tcpretrans",
        "",
        DROPPED + "; sleep 0.5",
        r"127\.0\.0\.1:\d+ +R> 127\.0\.0\.1:\d+ +ESTABLISHED|Tracing retransmits",
    ),
    Tool("tcpstates", "", TCP, r"127\.0\.0\.1 +\d+ +127\.0\.0\.1 +\d+ +\S+ +-> ESTABLISHED"),
    Tool("threadsnoop", "", THREAD, r"\d+ +b'python3' +b'"),
    Tool(
        "tplist",
        "-v syscalls:sys_enter_getppid",
        "true",
        r"syscalls:sys_enter_getppid\n +int __syscall_nr;",
        needs="kprobe",
        note="reads debugfs itself",
    ),
    Tool(
        "trace",
        "t:syscalls:sys_enter_unlinkat",
        'rm -f /no-such-sonde-file; mkdir /tmp/sonde-u; rmdir /tmp/sonde-u; python3 -c \'import os; open("/tmp/sonde-u","w"); os.unlink("/tmp/sonde-u")\'; busybox unlink /no-such 2>/dev/null; unlink /no-such',
        r"PID +TID +COMM +FUNC",
    ),
    Tool("trace", "'c:getppid \"called\"'", LIBC_PPID, r"python3 +getppid +called"),
    Tool("wakeuptime", "30", BUSY, r"Tracing blocked time \(us\) by kernel stack\n?[\s\S]*target:"),
    # kprobes: in a guest
    Tool("bindsnoop", "", BIND, r"python3 +TCP +127\.0\.0\.1 +45999", needs="kprobe"),
    Tool("cachestat", "1", READS + "; cat /etc/passwd; sleep 1", r"HITS +MISSES +DIRTIES", needs="kprobe"),
    Tool("capable", "", "setpriv --reuid 65534 chown 0 /dev/null; true", r"CAP_(CHOWN|SETUID)", needs="kprobe"),
    Tool("dcsnoop", "", "ls /no-such-sonde-file", r"no-such-sonde-file", needs="kprobe"),
    Tool(
        "dcstat",
        "1",
        "ls -R /proc/sys >/dev/null; sleep 1",
        r"REFS/s +SLOW/s +MISS/s +HIT%\n.* +[1-9]\d*",
        needs="kprobe",
    ),
    Tool("filelife", "", "touch /tmp/sonde-life; rm /tmp/sonde-life", r"rm +\d+\.\d+ +sonde-life", needs="kprobe"),
    Tool("filetop", "-C 1 1", READS + "; sleep 1", r"R_Kb +W_Kb", needs="kprobe"),
    Tool("fileslower", "10 -a", FIFO, r"cat +\d+ +R +\d+ +[1-9]\d\d+\.\d+ sonde-fifo", needs="kprobe"),
    Tool("funccount", "vfs_read", READS, r"vfs_read +(\d+)", 500, needs="kprobe"),
    Tool("funclatency", "vfs_read", READS, r"count: (\d+)", 500, needs="kprobe"),
    Tool("klockstat", "-d 3", BUSY, r"Caller +Avg (Wait|Hold)|Tracing lock events", needs="kprobe"),
    Tool("offcputime", "-p {pid} 3", "sleep 1", r"Tracing off-CPU time", needs="kprobe"),
    Tool("oomkill", "", "true", r"Tracing OOM kills", needs="kprobe"),
    Tool("pidpersec", "", "for i in 1 2 3 4 5; do true | true; done; sleep 1", r"PIDs/sec: [1-9]", needs="kprobe"),
    Tool(
        "slabratetop",
        "-C 1 1",
        "ls -R /proc/sys >/dev/null; sleep 1",
        r"CACHE +ALLOCS +BYTES\n\S+ +\d+",
        needs="kprobe",
    ),
    Tool("sofdsnoop", "", "true", r"ACTION +TID", needs="kprobe"),
    Tool("solisten", "", BIND, r"python3 +TCPv4 +7 +45999 127\.0\.0\.1", needs="kprobe"),
    Tool("stackcount", "vfs_read", READS, r"vfs_read\n[\s\S]*entry_SYSCALL_64", needs="kprobe"),
    Tool("tcpaccept", "", TCP, r"python3 +4 +127\.0\.0\.1 +\d+ +127\.0\.0\.1 +\d+", needs="kprobe"),
    Tool("tcpconnect", "", TCP, r"python3 +4 +127\.0\.0\.1 +127\.0\.0\.1 +\d+", needs="kprobe"),
    Tool("tcpconnlat", "", TCP, r"python3 +4 +127\.0\.0\.1 +127\.0\.0\.1 +\d+ +\d+\.\d+", needs="kprobe"),
    Tool("tcprtt", "-d 20", TCP, r"usecs +: count +distribution", needs="kprobe"),
    Tool("tcpsubnet", "127.0.0.0/8", TCP + "; sleep 1", r"127\.0\.0\.0/8 +\d+", needs="kprobe"),
    Tool("tcpsynbl", "", TCP, r"backlog_max = 1\n[\s\S]*\|\*", needs="kprobe"),
    Tool("tcptop", "-C 9 1", TCP, r"127\.0\.0\.1:\d+ +127\.0\.0\.1:\d+ +\d+ +\d+", needs="kprobe"),
    Tool("tcptracer", "", TCP, r"C +\d+ +python3 +4 +127\.0\.0\.1", needs="kprobe"),
    Tool(
        "trace",
        "'p::vfs_read (arg3 == 999) \"read %d bytes\", arg3'",
        READS,
        r"python3 +vfs_read +read 999 bytes",
        needs="kprobe",
    ),
    Tool("vfscount", "", READS, r"vfs_read +(\d+)", 500, needs="kprobe"),
    Tool(
        "vfsstat", "1", READS + "; sleep 1", r"READ/s +WRITE/s +FSYNC/s +OPEN/s +CREATE/s\n.* [1-9]\d*", needs="kprobe"
    ),
)

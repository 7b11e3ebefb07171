"""Debian's BCC tools (package bpfcc-tools 0.26), a workload for each, and what must be seen of it; or what one must say that no kernel can run.

`needs` is what the kernel must have: "" (works wherever tracepoints, uprobes and perf events do) or "kprobe": those run in a guest. `expect`
is a regular expression on the output that only the workload, or a header plus the workload, can produce; where `least` is given, its first
group is a number; wherever it is found, these add up to no less, since other processes may do the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oracle.tools import BLOCK, BLOCK_BEFORE, DROPPED, MIRROR, ON_DISK, OOM, PY, TCP, WRITE, file_system


@dataclass(frozen=True)
class Tool:
    """One tool with its check. In arguments, {pid} is the process that runs the test, {disk} the disk of the root file system."""

    name: str
    args: str
    workload: str
    expect: str
    least: int = 0
    needs: str = ""
    series: str = "6.1"  # the guest's kernel
    note: str = ""
    modules: tuple[str, ...] = ()  # that are loaded in the guest
    before: str = ""  # shell text that makes a guest ready
    terminal: bool = False  # it draws on a terminal: `expect` is looked for on its last screen
    total: tuple[int, int] = (0, 0)  # the counts of the histogram behind what was found add up to no less and no more
    ends: bool = False  # by itself, as its arguments say; the others are ended by Ctrl-C
    app: str = ""  # what of `standin` runs beside it: {app} is its process, {path} its file


TLS = (
    "d=$(mktemp -d); cd $d; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x -keyout k -out c -days 1; "
    "openssl s_server -key k -cert c -port 41434 -quiet & for i in 1 2 3 4; do sleep 0.4; "
    "(echo hello; sleep 1) | openssl s_client -connect 127.0.0.1:41434 -quiet & sleep 1.5; kill $!; done; kill %1; rm -r $d"
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
PASS = f"{PY} 'import socket; a,b=socket.socketpair(); socket.send_fds(a,[b\"x\"],[0]); socket.recv_fds(b,1,1)'"
FIFO = "mkfifo /tmp/sonde-fifo; (sleep 0.5; echo x) >/tmp/sonde-fifo & cat /tmp/sonde-fifo; rm /tmp/sonde-fifo"
BIND = f"{PY} 'import socket; s=socket.socket(); s.bind((\"127.0.0.1\",45999)); s.listen(7)'"
DATAGRAMS = f'{PY} \'import socket; s=socket.socket(2,2); s.bind(("127.0.0.1",0)); [s.sendto(b"x",s.getsockname()) for _ in range(1000)]\''
WAKES = (
    f'{PY} \'import subprocess,time; p=subprocess.Popen(["cat"],stdin=-1); time.sleep(0.5); p.stdin.write(b"x"); p.stdin.flush(); '
    "time.sleep(0.2); p.stdin.close(); p.wait()'"
)
PIPES = f"{PY} 'import os; r,w=os.pipe(); [(os.write(w,b\"x\"),os.read(r,1)) for _ in range(500)]'"
# Files' pages in memory, and then the mark below which whoever allocates frees memory himself is put above what is free.
PRESS = (
    "f=/proc/sys/vm/min_free_kbytes; old=$(cat $f); cat /usr/lib/x86_64-linux-gnu/libLLVM*.so* >/dev/null; "
    f'{PY} \'import re;free=int(re.findall(r"MemFree: *(\\d+)",open("/proc/meminfo").read())[0]);w=open("\'$f\'","w",1);'
    'w.write(f"{free+free//20}\\n");x=[b"x"*(1<<20) for _ in range(8)]' + "'; echo $old > $f"
)
RETRANSMITTED = DROPPED.replace('c.send(b"x")', 'c.send(b"x"); import time; time.sleep(1)')

MANY = 1 << 40  # others may do the same

TOOLS = (
    Tool("argdist", "-C t:syscalls:sys_enter_getppid() -i 1", PPID, r"^\s*(\d+) +total calls", 7777),
    Tool("bashreadline", "", "printf 'echo hidden-word\\n' | script -qec 'bash --norc -i' /dev/null", r"hidden-word"),
    Tool("biolatpcts", "{disk} -i 1", WRITE + "; sync; sleep 1.5", r"^write +\d+us"),
    Tool("bitesize", "", WRITE + "; sync", r"Process Name = .+\n\s+Kbytes\s+: count     distribution"),
    Tool(
        "biopattern", "1", WRITE + "; sync; sleep 1.2", r"TIME\s+DISK\s+%RND\s+%SEQ\s+COUNT\s+KBYTES\n[\d:]+ +\S+ +\d+"
    ),
    Tool(
        "cpuunclaimed",
        "1",
        BUSY + "; sleep 1",
        r"%CPU +\d+\.\d+%, unclaimed idle +\d|^ERROR: CPU samples arrived at skewed offsets",
        note="on a busy machine the tool gives up: it cannot trust its samples, as under BCC",
    ),
    Tool("execsnoop", "", "/bin/ls -d /proc/sys", r"ls +\d+ +\d+ +0 /bin/ls -d /proc/sys"),
    Tool("exitsnoop", "-x", "sh -c 'exit 7'", r"sh +\d+ +\d+ +\d+ +\d+\.\d+ +code 7"),
    Tool("funccount", "t:syscalls:sys_enter_getppid", PPID, r"sys_enter_getppid +(\d+)", 7777),
    Tool("funccount", "c:getppid", LIBC_PPID, r"getppid +(\d+)", 77),
    Tool("funclatency", "c:getppid", LIBC_PPID, r"count: (\d+)", 77),
    Tool("funcinterval", "c:getppid", LIBC_PPID, r"nsecs +: count +distribution", total=(76, MANY)),
    Tool(
        "funcslower",
        "-u 1 c:nanosleep c:clock_nanosleep",
        "sleep 0.1",
        r"sleep +\d+ +\d+\.\d\d +\S+ c:(clock_)?nanosleep",
    ),
    Tool("gethostlatency", "", LOOKUP, r"python3 +\d+\.\d+ localhost"),
    Tool("hardirqs", "", WRITE + "; sync", r"HARDIRQ +TOTAL_usecs\n\S+ +\d+"),
    Tool("killsnoop", "", KILL, r"python3 +0 +\d+ +0"),
    Tool("mountsnoop", "", "unshare -m true", r"unshare +\d+ +\d+ +\d+ +(u?mount|mount)\("),
    Tool("netqtop", "-n lo -i 1", f"{TCP}; sleep 1", r"TX\n QueueID +avg_size.*\n 0 +[1-9]"),
    Tool("opensnoop", "", "cat /proc/sys/kernel/ostype", r"cat +\d+ +0 /proc/sys/kernel/ostype"),
    Tool("profile", "-F 99 -U", BUSY, r"-  +python3 \(\d+\)\n +\d+"),
    Tool("runqlat", "30 1", BUSY, r"usecs +: count +distribution\n(.*\n)* +\d+ -> \d+ +: [1-9]"),
    Tool("runqlen", "30 1", BUSY, r"runqlen +: count +distribution\n +0 +: \d+"),
    Tool("runqslower", "1", BUSY, r"Tracing run queue latency higher than 1 us\n.*\n.*\d+ +\d+"),
    Tool("shmsnoop", "", SHM, r"python3 +SHMGET +\S+ key: 0x51515, size: 8192"),
    Tool("softirqs", "-C", DATAGRAMS, r"^net_rx +(\d+)", 1000),
    Tool("sslsniff", "", TLS, r"WRITE/SEND +\d+\.\d+ +openssl +\d+ +6[\s\S]*hello"),
    Tool("stackcount", "t:syscalls:sys_enter_getppid", PPID, r"^ +(\d{4,})$", 3000),
    Tool("statsnoop", "", "stat /no-such-sonde-file", r"stat +-1 +2 /no-such-sonde-file"),
    Tool("syncsnoop", "", "sync", r"\d+\.\d+ +b?'?sync"),
    Tool("syscount", "", READS, r"^read +(\d+)", 500),
    Tool("tcpcong", "", DROPPED + "; sleep 0.5", r"127\.0\.0\.1[/:]\d+ +127\.0\.0\.1[/:]\d+ +\d+"),
    Tool("tcpdrop", "", DROPPED, r"127\.0\.0\.1:\d+ +> 127\.0\.0\.1:\d+ +ESTABLISHED"),
    Tool("tcplife", "", TCP, r"python3 +127\.0\.0\.1 +\d+ 127\.0\.0\.1 +\d+ +4 +0 \d"),
    Tool("tcpretrans", "", RETRANSMITTED, r"127\.0\.0\.1:\d+ +R> 127\.0\.0\.1:\d+ +ESTABLISHED"),
    Tool("tcpstates", "", TCP, r"127\.0\.0\.1 +\d+ +127\.0\.0\.1 +\d+ +\S+ +-> ESTABLISHED"),
    Tool("threadsnoop", "", THREAD, r"\d+ +b'python3' +b'"),
    Tool(
        "tplist",
        "-v syscalls:sys_enter_getppid",
        "true",
        r"syscalls:sys_enter_getppid\n +int __syscall_nr;",
        ends=True,
        needs="kprobe",
        note="reads debugfs itself",
    ),
    Tool("trace", "t:syscalls:sys_enter_unlinkat", "echo > /tmp/sonde-u; rm /tmp/sonde-u", r"rm +sys_enter_unlinkat"),
    Tool("trace", "'c:getppid \"called\"'", LIBC_PPID, r"python3 +getppid +called"),
    Tool("wakeuptime", "-f --stack-storage-size 65536 30", WAKES, r"^python3;.*pipe_write;.*;cat \d+$"),
    # kprobes: in a guest
    Tool("bindsnoop", "", BIND, r"python3 +TCP +127\.0\.0\.1 +45999", needs="kprobe"),
    Tool(
        "cachestat",
        "1",
        "cat /etc/passwd; sleep 1",
        r"HITS +MISSES +DIRTIES.*\n(.*\n)* +[1-9]\d* +\d+ +\d+",
        needs="kprobe",
    ),
    Tool(
        "capable",
        "",
        "setpriv --reuid 65534 chown 0 /dev/null; true",
        r"CAP_(CHOWN|SETUID)",
        needs="kprobe",
    ),
    Tool("dcsnoop", "", "ls /no-such-sonde-file", r"no-such-sonde-file", needs="kprobe"),
    Tool(
        "dcstat",
        "1",
        "ls -R /proc/sys >/dev/null; sleep 1",
        r"REFS/s +SLOW/s +MISS/s +HIT%\n.* +[1-9]\d*",
        needs="kprobe",
    ),
    Tool(
        "filelife",
        "",
        "touch /tmp/sonde-life; rm /tmp/sonde-life",
        r"rm +\d+\.\d+ +sonde-life",
        needs="kprobe",
    ),
    Tool("filetop", "-a -C 6 1", READS + "; sleep 4", r"python3 +500 +0 +48\d +0 +O +zero", ends=True, needs="kprobe"),
    Tool("fileslower", "10 -a", FIFO, r"cat +\d+ +R +\d+ +[1-9]\d\d+\.\d+ sonde-fifo", needs="kprobe"),
    Tool("funccount", "vfs_read", READS, r"vfs_read'? +(\d+)", 500, needs="kprobe"),
    Tool("funclatency", "vfs_read", READS, r"count: (\d+)", 500, needs="kprobe"),
    Tool("klockstat", "-d 99", PIPES, r"b'vfs_write\+\w+' +\d+ +500 +\d+ +\d+$", needs="kprobe"),
    Tool(
        "offcputime",
        "-K -f --stack-storage-size 65536 30",
        WAKES,
        r"^cat;.*pipe_read;.*;finish_task_switch\S* \d+$",
        needs="kprobe",
    ),
    Tool("oomkill", "", OOM, r'Triggered by PID (\d+) \("python3"\), OOM kill of PID \1 \("python3"\)', needs="kprobe"),
    Tool(
        "pidpersec",
        "",
        "for i in 1 2 3 4 5; do true | true; done; sleep 1",
        r"PIDs/sec: [1-9]",
        needs="kprobe",
    ),
    Tool(
        "slabratetop",
        "-C 1 1",
        "ls -R /proc/sys >/dev/null; sleep 1",
        r"CACHE +ALLOCS +BYTES\n\S+ +\d+",
        ends=True,
        needs="kprobe",
    ),
    Tool("sofdsnoop", "", PASS, r"^SEND +\d+ +python3", needs="kprobe"),
    Tool("solisten", "", BIND, r"python3 +TCPv4 +7 +45999 127\.0\.0\.1", needs="kprobe"),
    Tool("stackcount", "vfs_read", READS, r"vfs_read\n[\s\S]*entry_SYSCALL_64", needs="kprobe"),
    Tool("tcpaccept", "", TCP, r"python3 +4 +127\.0\.0\.1 +\d+ +127\.0\.0\.1 +\d+", needs="kprobe"),
    Tool("tcpconnect", "", TCP, r"python3 +4 +127\.0\.0\.1 +127\.0\.0\.1 +\d+", needs="kprobe"),
    Tool("tcpconnlat", "", TCP, r"python3 +4 +127\.0\.0\.1 +127\.0\.0\.1 +\d+ +\d+\.\d+", needs="kprobe"),
    Tool("tcprtt", "-d 20", TCP, r"usecs +: count +distribution", needs="kprobe"),
    Tool("tcpsubnet", "127.0.0.0/8", TCP + "; sleep 1", r"127\.0\.0\.0/8 +\d+", needs="kprobe"),
    Tool("tcpsynbl", "", TCP, r"backlog_max = 1\n[\s\S]*\|\*", needs="kprobe"),
    Tool(
        "tcptop",
        "-C 6 1",
        TCP + "; sleep 4",
        r"127\.0\.0\.1:\d+ +127\.0\.0\.1:\d+ +\d+ +\d+",
        ends=True,
        needs="kprobe",
    ),
    Tool("tcptracer", "", TCP, r"C +\d+ +python3 +4 +127\.0\.0\.1", needs="kprobe"),
    Tool(
        "trace",
        "'p::vfs_read (arg3 == 999) \"read %d bytes\", arg3'",
        READS,
        r"python3 +vfs_read +read 999 bytes",
        needs="kprobe",
    ),
    Tool("vfscount", "", READS, r"vfs_read'? +(\d+)", 500, needs="kprobe"),
    Tool(
        "vfsstat",
        "1",
        READS + "; sleep 1",
        r"READ/s +WRITE/s +FSYNC/s +OPEN/s +CREATE/s\n.* [1-9]\d*",
        needs="kprobe",
    ),
)

# USDT probes of interpreters and servers that are not here: a program with the same probes fires them, five calls at a time.
FIRE = "kill -USR1 {app}; sleep 0.5"
TIMES = "for i in 1 2 3 4; do kill -USR1 {app}; sleep 0.1; done; sleep 3.5"  # ustat divides by its interval of 4 s
LIBC = "/lib/x86_64-linux-gnu/libc.so.6"
NO_TEXT = "for want of a return in the tool every description is None, as under BCC"
OVERWRITES = "the tool shows one of several counts of a column, as under BCC"


def calls(language: str, stat: str, app: str = "", klass: str = "KnownClass", note: str = "") -> tuple[Tool, ...]:
    """The three tools that every language with calls has."""
    name = rf"{klass}\.known_method"
    return (
        Tool(f"{language}calls", "{app}", FIRE, rf"^{name} +5$", app=app or language),
        Tool(f"{language}flow", "{app}", FIRE, rf"-> {name}", app=app or language),
        Tool(
            f"{language}stat", "-C 4 1", TIMES, rf"^\d+ +\S+ *\S* +{stat} *$", ends=True, app=app or language, note=note
        ),
    )


USDT_TOOLS = (
    *calls("java", "5 +1 +3 +1 +0 +1", note=OVERWRITES),
    Tool("javagc", "{app}", FIRE, r"(\d\.\d+ +\d+\.\d\d +None\s+){2}", app="java", note=NO_TEXT),
    Tool("javaobjnew", "{app}", FIRE, r"^b'KnownClass' +3 +72$", app="java"),
    Tool("javathreads", "{app}", FIRE, r"R=77/N=78 +b'start' +b'known-thread'", app="java"),
    Tool("nodegc", "{app}", FIRE, r"\d+\.\d\d +GC mark-sweep-compact", app="node"),
    Tool("nodestat", "-C 4 1", TIMES, r"^\d+ +\S+ *\S* +0 +1 +0 +0 +0 +0 *$", ends=True, app="node"),
    *calls("perl", "5 +0 +0 +0 +0 +0"),
    *calls("php", "5 +0 +0 +1 +1 +0"),
    *calls("python", "5 +1 +0 +0 +0 +0"),
    Tool("pythongc", "{app}", FIRE, r"\d\.\d+ +\d+\.\d\d +None", app="python", note=NO_TEXT),
    *calls("ruby", "5 +1 +1 +0 +0 +0", note=OVERWRITES),
    Tool("rubygc", "{app}", FIRE, r"(\d\.\d+ +\d+\.\d\d +GC mark stage\s+){2}", app="ruby", note="the tool calls both stages so, as under BCC"),
    Tool("rubyobjnew", "{app}", FIRE, r"^b'KnownClass' +3 +0\n[\s\S]*^b'string' +4 +44$", app="ruby"),
    *calls("tcl", "5 +0 +3 +0 +0 +0", app="tclsh", klass=""),
    Tool("tclobjnew", "{app}", FIRE, r"^b'<ALL>' +3 +0$", app="tclsh"),
    Tool("dbslower", "mysql -p {app}", FIRE, r" (?:[5-9]|\d\d+)\.\d+ b'SELECT known FROM table1'", app="mysqld"),
    Tool("dbslower", "mysql -x {path}", FIRE, r" (?:[5-9]|\d\d+)\.\d+ b'SELECT known FROM table1'", app="mysqld"),
    Tool("dbstat", "mysql -p {app}", FIRE, r"query latency \(ms\)\s*: count +distribution\n[\s\S]*(4 -> 7|8 -> 15) +: 1 ", app="mysqld"),
    Tool("mysqld_qslower", "{app}", FIRE, r" (?:[5-9]|\d\d+)\.\d+ b?'?SELECT known FROM table1", app="mysqld"),
    Tool("deadlock", "--binary " + LIBC + " {app}", FIRE + "; sleep 2", r"Potential Deadlock Detected", ends=True, app="worker"),
    Tool("memleak", "-p {app} 1 30", FIRE + "; sleep 2", r"4321 bytes in 1 allocations from stack\n\s+0x[0-9a-f]+\tmain\+", app="worker"),
    Tool("cobjnew", "{app}", FIRE, r"^block size 1234 +9 +11106$", app="worker"),
)  # fmt: skip

# File systems on a loop device on a file in memory: guests have no disk. ON_DISK writes 16 times 64 KiB and reads them.
EXT4, XFS, BTRFS = (file_system(*kind) for kind in (("ext4", "32M"), ("xfs", "320M"), ("btrfs", "128M")))
NFS = f"cd /tmp; mountpoint nfs || {PY.split()[0]} {Path(__file__).with_name('nfs_server.py')} /tmp/nfs"
ON_NFS = ON_DISK.replace("/tmp/disk", "/tmp/nfs")
WRITTEN = r"dd'? +\d+ +W +65536 +960 +\d+\.\d+ b?'?new"
READ = r"[\s\S]*cat'? +\d+ +R +131072 +896 +\d+\.\d+ b?'?new"
SIXTEEN_WRITES = r"operation = b?'?write'?\n +usecs +: count +distribution"
NO_READS = "reads are not seen, as under BCC: btrfs has a function of its own for them since 5.10"
NO_BPF = "needs no BPF"
# One page of each of 32 windows of read-ahead (32 pages): the kernel maps half of a window, which counts as used when it is unmapped; on a busy
# machine one or two windows are not read in when they are touched, and their pages are not mapped. The same
# is done with Python's own file beforehand, so that little else is read during the run.
TOUCH = f'{PY} \'import mmap; f=open("FILE","rb"); m=mmap.mmap(f.fileno(),0,prot=1); [m[i<<18] for i in range(32)]; m.close()\''
EIGHT_MIB = "dd if=/dev/zero of=/tmp/disk/new bs=1M count=8; sync; "
PAGES = EXT4 + EIGHT_MIB + "echo 3 > /proc/sys/vm/drop_caches; " + TOUCH.replace("FILE", "/usr/bin/python3")
TERMINAL = f"{PY} 'import pty, time; held=pty.openpty(); time.sleep(60)' & sleep 1"
# The tool refuses processors that are not Intel's, and takes the codes of any other for Intel's: an AMD processor's 0 is a guest that reads cr0.
INTEL = "sed s/AuthenticAMD/GenuineIntel/ /proc/cpuinfo > /tmp/cpuinfo; mount --bind /tmp/cpuinfo /proc/cpuinfo"
SEVEN_READS = f"cd {Path(__file__).parents[1]}; {PY} 'from kernel.kvm_guest import run_code; run_code(bytes([15,32,192])*7+bytes([244]))'; umount /proc/cpuinfo"
THREE_MAPS = f"{PY} 'import ctypes, time; c=ctypes.CDLL(None); a=(ctypes.c_uint*5)(2,4,8,1); [c.syscall(321,0,a,20) for _ in range(3)]; time.sleep(20)' & sleep 1"
KPROBE_OF_77 = "echo p:kprobes/sonde_bcc_77 vfs_read > /sys/kernel/tracing/kprobe_events; "
INLINED = "6.1 has its functions inlined: sonde and BCC say so and stop; BCC shows the same on 5.10"
BCC_ON_5_10 = {"needs": "kprobe", "series": "5.10"}
MADE = "dd if=/dev/zero of=/tmp/sonde-dir bs=64k count=16; sleep 4"
GUEST_TOOLS = (
    Tool("cpudist", "-O 3 1", "sleep 0.1; sleep 3", r"usecs +: count +distribution\n[\s\S]*-> \d+ +: [1-9]", ends=True, needs="kprobe"),
    Tool("ext4slower", "0", ON_DISK, WRITTEN + READ, needs="kprobe", modules=("loop", "ext4"), before=EXT4),
    Tool("ext4dist", "", ON_DISK, SIXTEEN_WRITES, needs="kprobe", modules=("loop", "ext4"), before=EXT4, total=(16, 16)),
    Tool("xfsslower", "0", ON_DISK, WRITTEN + READ, needs="kprobe", modules=("loop", "xfs"), before=XFS),
    Tool("xfsdist", "", ON_DISK, SIXTEEN_WRITES, needs="kprobe", modules=("loop", "xfs"), before=XFS, total=(16, 16)),
    Tool("btrfsslower", "0", ON_DISK, WRITTEN, needs="kprobe", modules=("loop", "btrfs"), before=BTRFS, note=NO_READS),
    Tool("btrfsdist", "", ON_DISK, SIXTEEN_WRITES, needs="kprobe", modules=("loop", "btrfs"), before=BTRFS, total=(16, 16), note=NO_READS),
    Tool("nfsslower", "0", ON_NFS, WRITTEN + READ, needs="kprobe", modules=("nfsd", "nfsv4"), before=NFS),
    Tool("nfsdist", "", ON_NFS, SIXTEEN_WRITES, needs="kprobe", modules=("nfsd", "nfsv4"), before=NFS, total=(16, 16)),
    Tool("mdflush", "", "dd if=/dev/zero of=/dev/md9 bs=64k count=4 conv=fsync", r"^[\d:]{8} \d+ +dd +md9$", needs="kprobe", modules=("loop", "raid1"), before=MIRROR),
    Tool("offwaketime", "-K -f --stack-storage-size 65536 60", WAKES, r"^cat;[^\n]*pipe_read;[^\n]*;--;[^\n]*pipe_write;[^\n]*;python3 \d+$", needs="kprobe"),
    Tool("bpflist", "-v", "true", r"^77 +\S+ +kprobe +1$[\s\S]*^\d+ +python3 +map +3$", needs="kprobe", before=KPROBE_OF_77 + THREE_MAPS, ends=True, note=NO_BPF),
    Tool("reset-trace", "-v", "true", r"before \(line enumerated\):\n +1\tp:kprobes/sonde_bcc_77 vfs_read\n.*after \(line enumerated\):\n\n[\s\S]*^Done\.$", needs="kprobe", before=KPROBE_OF_77, ends=True, note=NO_BPF),
    Tool("biolatency", "-D", BLOCK + "; sleep 1", r"^disk = b?'?loop9'?\n +usecs +: count +distribution", **BCC_ON_5_10, modules=("loop",), before=BLOCK_BEFORE, total=(16, 16), note=INLINED),
    Tool("biosnoop", "", BLOCK + "; sleep 1", r"(?:^\S+ +dd +\d+ +loop9 +W +\d+ +65536 +\d+\.\d+\n){16}", **BCC_ON_5_10, modules=("loop",), before=BLOCK_BEFORE, note=INLINED),
    Tool("biotop", "-C 6 1", BLOCK + "; sleep 5", r"^\d+ +dd +W +7 +9 +loop9 +16 +1024\.0 +\d+\.\d+$", **BCC_ON_5_10, modules=("loop",), before=BLOCK_BEFORE, ends=True, note=INLINED),
    Tool("compactsnoop", "", "echo 1 > /proc/sys/vm/compact_memory; sleep 1", r"^sh +\d+ +0 +ZONE_DMA32 +-1 +SYNC +\d+\.\d+ +\w+$", **BCC_ON_5_10, note="6.1's tracepoint has fewer arguments than it reads; BCC shows the same on 5.10"),
    Tool("readahead", "", TOUCH.replace("FILE", "/tmp/disk/new"), r"unused pages: 5\d\d\n[\s\S]*age \(ms\) +: count +distribution", **BCC_ON_5_10, modules=("loop", "ext4"), before=PAGES, total=(448, 576), note="6.1 has do_page_cache_ra and __page_cache_alloc inlined: sonde and BCC say so and stop"),
    Tool("ttysnoop", "-C /dev/pts/0", "echo typed-word > /dev/pts/0", r"^typed-word$", **BCC_ON_5_10, before=TERMINAL, note="on 6.1 it sees nothing: writes come by another kind of iterator than it looks at"),
    Tool("kvmexit", "", SEVEN_READS, r"^\d+ +\d+ +EXCEPTION_NMI +7 *$", **BCC_ON_5_10, modules=("kvm_amd",), before=INTEL, note="for Intel's processors: an AMD one is shown as such by a changed /proc/cpuinfo, and its exit 0, a read of cr0, is counted under Intel's name for 0; newer kernels have no code as first argument; BCC shows the same on 5.10"),
    Tool("cachetop", "60", "cat /tmp/disk/new > /dev/null; sleep 1", r"^ +\d+ +root +cat +(\d+) +[0-9] +0 +(?:100|99)\.\d% ", 2048, **BCC_ON_5_10, modules=("loop", "ext4"), before=EXT4 + EIGHT_MIB, terminal=True),
    Tool("filegone", "", "touch /tmp/sonde-gone; rm /tmp/sonde-gone", r"rm +DELETE +sonde-gone", needs="kprobe"),
    Tool("dirtop", "-C -d /tmp 6 1", MADE, r"^\d+ +16 +\d+ +1024 +/tmp$", ends=True, needs="kprobe"),
    Tool("virtiostat", "1 3", "ls -R /usr/share/doc | head; sleep 2", r"b'virtiofs' +b'virtio0' +b'requests\.0' +\d+", ends=True, needs="kprobe"),
    Tool("drsnoop", "", PRESS, r"^python3 +\d+ +\d+\.\d+ +\d+$", needs="kprobe"),
)  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """A tool that no kernel of ours can run: why, and what it must say."""

    name: str
    args: str
    says: str  # a regular expression
    why: str
    needs: str = ""  # as for tools
    series: str = "6.1"


NO_ZFS = {"says": r"ERROR: attach kprobe:zpl_read: this kernel has no function zpl_read that can be probed\nHINT: .*module that is not loaded",
          "why": "Debian builds no module zfs, whose functions it probes", "needs": "kprobe"}  # fmt: skip
REFUSALS = (
    Refusal("criticalstat", "-p", r"ERROR: required tracing events are not available\n.*CONFIG_PREEMPTIRQ_TRACEPOINTS",
            "no kernel of Debian's is built with CONFIG_PREEMPTIRQ_TRACEPOINTS: the tool itself says so and ends"),
    Refusal("inject", "kmalloc -P 0.001 (true)", r"bpf_override_return\(ctx, -ENOMEM\);[\s\S]*HINT: this kernel lacks that helper[\s\S]*unknown func bpf_override_return",
            "no kernel of Debian's is built with CONFIG_FUNCTION_ERROR_INJECTION, which the helper bpf_override_return needs", "kprobe"),
    Refusal("llcstat", "", r"Failed to attach to a hardware event\. Is this a virtual machine\?", "no machine of ours has hardware counters: the tool itself says so and ends"),
    Refusal("ppchcalls", "", r"ERROR: there is no raw tracepoint hcall_exit on this kernel", "its tracepoints are of PowerPC"),
    Refusal("zfsdist", "", **NO_ZFS),
    Refusal("zfsslower", "", **NO_ZFS),
)  # fmt: skip
ALL = (*TOOLS, *USDT_TOOLS, *GUEST_TOOLS)

"""Debian's BCC tools side by side with BCC itself: arguments, one workload for both, and which rows of the output are compared, how.

The two run at the same time, so that they see the same processes: process ids, addresses and ports are equal in both, not only the form.
`rows` is a regular expression for whole rows that the workload causes. What its groups hold, or the whole row where it has none, must be
equal on both sides; what is outside of them is measured (times), and only its form is.
"""

from __future__ import annotations

from dataclasses import dataclass

from oracle.bcc_tools import (
    BIND,
    DATAGRAMS,
    FIRE,
    KILL,
    LIBC_PPID,
    NFS,
    ON_NFS,
    PASS,
    PIPES,
    PPID,
    PRESS,
    READS,
    RETRANSMITTED,
    SHM,
    THREAD,
    TLS,
)
from oracle.tools import BLOCK, BLOCK_BEFORE, DROPPED, MIRROR, ON_DISK, OOM, PY, TCP, file_system


@dataclass(frozen=True)
class Case:
    """One comparison. {app} in arguments and workload is the process of `app`, a program of `standin`."""

    name: str
    args: str
    workload: str
    rows: str
    how: str = (
        "same"  # "same": equal rows; "set": rows that come at each interval; "sum": of each number over all rows;
    )
    # "histograms": the name of each, and how many events are in it
    within: float = 0.0  # how far apart sums may be, as a part of the larger: for what others cause too
    least: int = 1  # rows (with "sum": the least sum of the first group) that the workload makes
    why: str = ""  # why `within` is not 0
    app: str = ""
    modules: tuple[str, ...] = ()
    before: str = ""
    after_s: float = 1.0
    ticks: bool = False  # rows come at an interval: those from before the second of the two had started do not count
    fails: str = ""  # BCC itself fails there, and says so by this
    apart: bool = False  # one after the other, each with a workload of its own: see `USER`


# BCC 0.26 leaves the offset of a reference counter unset when it attaches a user probe, and the kernel refuses a second probe at a place
# with another such offset: so the two cannot stand at the same place at the same time.
USER = True
EXT4 = file_system("ext4", "16M")
XFS = file_system("xfs", "320M")
BTRFS = file_system("btrfs", "128M")
OTHERS = "other processes do the same, and the two do not begin a second together"
SAMPLES = "each takes its samples at times of its own"
HISTOGRAM = r"^ +\d+ -> \d+ +: (\d+)"  # the count of each interval
SECTIONS = r"^(\w+ = .*)\n((?:.+\n?)+)"  # a name and its histogram
FRESH_READS = "echo 3 > /proc/sys/vm/drop_caches; cat /usr/share/doc/[a-l]*/copyright > /dev/null"
FIRES = "for i in 1 2 3 4 5; do kill -USR1 {app}; sleep 0.2; done; sleep 0.5"
BURN = f"{PY} 'for i in range(2*10**6): pass'"
HOLDS_MAP = f"{PY} 'import ctypes,struct,time; ctypes.CDLL(None).syscall(321,0,struct.pack(\"5I\",2,4,8,1,0),20); time.sleep(99)' & sleep 2"
# Neither shows the path: the tool takes a system call's registers for its first argument.
STAT = f"{PY} 'import os; os.statvfs(\"/no-such-sonde-file\")'"
DD = "dd if=/dev/zero of=/dev/null bs=512 count=400000"
OPENS = f"{PY} 'import os; [os.close(os.open(\"/dev/null\",0)) for _ in range(5000)]'"
# Each directory is made twice: by the guest's overlay, and in the file system below it.
MKDIRS = f"{PY} 'import os,tempfile; d=tempfile.mkdtemp(); [os.mkdir(f\"{{d}}/{{n}}\") for n in range(300)]'"
STATS = f"{PY} 'import os.path; [os.path.exists(f\"/tmp/no-{{n}}\") for n in range(5000)]'"
MANY_READS = f"{PY} 'import os; f=os.open(\"/dev/zero\",0); [os.read(f,999) for _ in range(5000)]'"
LOOKUP = f"{PY} 'import ctypes; c=ctypes.CDLL(None); [c.getaddrinfo(b\"localhost\",None,None,ctypes.byref(ctypes.c_void_p())) for _ in range(3)]'"

CASES = (
    Case("argdist", "-C t:syscalls:sys_enter_getppid() -i 1", PPID, r"^\s*(\d+) +total calls", how="sum", ticks=True, within=0.01, why="a shell asks too"),
    Case("argdist", "-C 'p::vfs_read(struct file *file, char *buf, size_t count):size_t:count:count==999' -i 1", READS, r"^\s*(\d+) +count = (999)"),
    Case("bashreadline", "", "printf 'echo hidden-word\\n' | script -qec 'bash --norc -i' /dev/null", r"hidden-word", apart=USER),
    Case("bindsnoop", "", BIND, r"^(.*python3.*45999.*)$"),
    Case("biolatpcts", "loop9 -i 1", BLOCK, r"^(loop9 .*|write(?= +\S*\d))", how="set", modules=("loop",), before=BLOCK_BEFORE),
    Case("biopattern", "1", BLOCK, r"^\S+ +(loop9 .*)$", modules=("loop",), before=BLOCK_BEFORE),
    Case("bitesize", "", BLOCK, r"^Process Name = [\s\S]*? 64 -> 127 .*$", modules=("loop",), before=BLOCK_BEFORE),
    Case("bpflist", "", "true", r"^.*python3.*$", before=HOLDS_MAP),
    Case("cachestat", "-T 1", ON_DISK, r"^\S+ +\d+ +\d+ +(\d+) .*$", how="sum", ticks=True, least=1000, modules=("loop",), before=EXT4),
    Case("capable", "", "setpriv --reuid 65534 chown 0 /dev/null; true", r"^\S+ +(.*(?:setpriv|chown) .*)$"),
    Case("cobjnew", "{app}", FIRE, r"^(block .*)$", app="worker", apart=USER),
    Case("compactsnoop", "", "echo 1 > /proc/sys/vm/compact_memory", "", fails="Failed to attach BPF to raw tracepoint"),
    Case("cpudist", "-p {app} 99 1", FIRES, HISTOGRAM, how="sum", app="worker"),
    Case("cpudist", "-O -p {app} 99 1", FIRES, HISTOGRAM, how="sum", app="worker"),
    Case("cpuunclaimed", "1", BURN, r"^ERROR: CPU samples arrived at skewed offsets .*spanning \d+ ns (.*)$"),
    Case("criticalstat", "", "true", r"^.+$"),
    Case("dbslower", "mysql -p {app}", FIRE, r"b.SELECT known FROM table1.", app="mysqld", apart=USER),
    Case("dbstat", "mysql -p {app}", FIRE, HISTOGRAM, how="sum", app="mysqld", apart=USER),
    Case("dcsnoop", "", "ls /no-such-sonde-file", r"^\S+ +(.*no-such-sonde-file)$"),
    Case("dcstat", "1", STATS, r"^\S+ +(\d+) +(\d+) +(\d+) .*$", how="sum", ticks=True, within=0.05, why=OTHERS),
    Case("deadlock", "--binary /lib/x86_64-linux-gnu/libc.so.6 {app}", FIRE + "; sleep 2", "", fails="Cannot allocate memory", app="worker", apart=USER),
    Case("dirtop", "-C -d /tmp/sonde-top 3", "dd if=/dev/zero of=/tmp/sonde-top/a bs=64k count=16; sleep 6", r"^(0 +16 +0 +1024 +/tmp/sonde-top)$", before="mkdir /tmp/sonde-top"),
    Case("drsnoop", "", PRESS, r"^(python3 +\d+) +\d+\.\d+ +(\d+)$", least=10),
    Case("execsnoop", "", "/bin/ls -d /proc/sys", r"^(ls .*)$"),
    Case("exitsnoop", "-x", "sh -c 'exit 7'", r"^(sh +\d+ +\d+ +\d+) +\d+\.\d+ +(code 7)$"),
    Case("ext4dist", "", ON_DISK, SECTIONS, how="histograms", modules=("loop",), before=EXT4),
    Case("ext4slower", "0", ON_DISK, r"^\S+ +((?:b')?(?:dd|cat)\b.*?) +\d+\.\d+ (.*)$", modules=("loop",), before=EXT4),
    Case("btrfsdist", "", ON_DISK, SECTIONS, how="histograms", modules=("loop", "btrfs"), before=BTRFS),
    Case("btrfsslower", "0", ON_DISK, r"^\S+ +((?:b')?(?:dd|cat)\b.*?) +\d+\.\d+ (.*)$", modules=("loop", "btrfs"), before=BTRFS),
    Case("xfsdist", "", ON_DISK, SECTIONS, how="histograms", modules=("loop", "xfs"), before=XFS),
    Case("xfsslower", "0", ON_DISK, r"^\S+ +((?:b')?(?:dd|cat)\b.*?) +\d+\.\d+ (.*)$", modules=("loop", "xfs"), before=XFS),
    Case("filegone", "", "touch /tmp/sonde-gone; rm /tmp/sonde-gone", r"^\S+ +(.*sonde-gone.*)$"),
    Case("filelife", "", "touch /tmp/sonde-life; rm /tmp/sonde-life", r"^\S+ +(\d+ +rm) +\d+\.\d+ +(sonde-life)$"),
    Case("fileslower", "10 -a", "mkfifo /tmp/sonde-fifo; (sleep 0.5; echo x) >/tmp/sonde-fifo & cat /tmp/sonde-fifo; rm /tmp/sonde-fifo", r"^\S+ +(.*?) +\d+\.\d+ (sonde-fifo)$"),
    Case("filetop", "-a -C 3", READS + "; sleep 6", r"^(\d+ +python3 .*zero)$"),
    Case("funccount", "vfs_mkdir", MKDIRS, r"^(.*vfs_mkdir.* [3-6]\d\d)$"),
    Case("funccount", "c:getppid", LIBC_PPID, r"^(.*getppid.*)$", apart=USER),
    Case("funccount", "t:syscalls:sys_enter_getppid", PPID, r"^syscalls:sys_enter_getppid +7778$", fails="'str' object has no attribute 'decode'"),
    Case("funcinterval", "c:getppid", LIBC_PPID, HISTOGRAM, how="sum", apart=USER),
    Case("funclatency", "c:getppid", LIBC_PPID, HISTOGRAM, how="sum", apart=USER),
    Case("funclatency", "vfs_mkdir", MKDIRS, HISTOGRAM, how="sum", least=300),
    Case("funcslower", "-m 90 c:nanosleep c:clock_nanosleep", "sleep 0.1", r"^(sleep) +\d+ +\d+\.\d+ +(\S.*)$", apart=USER),
    Case("gethostlatency", "", LOOKUP, r"^\S+ +\d+ +(python3) +\d+\.\d+ (localhost)$", apart=USER),
    Case("hardirqs", "-T -C 1", FRESH_READS + "; sleep 1", r"^(virtio\S+requests\S*) +(\d+)$", how="sum", ticks=True, within=0.05, why=OTHERS, least=300),
    Case("hardirqs", "", FRESH_READS, r"^(virtio\S+requests\S*) +\d+$"),
    Case("killsnoop", "", KILL, r"^\S+ +(\d+ +python3 +0 .*)$"),
    Case("klockstat", "-d 99 -s 4", PIPES, r"^( +b'vfs_write\+\w+') +\d+ +(500) +\d+ +\d+\n(.*)\n(.*)$", least=2),
    Case("mdflush", "", "dd if=/dev/zero of=/dev/md9 bs=64k count=4 conv=fsync", r"^\S+ +(.*md9)$", modules=("loop", "raid1"), before=MIRROR),
    Case("memleak", "-p {app} 1 5", FIRE + "; sleep 6", r"^\s+(4321 bytes in 1 allocations from stack)\n\s+0x\w+\s+(main\S+ \[worker\])$", how="set", least=3, app="worker", apart=USER),
    Case("mountsnoop", "", "unshare -m true", r"^(unshare .*)$"),
    Case("mysqld_qslower", "{app}", FIRE, r"^\S+ +\d+ +\d+\.\d+ (.*SELECT known FROM table1.*)$", app="mysqld", apart=USER),
    Case("netqtop", "-n lo -i 9", TCP + "; sleep 10", r"^( 0 +[1-9].*)$", how="set", least=2),
    Case("offcputime", "-K -f -p {app} 99", FIRES, r"^(worker;.*) \d+$", app="worker"),
    Case("offwaketime", "-K -f -p {app} 99", FIRES, r"^(.*;worker.*|worker;.*) \d+$", app="worker"),
    Case("oomkill", "", OOM, r"^\S+ (Triggered by PID .*), loadavg: .*$"),
    Case("opensnoop", "", "cat /proc/sys/kernel/ostype", r"^(.*cat .*)$"),
    Case("pidpersec", "", "for i in 1 2 3 4 5; do true | true; done", r"PIDs/sec: (\d+)", how="sum", ticks=True),
    Case("profile", "-F 99 -f 99", DD, r"^(dd);.* (\d+)$", how="sum", within=0.2, why=SAMPLES, least=30),
    Case("readahead", "", "true", "", fails="do_page_cache_ra is not found in vmlinux BTF"),
    Case("runqlat", "-p {app} 99 1", FIRES, HISTOGRAM, how="sum", app="worker"),
    Case("runqlen", "-T 1", BURN + "; sleep 1", r"^ +\d+ +: (\d+)", how="sum", ticks=True, within=0.2, why=SAMPLES, least=99),
    Case("runqslower", "-p {app} 1", FIRES, r"^\S+ +(worker +\d+) +\d+ *$", app="worker"),
    Case("shmsnoop", "", SHM, r"^(.*python3.*)$"),
    Case("slabratetop", "-C 1", OPENS + "; sleep 1", r"^filp +[5-9]\d\d\d +\d+$", fails="incomplete definition of type 'struct slab'"),
    Case("sofdsnoop", "", PASS, r"^SEND +\d+ +python3 +.*$", fails="cannot call non-static helper function"),
    Case("softirqs", "-T -C 1", DATAGRAMS + "; sleep 1", r"^(net_rx) +(\d+)$", how="sum", ticks=True, least=1000),
    Case("softirqs", "", DATAGRAMS, r"^(\S+) +\d+$"),
    Case("solisten", "", BIND, r"^(.*45999.*)$"),
    Case("sslsniff", "", TLS, r"^(\S+) +\d+\.\d+ +(openssl) +\d+ +(\d+) *$", apart=USER),
    Case("stackcount", "t:syscalls:sys_enter_getppid", PPID, r"^.*$"),
    Case("stackcount", "vfs_rename", "touch /tmp/a; mv /tmp/a /tmp/b; mv /tmp/b /tmp/c", r"^.*$"),
    Case("statsnoop", "", STAT, r"^(\d+ +python3 +-1 +2 .*)$"),
    Case("syncsnoop", "", "sync", r"^\d\S* +(.*)$"),
    Case("syscount", "", PPID, r"^(getppid +7778)$"),
    Case("syscount", "-P -L", PPID, r"^(\d+ +python3 +7\d\d\d) .*$"),
    Case("tcpaccept", "", TCP, r"^(\d+ +python3 .*)$"),
    Case("tcpcong", "", DROPPED, r"^(127.*)$"),
    Case("tcpconnect", "", TCP, r"^(\d+ +python3 .*)$"),
    Case("tcpconnlat", "", TCP, r"^(\d+ +python3 .*?) +\d+\.\d+ *$"),
    Case("tcpdrop", "", DROPPED, r"^\S+ (.*127.*)$"),
    Case("tcplife", "", TCP, r"^(\d+ +python3 .*?) +\d+\.\d+ *$"),
    Case("tcpretrans", "", RETRANSMITTED, r"^\S+ (.*127.*)$"),
    Case("tcprtt", "", TCP, HISTOGRAM, how="sum"),
    Case("tcpstates", "", TCP, r"^(.*127\.0\.0\.1.*?) +\d+\.\d+ *$"),
    Case("tcpsubnet", "127.0.0.0/8 -i 1", TCP, r"^(127\.0\.0\.0/8 +\d+)$"),
    Case("tcpsynbl", "", TCP, r"backlog_max = .*\n[\s\S]*"),
    Case("tcptop", "-C 3", TCP + "; sleep 6", r"^(\d+ +python3 .*)$"),
    Case("tcptracer", "", TCP, r"^(.*python3 .*)$"),
    Case("threadsnoop", "", THREAD, r"^\S+ +\d+ +(.*python3.*)$", apart=USER),
    Case("tplist", "-v syscalls:sys_enter_getppid", "true", r"^.*$"),
    Case("trace", "t:syscalls:sys_enter_unlinkat", "echo > /tmp/sonde-u; rm /tmp/sonde-u", r"^(.* rm .*)$"),
    Case("trace", "'c:getppid \"called\"'", LIBC_PPID, r"^\d+ +\d+ +(python3 .*)$", apart=USER),
    Case("trace", "'p::vfs_read (arg3 == 999) \"read %d bytes\", arg3'", READS, r"^(.*python3.*)$"),
    Case("vfscount", "", MKDIRS, r"^(\w+ b'vfs_mkdir' +[3-6]\d\d)$"),
    Case("vfsstat", "1", MANY_READS, r"^\S+ +(\d+) +\d+ +\d+ +\d+ +\d+$", how="sum", ticks=True, within=0.05, why=OTHERS, least=5000),
    Case("virtiostat", "-T 1", FRESH_READS + "; sleep 1", r"^ *(\S*virtiofs\S*) +(\S+) +(\S+) +(\d+) +(\d+) +\d+ +\d+ *$", how="sum", ticks=True, within=0.05, why=OTHERS, least=300),
    Case("wakeuptime", "-f -p {app} 99", FIRES, r"^(.*;worker) \d+$", app="worker"),

    Case("biolatency", "", "true", "", fails="."),
    Case("biosnoop", "", "true", "", fails="."),
    Case("biotop", "", "true", "", fails="."),
    Case("llcstat", "1", "true", "", fails="."),
    Case("nfsdist", "", ON_NFS, SECTIONS, how="histograms", modules=("nfsd", "nfsv4"), before=NFS),
    Case("nfsslower", "0", ON_NFS, r"^\S+ +((?:b')?(?:dd|cat)\b.*?) +\d+\.\d+ (.*)$", modules=("nfsd", "nfsv4"), before=NFS),
    Case("zfsdist", "", "true", "", fails="."),
    Case("zfsslower", "", "true", "", fails="."),
    Case("ppchcalls", "", "true", "", fails="."),
)  # fmt: skip

"""Debian's own bpftrace tools (package bpftrace 0.17), a workload for each, and what must be seen of it.

`needs` is what the kernel must have: "" (works wherever tracepoints and uprobes do) or "kprobe". `modules` are kernel modules
that are loaded in the guest, and `before` is shell text that is run there, before the tool starts. `expect` is a regular expression
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
    modules: tuple[str, ...] = ()
    before: str = ""
    in_guest: str = ""  # the workload in the guest, where it is another
    nowhere: str = ""  # why no Debian kernel can run it; it is then held to what it says about that
    programs: tuple[str, ...] = ()  # what the workload needs that not every Debian has
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

# Loop devices on files in memory: guests have no disk. What an earlier tool has left there goes first.
DISKS = (
    "cd /tmp; umount disk; swapoff /dev/loop9; [ ! -e /sys/block/md9 ] || echo clear > /sys/block/md9/md/array_state; for n in 8 9; do mknod /dev/loop$n b 7 $n; losetup -d /dev/loop$n; rm -f disk$n; "
    "truncate -s SIZE disk$n; losetup /dev/loop$n disk$n; done; "
)
BLOCK = "dd if=/dev/zero of=/dev/loop9 bs=64k count=16 oflag=direct"
BLOCK_BEFORE = DISKS.replace("SIZE", "8M")
# A mirror of the two, through sysfs: a write that is flushed goes through md_flush_request.
MIRROR = BLOCK_BEFORE + (
    "mknod /dev/md9 b 9 9; : < /dev/md9; cd /sys/block/md9/md; echo none > metadata_version; echo raid1 > level; echo 2 > raid_disks; "
    "echo 4096 > component_size; for n in 8 9; do echo 7:$n > new_dev; done; echo 0 > dev-loop8/slot; echo 1 > dev-loop9/slot; "
    "for n in 8 9; do echo 4096 > dev-loop$n/size; done; echo none > resync_start; echo active > array_state; "
)


def file_system(kind: str, size: str) -> str:
    """Return shell text that makes and mounts a file system on a loop device."""
    return DISKS.replace("SIZE", size) + f"mkdir -p disk; mkfs.{kind} -q /dev/loop9; mount -t {kind} /dev/loop9 disk; "


ON_DISK = "dd if=/dev/zero of=/tmp/disk/new bs=64k count=16 conv=fsync; cat /tmp/disk/new > /dev/null; sync"
# The file behind the loop device is there before the memory is short: its pages must not count as the process's.
SWAP_BEFORE = (
    DISKS.replace("SIZE", "48M") + "dd if=/dev/zero of=/dev/loop9 bs=1M; mkswap /dev/loop9; swapon /dev/loop9; "
)
LITTLE_MEMORY = (
    "echo +memory > /sys/fs/cgroup/cgroup.subtree_control; mkdir -p /sys/fs/cgroup/little; cd /sys/fs/cgroup/little; "
    f"echo 16M > memory.max; echo 0 > cgroup.procs; exec {PY} "
)
OOM = LITTLE_MEMORY + "'x=bytes(range(256))*(1<<20)'"
SWAPPING = LITTLE_MEMORY + "'x=bytes(range(256))*(1<<17);s=sum(x[::4096])+sum(x[::4096])'"
TLS = (
    "d=$(mktemp -d); cd $d; openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout k -out c -days 1; "
    "openssl s_server -key k -cert c -port 41433 -quiet & sleep 1.2; (echo hello; sleep 0.3) | openssl s_client -connect 127.0.0.1:41433 -quiet & "
    "sleep 1.8; kill %1 %2; rm -r $d"
)
INLINED = "6.1 has the functions inlined: 0.17 warns and sees nothing; sonde says so and stops, or warns with BPFTRACE_MISSING_PROBES=warn"

TOOLS = (
    Tool("bashreadline.bt", "printf 'echo hidden-word\\n' | script -qec 'bash --norc -i' /dev/null", r"hidden-word"),
    Tool("biolatency.bt", BLOCK, r"@usecs:\s*\n[\[(]", "kprobe", "5.10", False, ("loop",), BLOCK_BEFORE, note=INLINED),
    Tool(
        "biosnoop.bt",
        BLOCK,
        r"(?m)^(.*ERROR: No matches for kprobe (__)?blk_account_io_|ERROR: attach kprobe:blk_account_io_start: |.*ERROR: .*'?disk'?)",
        "kprobe",
        compared=False,
        nowhere="its functions are inline or notrace since 5.15, and before there is no request_queue.disk",
        note="sonde says what is missing and stops; 0.17 warns and sees nothing",
    ),
    Tool(
        "biostacks.bt",
        BLOCK,
        r"@usecs\[[^\]]*submit_bio[^\]]*\]:",
        "kprobe",
        "5.10",
        False,
        ("loop",),
        BLOCK_BEFORE,
        note=INLINED,
    ),
    Tool(
        "bitesize.bt",
        WRITE + "; sync",
        r"@\[[^\]]+\]:\s*\n[\[(]",
        modules=("loop",),
        before=BLOCK_BEFORE,
        in_guest=BLOCK,
    ),
    Tool("capable.bt", "setpriv --reuid 65534 chown 0 /dev/null; true", r"CAP_(CHOWN|SETUID)", "kprobe"),
    Tool(
        "cpuwalk.bt",
        f"{PY} 'for i in range(10**7): pass'",
        r"@cpu:\s*\n\[0, 1\)",
        in_guest=f"{PY} 'for i in range(10**6): pass'",  # the guest's processor is a slow one
    ),
    Tool("dcsnoop.bt", "ls /no-such-sonde-file", r"no-such-sonde-file", "kprobe"),
    Tool("execsnoop.bt", "/bin/echo a-word-to-see", r"/bin/echo a-word-to-see"),
    Tool("gethostlatency.bt", "getent ahosts localhost", r"getent\s.*localhost"),
    Tool("killsnoop.bt", "sleep 9 & kill -USR1 $!", r"\s10\s+\d+\s+0"),
    Tool("loads.bt", "sleep 1.2", r"load averages: \d+\.\d+ \d+\.\d+ \d+\.\d+", "data symbols"),
    Tool(
        "mdflush.bt",
        "dd if=/dev/zero of=/dev/md9 bs=64k count=4 conv=fsync",
        r"\d\d:\d\d:\d\d \d+\s+dd\s+md9",
        "kprobe",
        modules=("loop", "raid1"),
        before=MIRROR,
    ),
    Tool(
        "naptime.bt",
        f"{PY} 'import ctypes;ctypes.CDLL(None).syscall(35,(ctypes.c_long*2)(0,250000000),None)'",
        r"python3\s+0\.250",
    ),
    Tool(
        "oomkill.bt",
        OOM,
        r'Triggered by PID (\d+) \("python3"\), OOM kill of PID \1 \("python3"\), \d+ pages, loadavg: \d+\.\d+ ',
        "kprobe",
    ),
    Tool("opensnoop.bt", "cat /etc/hostname", r"cat\s+\d+\s+0\s+/etc/hostname"),
    Tool("pidpersec.bt", "for i in 1 2 3; do /bin/true; done; sleep 1.2", r"PIDs/sec: @: ([3-9]|\d\d)"),
    Tool(
        "runqlat.bt",
        "ls -R /etc",
        r"@usecs:\s*\n[\[(]",
        compared=False,
        note="0.17 needs the headers of the running kernel, which are not in the guest",
    ),
    Tool("runqlen.bt", f"{PY} 'for i in range(10**6): pass'", r"@runqlen:\s*\n\[0, 1\)", "cfs_rq.nr_running"),
    Tool("setuids.bt", "setpriv --reuid 65534 --clear-groups true", r"setpriv|setresuid"),
    Tool("ssllatency.bt", TLS, r"@histF\[\w+, \w+\]|@histF\[\w*SSL\w*|@hist\w*\["),
    Tool("sslsnoop.bt", TLS, r"openssl\s+.*SSL_\w+|SSL_\w+.*openssl"),
    Tool("statsnoop.bt", "stat /etc/hostname", r"stat\s+0\s+/etc/hostname"),
    Tool("swapin.bt", SWAPPING, r"@\[python3, \d+\]: \d+", "kprobe", modules=("loop",), before=SWAP_BEFORE),
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
    Tool(
        "tcpretrans.bt",
        DROPPED.replace('c.send(b"x")', 'c.send(b"x");import time;time.sleep(1)'),
        r"127\.0\.0\.1:\d+\s+127\.0\.0\.1:\d+\s+ESTABLISHED",
        "kprobe",
    ),
    Tool("tcpsynbl.bt", TCP, r"@backlog\[\d+\]:", "kprobe"),
    Tool(
        "threadsnoop.bt",
        f"{PY} 'import threading;t=threading.Thread(target=int);t.start();t.join()'",
        r"\d+\s+\d+\s+python3\s+\w+",
        note="libpthread's functions are in libc since glibc 2.34: found there; 0.17 sees nothing, 0.27 refuses",
        compared=False,
    ),
    Tool(
        "undump.bt",
        f"{PY} 'import socket;a,b=socket.socketpair();a.send(b\"hello-word\");b.recv(99)'",
        r"python3\s+\d+\s+10\s+hello-word",
        "kprobe",
    ),
    Tool("vfscount.bt", "cat /etc/hostname", r"@\[vfs_(read|open)\]: \d+", "kprobe"),
    Tool("vfsstat.bt", "cat /etc/hostname; sleep 1.2", r"@\[vfs_read\]: \d+", "kprobe"),
    Tool(
        "writeback.bt",
        WRITE.replace("conv=fsync", "").replace("; rm", "; sync; rm"),
        r"\d\d:\d\d:\d\d\s+\d+:\d+\s+\d+\s+(sync|periodic|background)\s+\d+\.\d{3}",
        modules=("loop",),
        before=file_system("ext4", "16M"),
        in_guest=ON_DISK.replace("conv=fsync", ""),
    ),
    Tool(
        "xfsdist.bt",
        ON_DISK,
        r"(?s)(?=.*@us\[xfs_file_open\]:\s*\n[\[(])(?=.*@us\[xfs_file_write_iter\]:)(?=.*@us\[xfs_file_read_iter\]:).*"
        r"@us\[xfs_file_fsync\]:",
        "kprobe",
        modules=("loop", "xfs"),
        before=file_system("xfs", "320M"),
        programs=("mkfs.xfs",),
    ),
)

"""What scripts expect of C headers that are not read: the constants that are macros there, by header.

Types of kernel headers come from BTF. The numbers are the kernel's user interface on x86-64 and aarch64.
"""

from __future__ import annotations

_KERNEL_PREFIXES = (
    "linux/",
    "uapi/",
    "net/",
    "asm/",
    "asm-generic/",
    "generated/",
    "trace/",
    "crypto/",
    "scsi/",
    "sound/",
)
_USER_NET = ("net/if.h", "net/ethernet.h", "net/route.h")

_SOCKET = {
    "AF_UNSPEC": 0, "AF_UNIX": 1, "AF_LOCAL": 1, "AF_INET": 2, "AF_BRIDGE": 7, "AF_INET6": 10, "AF_NETLINK": 16,
    "AF_PACKET": 17, "AF_BLUETOOTH": 31, "AF_ALG": 38, "AF_VSOCK": 40, "AF_XDP": 44,
    "PF_UNSPEC": 0, "PF_UNIX": 1, "PF_LOCAL": 1, "PF_INET": 2, "PF_INET6": 10, "PF_NETLINK": 16, "PF_PACKET": 17,
    "SOCK_STREAM": 1, "SOCK_DGRAM": 2, "SOCK_RAW": 3, "SOCK_RDM": 4, "SOCK_SEQPACKET": 5, "SOCK_DCCP": 6, "SOCK_PACKET": 10,
    "SOL_SOCKET": 1, "SOMAXCONN": 4096, "MSG_OOB": 1, "MSG_PEEK": 2, "MSG_DONTWAIT": 0x40, "MSG_NOSIGNAL": 0x4000,
}  # fmt: skip
_SCHED = {
    "TASK_RUNNING": 0, "TASK_INTERRUPTIBLE": 1, "TASK_UNINTERRUPTIBLE": 2, "__TASK_STOPPED": 4, "__TASK_TRACED": 8,
    "TASK_COMM_LEN": 16, "PF_KTHREAD": 0x200000, "PF_EXITING": 4,
    "CLONE_VM": 0x100, "CLONE_FS": 0x200, "CLONE_FILES": 0x400, "CLONE_SIGHAND": 0x800, "CLONE_VFORK": 0x4000,
    "CLONE_THREAD": 0x10000, "CLONE_NEWNS": 0x20000, "CLONE_NEWCGROUP": 0x2000000, "CLONE_NEWUTS": 0x4000000,
    "CLONE_NEWIPC": 0x8000000, "CLONE_NEWUSER": 0x10000000, "CLONE_NEWPID": 0x20000000, "CLONE_NEWNET": 0x40000000,
    "SCHED_OTHER": 0, "SCHED_NORMAL": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
_ERRNO = {
    "EPERM": 1, "ENOENT": 2, "ESRCH": 3, "EINTR": 4, "EIO": 5, "ENXIO": 6, "E2BIG": 7, "ENOEXEC": 8, "EBADF": 9,
    "ECHILD": 10, "EAGAIN": 11, "EWOULDBLOCK": 11, "ENOMEM": 12, "EACCES": 13, "EFAULT": 14, "ENOTBLK": 15, "EBUSY": 16,
    "EEXIST": 17, "EXDEV": 18, "ENODEV": 19, "ENOTDIR": 20, "EISDIR": 21, "EINVAL": 22, "ENFILE": 23, "EMFILE": 24,
    "ENOTTY": 25, "ETXTBSY": 26, "EFBIG": 27, "ENOSPC": 28, "ESPIPE": 29, "EROFS": 30, "EMLINK": 31, "EPIPE": 32,
    "EDOM": 33, "ERANGE": 34, "EDEADLK": 35, "ENAMETOOLONG": 36, "ENOLCK": 37, "ENOSYS": 38, "ENOTEMPTY": 39, "ELOOP": 40,
    "ENODATA": 61, "ETIME": 62, "EPROTO": 71, "EBADMSG": 74, "EOVERFLOW": 75, "EUSERS": 87, "ENOTSOCK": 88,
    "EDESTADDRREQ": 89, "EMSGSIZE": 90, "EPROTOTYPE": 91, "ENOPROTOOPT": 92, "EPROTONOSUPPORT": 93, "EOPNOTSUPP": 95,
    "ENOTSUP": 95, "EAFNOSUPPORT": 97, "EADDRINUSE": 98, "EADDRNOTAVAIL": 99, "ENETDOWN": 100, "ENETUNREACH": 101,
    "ECONNABORTED": 103, "ECONNRESET": 104, "ENOBUFS": 105, "EISCONN": 106, "ENOTCONN": 107, "ESHUTDOWN": 108,
    "ETIMEDOUT": 110, "ECONNREFUSED": 111, "EHOSTDOWN": 112, "EHOSTUNREACH": 113, "EALREADY": 114, "EINPROGRESS": 115,
    "ESTALE": 116, "EDQUOT": 122, "ECANCELED": 125, "EOWNERDEAD": 130, "ENOTRECOVERABLE": 131,
}  # fmt: skip
_SIGNAL = {
    "SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGILL": 4, "SIGTRAP": 5, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8, "SIGKILL": 9,
    "SIGUSR1": 10, "SIGSEGV": 11, "SIGUSR2": 12, "SIGPIPE": 13, "SIGALRM": 14, "SIGTERM": 15, "SIGSTKFLT": 16, "SIGCHLD": 17,
    "SIGCONT": 18, "SIGSTOP": 19, "SIGTSTP": 20, "SIGTTIN": 21, "SIGTTOU": 22, "SIGURG": 23, "SIGXCPU": 24, "SIGXFSZ": 25,
    "SIGVTALRM": 26, "SIGPROF": 27, "SIGWINCH": 28, "SIGIO": 29, "SIGPOLL": 29, "SIGPWR": 30, "SIGSYS": 31,
}  # fmt: skip
_FCNTL = {
    "O_RDONLY": 0, "O_WRONLY": 1, "O_RDWR": 2, "O_ACCMODE": 3, "O_CREAT": 0o100, "O_EXCL": 0o200, "O_NOCTTY": 0o400,
    "O_TRUNC": 0o1000, "O_APPEND": 0o2000, "O_NONBLOCK": 0o4000, "O_DSYNC": 0o10000, "O_CLOEXEC": 0o2000000,
    "O_SYNC": 0o4010000, "O_PATH": 0o10000000, "AT_FDCWD": -100, "F_DUPFD": 0, "F_GETFD": 1, "F_SETFD": 2, "F_GETFL": 3,
    "F_SETFL": 4, "F_GETLK": 5, "F_SETLK": 6, "F_SETLKW": 7,
}  # fmt: skip
_STAT = {
    "S_IFMT": 0o170000, "S_IFSOCK": 0o140000, "S_IFLNK": 0o120000, "S_IFREG": 0o100000, "S_IFBLK": 0o060000,
    "S_IFDIR": 0o040000, "S_IFCHR": 0o020000, "S_IFIFO": 0o010000,
}  # fmt: skip
_ETHER = {
    "ETH_P_IP": 0x800,
    "ETH_P_ARP": 0x806,
    "ETH_P_8021Q": 0x8100,
    "ETH_P_IPV6": 0x86DD,
    "ETH_ALEN": 6,
    "ETH_HLEN": 14,
}
_IN = {
    "IPPROTO_IP": 0,
    "IPPROTO_ICMP": 1,
    "IPPROTO_TCP": 6,
    "IPPROTO_UDP": 17,
    "IPPROTO_IPV6": 41,
    "IPPROTO_ICMPV6": 58,
}
_LIMITS = {
    "CHAR_BIT": 8, "SHRT_MIN": -(1 << 15), "SHRT_MAX": (1 << 15) - 1, "USHRT_MAX": (1 << 16) - 1,
    "INT_MIN": -(1 << 31), "INT_MAX": (1 << 31) - 1, "UINT_MAX": (1 << 32) - 1, "LONG_MIN": -(1 << 63),
    "LONG_MAX": (1 << 63) - 1, "ULONG_MAX": (1 << 64) - 1, "LLONG_MIN": -(1 << 63), "LLONG_MAX": (1 << 63) - 1,
    "ULLONG_MAX": (1 << 64) - 1, "PATH_MAX": 4096, "NAME_MAX": 255,
}  # fmt: skip
_STDINT = {
    "INT8_MIN": -(1 << 7), "INT8_MAX": (1 << 7) - 1, "UINT8_MAX": (1 << 8) - 1, "INT16_MIN": -(1 << 15),
    "INT16_MAX": (1 << 15) - 1, "UINT16_MAX": (1 << 16) - 1, "INT32_MIN": -(1 << 31), "INT32_MAX": (1 << 31) - 1,
    "UINT32_MAX": (1 << 32) - 1, "INT64_MIN": -(1 << 63), "INT64_MAX": (1 << 63) - 1, "UINT64_MAX": (1 << 64) - 1,
    "SIZE_MAX": (1 << 64) - 1,
}  # fmt: skip

HEADERS: dict[str, dict[str, int]] = {
    "sys/socket.h": _SOCKET,
    "linux/socket.h": _SOCKET,
    "net/sock.h": _SOCKET,
    "linux/net.h": _SOCKET,
    "sched.h": _SCHED,
    "linux/sched.h": _SCHED,
    "uapi/linux/sched.h": _SCHED,
    "errno.h": _ERRNO,
    "linux/errno.h": _ERRNO,
    "asm/errno.h": _ERRNO,
    "asm-generic/errno.h": _ERRNO,
    "asm-generic/errno-base.h": _ERRNO,
    "signal.h": _SIGNAL,
    "linux/signal.h": _SIGNAL,
    "asm/signal.h": _SIGNAL,
    "fcntl.h": _FCNTL,
    "linux/fcntl.h": _FCNTL,
    "asm-generic/fcntl.h": _FCNTL,
    "sys/stat.h": _STAT,
    "linux/stat.h": _STAT,
    "linux/fs.h": {**_STAT, **_LIMITS},
    "linux/if_ether.h": _ETHER,
    "net/ethernet.h": _ETHER,
    "netinet/in.h": _IN,
    "linux/in.h": _IN,
    "limits.h": _LIMITS,
    "linux/limits.h": _LIMITS,
    "stdint.h": _STDINT,
    "stddef.h": {},
    "stdbool.h": {"true": 1, "false": 0},
    "stdio.h": {},
    "stdlib.h": {},
    "string.h": {},
    "unistd.h": {},
    "sys/types.h": {},
    "arpa/inet.h": {},
}


def is_kernel_header(path: str) -> bool:
    """Tell whether a header is one of the kernel's, whose types BTF has."""
    return path.startswith(_KERNEL_PREFIXES) and path not in _USER_NET

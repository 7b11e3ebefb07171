"""What scripts expect of C headers that are not read: the constants that are macros there, by header.

Types of kernel headers come from BTF. The numbers are the kernel's user interface on x86-64 and aarch64.
"""

from __future__ import annotations

from ..constants import ERRNO, ETHER, FCNTL, IN, LIMITS, SCHED, SIGNAL, SOCKET, STAT, STDINT

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

HEADERS: dict[str, dict[str, int]] = {
    "sys/socket.h": SOCKET,
    "linux/socket.h": SOCKET,
    "net/sock.h": SOCKET,
    "linux/net.h": SOCKET,
    "sched.h": SCHED,
    "linux/sched.h": SCHED,
    "uapi/linux/sched.h": SCHED,
    "errno.h": ERRNO,
    "linux/errno.h": ERRNO,
    "asm/errno.h": ERRNO,
    "asm-generic/errno.h": ERRNO,
    "asm-generic/errno-base.h": ERRNO,
    "signal.h": SIGNAL,
    "linux/signal.h": SIGNAL,
    "asm/signal.h": SIGNAL,
    "fcntl.h": FCNTL,
    "linux/fcntl.h": FCNTL,
    "asm-generic/fcntl.h": FCNTL,
    "sys/stat.h": STAT,
    "linux/stat.h": STAT,
    "linux/fs.h": {**STAT, **LIMITS},
    "linux/if_ether.h": ETHER,
    "net/ethernet.h": ETHER,
    "netinet/in.h": IN,
    "linux/in.h": IN,
    "limits.h": LIMITS,
    "linux/limits.h": LIMITS,
    "stdint.h": STDINT,
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

"""Makes this machine a server of NFSv4 for itself and mounts what it serves: with the kernel's files alone, no daemon and no package.

nfsd asks user space who a client is and what he may have, through caches that a mountd fills; here their three entries are written
beforehand. Formats: fs/nfsd/export.c (`svc_export_parse`, `expkey_parse`) and net/sunrpc/svcauth_unix.c (`ip_map_parse`) of the kernel.
Run in guests, whose kernel has the modules nfsd and nfsv4.
"""

import ctypes
import os
import subprocess
import sys

FOREVER = 2147483647
FSID_NUMBER = 1  # a file handle's kind: it names the export by a number
# Requests may come from any port, subtrees are not checked, the export has a number of its own (include/uapi/linux/nfsd/export.h).
INSECURE_PORT, NO_SUBTREE_CHECK, FSID = 0x2, 0x400, 0x2000
SERVED = "/tmp/served"


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def serve(folder: str) -> None:
    """Serve a folder as the root of NFSv4 to 127.0.0.1."""
    os.makedirs("/var/lib/nfs/v4recovery", exist_ok=True)
    subprocess.run(["mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd"], check=True)
    write("/proc/fs/nfsd/versions", "-2 -3 +4\n")
    write("/proc/net/rpc/auth.unix.ip/channel", f"nfsd 127.0.0.1 {FOREVER} here\n")
    flags = INSECURE_PORT | NO_SUBTREE_CHECK | FSID
    write("/proc/net/rpc/nfsd.export/channel", f"here {folder} {FOREVER} {flags} 65534 65534 0\n")
    write("/proc/net/rpc/nfsd.fh/channel", f"here {FSID_NUMBER} \\x00000000 {FOREVER} {folder}\n")
    write("/proc/fs/nfsd/threads", "2\n")
    write("/proc/fs/nfsd/v4_end_grace", "Y\n")  # nobody has files open from before: the first open need not wait


def mount(where: str) -> None:
    """Mount it."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = b"vers=4.0,addr=127.0.0.1,clientaddr=127.0.0.1,port=2049,soft"
    if libc.mount(b"127.0.0.1:/", where.encode(), b"nfs4", 0, options):
        raise OSError(ctypes.get_errno(), f"cannot mount: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    os.makedirs(SERVED, exist_ok=True)
    os.makedirs(sys.argv[1], exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "served", SERVED], check=True)
    serve(SERVED)
    mount(sys.argv[1])

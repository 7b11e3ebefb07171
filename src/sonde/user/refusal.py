"""Why a process may not be traced, and the way out: from an EPERM of ptrace(2) to an error that says it.

The kernel says only "not permitted" (__ptrace_may_access, and the security modules). What it looked at is in /proc: the tracer that is already there,
owners, capabilities, the mark of processes that may not be dumped, Yama's ptrace_scope.
"""

from __future__ import annotations

import os

from ..errors import PrivilegeError, TargetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import SondeError

CAP_SYS_PTRACE = 19
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_ROOT_HINT = "run sonde with CAP_SYS_PTRACE (sudo has it)"


def read_status(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status; empty when there is no such process or thread."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n")
    except (OSError, ValueError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name}


def explain(pid: int) -> SondeError:
    """Return the error of a process that may not be traced, or that is not there."""
    status = read_status(pid)
    if not status:
        return TargetError(f"there is no process {pid}")
    name = f"process {pid} ({status.get('Name', '?')})"
    for reason in (_of_its_state, _of_its_tracer, _of_owner, _of_capabilities, _of_dumpable, _of_yama):
        found = reason(pid, name, status)
        if found is not None:
            return found
    return PrivilegeError(
        f"{name} may not be traced, and nothing in /proc says why: a seccomp filter, a container's profile or a security module forbids ptrace",
        capability="CAP_SYS_PTRACE",
        hint="allow ptrace(2) to sonde there (docker run --cap-add SYS_PTRACE), or start the program by -c",
    )


def _of_its_state(pid: int, name: str, status: dict[str, str]) -> SondeError | None:
    if status.get("State", "").startswith(("Z", "X")):
        return TargetError(f"{name} has ended; its parent, process {status.get('PPid', '?')}, has not taken note yet")
    if status.get("Kthread") == "1" or (status.get("VmSize", "") == "" and not _links_to_a_file(pid)):
        return TargetError(f"{name} is a thread of the kernel: no program runs in it", hint="use the kernel engine")
    if int(status.get("Tgid", pid)) == os.getpid():
        return TargetError("sonde cannot trace itself", hint="start another sonde for this process")
    return None


def _links_to_a_file(pid: int) -> bool:
    try:
        return bool(os.readlink(f"/proc/{pid}/exe"))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it has a program, which is not for us to see


def _of_its_tracer(pid: int, name: str, status: dict[str, str]) -> SondeError | None:
    tracer = status.get("TracerPid", "0")
    if tracer == "0":
        return None
    who = read_status(int(tracer)).get("Name", "?")
    return TargetError(
        f"{name} is already traced by process {tracer} ({who}); a process has one tracer at a time",
        hint=f"end process {tracer} (a debugger or strace), or wait until it has let go",
    )


def _of_owner(pid: int, name: str, status: dict[str, str]) -> SondeError | None:
    ours = (os.getuid(), os.getgid())
    uids, gids = status.get("Uid", "").split()[:3], status.get("Gid", "").split()[:3]
    if not uids or _have_ptrace_capability():
        return None
    if set(uids) != {str(ours[0])}:
        owner = uids[0] if len(set(uids)) == 1 else "/".join(uids)
        return PrivilegeError(
            f"{name} belongs to user {owner}, and sonde runs as user {ours[0]}",
            capability="CAP_SYS_PTRACE",
            hint=f"run sonde as user {uids[0]}, or {_ROOT_HINT.removeprefix('run sonde ')}",
        )
    if set(gids) != {str(ours[1])}:
        return PrivilegeError(
            f"{name} runs with group {'/'.join(dict.fromkeys(gids))}, and sonde with group {ours[1]}",
            capability="CAP_SYS_PTRACE",
            hint=_ROOT_HINT,
        )
    return None


def _have_ptrace_capability() -> bool:
    return bool(int(read_status(os.getpid()).get("CapEff", "0"), 16) >> CAP_SYS_PTRACE & 1)


def _of_capabilities(pid: int, name: str, status: dict[str, str]) -> SondeError | None:
    theirs = int(status.get("CapPrm", "0"), 16)
    ours = int(read_status(os.getpid()).get("CapPrm", "0"), 16)
    if not theirs & ~ours or _have_ptrace_capability():
        return None
    return PrivilegeError(
        f"{name} has capabilities that sonde lacks (mask {theirs & ~ours:#x})",
        capability="CAP_SYS_PTRACE",
        hint=_ROOT_HINT,
    )


def _of_dumpable(pid: int, name: str, status: dict[str, str]) -> SondeError | None:
    """The kernel gives the files of a process that may not be dumped to root."""
    try:
        owner = os.stat(f"/proc/{pid}/maps").st_uid
    except OSError:
        return None
    if owner == int(status.get("Uid", str(owner)).split()[0]) or _have_ptrace_capability():
        return None
    return PrivilegeError(
        f"{name} may not be dumped, so its own user may not trace it: it was set-uid, its file cannot be read, or it called prctl(PR_SET_DUMPABLE, 0)",
        capability="CAP_SYS_PTRACE",
        hint=_ROOT_HINT,
    )


def _of_yama(pid: int, name: str, status: dict[str, str]) -> SondeError | None:
    try:
        with open(_YAMA) as file:
            scope = file.read().strip()
    except OSError:
        return None
    if scope != "3" and _have_ptrace_capability():
        return None
    if scope == "3":
        return PrivilegeError(
            f"{name} may not be traced: {_YAMA} is 3, which forbids all tracing until the next boot",
            hint="use the kernel engine",
        )
    if scope == "2":
        return PrivilegeError(
            f"{name} may not be traced: {_YAMA} is 2, which leaves it to administrators",
            capability="CAP_SYS_PTRACE",
            hint=_ROOT_HINT,
        )
    if scope == "1":
        return PrivilegeError(
            f"{name} may not be traced: {_YAMA} is 1, which lets a user trace only what was started below the tracer",
            capability="CAP_SYS_PTRACE",
            hint=f"start the program by -c, or run: sudo sysctl kernel.yama.ptrace_scope=0, or {_ROOT_HINT}",
        )
    return None


def is_confined(tid: int) -> bool:
    """True for a thread with filters of seccomp that sonde has not got itself: those that both have come from what both run in, a container."""
    theirs, ours = read_status(tid), read_status(os.getpid())
    mode = theirs.get("Seccomp", "0")
    filters = int(theirs.get("Seccomp_filters", "1"))  # Linux 5.9
    return mode != "0" and (mode != "2" or filters > int(ours.get("Seccomp_filters", "0")))

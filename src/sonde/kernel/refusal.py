"""From an errno to an error that says what was asked, what is missing and what to do next.

EPERM and EACCES are looked into: which capability this process lacks (CapEff of /proc/self/status), whether it sits in a
user namespace, whether the kernel is locked down or has bpf(2) switched off for users.
"""

from __future__ import annotations

from errno import E2BIG, EACCES, EMFILE, ENFILE, ENOMEM, ENOSYS, EOPNOTSUPP, EPERM

from ..errors import AttachError, FeatureError, KernelError, PrivilegeError
from .abi import ENOTSUPP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import SondeError

CAP_NUMBERS = {
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}


def plain_errno(errno: int) -> int:
    """Return `errno` as strerror knows it: the kernel-only ENOTSUPP becomes EOPNOTSUPP."""
    return EOPNOTSUPP if errno == ENOTSUPP else errno


def reason(errno: int) -> str:
    """Return the name and the meaning of an errno: "EINVAL (Invalid argument)"."""
    from errno import errorcode
    from os import strerror

    name = "ENOTSUPP" if errno == ENOTSUPP else errorcode.get(errno, str(errno))
    return f"{name} ({strerror(plain_errno(errno))})"


def effective_capabilities() -> int:
    """Return the bit mask of this process's effective capabilities; 0 where /proc is not to be had."""
    return int(_proc_status("CapEff") or "0", 16)


def _proc_status(field: str) -> str:
    for line in _read("/proc/self/status").splitlines():
        if line.startswith(field + ":"):
            return line.split(":", 1)[1].strip()
    return ""


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def missing_capability(*needed: str) -> str:
    """Return the first of the `needed` capabilities that this process lacks, or "". CAP_SYS_ADMIN stands for all."""
    held = effective_capabilities()
    if held >> CAP_NUMBERS["CAP_SYS_ADMIN"] & 1:
        return ""
    last = int(_read("/proc/sys/kernel/cap_last_cap").strip() or "63")
    for name in needed:
        if CAP_NUMBERS[name] > last:  # Linux 5.7 and older have neither CAP_BPF nor CAP_PERFMON
            return "CAP_SYS_ADMIN"
        if not held >> CAP_NUMBERS[name] & 1:
            return name
    return ""


def in_user_namespace() -> bool:
    """Tell whether this process's capabilities count in a user namespace only."""
    fields = _read("/proc/self/uid_map").split()
    return bool(fields) and fields != ["0", "0", "4294967295"]


def lockdown() -> str:
    """Return the kernel's lockdown mode: "none", "integrity", "confidentiality", or "" where it cannot be read."""
    text = _read("/sys/kernel/security/lockdown")
    return text[text.find("[") + 1 : text.find("]")] if "[" in text else ""


def privilege_error(what: str, *needed: str) -> SondeError:
    """Explain an EPERM or EACCES for the request `what`, which takes the capabilities `needed`."""
    capability = missing_capability(*needed)
    if capability:
        hint = "run it as root, or with CAP_BPF and CAP_PERFMON (setpriv --ambient-caps +bpf,+perfmon …)"
        if capability not in ("CAP_BPF", "CAP_PERFMON"):
            hint = f"run it as root, or with {capability}"
        return PrivilegeError(f"{what} needs {capability}", capability=capability, hint=hint)
    if in_user_namespace():
        return PrivilegeError(
            f"{what} was refused: the capabilities of this process count in its user namespace only",
            capability=needed[0] if needed else "",
            hint="run it outside the container, or in a container that shares the host's user namespace",
        )
    mode = lockdown()
    cause = f"; kernel lockdown is '{mode}'" if mode not in ("", "none") else ""
    return PrivilegeError(
        f"{what} was refused by the kernel (EPERM), though no capability is missing{cause}",
        hint="a security module, the lockdown mode or the kernel's vendor forbids it",
    )


def refusal(
    what: str,
    errno: int,
    *,
    needs: tuple[str, ...] = ("CAP_BPF",),
    hint: str = "",
    error: type[KernelError] = KernelError,
) -> SondeError:
    """Turn a refused request into the error to raise. `errno` is positive."""
    if errno in (EPERM, EACCES):
        return privilege_error(what, *needs)
    if errno == ENOSYS:
        return FeatureError(
            f"{what}: this kernel lacks the system call", feature="bpf", hint="it was built without CONFIG_BPF_SYSCALL"
        )
    if not hint:
        if errno in (EMFILE, ENFILE):
            hint = "too many open files: raise the limit (ulimit -n)"
        elif errno == ENOMEM:
            hint = "the kernel has no memory for it, or the cgroup's memory limit was reached"
        elif errno == E2BIG:
            hint = "it is larger than this kernel allows"
    return error(what, plain_errno(errno), hint=hint)


def attach_refusal(
    probe: str, errno: int, *, hint: str = "", needs: tuple[str, ...] = ("CAP_PERFMON", "CAP_BPF")
) -> SondeError:
    """Turn the refusal to attach to `probe` into the error to raise."""
    return refusal(f"attach {probe}", errno, needs=needs, hint=hint, error=AttachError)

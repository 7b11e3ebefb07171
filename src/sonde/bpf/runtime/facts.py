"""The helpers that ask about the running thread, the probe, the clocks, and the stack: answered by the World."""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOENT, EOPNOTSUPP

from ..maps.stacks import BPF_F_SKIP_MASK, BPF_F_USER_STACK, StackMap
from .host import M, errno
from .maps import find_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .host import Host

    Helper = Callable[[Host, int, int, int, int, int], int]

_BUILD_ID = 1 << 11
_HZ_NS = 4_000_000  # a jiffy of a kernel with HZ=250


def _clock(name: str) -> Helper:
    return lambda host, r1, r2, r3, r4, r5: host.world.now_ns(name)


def _comm(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    size = r2 & 0xFFFFFFFF
    host.memory.write(r1, host.world.comm()[: size - 1].ljust(size, b"\0"))
    return 0


def _ns_pid_tgid(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    found = host.world.ns_pid_tgid(r1, r2) if r4 == 8 else None
    if found is None:
        host.memory.write(r3, bytes(r4))
        return errno(-EINVAL)
    host.memory.write(r3, b"".join(n.to_bytes(4, "little") for n in found))
    return 0


def _stackid(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    table = find_map(host, r2)
    frames = host.world.stack(r1, bool(r3 & BPF_F_USER_STACK))
    if frames is None or not isinstance(table, StackMap):
        return errno(-EFAULT)
    return errno(table.put(frames[r3 & BPF_F_SKIP_MASK :], r3))


def _copy_stack(host: Host, context: int, buffer: int, size: int, flags: int) -> int:
    """Store the stack; return its bytes. What is left of the buffer is cleared."""
    if flags & ~(BPF_F_SKIP_MASK | BPF_F_USER_STACK | _BUILD_ID) or size % 8:
        host.memory.write(buffer, bytes(size))
        return errno(-EINVAL)
    frames = None if flags & _BUILD_ID else host.world.stack(context, bool(flags & BPF_F_USER_STACK))
    if frames is None:
        host.memory.write(buffer, bytes(size))
        return errno(-EOPNOTSUPP if flags & _BUILD_ID else -EFAULT)
    data = b"".join(pc.to_bytes(8, "little") for pc in frames[flags & BPF_F_SKIP_MASK :][: size // 8])
    host.memory.write(buffer, data.ljust(size, b"\0"))
    return len(data)


def _func_arg(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    arguments = host.world.function_arguments
    known = r2 & 0xFFFFFFFF < len(arguments)
    host.memory.write(r3, (arguments[r2 & 0xFFFFFFFF] & M if known else 0).to_bytes(8, "little"))
    return 0 if known else errno(-EINVAL)


def _func_ret(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    result = host.world.function_result
    host.memory.write(r2, ((result or 0) & M).to_bytes(8, "little"))
    return 0 if result is not None else errno(-EOPNOTSUPP)


def _override(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    host.world.override_return(r1, r2)
    return 0


def _d_path(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    text = host.world.path(r1)
    if text is None or not r3:
        return errno(-ENOENT) if r3 else 0
    text = text[: r3 - 1] + b"\0"
    host.memory.write(r2, text)
    return len(text)


HELPERS: dict[str, Helper] = {
    "ktime_get_ns": _clock("monotonic"),
    "ktime_get_boot_ns": _clock("boot"),
    "ktime_get_tai_ns": _clock("tai"),
    "ktime_get_coarse_ns": _clock("coarse"),
    "jiffies64": lambda host, r1, r2, r3, r4, r5: host.world.now_ns("monotonic") // _HZ_NS,
    "get_prandom_u32": lambda host, r1, r2, r3, r4, r5: host.world.random() & 0xFFFFFFFF,
    "get_smp_processor_id": lambda host, r1, r2, r3, r4, r5: host.world.cpu,
    "get_numa_node_id": lambda host, r1, r2, r3, r4, r5: host.world.numa_node,
    "get_current_pid_tgid": lambda host, r1, r2, r3, r4, r5: host.world.pid_tgid(),
    "get_ns_current_pid_tgid": _ns_pid_tgid,
    "get_current_uid_gid": lambda host, r1, r2, r3, r4, r5: host.world.uid_gid(),
    "get_current_comm": _comm,
    "get_current_task": lambda host, r1, r2, r3, r4, r5: host.world.task,
    "get_current_task_btf": lambda host, r1, r2, r3, r4, r5: host.world.task,
    "get_current_cgroup_id": lambda host, r1, r2, r3, r4, r5: host.world.cgroup_id,
    "get_attach_cookie": lambda host, r1, r2, r3, r4, r5: host.world.cookie,
    "get_func_ip": lambda host, r1, r2, r3, r4, r5: host.world.function_address,
    "get_func_arg": _func_arg,
    "get_func_ret": _func_ret,
    "get_func_arg_cnt": lambda host, r1, r2, r3, r4, r5: len(host.world.function_arguments),
    "get_stackid": _stackid,
    "get_stack": lambda host, r1, r2, r3, r4, r5: _copy_stack(host, r1, r2, r3, r4),
    "get_task_stack": lambda host, r1, r2, r3, r4, r5: _copy_stack(host, r1, r2, r3, r4),
    "send_signal": lambda host, r1, r2, r3, r4, r5: errno(host.world.send_signal(r1 & 0xFFFFFFFF, False)),
    "send_signal_thread": lambda host, r1, r2, r3, r4, r5: errno(host.world.send_signal(r1 & 0xFFFFFFFF, True)),
    "override_return": _override,
    "d_path": _d_path,
}

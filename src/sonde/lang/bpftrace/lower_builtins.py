"""Builtins: the process, the time, the CPU, and what the probe hands over: arguments, results, registers."""

from __future__ import annotations

from ...compiler.access import usdt_argument
from ...compiler.ir import BTF, I8, I32, I64, Const
from ...debuginfo.ctype import INT64, UINT64, Struct, sizeof, strip
from ...spec.object import MapSpec
from .lower_values import Memory, Scalar, ir_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...compiler.ir import Value
    from . import ast
    from .lower_frame import Frame
    from .lower_values import Operand


def _as(f: Frame, node: ast.Node, value: Value, space: str = "") -> Scalar:
    """A number in the type that the analysis has for the builtin."""
    ctype = f.ctype(node)
    return Scalar(f.resize(value, UINT64, ir_type(ctype)), ctype, space or f.space(node))


def _low(f: Frame, node: ast.Node, pair: Value) -> Scalar:
    ctype = f.ctype(node)
    low = f.b.convert("trunc", pair, I32)
    return Scalar(f.b.convert("zext", low, ir_type(ctype)), ctype)


def _high(f: Frame, node: ast.Node, pair: Value) -> Scalar:
    return _as(f, node, f.b.binary("lshr", pair, 32))


def ids(f: Frame, info: Any = None) -> Value:
    """Process id in the upper, thread id in the lower half; in the namespace of the tracer where that is asked for."""
    namespace = f.unit.options.pid_namespace
    if namespace is None or (info is not None and info.params.get("namespace") == "init"):
        return f.b.call("get_current_pid_tgid")
    f.unit.need_helper("get_ns_current_pid_tgid", "a process id as seen in a container")
    slot = f.b.alloca(8, 8, "ids")
    f.b.store(slot, Const(0))
    f.b.call("get_ns_current_pid_tgid", [namespace[0], namespace[1], slot, 8])
    thread, process = f.b.load(I32, slot), f.b.load(I32, slot, 4)
    wide = f.b.binary("shl", f.b.convert("zext", process, I64), 32)
    return f.b.binary("or", wide, f.b.convert("zext", thread, I64))


def _pid(f: Frame, node: ast.Node, info: Any) -> Operand:
    return _high(f, node, ids(f, info))


def _tid(f: Frame, node: ast.Node, info: Any) -> Operand:
    return _low(f, node, ids(f, info))


def _uid(f: Frame, node: ast.Node, info: Any) -> Operand:
    return _low(f, node, f.b.call("get_current_uid_gid"))


def _gid(f: Frame, node: ast.Node, info: Any) -> Operand:
    return _high(f, node, f.b.call("get_current_uid_gid"))


_CLOCKS = {
    "monotonic": "ktime_get_ns",
    "boot": "ktime_get_boot_ns",
    "tai": "ktime_get_tai_ns",
    "sw_tai": "ktime_get_tai_ns",  # bpftrace: a substitute for it that drifts
}


def clock(f: Frame, name: str) -> Value:
    """The time of a clock in ns. Kernels before 5.8 have no clock that counts while the machine sleeps."""
    helper = _CLOCKS[name]
    if name == "boot" and not f.unit.have_helper(helper):
        helper = "ktime_get_ns"
    f.unit.need_helper(helper, f"nsecs({name})")
    return f.b.call(helper)


def _nsecs(f: Frame, node: ast.Node, info: Any) -> Operand:
    name = info.params.get("clock", "boot")
    return _as(f, node, clock(f, name))


def _elapsed(f: Frame, node: ast.Node, info: Any) -> Operand:
    now = clock(f, "boot")
    start = f.b.load(I64, f.b.map_value("globals", f.unit.start_time_offset()))
    return _as(f, node, f.b.binary("sub", now, start))


def _helper(name: str) -> Callable[[Frame, ast.Node, Any], Operand]:
    """A builtin that is the result of a helper without arguments."""

    def lower(f: Frame, node: ast.Node, info: Any) -> Operand:
        f.unit.need_helper(name, info.name)
        return _as(f, node, f.b.call(name))

    return lower


def _ncpus(f: Frame, node: ast.Node, info: Any) -> Operand:
    f.unit.assume("possible_cpus", "", f.unit.target.possible_cpus)
    return _as(f, node, Const(f.unit.target.possible_cpus))


def _cpid(f: Frame, node: ast.Node, info: Any) -> Operand:
    return _as(f, node, Const(f.unit.options.child_pid))


def _has_cpid(f: Frame, node: ast.Node, info: Any) -> Operand:
    return Scalar(Const(int(f.unit.options.child_pid != 0), I8), f.ctype(node))


COMM_BYTES = 16


def _write_comm(f: Frame, node: ast.Node, info: Any, place: Memory, pad: bool) -> None:
    """The name of the task. The helper leaves what is behind its end as it was on some kernels (Linux 6.1; not 5.10, 6.12)."""
    size = place.ctype.size
    offset = _comm_offset(f) if pad and size >= COMM_BYTES and place.offset % 8 == 0 else -1
    if offset >= 0:
        task = f.b.call("get_current_task_btf", (), BTF)
        for at in range(0, COMM_BYTES, 8):
            f.b.store(place.pointer, f.b.load(I64, task, offset + at), place.offset + at)
        f.clear(place.pointer, size - COMM_BYTES, place.offset + COMM_BYTES)
        return
    if pad:
        f.clear(place.pointer, size, place.offset)
    f.b.call("get_current_comm", [f.address(place), min(size, COMM_BYTES)])


def _comm_offset(f: Frame) -> int:
    """Where a task has its name, -1 if programs do better to call the helper. Two loads are faster than that, but only kernels
    that came with the helper bpf_loop, or after it, keep zeros behind the end of the name.
    """
    unit = f.unit
    if unit.relocatable or not (unit.have_helper("get_current_task_btf") and unit.have_helper("loop")):
        return -1
    task = unit.target.btf().get_type("struct task_struct")
    field = task.get_member("comm") if isinstance(task, Struct) else None
    unit.fix("struct task_struct.comm")
    return field.offset if field is not None and sizeof(field.member.ctype) == COMM_BYTES else -1


def _curtask(f: Frame, node: ast.Node, info: Any) -> Operand:
    ctype = f.ctype(node)
    if f.unit.have_helper("get_current_task_btf") and isinstance(strip(getattr(ctype, "target", INT64)), Struct):
        return Scalar(f.b.call("get_current_task_btf", (), BTF), ctype, "btf")
    return Scalar(f.b.call("get_current_task"), ctype, "kernel")


# What the probe hands over ----------------------------------------------------------------------------------------


def _args(f: Frame, node: ast.Node, info: Any) -> Operand:
    return Memory(f.ctx, 0, f.ctype(node), "ctx", leads="kernel")


def _ctx(f: Frame, node: ast.Node, info: Any) -> Operand:
    return Scalar(f.ctx, f.ctype(node), "ctx")


def _argument(f: Frame, node: ast.Node, info: Any) -> Operand:
    context = f.probe.context
    index = info.params["index"]
    if context.usdt_args:
        return _as(f, node, usdt_argument(f.b, f.ctx, context.usdt_args[index]))
    return _as(f, node, f.b.load(I64, f.ctx, context.arg_offsets[index] if context.arg_offsets else index * 8))


def _stack_argument(f: Frame, node: ast.Node, info: Any) -> Operand:
    """`sargN`: behind the return address."""
    sp = f.b.load(I64, f.ctx, f.probe.context.sp_offset)
    space = "user" if f.probe.probes[0].type.startswith("u") else "kernel"
    return Memory(sp, 8 * (info.params["index"] + 1), f.ctype(node), space, leads=f.space(node))


def _retval(f: Frame, node: ast.Node, info: Any) -> Operand:
    context = f.probe.context
    if context.kind == "tracing":
        from .lower_access import tracing_slot

        assert context.retval is not None
        if context.foreign:
            return _foreign_result(f, node)
        return tracing_slot(f, context.retval_offset, context.retval, f.space(node))
    return _as(f, node, f.b.load(I64, f.ctx, context.retval_offset))


def _foreign_result(f: Frame, node: ast.Node) -> Operand:
    """What a function of a BPF program returned: behind which argument it lies is the verifier's secret."""
    f.unit.need_helper("get_func_ret", "retval of a BPF program")
    slot = f.b.alloca(8, 8, "result")
    f.b.store(slot, Const(0))
    f.b.call("get_func_ret", [f.ctx, slot])
    return _as(f, node, f.b.load(I64, slot))


def _usermode(f: Frame, node: ast.Node, info: Any) -> Operand:
    """x86: the privilege level in the saved code segment."""
    level = f.b.binary("and", f.b.load(I64, f.ctx, f.probe.context.get_register("cs")), 3)
    return Scalar(f.b.convert("zext", f.b.binary("eq", level, 3), I8), f.ctype(node))


def _func(f: Frame, node: ast.Node, info: Any) -> Operand:
    """The address of the traced function."""
    from .lower_functions import user_symbol

    kind = f.probe.probes[0].type
    if kind in ("uprobe", "uretprobe"):
        place = f.temp(f.ctype(node))
        user_symbol(f, place, _function_address(f))
        return place
    return Scalar(_function_address(f), f.ctype(node))


def _function_address(f: Frame) -> Value:
    """At the exit of a function the registers tell nothing of it: then only the helper knows."""
    probe = f.probe.probes[0]
    returns = probe.type in ("kretprobe", "uretprobe", "fentry", "fexit")
    if returns or not f.probe.context.ip_offset >= 0:
        f.unit.need_helper("get_func_ip", "func")
        return f.b.call("get_func_ip", [f.ctx])
    address = f.b.load(I64, f.ctx, f.probe.context.ip_offset)
    if probe.type == "kprobe" and f.unit.target.arch == "x86_64" and not probe.spec.offset:
        if f.unit.have_helper("get_func_ip"):
            return f.b.call("get_func_ip", [f.ctx])
        return f.b.binary("sub", address, 1)  # the breakpoint has been executed
    return address


def _probe(f: Frame, node: ast.Node, info: Any) -> Operand:
    """The name of the probe that fired, of several that share this program: from a table."""
    size = sizeof(f.ctype(node))
    stride = size + 7 & ~7
    name = f"{f.b.function.name}_names"
    names = [p.name.encode("utf-8", "surrogateescape").ljust(stride, b"\0") for p in f.probe.probes]
    table = MapSpec(name, "array", 4, stride * len(names), 1, initial=b"".join(names), frozen=True)
    f.unit.module.add_map(table)
    place = f.b.ptradd(f.b.map_value(name), f.b.binary("mul", probe_number(f), stride))
    return Memory(place, 0, f.ctype(node))


def probe_number(f: Frame) -> Value:
    """Which of the probes of this program fired: what it was attached with."""
    from .lower_aggregations import keep_within

    return keep_within(f, f.b.call("get_attach_cookie", [f.ctx]), len(f.probe.probes) - 1)


CALLS: dict[str, Callable[..., Any]] = {
    "arg": _argument,
    "args": _args,
    "cgroup": _helper("get_current_cgroup_id"),
    "cpid": _cpid,
    "cpu": _helper("get_smp_processor_id"),
    "ctx": _ctx,
    "curtask": _curtask,
    "elapsed": _elapsed,
    "func": _func,
    "gid": _gid,
    "has_cpid": _has_cpid,
    "jiffies": _helper("jiffies64"),
    "ncpus": _ncpus,
    "nsecs": _nsecs,
    "numaid": _helper("get_numa_node_id"),
    "pid": _pid,
    "probe": _probe,
    "rand": _helper("get_prandom_u32"),
    "retval": _retval,
    "sarg": _stack_argument,
    "tid": _tid,
    "uid": _uid,
    "usermode": _usermode,
    "username": _uid,
}
WRITERS: dict[str, Callable[..., None]] = {"comm": _write_comm}

"""Functions that turn addresses, numbers and names into values: symbols, registers, network addresses, times, signals."""

from __future__ import annotations

from ...compiler.ir import I8, I32, I64, Const
from ...debuginfo.ctype import INT64, UINT64, Pointer, sizeof
from ...errors import FeatureError
from . import ast
from .lower_events import NOTHING, number_field, send
from .lower_expr import evaluate, in_memory, wide
from .lower_values import Memory, Scalar, Text, ir_type, is_scalar
from .stype import Str, Tuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...compiler.ir import Value
    from .lower_frame import Frame
    from .lower_values import Operand

AF_INET, AF_INET6 = 2, 10


def _result(f: Frame, node: ast.Node, value: Value, space: str = "") -> Scalar:
    ctype = f.ctype(node)
    return Scalar(f.resize(value, INT64, ir_type(ctype)), ctype, space or f.space(node))


# Addresses --------------------------------------------------------------------------------------------------------


def _reg(f: Frame, node: ast.Call, info: Any) -> Operand:
    offset = f.probe.context.get_register(info.params["register"])
    return _result(f, node, f.b.load(I64, f.ctx, offset))


def _kaddr(f: Frame, node: ast.Call, info: Any) -> Operand:
    f.unit.fix(f"the address of {info.params['symbol']}")
    return _result(f, node, Const(info.params["address"]), "kernel")


def _uaddr(f: Frame, node: ast.Call, info: Any) -> Operand:
    """The symbol's address in the file; where the file is mapped follows from where the probe is in both."""
    from .lower_addresses import user_address

    return _result(f, node, user_address(f, info), "user")


def _percpu_kaddr(f: Frame, node: ast.Call, info: Any) -> Operand:
    """The offset that all CPUs share, and behind it what the kernel's table has for this one."""
    target = f.unit.target
    offset, table = target.ksym(info.params["symbol"]), target.ksym("__per_cpu_offset")
    if not offset or not table:
        raise FeatureError(
            "percpu_kaddr() needs the addresses of the kernel's variables, which this kernel does not list",
            hint="a kernel with CONFIG_KALLSYMS_ALL lists them",
        )
    f.unit.fix(f"the address of {info.params['symbol']}")
    b = f.b
    cpu = wide(f, info.args[1]) if len(info.args) > 1 else b.call("get_smp_processor_id")
    slot = b.alloca(8, 8, "base")
    inside, done = b.new_block("cpu"), b.new_block("address", [I64])
    b.branch(b.binary("ult", cpu, target.possible_cpus), inside, done, [], [Const(0)])
    b.at(inside)
    b.call("probe_read_kernel", [slot, 8, b.binary("add", b.binary("shl", cpu, 3), table)])
    b.jump(done, b.binary("add", b.load(I64, slot), offset))
    b.at(done)
    return _result(f, node, done.params[0], "kernel")


def _with_space(f: Frame, node: ast.Call, info: Any) -> Operand:
    """kptr(p), uptr(p)."""
    scalar = f.scalar(evaluate(f, info.args[0]))
    return Scalar(scalar.value, scalar.ctype, "kernel" if info.name == "kptr" else "user")


def _ksym(f: Frame, node: ast.Call, info: Any) -> Operand:
    return Scalar(wide(f, info.args[0]), f.ctype(node))


def _write_usym(f: Frame, node: ast.Call, info: Any, place: Memory, pad: bool) -> None:
    user_symbol(f, place, wide(f, info.args[0]))


def user_symbol(f: Frame, place: Memory, address: Value) -> None:
    """An address of the current process, and which process that is."""
    f.b.store(place.pointer, address, place.offset)
    process = f.b.binary("lshr", f.b.call("get_current_pid_tgid"), 32)
    f.b.store(place.pointer, process, place.offset + 8)  # the probe's number, behind it, is 0


# Numbers that stand for something ---------------------------------------------------------------------------------


def _number(f: Frame, node: ast.Call, info: Any) -> Operand:
    """strftime, strerror, signal_name, syscall_name, cgroup_path: made text where they are printed."""
    return _result(f, node, wide(f, info.args[-1] if info.name == "strftime" else info.args[0]))


def _bswap(f: Frame, node: ast.Call, info: Any) -> Operand:
    ctype = f.ctype(node)
    value = f.number(evaluate(f, info.args[0]), ctype)
    return Scalar(value if value.type == I8 else f.b.unary("bswap", value), ctype)


# Network addresses ------------------------------------------------------------------------------------------------


def _write_ntop(f: Frame, node: ast.Call, info: Any, place: Memory, pad: bool) -> None:
    """The family, then the address: a number is one of IPv4; of an array the size tells."""
    address = info.params["address"]
    family = info.params["family"]
    ctype = f.ctype(address)
    size = 4 if is_scalar(ctype) else min(sizeof(ctype), 16)
    if family is not None:
        number = f.resize(wide(f, family), INT64, I32)
    else:
        number = Const(AF_INET6 if size == 16 else AF_INET, I32)
    operand = evaluate(f, address)
    f.b.store(place.pointer, number, place.offset)
    body = Memory(place.pointer, place.offset + 4, ctype)
    if is_scalar(ctype):
        f.store(body, f.resize(f.wide(operand), INT64, I32))
    else:
        if not isinstance(operand, Memory):
            operand = in_memory(f, address)
        f.copy(body, operand, size)
    f.clear(place.pointer, 16 - size, place.offset + 4 + size)


def _write_pton(f: Frame, node: ast.Call, info: Any, place: Memory, pad: bool) -> None:
    f.put_bytes(info.params["packed"], place)


def _write_macaddr(f: Frame, node: ast.Call, info: Any, place: Memory, pad: bool) -> None:
    operand = evaluate(f, info.args[0])
    if isinstance(operand, Memory) and not is_scalar(operand.ctype):
        f.copy(place, operand, 6)
        return
    scalar = f.scalar(operand)
    if isinstance(scalar.ctype, Pointer):
        space = scalar.space or f.space(info.args[0]) or "any"
        f.copy(place, Memory(scalar.value, 0, place.ctype, "" if space == "own" else space), 6)
        return
    slot = f.b.alloca(8, 8, "mac")
    f.b.store(slot, f.wide(scalar))
    f.copy(place, Memory(slot, 0, place.ctype), 6)


# Control groups, sockets ------------------------------------------------------------------------------------------


def _socket_cookie(f: Frame, node: ast.Call, info: Any) -> Operand:
    f.unit.need_helper("get_socket_cookie", "socket_cookie()")
    scalar = f.scalar(evaluate(f, info.args[0]))
    return _result(f, node, f.b.call("get_socket_cookie", [scalar.value]))


def _skboutput(f: Frame, node: ast.Call, info: Any) -> Operand:
    """The bytes of a packet, to be appended to a pcap file: read from the socket buffer as far as it is linear."""
    from .lower_packets import packet

    return packet(f, node, info)


# Functions that change something ----------------------------------------------------------------------------------


def _signal(f: Frame, node: ast.Call, info: Any) -> Operand:
    helper = "send_signal_thread" if info.name == "signal_thread" else "send_signal"
    f.unit.need_helper(helper, info.name + "()")
    number = info.params.get("signal")
    f.b.call(helper, [number if number is not None else wide(f, info.args[0])])
    return NOTHING


def _override(f: Frame, node: ast.Call, info: Any) -> Operand:
    f.unit.need_helper("override_return", "override()")
    f.b.call("override_return", [f.ctx, wide(f, info.args[0])])
    return NOTHING


def _write_user(f: Frame, node: ast.Call, info: Any) -> Operand:
    """write_user(to, from, size)."""
    f.unit.need_helper("probe_write_user", "write_user()")
    destination = wide(f, info.args[0])
    size = f.constants.get(info.args[2])
    if not isinstance(size, int):
        raise FeatureError("write_user() needs a size that is known at compile time")
    pointer = _bytes_to_write(f, info.args[1], size)
    code = f.b.call("probe_write_user", [destination, pointer, size])
    return _result(f, node, code)


def _bytes_to_write(f: Frame, node: ast.Node, size: int) -> Value:
    """Return the address of `size` bytes: what a pointer leads to, or the value itself, with zeros behind a shorter one."""
    operand = evaluate(f, node)
    if isinstance(operand, Text):
        operand = in_memory(f, node)
    slot = f.b.alloca(max(size, 8), 8, "bytes")
    if isinstance(operand, Memory) and not operand.space and not is_scalar(operand.ctype):
        have = sizeof(operand.ctype)
        if have >= size:
            return f.address(operand)
        f.clear(slot, size)
        f.copy(Memory(slot, 0, operand.ctype), operand, have)
        return slot
    scalar = f.scalar(operand)
    space = scalar.space or f.space(node) or "any"
    if not isinstance(scalar.ctype, Pointer):
        f.clear(slot, size)
        f.b.store(slot, f.wide(scalar))
    elif space == "own":
        return scalar.value
    else:
        f.read_into(slot, Memory(scalar.value, 0, scalar.ctype, space), size)
    return slot


def _unwatch(f: Frame, node: ast.Call, info: Any) -> Operand:
    """Asks the session to take a watchpoint away; without any there is nothing to ask for."""
    address = wide(f, info.args[0])
    if any(probe.type == "watchpoint" for each in f.unit.analysis.probes for probe in each.probes):
        send(f, "unwatch", [number_field("address", f, address, UINT64)])
    return NOTHING


def _debugf(f: Frame, node: ast.Call, info: Any) -> Operand:
    """To the kernel's trace pipe: the helper takes a format and up to three numbers or addresses of strings."""
    text = f.constants[info.args[0]]
    assert isinstance(text, str)
    args: list[Value | int] = []
    for arg in info.params["args"]:
        if isinstance(f.ctype(arg), Str):
            args.append(f.address(in_memory(f, arg)))
        else:
            args.append(wide(f, arg))
    data = _kernel_format(text, [f.ctype(a) for a in info.params["args"]]).encode("utf-8", "surrogateescape") + b"\0"
    place = Memory(f.b.alloca(len(data), 8, "format"), 0, Str(len(data)))
    f.put_bytes(data, place)
    f.b.call("trace_printk", [place.pointer, len(data), *args])
    return NOTHING


def _kernel_format(text: str, types: list[Any]) -> str:
    """Numbers are passed in 64 bits, which the helper's format has to say."""
    from .typing_formats import parse_format

    parts = []
    for segment in parse_format(text):
        if not segment.conversion:
            parts.append(segment.text.replace("%", "%%"))
        else:
            length = "" if segment.conversion in ("s", "p") else "ll"
            parts.append(f"%{length}{segment.conversion}")
    return "".join(parts)


def _write_constants(f: Frame, node: ast.Node, info: Any, place: Memory, pad: bool) -> None:
    """A record whose items were known at compile time: config, typeinfo()."""
    ctype = place.ctype
    assert isinstance(ctype, Tuple)
    if pad:
        f.clear_holes(place)
    for value, item, offset in zip(info.params["values"], ctype.items, ctype.offsets):
        operand = (
            Text(value.encode(), item) if isinstance(value, str) else Scalar(Const(int(value), ir_type(item)), item)
        )
        f.put(operand, place.part(offset, item), pad)


def _nothing(f: Frame, node: ast.Call, info: Any) -> Operand:
    """What was answered at compile time."""
    return NOTHING


CALLS: dict[str, Callable[..., Any]] = {
    "assert": _nothing,
    "bswap": _bswap,
    "cgroup_path": _number,
    "debugf": _debugf,
    "fail": _nothing,
    "kaddr": _kaddr,
    "kptr": _with_space,
    "ksym": _ksym,
    "override": _override,
    "percpu_kaddr": _percpu_kaddr,
    "reg": _reg,
    "signal": _signal,
    "signal_name": _number,
    "signal_thread": _signal,
    "skboutput": _skboutput,
    "socket_cookie": _socket_cookie,
    "static_assert": _nothing,
    "strerror": _number,
    "strftime": _number,
    "syscall_name": _number,
    "uaddr": _uaddr,
    "unwatch": _unwatch,
    "uptr": _with_space,
    "write_user": _write_user,
}
WRITERS: dict[str, Callable[..., None]] = {
    "config": _write_constants,
    "macaddr": _write_macaddr,
    "ntop": _write_ntop,
    "pton": _write_pton,
    "typeinfo": _write_constants,
    "usym": _write_usym,
}

"""Stacks: captured by bpf_get_stack(), kept in a hash map under a hash of their content, which is their id.

Stack trace maps (bpf_get_stackid) have one place for all stacks whose hash is equal modulo their size: of two that meet there
one is lost, which among a thousand stacks is a matter of course. Here nothing is lost until the map is full. A program has
one function for it, however many stacks it takes; hashing costs about 2 ns a frame.
"""

from __future__ import annotations

from ...compiler.builder import Builder
from ...compiler.ir import CTX, I64, MAP, Const, Function, Param
from ...spec.object import MapSpec
from .lower_expr import evaluate, in_memory
from .lower_unit import LOST
from .lower_values import Memory, Scalar
from .stype import KStack, UStack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...compiler.ir import Block, Value
    from . import ast
    from .lower_frame import Frame
    from .lower_unit import Unit
    from .lower_values import Operand

_USER_STACK, _USER_BUILD_ID = 1 << 8, 1 << 11
_FACTOR = 0x9E3779B1 - (1 << 32)  # odd; sign-extended to 64 bits
_FRAME_BYTES = {"build_id": 32}  # struct bpf_stack_build_id; else an address
_STACKS_PER_KEY = 2  # a kernel and a user stack


def stack_map(unit: Unit, name: str, limit: int, mode: str) -> MapSpec:
    """The map of the stacks with up to `limit` frames."""
    entries = max(unit.config.max_map_keys * _STACKS_PER_KEY, 1)
    return MapSpec(name, "hash", 8, 8 + limit * _FRAME_BYTES.get(mode, 8), entries)


def _capture(f: Frame, info: Any) -> Value:
    """The id of the stack here and now, or a negative errno."""
    mode, limit = info.params["mode"], info.params["limit"]
    if limit == 0:
        return Const(0)
    if info.name == "ustack":
        flags = _USER_STACK | (_USER_BUILD_ID if mode == "build_id" else 0)
    else:  # where programs run on the kernel's own stack, the frame of our function is no part of it
        flags = int(_on_kernel_stack(f))
    return f.b.callsub(_function(f, limit, mode), [f.ctx, Const(flags)])


def _on_kernel_stack(f: Frame) -> bool:
    """Whether functions of the program have frames of their own in the kernel's stacks."""
    return f.probe.probes[0].program_type in ("raw_tracepoint", "tracing")


def _kstack(f: Frame, node: ast.Node, info: Any) -> Operand:
    return Scalar(_capture(f, info), f.ctype(node))


def _write_ustack(f: Frame, node: ast.Node, info: Any, place: Memory, pad: bool) -> None:
    """The id, and the process whose addresses these are."""
    f.b.store(place.pointer, _capture(f, info), place.offset)
    process = f.b.binary("lshr", f.b.call("get_current_pid_tgid"), 32)
    f.b.store(place.pointer, process, place.offset + 8)  # the probe's number, behind it, is 0


def _len(f: Frame, node: ast.Call, info: Any) -> Operand:
    """`len(@m)`: a walk over the map; `len(stack)`: the number that is kept with the stack."""
    if info.params["map"]:
        from .lower_loops import count_entries

        return Scalar(count_entries(f, info.params["map"]), f.ctype(node))
    stack = info.args[0]
    ctype = f.ctype(stack)
    assert isinstance(ctype, (KStack, UStack))
    if isinstance(ctype, KStack):
        key = f.temp(ctype)
        f.put(evaluate(f, stack), key)
    else:
        key = in_memory(f, stack)
    b = f.b
    entry = b.call("map_lookup_elem", [b.map(f.unit.layouts.stack_map(ctype.limit, ctype.mode)), f.address(key)], MAP)
    found, done = b.new_block("found"), b.new_block("frames", [I64])
    b.branch(b.binary("ne", entry, 0), found, done, [], [Const(0)])
    b.at(found)
    b.jump(done, b.load(I64, entry))
    b.at(done)
    return Scalar(done.params[0], f.ctype(node))


def _function(f: Frame, limit: int, mode: str) -> Function:
    """The function that captures stacks of this size, made once for each program: it has scratch memory of its own."""
    map_name = f.unit.layouts.stack_map(limit, mode)
    name = f"{f.b.function.name}_{map_name}"
    known = f.unit.module.functions.get(name)
    if known is not None:
        return known
    ctx, flags = Param(CTX, "ctx"), Param(I64, "flags")
    function = Function(name, [ctx, flags], callback=_on_kernel_stack(f))  # a frame is left out: it must be there
    b = Builder(f.unit.module, function)
    b.span = f.b.span
    frame_bytes = _FRAME_BYTES.get(mode, 8)
    buffer = b.alloca(8 + limit * frame_bytes, 8, "stack")
    taken = b.call("get_stack", [ctx, b.ptradd(buffer, 8), limit * frame_bytes, flags])
    some, leave = b.new_block("some"), b.new_block("leave", [I64])
    b.branch(b.binary("sgt", taken, 0), some, leave, [], [taken])
    b.at(some)
    b.store(buffer, b.binary("lshr", taken, frame_bytes.bit_length() - 1))
    _keep(f, b, map_name, buffer, _hash(b, buffer, 8, taken), leave)
    b.at(leave)
    b.ret(leave.params[0])
    return function


def _hash(b: Builder, pointer: Value, offset: int, size: Value) -> Value:
    """A hash of the `size` bytes (8 at least) behind `pointer + offset`: the upper 63 bits of a polynomial of its words."""
    loop, done = b.new_block("words", [I64, I64]), b.new_block("hashed", [I64])
    b.jump(loop, Const(0), size)
    b.at(loop)
    at, before = loop.params
    after = b.binary("mul", b.binary("xor", before, b.load(I64, b.ptradd(pointer, at), offset)), _FACTOR)
    following = b.binary("add", at, 8)
    # The counter, which the verifier knows exactly, stands on the right: before Linux 6.7 only then it sees the end.
    b.branch(b.binary("ugt", size, following), loop, done, [following, after], [after])
    b.at(done)
    return b.binary("lshr", done.params[0], 1)


def _keep(f: Frame, b: Builder, map_name: str, buffer: Value, ident: Value, leave: Block) -> None:
    """Put the stack into the map unless it is there, and leave with its id."""
    key = b.alloca(8, 8, "id")
    b.store(key, ident)
    new, failed = b.new_block("new"), b.new_block("full")
    b.branch(b.binary("ne", b.call("map_lookup_elem", [b.map(map_name), key], MAP), 0), leave, new, [ident])
    b.at(new)
    code = b.call("map_update_elem", [b.map(map_name), key, buffer, 0])
    b.branch(b.binary("eq", code, 0), leave, failed, [ident])
    b.at(failed)
    b.atomic("add", b.map_value(LOST), code, offset=f.unit.failure("map_update_elem", map_name, b.span))
    b.jump(leave, code)


CALLS: dict[str, Callable[..., Any]] = {"kstack": _kstack, "len": _len}
WRITERS: dict[str, Callable[..., None]] = {"ustack": _write_ustack}

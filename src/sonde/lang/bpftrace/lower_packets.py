"""skboutput(): the bytes of a packet, read from a socket buffer into an event."""

from __future__ import annotations

from ...compiler.ir import I32, I64, Const
from ...debuginfo.ctype import INT64, UINT32, Struct, strip
from ...errors import FeatureError
from .lower_events import Field, number_field, send
from .lower_expr import wide
from .lower_values import Memory, Scalar
from .stype import Buffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...compiler.ir import Value
    from .ast import Call
    from .lower_frame import Frame
    from .lower_values import Operand

LARGEST_PACKET = 1 << 14  # bytes; a record is reserved with a constant size
USUAL_PACKET = 1514


def packet(f: Frame, node: Call, info: Any) -> Operand:
    """`skboutput(path, skb, length, offset)`: as far as the buffer is linear; 0, or -1 when there was nothing to read."""
    _, skb_node, length_node, offset_node = info.args
    skb = wide(f, skb_node)
    wanted, offset = wide(f, length_node), wide(f, offset_node)
    limit = min(max(wanted.imm, 0), LARGEST_PACKET) if isinstance(wanted, Const) else USUAL_PACKET
    struct = _sk_buff(f)
    b = f.b
    whole, paged = _read(f, struct, skb, "len", UINT32), _read(f, struct, skb, "data_len", UINT32)
    start = b.binary("add", _read(f, struct, skb, "data", INT64), offset)
    there = b.binary("sub", b.binary("sub", whole, paged), offset)
    size = _least(f, _least(f, there, wanted), Const(limit))
    data_type = Buffer(limit + 4)

    def write(record: Value, at: int) -> None:
        b.store(record, b.convert("trunc", size, I32), at)
        b.call("probe_read_kernel", [b.ptradd(record, at + 4), size, start])

    length = b.convert("trunc", whole, I32)
    data = Field("data", f.unit.layouts.of(data_type), data_type.size, 4, write)
    some = b.binary("sgt", there, 0)
    f.diamond(
        some, lambda: send(f, "skboutput", [number_field("len", f, length, UINT32), data], path=info.params["path"])
    )
    return Scalar(Const(0, I32), f.ctype(node))


def _sk_buff(f: Frame) -> Struct:
    found = f.unit.target.btf().get_type("struct sk_buff")
    struct = strip(found) if found is not None else None
    if not isinstance(struct, Struct):
        raise FeatureError("skboutput() needs the kernel's type struct sk_buff", feature="btf:vmlinux")
    return struct


def _read(f: Frame, struct: Struct, skb: Value, name: str, ctype: Any) -> Value:
    field = struct.get_member(name)
    assert field is not None
    where: Value = Const(field.offset)
    if f.unit.relocatable:
        from .lower_relocated import ask

        where = ask(f.b, "field_byte_offset", struct, (name,))
    else:
        f.unit.fix(f"struct sk_buff.{name}")
    return f.wide(Memory(f.b.ptradd(skb, where), 0, ctype, "kernel"))


def _least(f: Frame, a: Value, b: Value) -> Value:
    """The smaller of two numbers, not below 0."""
    builder = f.b
    done, other = builder.new_block("least", [I64]), builder.new_block("other")
    builder.branch(builder.binary("ult", a, b), done, other, [a])
    builder.at(other)
    builder.jump(done, b)
    builder.at(done)
    return done.params[0]

"""What BCC's rewriter makes of calls in its dialect: packet loads, checksums, arguments of USDT probes, cursors."""

from __future__ import annotations

from ...compiler.access import usdt_argument
from ...compiler.ir import I64, INT_OF_BYTES, Const
from ...debuginfo.ctype import INT32, INT64, UINT8, UINT64, Pointer, sizeof
from . import ast
from .analysis import TextStruct
from .lower_expressions import evaluate, own_place, scalar
from .lower_frame import failure
from .lower_memory import is_writable
from .lower_numbers import convert, move_pointer, number, wide_register
from .lower_places import pointed, read
from .values import Scalar, Wide, pointed_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Value
    from ...debuginfo.usdt import UsdtArg
    from .analysis import Access
    from .lower_frame import Frame
    from .values import Operand


# Packets ----------------------------------------------------------------------------------------------------------


def load_packet(f: Frame, ctx: Value, offset: Value, size: int) -> Value:
    """Load `size` bytes of the packet in network order, as a number of 64 bits. Behind its end the program returns 0."""
    b = f.b
    slot = b.alloca(8, 8, "bytes")
    code = b.call("skb_load_bytes", [ctx, offset, slot, size])
    end, there = b.new_block("end"), b.new_block("there")
    b.branch(b.binary("slt", code, 0), end, there)
    b.at(end)
    f.finish(Scalar(Const(0, "i32"), INT32))
    b.at(there)
    value: Value = b.load(INT_OF_BYTES[size], slot)
    if size > 1:
        value = b.unary("bswap", value)
    return b.convert("zext", value, I64)


def extract_packet(f: Frame, ctx: Value, offset: Value, bit_offset: int, bits: int) -> Value:
    """Bits of the packet, counted from the most significant bit of the byte at `offset`."""
    size = next((n for n in (1, 2, 4, 8) if bit_offset + bits <= 8 * n), 0)
    if not size:
        high = extract_packet(f, ctx, offset, bit_offset, 64 - bit_offset)
        rest = bits - (64 - bit_offset)
        low = extract_packet(f, ctx, f.b.binary("add", offset, 8), 0, rest)
        return f.b.binary("or", f.b.binary("shl", high, rest), low)
    value = load_packet(f, ctx, offset, size)
    below = 8 * size - bit_offset - bits
    if below:
        value = f.b.binary("lshr", value, below)
    return value if bit_offset == 0 else f.b.binary("and", value, (1 << bits) - 1)


def insert_packet(f: Frame, ctx: Value, offset: Value, bit_offset: int, bits: int, value: Value) -> None:
    """Replace bits of the packet."""
    size = next((n for n in (1, 2, 4, 8) if bit_offset + bits <= 8 * n), 0)
    b = f.b
    if not size:
        rest = bits - (64 - bit_offset)
        insert_packet(f, ctx, offset, bit_offset, 64 - bit_offset, b.binary("lshr", value, rest))
        insert_packet(f, ctx, b.binary("add", offset, 8), 0, rest, value)
        return
    below = 8 * size - bit_offset - bits
    mask = (1 << bits) - 1
    part = b.binary("shl", b.binary("and", value, mask), below)
    if bits < 8 * size:
        old = load_packet(f, ctx, offset, size)
        part = b.binary("or", b.binary("and", old, ~(mask << below) & (1 << 64) - 1), part)
    narrow = b.convert("trunc", part, INT_OF_BYTES[size])
    if size > 1:
        narrow = b.unary("bswap", narrow)
    slot = b.alloca(8, 8, "bytes")
    b.store(slot, narrow)
    b.call("skb_store_bytes", [ctx, offset, slot, size, 0])


def packet_member(f: Frame, node: ast.Node) -> Access | None:
    """Return the access of a member of a packet header, which is bits of the packet rather than memory."""
    if not isinstance(node, ast.Member):
        return None
    access = f.program.analysis.accesses.get(node)
    if access is None or not isinstance(access.struct, TextStruct) or "packet" not in access.struct.marks:
        return None
    return access if node.arrow and f.ctx is not None else None


def _header(f: Frame, node: ast.Member, access: Access) -> tuple[Value, int, int]:
    """Where a member of a header lies: byte offset in the packet, bit offset in that byte, number of bits."""
    base = f.as_number(wide_register(f, evaluate(f, node.operand)))
    field = access.field
    bits = field.member.width_bits or 8 * sizeof(field.member.ctype)
    offset = f.b.binary("add", base, field.offset_bits // 8)
    return offset, field.offset_bits % 8, bits


def read_member(f: Frame, node: ast.Member, access: Access) -> Operand:
    """The value of a member of a packet header."""
    offset, start, bits = _header(f, node, access)
    assert f.ctx is not None
    f.b.span = node.span
    ctype = f.type(node)
    if bits > 64:  # an IPv6 address
        high = load_packet(f, f.ctx, offset, 8)
        return Wide(load_packet(f, f.ctx, f.b.binary("add", offset, 8), 8), high, ctype)
    return convert(f, Scalar(extract_packet(f, f.ctx, offset, start, bits), UINT64), ctype)


def write_member(f: Frame, node: ast.Member, access: Access, value: Operand) -> None:
    """Assign to a member of a packet header."""
    offset, start, bits = _header(f, node, access)
    assert f.ctx is not None
    insert_packet(f, f.ctx, offset, start, bits, number(f, value, UINT64))


def _load(size: int) -> Callable[..., Operand]:
    def run(f: Frame, node: ast.Call) -> Operand:
        ctx = wide_register(f, evaluate(f, node.args[0]))
        return Scalar(load_packet(f, ctx, number(f, evaluate(f, node.args[1]), UINT64), size), UINT64)

    return run


def _constants(f: Frame, node: ast.Call, first: int) -> tuple[int, int]:
    """The position and the number of bits, which have to be constants."""
    values = [f.program.analysis.constants.get(arg) for arg in node.args[first : first + 2]]
    if None in values:
        raise failure(node.span, "position and number of bits have to be constants")
    return values[0] or 0, values[1] or 0


def _dext(f: Frame, node: ast.Call) -> Operand:
    ctx = wide_register(f, evaluate(f, node.args[0]))
    offset = number(f, evaluate(f, node.args[1]), UINT64)
    return Scalar(extract_packet(f, ctx, offset, *_constants(f, node, 2)), UINT64)


def _dins(f: Frame, node: ast.Call) -> None:
    ctx = wide_register(f, evaluate(f, node.args[0]))
    offset = number(f, evaluate(f, node.args[1]), UINT64)
    insert_packet(f, ctx, offset, *_constants(f, node, 2), number(f, evaluate(f, node.args[4]), UINT64))


def _cursor_advance(f: Frame, node: ast.Call) -> Operand:
    """The cursor as it was; it moves on by a number of bytes."""
    place = own_place(f, node.args[0])
    old = read(f, place)
    assert isinstance(old, Scalar)
    bytes_ = Scalar(number(f, evaluate(f, node.args[1]), UINT64), UINT64)
    moved = move_pointer(f, Scalar(old.value, Pointer(_BYTE), old.space), bytes_)
    f.store(place, moved)
    return old


_BYTE = UINT8


# Checksums --------------------------------------------------------------------------------------------------------


def _swapped(f: Frame, value: Value, size: int) -> Value:
    narrow = f.resize(value, False, INT_OF_BYTES[size])
    return f.b.convert("zext", f.b.unary("bswap", narrow) if size > 1 else narrow, I64)


def _replace_checksum(helper: str) -> Callable[..., Operand]:
    """`incr_cksum_l3(&ip->csum, old, new)`, `incr_cksum_l4(&tcp->csum, old, new, is_pseudo)`."""

    def run(f: Frame, node: ast.Call) -> Operand:
        if f.ctx is None:
            raise failure(node.span, "this needs the packet, which is the program's context")
        offset = _field_offset(f, node.args[0])
        size = sizeof(f.type(node.args[2]))
        values = [_swapped(f, number(f, evaluate(f, arg), UINT64), size) for arg in node.args[1:3]]
        flags: Value = Const(size)
        if len(node.args) > 3:
            pseudo = f.b.binary("and", number(f, evaluate(f, node.args[3]), UINT64), 1)
            flags = f.b.binary("or", f.b.binary("shl", pseudo, 4), size)
        f.b.span = node.span
        code = f.b.call(helper, [f.ctx, offset, *values, flags])
        return Scalar(f.b.convert("trunc", code, "i32"), INT32)

    return run


def _field_offset(f: Frame, node: ast.Node) -> Value:
    """The offset in the packet that `&header->member` is."""
    inner = node.operand if isinstance(node, ast.Unary) and node.op == "&" else None
    access = packet_member(f, inner) if inner is not None else None
    if isinstance(inner, ast.Member) and access is not None:
        return _header(f, inner, access)[0]
    return f.as_number(wide_register(f, evaluate(f, node)))


def _replace_plain(helper: str) -> Callable[..., Operand]:
    def run(f: Frame, node: ast.Call) -> Operand:
        ctx = wide_register(f, evaluate(f, node.args[0]))
        size = f.program.analysis.constants.get(node.args[4], 0) & 15
        offset, old, new, flags = (number(f, evaluate(f, arg), UINT64) for arg in node.args[1:5])
        if size in (2, 4, 8):
            old, new = _swapped(f, old, size), _swapped(f, new, size)
        return Scalar(f.b.convert("trunc", f.b.call(helper, [ctx, offset, old, new, flags]), "i32"), INT32)

    return run


# USDT -------------------------------------------------------------------------------------------------------------


def _usdt(f: Frame, node: ast.Call) -> UsdtArg:
    known = f.program.entry.usdt
    index = f.program.analysis.constants.get(node.args[0])
    if index is None:
        raise failure(node.args[0].span, "the number of a USDT argument has to be a constant")
    if not 1 <= index <= len(known):
        hint = "enable_probe() of a USDT object says which function belongs to which probe" if not known else ""
        raise failure(node.span, f"there is no USDT argument {index}: the probe has {len(known)}", hint)
    return known[index - 1]


def _usdt_value(f: Frame, node: ast.Call) -> Value:
    ctx = wide_register(f, evaluate(f, node.args[1]))
    return usdt_argument(f.b, ctx, _usdt(f, node))


def _readarg(f: Frame, node: ast.Call) -> Operand:
    """The value of an argument, into a variable of any integer type."""
    value = _usdt_value(f, node)
    pointer = scalar(f, node.args[2])
    target = pointed_type(pointer.ctype if not isinstance(node.args[2], ast.Cast) else f.type(node.args[2]))
    target = target if sizeof(target) else UINT64
    place = pointed(f, pointer, target)
    if not is_writable(place.space):
        raise failure(node.args[2].span, "the argument goes to memory that is not the program's own")
    f.store(place, convert(f, Scalar(value, INT64), target))
    return Scalar(Const(0, "i32"), INT32)


def _readarg_p(f: Frame, node: ast.Call) -> Operand:
    """What an argument points to, in user memory."""
    address = _usdt_value(f, node)
    buffer = wide_register(f, scalar(f, node.args[2]))
    size = number(f, evaluate(f, node.args[3]), UINT64)
    f.b.span = node.span
    return Scalar(f.b.convert("trunc", f.b.call("probe_read_user", [buffer, size, address]), "i32"), INT32)


def _usdt_count(f: Frame, node: ast.Call) -> Operand:
    return Scalar(Const(len(f.program.entry.usdt), "i32"), INT32)


def _usdt_size(f: Frame, node: ast.Call) -> Operand:
    return Scalar(Const(_usdt(f, node).size, "i32"), INT32)


# The rest ---------------------------------------------------------------------------------------------------------


def _num_cpus(f: Frame, node: ast.Call) -> Operand:
    return Scalar(Const(f.program.target.possible_cpus, "i32"), INT32)


def _lock_xadd(f: Frame, node: ast.Call) -> None:
    target = pointed_type(f.type(node.args[0]))
    if sizeof(target) not in (4, 8):
        raise failure(node.span, f"lock_xadd() of {sizeof(target)} bytes", "the kernel's machine adds 4 or 8 at once")
    place = pointed(f, scalar(f, node.args[0]), target)
    if not is_writable(place.space):
        raise failure(node.span, "lock_xadd() of memory that is not the program's own")
    f.b.atomic("add", place.pointer, number(f, evaluate(f, node.args[1]), target), offset=place.offset)


FUNCTIONS: dict[str, Callable[..., Operand | None]] = {
    "load_byte": _load(1),
    "load_half": _load(2),
    "load_word": _load(4),
    "load_dword": _load(8),
    "bpf_dext_pkt": _dext,
    "bpf_dins_pkt": _dins,
    "cursor_advance": _cursor_advance,
    "incr_cksum_l3": _replace_checksum("l3_csum_replace"),
    "incr_cksum_l4": _replace_checksum("l4_csum_replace"),
    "bpf_l3_csum_replace_": _replace_plain("l3_csum_replace"),
    "bpf_l4_csum_replace_": _replace_plain("l4_csum_replace"),
    "bpf_usdt_readarg": _readarg,
    "bpf_usdt_readarg_p": _readarg_p,
    "bpf_usdt_arg_cnt": _usdt_count,
    "bpf_usdt_arg_size": _usdt_size,
    "bpf_num_cpus": _num_cpus,
    "lock_xadd": _lock_xadd,
}

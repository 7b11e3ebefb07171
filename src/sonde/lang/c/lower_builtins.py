"""GNU builtins: memory, bits, byte order, atomics, arithmetic with a look at overflow, and what CO-RE asks of the target."""

from __future__ import annotations

from ...compiler.ir import I8, I32, I64, INT_OF_BYTES, WIDTH, Const
from ...debuginfo.ctype import INT32, Int, strip
from . import ast
from .lower_expressions import evaluate, run, scalar
from .lower_frame import failure
from .lower_memory import is_writable
from .lower_numbers import arithmetic, convert, number
from .lower_places import pointed
from .values import DIRECT, Place, Scalar, Wide, is_wide, pointed_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Value
    from .lower_frame import Frame
    from .values import Operand


def call_builtin(f: Frame, node: ast.Call, name: str, wanted: bool) -> Operand | None:
    """Lower a call of `__builtin_NAME`, or of a `__sync_NAME`, `__atomic_NAME` function."""
    rule = BUILTINS.get(name)
    if rule is None:
        from .bcc_functions import FUNCTIONS
        from .lower_atomics import ATOMICS

        dialect = FUNCTIONS.get(name)
        if dialect is not None:
            return dialect(f, node)

        atomic = ATOMICS.get(name)
        if atomic is not None:
            return atomic(f, node, name, wanted)
        raise failure(node.span, f"__builtin_{name} is not supported")
    return rule(f, node, name)


# Memory -----------------------------------------------------------------------------------------------------------


def _bytes_at(f: Frame, node: ast.Node) -> Place:
    """The memory behind a pointer argument, as bytes."""
    return pointed(f, scalar(f, node), Int("unsigned char", 1, False))


def _written(f: Frame, node: ast.Node) -> Place:
    place = _bytes_at(f, node)
    if not is_writable(place.space):
        raise failure(node.span, "cannot write here: the pointer leads to memory that is not the program's own")
    return place


def _size(f: Frame, node: ast.Call, index: int) -> int:
    size = f.program.analysis.constants.get(node.args[index])
    if size is None:
        raise failure(
            node.args[index].span,
            "the number of bytes has to be a constant",
            "use memset() for sizes that are not",
        )
    return size


def _memcpy(f: Frame, node: ast.Call, name: str) -> Operand:
    size = f.program.analysis.constants.get(node.args[2])
    target = scalar(f, node.args[0])
    dst = pointed(f, target, Int("unsigned char", 1, False))
    if not is_writable(dst.space):
        raise failure(node.span, "cannot copy to this place: it is not the program's own memory")
    f.b.span = node.span
    if size is None:
        from .lower_strings import memcpy

        memcpy(f, node, dst, name)
        return target
    src = _bytes_at(f, node.args[1])
    f.b.span = node.span
    if name == "memmove" and src.space in DIRECT and size > 8:
        middle = Place(f.b.alloca(size, 8, "moved"), 0, Int("unsigned char", 1, False), "stack")
        f.copy(middle, src, size)
        src = middle
    if size and src.space in DIRECT and size in INT_OF_BYTES and src.space != "ctx":
        f.b.memcpy(
            dst.pointer, src.pointer, size, offset=dst.offset, src_offset=src.offset, align=_alignment(f, node, size)
        )
    else:
        f.copy(dst, src, size)
    return target


def _alignment(f: Frame, node: ast.Call, size: int) -> int:
    """The alignment that the types of both sides promise."""
    return min(size, *(_promised(f, arg) for arg in node.args[:2]))


def _promised(f: Frame, node: ast.Node) -> int:
    from ...debuginfo.ctype import alignof

    while isinstance(node, ast.Cast):
        node = node.operand
    ctype = strip(f.type(node))
    return max(alignof(pointed_type(ctype)), 1) if hasattr(ctype, "target") else 1


def _memset(f: Frame, node: ast.Call, name: str) -> Operand:
    size = f.program.analysis.constants.get(node.args[2])
    target = scalar(f, node.args[0])
    dst = pointed(f, target, Int("unsigned char", 1, False))
    if not is_writable(dst.space):
        raise failure(node.span, "cannot write here: the pointer leads to memory that is not the program's own")
    byte = f.program.analysis.constants.get(node.args[1])
    f.b.span = node.span
    if size is None:
        from .lower_strings import memset

        memset(f, node, dst)
        return target
    if byte is None:
        value = number(f, evaluate(f, node.args[1]), Int("unsigned char", 1, False))
        for at in range(size):
            f.b.store(dst.pointer, value, dst.offset + at)
    elif byte & 255 == 0:
        f.clear(dst, size)
    elif size:
        f.b.memset(dst.pointer, size, byte & 255, offset=dst.offset, align=min(8, _promised(f, node.args[0])))
    return target


def _memcmp(f: Frame, node: ast.Call, name: str) -> Operand:
    """The difference of the first bytes that differ."""
    if f.program.analysis.constants.get(node.args[2]) is None:
        from .lower_strings import memcmp

        return memcmp(f, node, name)
    size = _size(f, node, 2)
    sides = [_readable(f, _bytes_at(f, arg), size) for arg in node.args[:2]]
    b = f.b
    done = b.new_block("compared", [I32])
    for at in range(size):
        left, right = (b.convert("zext", b.load(I8, p.pointer, p.offset + at), I32) for p in sides)
        following = b.new_block("next")
        b.branch(b.binary("ne", left, right), done, following, [b.binary("sub", left, right)])
        b.at(following)
    b.jump(done, Const(0, I32))
    b.at(done)
    return Scalar(done.params[0], INT32)


def _strings(f: Frame, node: ast.Call, name: str) -> Operand:
    from . import lower_strings

    return lower_strings.strlen(f, node, name) if name == "strlen" else lower_strings.strcmp(f, node, name)


def _readable(f: Frame, place: Place, size: int) -> Place:
    if place.space in DIRECT:
        return place
    slot = Place(f.b.alloca(size, 8, "compared"), 0, place.ctype, "stack")
    f.read_into(slot.pointer, place, size)
    return slot


# Bits -------------------------------------------------------------------------------------------------------------


def _bswap(f: Frame, node: ast.Call, name: str) -> Operand:
    bits = int(name[5:])
    if bits == 128:
        from .lower_int128 import swap128
        from .lower_numbers import widen

        return swap128(f, widen(f, evaluate(f, node.args[0]), f.type(node)))
    ctype = Int("", bits // 8, False)
    value = number(f, evaluate(f, node.args[0]), ctype)
    if isinstance(value, Const):
        data = (value.imm & (1 << bits) - 1).to_bytes(bits // 8, "little")
        return Scalar(Const(int.from_bytes(data, "big"), value.type), ctype)
    return Scalar(f.b.unary("bswap", value), ctype)


def _popcount_of(f: Frame, value: Value) -> Value:
    """The bits that are set in a 64-bit number, counted in parallel."""
    b = f.b
    value = b.binary("sub", value, b.binary("and", b.binary("lshr", value, 1), 0x5555555555555555))
    pairs = 0x3333333333333333
    value = b.binary("add", b.binary("and", value, pairs), b.binary("and", b.binary("lshr", value, 2), pairs))
    value = b.binary("and", b.binary("add", value, b.binary("lshr", value, 4)), 0x0F0F0F0F0F0F0F0F)
    return b.binary("lshr", b.binary("mul", value, 0x0101010101010101), 56)


def _unsigned(f: Frame, node: ast.Call, name: str) -> tuple[Value, int]:
    """The argument, zero-extended to 64 bits, and its width."""
    width = 64 if name.endswith("l") else 32
    value = number(f, evaluate(f, node.args[0]), Int("", width // 8, False))
    return f.resize(value, False, I64), width


def _as_int(f: Frame, value: Value) -> Scalar:
    return Scalar(f.resize(value, False, I32), INT32)


def _popcount(f: Frame, node: ast.Call, name: str) -> Operand:
    return _as_int(f, _popcount_of(f, _unsigned(f, node, name)[0]))


def _parity(f: Frame, node: ast.Call, name: str) -> Operand:
    return _as_int(f, f.b.binary("and", _popcount_of(f, _unsigned(f, node, name)[0]), 1))


def _ctz(f: Frame, node: ast.Call, name: str) -> Operand:
    """The number of zeros below the lowest bit: as many as bits are set in what lies below it."""
    value, width = _unsigned(f, node, name)
    if width == 32:
        value = f.b.binary("or", value, 1 << 32)
    below = f.b.binary("and", f.b.binary("xor", value, -1), f.b.binary("sub", value, 1))
    return _as_int(f, _popcount_of(f, below))


def _clz(f: Frame, node: ast.Call, name: str) -> Operand:
    value, width = _unsigned(f, node, name)
    b = f.b
    for step in (1, 2, 4, 8, 16, 32)[: 6 if width == 64 else 5]:
        value = b.binary("or", value, b.binary("lshr", value, step))
    return _as_int(f, b.binary("sub", Const(width), _popcount_of(f, value)))


def _ffs(f: Frame, node: ast.Call, name: str) -> Operand:
    """One more than the number of the lowest bit that is set; 0 when there is none."""
    value, _ = _unsigned(f, node, name)
    b = f.b
    lowest = b.binary("xor", value, b.binary("sub", value, 1))  # all bits up to the lowest one
    some, done = b.new_block("some"), b.new_block("found", [I64])
    b.branch(b.binary("ne", value, 0), some, done, [], [Const(0)])
    b.at(some)
    b.jump(done, _popcount_of(f, lowest))
    b.at(done)
    return _as_int(f, done.params[0])


def _abs(f: Frame, node: ast.Call, name: str) -> Operand:
    ctype = f.type(node)
    value = number(f, evaluate(f, node.args[0]), ctype)
    sign = f.b.binary("ashr", value, WIDTH[value.type] - 1)
    return Scalar(f.b.binary("sub", f.b.binary("xor", value, sign), sign), ctype)


# Hints and questions ----------------------------------------------------------------------------------------------


def _first(f: Frame, node: ast.Call, name: str) -> Operand:
    """`expect` and its like give their first argument."""
    operand = evaluate(f, node.args[0])
    for arg in node.args[1:]:
        run(f, arg)
    return operand if isinstance(operand, Place) else convert(f, operand, f.type(node))


def _nothing(f: Frame, node: ast.Call, name: str) -> None:
    """A promise to the compiler that it does not use."""


def _trap(f: Frame, node: ast.Call, name: str) -> None:
    """Here the program ends: it must not come to this."""
    f.finish(None)


def _constant(f: Frame, node: ast.Call, name: str) -> Operand:
    """`constant_p` of what the analysis could not fold."""
    return Scalar(Const(0, I32), INT32)


def _chosen(f: Frame, node: ast.Call, name: str) -> Operand:
    return evaluate(f, f.program.analysis.chosen[node])


def _preserve(f: Frame, node: ast.Call, name: str) -> Operand:
    from .core_access import question

    return question(f, node, name)


# Overflow ---------------------------------------------------------------------------------------------------------


def _overflow(f: Frame, node: ast.Call, name: str) -> Operand:
    """`__builtin_add_overflow(a, b, &result)`: was the exact result too large for where it goes?"""
    op = next(sign for word, sign in (("add", "+"), ("sub", "-"), ("mul", "*")) if word in name)
    target = pointed_type(f.type(node.args[2]))
    left, right = evaluate(f, node.args[0]), evaluate(f, node.args[1])
    if is_wide(target) or isinstance(left, Wide) or isinstance(right, Wide):
        raise failure(node.span, "overflow of 128-bit integers cannot be told")
    exact = Int("__int128", 16, True)
    whole = arithmetic(f, op, left, right, exact, node.span)
    place = pointed(f, scalar(f, node.args[2]), target)
    if not is_writable(place.space):
        raise failure(node.span, "the result goes to memory that is not the program's own")
    result = convert(f, whole, target)
    f.store(place, result)
    assert isinstance(whole, Wide)
    from .lower_int128 import equal
    from .lower_numbers import widen

    return Scalar(equal(f, whole, widen(f, result, exact), "!="), INT32)


BUILTINS: dict[str, Callable[..., Operand | None]] = {
    "memcpy": _memcpy,
    "memcpy_inline": _memcpy,
    "memmove": _memcpy,
    "memset": _memset,
    "memset_inline": _memset,
    "bzero": lambda f, node, name: _bzero(f, node),
    "memcmp": _memcmp,
    **dict.fromkeys(("strlen", "strcmp", "strncmp"), _strings),
    "bcmp": _memcmp,
    **dict.fromkeys(("bswap16", "bswap32", "bswap64", "bswap128"), _bswap),
    **dict.fromkeys(("popcount", "popcountl", "popcountll"), _popcount),
    **dict.fromkeys(("parity", "parityl", "parityll"), _parity),
    **dict.fromkeys(("ctz", "ctzl", "ctzll"), _ctz),
    **dict.fromkeys(("clz", "clzl", "clzll"), _clz),
    **dict.fromkeys(("ffs", "ffsl", "ffsll"), _ffs),
    **dict.fromkeys(("abs", "labs", "llabs"), _abs),
    **dict.fromkeys(
        ("expect", "expect_with_probability", "preserve_access_index", "assume_aligned", "launder"), _first
    ),
    **dict.fromkeys(("assume", "prefetch"), _nothing),
    **dict.fromkeys(("trap", "unreachable"), _trap),
    "constant_p": _constant,
    "choose_expr": _chosen,
    **dict.fromkeys(
        ("preserve_field_info", "preserve_type_info", "preserve_enum_value", "btf_type_id"),
        _preserve,
    ),
    **dict.fromkeys(
        [f"{op}_overflow" for op in ("add", "sub", "mul")]
        + [
            f"{sign}{op}{length}_overflow"
            for sign in "us"
            for op in ("add", "sub", "mul")
            for length in ("", "l", "ll")
        ],
        _overflow,
    ),
}


def _bzero(f: Frame, node: ast.Call) -> None:
    f.clear(_written(f, node.args[0]), _size(f, node, 1))

"""GNU builtins whose type depends on their operands: atomics, overflow tests, CO-RE questions, choices between constants."""

from __future__ import annotations

from ...debuginfo.ctype import BOOL, VOID, CType, FuncProto, Pointer, sizeof, strip
from . import ast
from .analysis import FunctionSymbol
from .arithmetic import INT, LONG, UINT, ULONG, decayed, is_integer, shown, underlying, unqualified, wrap
from .constants import constant_value
from .conversions import convert, dereferenced, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .checker import Checker

    Builtin = Callable[[Checker, ast.Call, ast.Name], CType]


def _arity(ck: Checker, node: ast.Call, name: ast.Name, low: int, high: int | None = None) -> None:
    if not low <= len(node.args) <= (high or low):
        wanted = str(low) if high is None else f"{low} to {high}"
        raise ck.fail(node, f"'{name.name}' takes {wanted} arguments, {len(node.args)} given")


def _mark(ck: Checker, name: ast.Name, result: CType, plain: str = "") -> CType:
    """Note which builtin a name means."""
    label = plain or name.name.removeprefix("__builtin_")
    ck.symbols[name] = FunctionSymbol(name.name, FuncProto(result, (), variadic=True), name.span, builtin=label)
    return result


# Constants --------------------------------------------------------------------------------------------------------


def _constant_p(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
    _arity(ck, node, name, 1)
    ck.expr(node.args[0])
    ck.constants[node] = int(node.args[0] in ck.constants or isinstance(node.args[0], ast.String))
    return _mark(ck, name, INT)


def _choose_expr(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
    from .types_expr import choose

    _arity(ck, node, name, 3)
    known = constant_value(ck, node.args[0], "the condition of __builtin_choose_expr")
    _mark(ck, name, VOID)
    return choose(ck, node, node.args[1 if known else 2])


def _expect(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
    _arity(ck, node, name, 2, 3)
    for arg in node.args:
        value(ck, arg)
    known = ck.constants.get(node.args[0])
    if known is not None:
        ck.constants[node] = known
    return _mark(ck, name, LONG)


def _bits(name: str) -> Callable[[int, int], int | None]:
    """How to compute a builtin of one number; its second argument is the width in bits."""
    table: dict[str, Callable[[int, int], int | None]] = {
        "bswap": lambda v, n: int.from_bytes(v.to_bytes(n // 8, "little"), "big"),
        "ctz": lambda v, n: (v & -v).bit_length() - 1 if v else None,
        "clz": lambda v, n: n - v.bit_length() if v else None,
        "popcount": lambda v, n: v.bit_count() if hasattr(v, "bit_count") else bin(v).count("1"),
        "parity": lambda v, n: bin(v).count("1") & 1,
        "ffs": lambda v, n: (v & -v).bit_length(),
    }
    return table[name]


def _computed(kind: str, argument_bits: int) -> Builtin:
    """A builtin with a fixed prototype that is folded where its operand is known."""

    def rule(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
        _arity(ck, node, name, 1)
        proto = ck.environment.get_builtin(name.name)
        assert proto is not None
        convert(ck, node.args[0], value(ck, node.args[0]), proto.params[0].ctype, "passing to")
        known = ck.constants.get(node.args[0])
        if known is not None:
            folded = _bits(kind)(known & ((1 << argument_bits) - 1), argument_bits)
            if folded is not None:
                ck.constants[node] = folded
        return _mark(ck, name, proto.result)

    return rule


# Overflow ---------------------------------------------------------------------------------------------------------


def _overflow(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
    _arity(ck, node, name, 3)
    left, right, out = (value(ck, arg) for arg in node.args)
    target = dereferenced(ck, node.args[2], out)
    for arg, ctype in zip(node.args, (left, right, target)):
        if not is_integer(ctype):
            raise ck.fail(arg, f"'{name.name}' is about integers, not {shown(ctype)}")
    return _mark(ck, name, BOOL)


# Atomics ----------------------------------------------------------------------------------------------------------


def _atomic(shape: str, result: str) -> Builtin:
    """An atomic operation. `shape`: p pointer, v value of its type, e pointer to the value expected, o order, b bool.

    `result`: "v" the type of the value, "b" bool, "-" void.
    """

    def rule(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
        _arity(ck, node, name, len(shape))
        pointer = value(ck, node.args[0]) if shape else VOID
        inner: CType = VOID
        if shape.startswith("p"):
            inner = unqualified(dereferenced(ck, node.args[0], pointer))
            allowed = (4, 8) if "v" in shape else (1, 2, 4, 8)
            number = isinstance(strip(inner), Pointer) or is_integer(inner)
            if not number or sizeof(inner) not in allowed:
                sizes = "4 or 8" if "v" in shape else "1, 2, 4 or 8"
                words = f"'{name.name}' works on integers of {sizes} bytes, not on {shown(inner)}"
                raise ck.fail(node.args[0], words)
        wanted = {"v": inner, "e": Pointer(inner), "o": INT, "b": BOOL}
        for arg, letter in list(zip(node.args, shape))[1 if shape.startswith("p") else 0 :]:
            convert(ck, arg, value(ck, arg), wanted[letter], "passing to")
        made = {"v": inner, "b": BOOL, "-": VOID}[result]
        return _mark(ck, name, made, name.name)

    return rule


# CO-RE ------------------------------------------------------------------------------------------------------------


def _preserve_access(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
    _arity(ck, node, name, 1)
    ctype = ck.expr(node.args[0])
    return _mark(ck, name, decayed(ctype))


def _preserve_info(result: CType) -> Builtin:
    """A question about a field, type or enumeration constant; the second argument is its number."""

    def rule(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
        _arity(ck, node, name, 2)
        ck.expr(node.args[0])
        constant_value(ck, node.args[1], f"the second argument of '{name.name}'")
        return _mark(ck, name, result)

    return rule


# Others -----------------------------------------------------------------------------------------------------------


def _prefetch(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
    _arity(ck, node, name, 1, 3)
    for arg in node.args:
        value(ck, arg)
    return _mark(ck, name, VOID)


def _object_size(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
    _arity(ck, node, name, 2)
    value(ck, node.args[0])
    kind = constant_value(ck, node.args[1], "the second argument of __builtin_object_size")
    operand = node.args[0]
    while isinstance(operand, ast.Cast):
        operand = operand.operand
    known = -1 if kind < 2 else 0
    if isinstance(operand, ast.Unary) and operand.op == "&" and isinstance(operand.operand, ast.Name):
        known = sizeof(ck.types[operand.operand])
    elif isinstance(operand, ast.Name) and not isinstance(strip(ck.types[operand]), Pointer):
        known = sizeof(ck.types[operand])
    ck.constants[node] = wrap(known, ULONG)
    return _mark(ck, name, ULONG)


def _strlen(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
    proto = ck.environment.get_builtin("strlen")
    assert proto is not None
    _arity(ck, node, name, 1)
    operand = node.args[0]
    convert(ck, operand, value(ck, operand), proto.params[0].ctype, "passing to")
    if isinstance(operand, ast.String):
        ck.constants[node] = (operand.value + b"\0").index(b"\0")
    return _mark(ck, name, proto.result)


def _refused(why: str, hint: str = "") -> Builtin:
    def rule(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
        raise ck.fail(node, f"'{name.name}' {why}", hint=hint)

    return rule


def _abs(ck: Checker, node: ast.Call, name: ast.Name) -> CType:
    _arity(ck, node, name, 1)
    proto = ck.environment.get_builtin(name.name)
    assert proto is not None
    convert(ck, node.args[0], value(ck, node.args[0]), proto.params[0].ctype, "passing to")
    known, number = ck.constants.get(node.args[0]), underlying(proto.result)
    if known is not None and number is not None:
        ck.constants[node] = wrap(abs(known), number)
    return _mark(ck, name, proto.result)


_NO_FRAME = _refused("has no meaning in BPF: there is no frame to be seen")
_NO_ALLOCA = _refused("allocates on the stack at run time, which BPF cannot", "use an array of constant size")
_NO_VARIADIC = _refused("is for functions with a variable number of arguments, which BPF has not")

BUILTINS: dict[str, Builtin] = {
    "__builtin_constant_p": _constant_p,
    "__builtin_choose_expr": _choose_expr,
    "__builtin_expect": _expect,
    "__builtin_expect_with_probability": _expect,
    "__builtin_add_overflow": _overflow,
    "__builtin_sub_overflow": _overflow,
    "__builtin_mul_overflow": _overflow,
    "__builtin_preserve_access_index": _preserve_access,
    "__builtin_preserve_field_info": _preserve_info(UINT),
    "__builtin_preserve_type_info": _preserve_info(UINT),
    "__builtin_preserve_enum_value": _preserve_info(ULONG),
    "__builtin_btf_type_id": _preserve_info(ULONG),
    "__builtin_prefetch": _prefetch,
    "__builtin_object_size": _object_size,
    "__builtin_dynamic_object_size": _object_size,
    "__builtin_strlen": _strlen,
    "strlen": _strlen,
    "__builtin_abs": _abs,
    "__builtin_labs": _abs,
    "__builtin_llabs": _abs,
    "__builtin_frame_address": _NO_FRAME,
    "__builtin_return_address": _NO_FRAME,
    "__builtin_alloca": _NO_ALLOCA,
    "alloca": _NO_ALLOCA,
    "__builtin_va_start": _NO_VARIADIC,
    "__builtin_va_end": _NO_VARIADIC,
    "__builtin_va_copy": _NO_VARIADIC,
    "__sync_synchronize": _atomic("", "-"),
    "__sync_lock_test_and_set": _atomic("pv", "v"),
    "__sync_bool_compare_and_swap": _atomic("pvv", "b"),
    "__sync_val_compare_and_swap": _atomic("pvv", "v"),
    "__atomic_load_n": _atomic("po", "v"),
    "__atomic_store_n": _atomic("pvo", "-"),
    "__atomic_exchange_n": _atomic("pvo", "v"),
    "__atomic_compare_exchange_n": _atomic("pevboo", "b"),
    "__atomic_thread_fence": _atomic("o", "-"),
    "__atomic_signal_fence": _atomic("o", "-"),
}
for _op in ("add", "sub", "and", "or", "xor", "nand"):
    BUILTINS[f"__sync_fetch_and_{_op}"] = BUILTINS[f"__sync_{_op}_and_fetch"] = _atomic("pv", "v")
    BUILTINS[f"__atomic_fetch_{_op}"] = BUILTINS[f"__atomic_{_op}_fetch"] = _atomic("pvo", "v")
for _kind, _suffixes in {
    "bswap": {"16": 16, "32": 32, "64": 64},
    "ctz": {"": 32, "l": 64, "ll": 64},
    "clz": {"": 32, "l": 64, "ll": 64},
    "popcount": {"": 32, "l": 64, "ll": 64},
    "parity": {"": 32, "l": 64, "ll": 64},
    "ffs": {"": 32, "l": 64, "ll": 64},
}.items():
    for _suffix, _size in _suffixes.items():
        BUILTINS[f"__builtin_{_kind}{_suffix}"] = _computed(_kind, _size)

"""Atomic builtins: `__sync_fetch_and_add` and its like, `__atomic_…`. The old value is fetched only where somebody wants it."""

from __future__ import annotations

from ...compiler.ir import I64, Const
from ...debuginfo.ctype import BOOL, Pointer, sizeof, strip
from .lower_expressions import evaluate, scalar
from .lower_frame import failure
from .lower_memory import is_writable
from .lower_numbers import compute, convert
from .lower_places import pointed
from .values import Place, Scalar, ir_type, pointed_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Value
    from . import ast
    from .lower_frame import Frame
    from .values import Operand


def _target(f: Frame, node: ast.Call) -> Place:
    """What the first argument leads to: 4 or 8 bytes of own memory."""
    ctype = strip(pointed_type(f.type(node.args[0])))
    if sizeof(ctype) not in (4, 8):
        raise failure(
            node.span,
            f"an atomic operation on {sizeof(ctype)} bytes",
            "the kernel's machine has them for 4 and 8 bytes",
        )
    place = pointed(f, scalar(f, node.args[0]), ctype)
    if not is_writable(place.space):
        raise failure(node.span, "an atomic operation on memory that is not the program's own")
    return place


def _value(f: Frame, node: ast.Call, place: Place, index: int = 1) -> Value:
    """An argument in the type of the target."""
    operand = convert(f, evaluate(f, node.args[index]), place.ctype)
    assert isinstance(operand, Scalar)
    return f.as_number(operand.value) if isinstance(place.ctype, Pointer) else operand.value


def _fetch_and(f: Frame, node: ast.Call, name: str, wanted: bool) -> Operand | None:
    op, new = _OPERATIONS[name]
    place = _target(f, node)
    value = _value(f, node, place)
    ctype = place.ctype
    operand = value
    if op == "sub":
        operand = Const(-value.imm, value.type) if isinstance(value, Const) else f.b.unary("neg", value)
    f.b.span = node.span
    machine = "add" if op == "sub" else op
    old = f.b.atomic(machine, place.pointer, operand, offset=place.offset, fetch=wanted)
    if not wanted:
        return None
    result: Value = old
    if new:
        result = compute(f, op, old, value, node.span)
    return Scalar(result, ctype)


def _exchange(f: Frame, node: ast.Call, name: str, wanted: bool) -> Operand:
    place = _target(f, node)
    return Scalar(f.b.atomic("xchg", place.pointer, _value(f, node, place), offset=place.offset), place.ctype)


def _compare_and_swap(f: Frame, node: ast.Call, name: str, wanted: bool) -> Operand:
    place = _target(f, node)
    expected, new = _value(f, node, place, 1), _value(f, node, place, 2)
    old = f.b.atomic("cmpxchg", place.pointer, new, offset=place.offset, expected=expected)
    if name == "__sync_bool_compare_and_swap":
        return Scalar(f.b.binary("eq", old, expected), BOOL)
    return Scalar(old, place.ctype)


def _load(f: Frame, node: ast.Call, name: str, wanted: bool) -> Operand:
    """A plain load is atomic on all that runs eBPF."""
    place = pointed(f, scalar(f, node.args[0]), pointed_type(f.type(node.args[0])))
    place.volatile = True
    return f.load(place)


def _store(f: Frame, node: ast.Call, name: str, wanted: bool) -> None:
    place = _target(f, node)
    place.volatile = True
    f.store(place, convert(f, evaluate(f, node.args[1]), place.ctype))


def _release(f: Frame, node: ast.Call, name: str, wanted: bool) -> None:
    place = _target(f, node)
    f.b.store(place.pointer, Const(0, ir_type(place.ctype)), place.offset, volatile=True)


def _barrier(f: Frame, node: ast.Call, name: str, wanted: bool) -> None:
    """An atomic operation with a fetch orders memory, as LLVM does it too."""
    slot = f.b.alloca(8, 8, "barrier")
    f.b.store(slot, Const(0, I64))
    f.b.atomic("or", slot, Const(0, I64), fetch=True)


_OPERATIONS: dict[str, tuple[str, bool]] = {  # builtin -> operation, whether the new value is the result
    **{f"__sync_fetch_and_{op}": (op, False) for op in ("add", "sub", "and", "or", "xor")},
    **{f"__sync_{op}_and_fetch": (op, True) for op in ("add", "sub", "and", "or", "xor")},
    **{f"__atomic_fetch_{op}": (op, False) for op in ("add", "sub", "and", "or", "xor")},
    **{f"__atomic_{op}_fetch": (op, True) for op in ("add", "sub", "and", "or", "xor")},
}
ATOMICS: dict[str, Callable[[Frame, ast.Call, str, bool], Operand | None]] = {
    **dict.fromkeys(_OPERATIONS, _fetch_and),
    "__sync_lock_test_and_set": _exchange,
    "__sync_val_compare_and_swap": _compare_and_swap,
    "__sync_bool_compare_and_swap": _compare_and_swap,
    "__sync_lock_release": _release,
    "__sync_synchronize": _barrier,
    "__atomic_exchange_n": _exchange,
    "__atomic_load_n": _load,
    "__atomic_store_n": _store,
}

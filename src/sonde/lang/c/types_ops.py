"""Operators: operands to types and common types, C11 6.5; constants are folded on the way."""

from __future__ import annotations

from ...debuginfo.ctype import VOID, Array, CType, FuncProto, Pointer, Qualified, Void, sizeof, strip
from . import ast
from .analysis import EnumConstant, Variable
from .arithmetic import (
    INT,
    LONG,
    common_integer,
    compatible,
    const_member,
    decayed,
    is_incomplete,
    is_integer,
    is_pointer,
    is_scalar,
    promoted,
    qualifiers,
    shown,
    underlying,
    unqualified,
    wrap,
)
from .constants import fold_binary, fold_unary, held
from .conversions import condition, convert, dereferenced, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .checker import Checker, Rule

_COMPARISONS = frozenset(["==", "!=", "<", ">", "<=", ">="])
_SHIFTS = frozenset(["<<", ">>"])


# One operand ------------------------------------------------------------------------------------------------------


def _unary(ck: Checker, node: ast.Unary) -> CType:
    op = node.op
    if op == "&":
        return _address(ck, node)
    if op == "*":
        return _dereference(ck, node)
    if op in ("++", "--"):
        return _step(ck, node)
    ctype = value_of(ck, node.operand)
    if op == "!":
        if not is_scalar(ctype):
            raise ck.fail(node, f"invalid operand of '!': {shown(ctype)}")
        ctype = INT
    else:
        if not is_integer(ctype):
            raise ck.fail(node, f"invalid operand of '{op}': {shown(ctype)}")
        ctype = promoted(ctype)
    known = ck.constants.get(node.operand)
    if known is not None:
        folded = fold_unary(op, known, ctype)
        if folded is not None:
            ck.constants[node] = folded
    return ctype


def value_of(ck: Checker, node: ast.Expr) -> CType:
    """Return the type of an operand's value; a narrow bit-field has become an int by then, as C has it."""
    return _held_by_int(ck, node, value(ck, node))


def _held_by_int(ck: Checker, node: ast.Expr, ctype: CType) -> CType:
    """Return `int` for a bit-field whose values it holds, else `ctype`."""
    if isinstance(node, ast.Member) and node in ck.accesses:
        width = ck.accesses[node].field.member.width_bits
        number = underlying(ctype) if width else None
        if number is not None and (width < 32 or (width == 32 and number.signed)):
            return INT
    return ctype


def _address(ck: Checker, node: ast.Unary) -> CType:
    operand = node.operand
    ctype = ck.expr(operand)
    if isinstance(operand, ast.Unary) and operand.op == "*":
        return decayed(ck.types[operand.operand])
    number = isinstance(operand, ast.Name) and isinstance(ck.symbols.get(operand), EnumConstant)
    if (not isinstance(strip(ctype), FuncProto) and not is_lvalue(operand)) or number:
        raise ck.fail(node, f"cannot take the address of a value of type {shown(ctype)}")
    if isinstance(operand, ast.Member) and ck.accesses[operand].field.member.width_bits:
        raise ck.fail(node, f"cannot take the address of the bit-field '{operand.name}'")
    mark_written(ck, operand)
    return Pointer(ctype)


def _dereference(ck: Checker, node: ast.Unary) -> CType:
    ctype = decayed(ck.expr(node.operand))
    return dereferenced(ck, node, ctype)


def _step(ck: Checker, node: ast.Unary | ast.Postfix) -> CType:
    """`++` and `--`, before or behind."""
    ctype = ck.expr(node.operand)
    modifiable(ck, node.operand, ctype)
    if not is_scalar(ctype):
        raise ck.fail(node, f"invalid operand of '{node.op}': {shown(ctype)}")
    if is_pointer(ctype):
        _require_stride(ck, node, ctype)
    return unqualified(ctype)


def is_lvalue(node: ast.Expr) -> bool:
    """Tell whether an expression denotes an object."""
    if isinstance(node, ast.Member):
        return node.arrow or is_lvalue(node.operand)
    if isinstance(node, ast.Unary):
        return node.op == "*"
    return isinstance(node, (ast.Name, ast.Index, ast.String, ast.CompoundLiteral))


def modifiable(ck: Checker, node: ast.Expr, ctype: CType) -> None:
    """Require an object that may be assigned to. Raises CompileError."""
    if not is_lvalue(node) or (isinstance(node, ast.Name) and not isinstance(ck.symbols.get(node), Variable)):
        raise ck.fail(node, "this expression cannot be assigned to")
    if isinstance(strip(ctype), Array):
        raise ck.fail(node, f"an array cannot be assigned to ({shown(ctype)})", hint="use __builtin_memcpy")
    if is_incomplete(ctype):
        raise ck.fail(node, f"a value of incomplete type {shown(ctype)} cannot be assigned to")
    if "const" in qualifiers(ctype):
        name = f"'{node.name}'" if isinstance(node, (ast.Name, ast.Member)) else "an object"
        raise ck.fail(node, f"cannot assign to {name} of const-qualified type {shown(ctype)}")
    member = const_member(ctype)
    if member is not None:
        message = f"cannot assign to an object of type {shown(ctype)}: its member '{member.name}' is const"
        raise ck.fail(node, message, hint="assign its other members one by one")
    mark_written(ck, node)


def mark_written(ck: Checker, node: ast.Expr) -> None:
    """Note that a variable gets its value in some way other than an initialiser."""
    if ck.function is not None:
        symbol = ck.symbols.get(node)
        if isinstance(symbol, Variable):
            ck.function.written.add(symbol)


# Two operands -----------------------------------------------------------------------------------------------------


def _binary(ck: Checker, node: ast.Binary) -> CType:
    op = node.op
    if op in ("&&", "||"):
        return _logical(ck, node)
    left, right = value_of(ck, node.left), value_of(ck, node.right)
    common, result = operate(ck, node, op, left, right)
    ck.common[node] = common
    a, b = ck.constants.get(node.left), ck.constants.get(node.right)
    if b is not None and op in _RISKY:
        _warn_operand(ck, node, op, b, common)
    if a is not None and b is not None and ((underlying(left) and underlying(right)) or op in _COMPARISONS):
        folded = fold_binary(op, a, b, common)
        if folded is not None:
            ck.constants[node] = folded
            if op in _EXACT:
                _warn_overflow(ck, node, a, b, folded, common)
    return result


def _logical(ck: Checker, node: ast.Binary) -> CType:
    condition(ck, node.left)
    condition(ck, node.right)
    left, right = ck.constants.get(node.left), ck.constants.get(node.right)
    decides = node.op == "||"
    if left is not None and bool(left) == decides:
        ck.constants[node] = int(decides)
    elif left is not None and right is not None:
        ck.constants[node] = int(bool(right))
    return INT


def operate(ck: Checker, node: ast.Expr, op: str, left: CType, right: CType) -> tuple[CType, CType]:
    """Return the common type of two operands and the type of the result. Raises CompileError."""
    if is_integer(left) and is_integer(right):
        if op in _SHIFTS:
            common = promoted(left)
            return common, common
        brought = common_integer(left, right)
        assert brought is not None
        return brought, INT if op in _COMPARISONS else brought
    if op in _COMPARISONS and is_scalar(left) and is_scalar(right):
        return _compare_pointers(ck, node, left, right), INT
    if op in ("+", "-") and is_scalar(left) and is_scalar(right):
        return _pointer_arithmetic(ck, node, op, left, right)
    raise ck.fail(node, f"invalid operands to binary '{op}': {shown(left)} and {shown(right)}")


def _compare_pointers(ck: Checker, node: ast.Expr, left: CType, right: CType) -> CType:
    if is_pointer(left) and is_pointer(right):
        a, b = strip(dereferenced(ck, node, left)), strip(dereferenced(ck, node, right))
        if not (isinstance(a, Void) or isinstance(b, Void) or compatible(a, b)):
            ck.warn(node, f"comparison of distinct pointer types: {shown(left)} and {shown(right)}")
        return left
    number = node.right if isinstance(node, ast.Binary) and is_pointer(left) else getattr(node, "left", node)
    if ck.constants.get(number) != 0:
        ck.warn(node, f"comparison between a pointer and an integer: {shown(left)} and {shown(right)}")
    return left if is_pointer(left) else right


def _pointer_arithmetic(ck: Checker, node: ast.Expr, op: str, left: CType, right: CType) -> tuple[CType, CType]:
    if is_pointer(left) and is_pointer(right):
        if op == "+":
            raise ck.fail(node, f"two pointers cannot be added: {shown(left)} and {shown(right)}")
        if not compatible(left, right) and not _differ_in_sign(left, right):
            raise ck.fail(node, f"{shown(left)} and {shown(right)} point to different types and cannot be subtracted")
        _require_stride(ck, node, left)
        return left, LONG
    pointer = left if is_pointer(left) else right
    if op == "-" and pointer is right:
        raise ck.fail(node, f"a pointer cannot be subtracted from an integer ({shown(left)} and {shown(right)})")
    _require_stride(ck, node, pointer)
    return pointer, pointer


def _differ_in_sign(left: CType, right: CType) -> bool:
    """Whether both point to integers that differ in sign only."""
    a, b = strip(strip(left).target), strip(strip(right).target)  # type: ignore[attr-defined]
    return is_integer(a) and is_integer(b) and sizeof(a) == sizeof(b)


def _require_stride(ck: Checker, node: ast.Node, pointer: CType) -> None:
    """Require that what a pointer points to has a size; void and functions count as one byte, as GNU C has it."""
    target = strip(dereferenced(ck, node, pointer))
    if is_incomplete(target) and not isinstance(target, (Void, FuncProto)):
        raise ck.fail(node, f"arithmetic on {shown(pointer)}, a pointer to an incomplete type")


# Warnings about constants -----------------------------------------------------------------------------------------

_RISKY = frozenset(["<<", ">>", "/", "%"])
_EXACT = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def _warn_operand(ck: Checker, node: ast.Binary | ast.Assign, op: str, right: int, common: CType) -> None:
    """Warn about a shift by too much, and a division by zero."""
    number = underlying(common)
    if op in _SHIFTS and number is not None:
        bits = 8 * number.size
        if right < 0:
            ck.warn(node, f"shift by {right}: the count is negative")
        elif right >= bits:
            ck.warn(node, f"shift by {right}: {shown(common)} has {bits} bits")
    elif right == 0 and op in ("/", "%"):
        ck.warn(node, "division by zero: in BPF, x / 0 is 0 and x % 0 is x")


def _warn_overflow(ck: Checker, node: ast.Binary, left: int, right: int, folded: int, common: CType) -> None:
    number = underlying(common)
    if number is not None and number.signed:
        exact = _EXACT[node.op](wrap(left, number), wrap(right, number))
        if exact != folded:
            ck.warn(node, f"overflow: {exact} does not fit {shown(common)} and becomes {folded}")


# Assignment -------------------------------------------------------------------------------------------------------


def _assign(ck: Checker, node: ast.Assign) -> CType:
    target = ck.expr(node.target)
    modifiable(ck, node.target, target)
    result = unqualified(target)
    if node.op == "=":
        convert(ck, node.value, value(ck, node.value), result, "assigning to")
        return result
    op = node.op[:-1]
    right = value_of(ck, node.value)
    left = value_of(ck, node.target)
    common, made = operate(ck, node, op, left, right)
    if is_pointer(result) != is_pointer(made) or (is_pointer(right) and op in ("+", "-")):
        raise ck.fail(node, f"invalid operands to '{node.op}': {shown(left)} and {shown(right)}")
    ck.common[node] = common
    known = ck.constants.get(node.value)
    if known is not None and op in _RISKY:
        _warn_operand(ck, node, op, known, common)
    return result


# Conditional, comma -----------------------------------------------------------------------------------------------


def _conditional(ck: Checker, node: ast.Conditional) -> CType:
    condition(ck, node.condition)
    yes_node = node.condition if node.yes is None else node.yes
    if node.yes is not None:
        ck.expr(node.yes)
    ck.expr(node.no)
    yes, no = _branch(ck, yes_node), _branch(ck, node.no)
    common = _merge(ck, node, yes_node, yes, no)
    ck.common[node] = common
    known = ck.constants.get(node.condition)
    if known is not None:
        choice = ck.constants.get(yes_node if known else node.no)
        if choice is not None:
            folded = held(choice, common)
            if folded is not None:
                ck.constants[node] = folded
    return common


def _branch(ck: Checker, node: ast.Expr) -> CType:
    """Return the type that a branch has as an operand; it has been checked."""
    return _held_by_int(ck, node, decayed(ck.types[node]))


def _merge(ck: Checker, node: ast.Conditional, yes_node: ast.Expr, yes: CType, no: CType) -> CType:
    """Return the type that both branches are brought to."""
    brought = common_integer(yes, no)
    if brought is not None:
        return brought
    a, b = strip(yes), strip(no)
    if isinstance(a, Void) or isinstance(b, Void):
        return VOID
    if isinstance(a, Pointer) and isinstance(b, Pointer):
        return _merge_pointers(ck, node, yes_node, yes, no)
    if isinstance(a, Pointer) or isinstance(b, Pointer):
        pointer, other, number = (yes, no, node.no) if isinstance(a, Pointer) else (no, yes, yes_node)
        if is_integer(other):
            if ck.constants.get(number) != 0:
                ck.warn(node, f"the branches are a pointer and an integer: {shown(yes)} and {shown(no)}")
            return pointer
    if compatible(yes, no):
        return yes
    raise ck.fail(node, f"the branches have incompatible types: {shown(yes)} and {shown(no)}")


def _merge_pointers(ck: Checker, node: ast.Conditional, yes_node: ast.Expr, yes: CType, no: CType) -> CType:
    left, right = dereferenced(ck, node, yes), dereferenced(ck, node, no)
    a, b = strip(left), strip(right)
    if compatible(a, b):
        missing = qualifiers(right) - qualifiers(left)
        for qualifier in sorted(missing):
            left = Qualified(qualifier, left)
        return Pointer(left) if missing else yes
    if isinstance(a, Void):
        return no if ck.constants.get(yes_node) == 0 else yes
    if isinstance(b, Void):
        return yes if ck.constants.get(node.no) == 0 else no
    ck.warn(node, f"the branches point to different types: {shown(yes)} and {shown(no)}")
    return Pointer(VOID)


def _comma(ck: Checker, node: ast.Comma) -> CType:
    ck.expr(node.left)
    return decayed(ck.expr(node.right))


RULES: dict[type, Rule] = {
    ast.Unary: _unary,
    ast.Postfix: _step,
    ast.Binary: _binary,
    ast.Assign: _assign,
    ast.Conditional: _conditional,
    ast.Comma: _comma,
}

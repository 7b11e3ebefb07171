"""Operators: unary, binary, `?:`; what they take, what they give, and in which type they compute."""

from __future__ import annotations

from ...debuginfo.ctype import BOOL, INT64, UINT64, Array, Enum, Int, Pointer, Struct, strip
from ..source import diagnose
from . import ast
from .analysis import Type
from .stype import CASTABLE, NONE, Str, SType, Tuple, is_bool, is_void, same, type_name
from .typing_folding import fold_binary, fold_unary
from .typing_promotion import arithmetic_type, literal_type, loses, promote, settle
from .typing_state import CHECKS
from .typing_variables import find_variable, grow, integer_of, merge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .typing_folding import Literal
    from .typing_state import Typer

_COMPARISONS = frozenset(["==", "!=", "<", "<=", ">", ">="])
_LOGICAL = frozenset(["&&", "||"])


def literal_of(typer: Typer, node: ast.Node) -> Literal | None:
    """Return the value of a node that is a literal, or was folded to one; None for others, casts and enumerators."""
    value = typer.constants.get(node)
    if value is None or (isinstance(node, ast.Cast) and value is not True and value is not False):
        return None
    found = typer.type_of.get(node)
    return None if found is not None and isinstance(strip(found.ctype), Enum) else value


def constant_type(value: Literal) -> Type:
    """Return the type of a literal."""
    if isinstance(value, bool):
        return Type(BOOL)
    if isinstance(value, str):
        return Type(Str(len(value.encode("utf-8", "surrogateescape")) + 1))
    return Type(literal_type(value))


def put_constant(typer: Typer, node: ast.Expr, value: Literal) -> Type:
    """Say that `node` was folded to `value`."""
    typer.constant(node, value)
    return constant_type(value)


def number_type(ctype: CType) -> Int | Enum | None:
    """Return the integer type of a number, enum, boolean, or aggregate that stands for one number; None for others."""
    plain = strip(ctype)
    if isinstance(plain, CASTABLE):
        plain = integer_of(plain)
    return plain if isinstance(plain, (Int, Enum)) else None


# Binary -----------------------------------------------------------------------------------------------------------


def visit_binary(typer: Typer, node: ast.Binary) -> Type | None:
    """`a op b`."""
    left = typer.visit(node.left)
    right = typer.visit(node.right)
    a, b = literal_of(typer, node.left), literal_of(typer, node.right)
    if a is not None and b is not None:
        value = fold_binary(typer, node, a, b)
        if value is not None:
            return put_constant(typer, node, value)
    if left is None or right is None:
        return None
    return binary_type(typer, node, node.op, left, right, (node.left, node.right))


def binary_type(
    typer: Typer, node: ast.Node, op: str, left: Type, right: Type, sides: tuple[ast.Node, ast.Node]
) -> Type | None:
    """Return the type of `left op right`, and note in which type it is computed; also for `op=`."""
    a, b = number_type(left.ctype), number_type(right.ctype)
    if a is not None and b is not None:
        found = _numbers(typer, node, op, a, b, _join(left, right))
        common = typer.probe.operands.get(node)
        if common is not None:
            warn_conversion(typer, sides[0], left.ctype, common)
            warn_conversion(typer, sides[1], right.ctype, common)
        return found
    if isinstance(strip(left.ctype), Pointer) or isinstance(strip(right.ctype), Pointer):
        return _pointers(typer, node, op, left, right, sides)
    return _others(typer, node, op, left, right, sides)


def warn_conversion(typer: Typer, node: ast.Node, source: CType, target: CType) -> None:
    """Warn when an implicit conversion may change the value."""
    if loses(source, target):
        typer.warn(
            node,
            f"Expression of type: {type_name(source)} being cast to type: {type_name(target)}. This may cause unexpected "
            "results. Use an explicit cast to suppress this warning.",
        )


def _join(left: Type, right: Type) -> str:
    """The address space of a number computed from two, one of which may be an address."""
    if left.space and right.space and left.space != right.space:
        return "any"
    return left.space or right.space


def _numbers(typer: Typer, node: ast.Node, op: str, a: Int | Enum, b: Int | Enum, space: str) -> Type:
    if op in _LOGICAL:
        return Type(BOOL)
    if is_bool(a) or is_bool(b):
        if is_bool(a) and is_bool(b):
            return Type(BOOL)
        return Type(BOOL) if op in _COMPARISONS else Type(_compute(typer, node, op, a, b), space)
    if op in _COMPARISONS:
        common = promote(a, b)
        assert common is not None
        typer.probe.operands[node] = settle(common)
        return Type(BOOL)
    return Type(_compute(typer, node, op, a, b), space)


def _compute(typer: Typer, node: ast.Node, op: str, a: Int | Enum, b: Int | Enum) -> CType:
    """Arithmetic is done in 64 bits; a difference has a sign whatever it is made of."""
    ctype = INT64 if op == "-" else arithmetic_type(a, b)
    if op in ("/", "%") and ctype is INT64 and not same(a, b):
        typer.warn(
            node,
            f"signed operands for '{op}' can lead to undefined behavior (cast to unsigned to silence warning)",
        )
    typer.probe.operands[node] = ctype
    return ctype


def _invalid(typer: Typer, node: ast.Node, op: str, left: Type, right: Type) -> None:
    typer.error(
        node,
        f"The {op} operator can not be used on expressions of types {type_name(left.ctype)}, {type_name(right.ctype)}",
    )


def _pointers(
    typer: Typer, node: ast.Node, op: str, left: Type, right: Type, sides: tuple[ast.Node, ast.Node]
) -> Type | None:
    a, b = strip(left.ctype), strip(right.ctype)
    if isinstance(a, Pointer) and isinstance(b, Pointer):
        if op in _COMPARISONS:
            _warn_distinct(typer, node, a, b, sides)
        elif op not in _LOGICAL:
            _invalid(typer, node, op, left, right)
            return None
        return Type(BOOL)
    pointer, other = (left, b) if isinstance(a, Pointer) else (right, a)
    if not isinstance(other, (Int, Enum)) or (op == "-" and pointer is right):
        _invalid(typer, node, op, left, right)
        return None
    if op in ("+", "-"):
        return Type(pointer.ctype, "kernel" if pointer.space == "btf" else pointer.space)
    if op in _COMPARISONS or op in _LOGICAL:
        return Type(BOOL)
    _invalid(typer, node, op, left, right)
    return None


def _warn_distinct(typer: Typer, node: ast.Node, a: Pointer, b: Pointer, sides: tuple[ast.Node, ast.Node]) -> None:
    if same(a.target, b.target) or is_void(a.target) or is_void(b.target):
        return
    names = type_name(a.target), type_name(b.target)
    notes = (
        diagnose(sides[0].span, f"left ({names[0]})", severity="WARNING"),
        diagnose(sides[1].span, f"right ({names[1]})", severity="WARNING"),
    )
    typer.warn(node, f"comparison of distinct pointer types: {names[0]}, {names[1]}", notes=notes)


def _others(
    typer: Typer, node: ast.Node, op: str, left: Type, right: Type, sides: tuple[ast.Node, ast.Node]
) -> Type | None:
    """Strings, tuples, records, arrays, and the values that only user space can read: they compare as equal or not."""
    a, b = strip(left.ctype), strip(right.ctype)
    if isinstance(a, Array) and isinstance(b, Array):
        return _arrays(typer, node, op, a, b)
    if not _comparable(a, b):
        names = type_name(a), type_name(b)
        notes = (
            diagnose(sides[0].span, f"left ({names[0]})"),
            diagnose(sides[1].span, f"right ({names[1]})"),
        )
        typer.error(node, f"Type mismatch for '{op}': comparing {names[0]} with {names[1]}", CHECKS, notes=notes)
        return None
    if op not in ("==", "!="):
        typer.error(
            node, f"The {op} operator can not be used on expressions of types {type_name(a)}, {type_name(b)}", CHECKS
        )
        return None
    return Type(BOOL)


def _comparable(a: CType, b: CType) -> bool:
    if isinstance(a, Tuple) or isinstance(b, Tuple):
        return promote(a, b) is not None
    if isinstance(a, Struct) or isinstance(b, Struct):
        return same(a, b)
    return type(a) is type(b) and isinstance(a, SType)


def _arrays(typer: Typer, node: ast.Node, op: str, a: Array, b: Array) -> Type | None:
    before = len(typer.errors)
    if op not in ("==", "!="):
        typer.error(node, f"The {op} operator cannot be used on arrays.", CHECKS)
    if a.count != b.count:
        typer.error(node, "Only arrays of same size support comparison operators.", CHECKS)
    if not isinstance(strip(a.element), Int) or not same(a, b):
        typer.error(node, "Only arrays of same sized integer support comparison operators.", CHECKS)
    return Type(BOOL) if len(typer.errors) == before else None


# Unary ------------------------------------------------------------------------------------------------------------


def visit_unary(typer: Typer, node: ast.Unary) -> Type | None:
    """`op a`, and `a++`, `a--`."""
    if node.op in ("++", "--"):
        return _step(typer, node)
    if node.op == "&":
        return _address(typer, node)
    found = typer.visit(node.operand)
    value = literal_of(typer, node.operand)
    if value is not None and node.op != "*":
        folded = fold_unary(typer, node, value)
        if folded is not None:
            return put_constant(typer, node, folded)
    if found is None:
        return None
    if node.op == "*":
        from .typing_fields import dereference

        return dereference(typer, node, found)
    plain = number_type(found.ctype)
    if node.op == "!" and plain is None and isinstance(strip(found.ctype), Pointer):
        return Type(BOOL)  # refused by bpftrace 0.27, harmless
    if plain is None or (is_bool(plain) and node.op != "!"):
        _refuse(typer, node, found)
        return None
    if node.op == "!":
        return Type(BOOL)
    return Type(INT64 if plain.signed else UINT64, found.space)


def _refuse(typer: Typer, node: ast.Unary, found: Type) -> None:
    typer.error(node, f"The {node.op} operator can not be used on expressions of type '{type_name(found.ctype)}'")


def _address(typer: Typer, node: ast.Unary) -> Type | None:
    """`&$x`, `&@m`: a pointer to memory of the program."""
    target = node.operand
    if not isinstance(target, (ast.Variable, ast.Map, ast.MapAccess)):
        typer.error(node, "The & operator must be applied to a map or variable")
        return None
    if isinstance(target, ast.Variable):
        info = find_variable(typer, target.name)
        if info is not None:
            info.assigned = True  # somebody may assign through the pointer
    found = typer.visit(target)
    return None if found is None else Type(Pointer(found.ctype), "own")


def _step(typer: Typer, node: ast.Unary) -> Type | None:
    """`++` and `--`: the variable or map becomes a number of 64 bits."""
    from .typing_maps import grow_value, visit_map_target

    target = node.operand
    if isinstance(target, ast.Variable):
        found = typer.visit(target)
        info = find_variable(typer, target.name)
        if info is None or found is None:
            return None
        info.assigned = True
        if info.declared:
            return found
        return info.type if grow(typer, info, _stepped(node, found), node) else None
    if not isinstance(target, (ast.Map, ast.MapAccess)):
        typer.error(node, f"The {node.op} operator must be applied to a map or variable")
        return None
    state = visit_map_target(typer, target)
    if state is None:
        return None
    state.written = True
    result = Type(literal_type(1 << 62)) if state.value is None else _stepped(node, state.value)
    if not grow_value(typer, state, result, node):
        return None
    found = state.value or result
    typer.type_of[target] = found
    return Type(settle(found.ctype), found.space)


def _stepped(node: ast.Unary, found: Type) -> Type:
    """What a variable or map of this type becomes by a step: signed by `--`, as a difference is."""
    plain = strip(found.ctype)
    if isinstance(plain, Pointer):
        return found
    signed = node.op == "--" or (isinstance(plain, (Int, Enum)) and plain.signed)
    return Type(INT64 if signed else UINT64, found.space)


# Choices ----------------------------------------------------------------------------------------------------------


def visit_ternary(typer: Typer, node: ast.Ternary) -> Type | None:
    """`c ? a : b`, `a ?: b`. Of a choice that is made already, only the branch taken has types."""
    condition = visit_condition(typer, node.condition, node)
    value = literal_of(typer, node.condition)
    if value is not None:
        taken = (node.then or node.condition) if value else node.otherwise
        found = condition if taken is node.condition else typer.visit(taken)
        folded = literal_of(typer, taken)
        if folded is not None:
            typer.constant(node, folded)
        return found
    then = condition if node.then is None else typer.visit(node.then)
    otherwise = typer.visit(node.otherwise)
    return join_branches(typer, node, then, otherwise)


def visit_condition(typer: Typer, node: ast.Expr, whole: ast.Node) -> Type | None:
    """The condition of `whole`: a number, boolean, pointer, or literal string."""
    found = typer.visit(node)
    if found is None:
        return None
    plain = strip(found.ctype)
    literal = isinstance(plain, Str) and literal_of(typer, node) is not None
    if not literal and not isinstance(plain, (Int, Enum, Pointer, *CASTABLE)):
        from .typing_calls import kind_name

        typer.error(whole, f"Invalid condition: {kind_name(plain)}")
    return found


def _read_out(found: Type) -> Type:
    """An aggregation that stands for one number is read as that number."""
    plain = strip(found.ctype)
    return Type(integer_of(plain)) if isinstance(plain, CASTABLE) else found


def join_branches(typer: Typer, node: ast.Node, then: Type | None, otherwise: Type | None) -> Type | None:
    """Return the type that holds the values of both branches."""
    if then is None or otherwise is None:
        return None
    if then.ctype is NONE or otherwise.ctype is NONE or is_void(then.ctype) or is_void(otherwise.ctype):
        return then if then.ctype is otherwise.ctype else Type(NONE)
    then, otherwise = _read_out(then), _read_out(otherwise)
    ctype = promote(then.ctype, otherwise.ctype)
    if ctype is None:
        names = type_name(then.ctype), type_name(otherwise.ctype)
        typer.error(
            node,
            f"Branches must return the same type or compatible types: have '{names[0]}' and '{names[1]}'",
        )
        return None
    return merge(ctype, then, otherwise)

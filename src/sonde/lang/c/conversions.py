"""What may become what: conversions by assignment, C11 6.5.16.1, with the warnings of a C compiler.

Pointers that differ in sign only pass in silence, in BCC's dialect also those that lose `const`.
"""

from __future__ import annotations

from ...debuginfo.ctype import Float, Forward, FuncProto, Int, Pointer, Struct, Void, sizeof, strip
from .arithmetic import (
    compatible,
    decayed,
    is_incomplete,
    is_integer,
    is_scalar,
    is_void,
    qualifiers,
    shown,
    underlying,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from . import ast
    from .checker import Checker


def value(ck: Checker, node: ast.Expr) -> CType:
    """Return the type of the value of an expression: arrays and functions decay. Raises CompileError when it has none."""
    ctype = decayed(ck.expr(node))
    if isinstance(strip(ctype), Void):
        raise ck.fail(node, "an expression of type 'void' has no value")
    if isinstance(strip(ctype), Float):
        raise no_floats(ck, node)
    return ctype


def no_floats(ck: Checker, node: ast.Node) -> Exception:
    """Make the error that BPF has no floating-point numbers."""
    return ck.fail(node, "BPF has no floating-point numbers", hint="scale the value and use an integer")


def condition(ck: Checker, node: ast.Expr) -> None:
    """Check an expression that is tested against zero."""
    ctype = value(ck, node)
    if not is_scalar(ctype):
        raise ck.fail(node, f"a condition must be a number or a pointer, not {shown(ctype)}")


def convert(ck: Checker, node: ast.Expr, source: CType, target: CType, doing: str) -> None:
    """Check that the value of `node`, of type `source`, may become `target` by assignment.

    `doing` begins a message: "initializing", "assigning to", "returning", "passing to". Raises CompileError.
    """
    if source is target:
        return
    a, b = strip(source), strip(target)
    if isinstance(b, Float) or isinstance(a, Float):
        raise no_floats(ck, node)
    if is_integer(a) and is_integer(b):
        _warn_changed_value(ck, node, target)
    elif isinstance(b, Pointer) and isinstance(a, Pointer):
        if not _pointers_agree(a, b):
            _warn_pointers(ck, node, source, target, doing)
        elif ck.dialect != "bcc" and "const" in qualifiers(a.target) and "const" not in qualifiers(b.target):
            ck.warn(node, f"{doing} {shown(target)} from a pointer of type {shown(source)} discards 'const'")
    elif isinstance(b, Pointer) and is_integer(a):
        if ck.constants.get(node) != 0:
            hint = "put it into a variable, and pass the variable's address" if doing == "passing to" else ""
            ck.warn(node, f"{doing} {shown(target)} makes a pointer of an integer of type {shown(source)}", hint=hint)
    elif is_integer(b) and isinstance(a, Pointer):
        if not (isinstance(b, Int) and b.encoding == "bool"):
            ck.warn(node, f"{doing} {shown(target)} makes an integer of a pointer of type {shown(source)}")
    elif not (isinstance(b, (Struct, Forward)) and compatible(a, b)):
        raise ck.fail(node, f"{doing} {shown(target)} from an expression of incompatible type {shown(source)}")


def _warn_changed_value(ck: Checker, node: ast.Expr, target: CType) -> None:
    """Warn about a constant that the target cannot hold, neither as it is nor as the same bits."""
    constant = ck.constants.get(node)
    if constant is None:
        return
    number = underlying(target)
    if number is None or number.encoding == "bool":
        return
    bits = 8 * number.size
    if (constant >> bits and constant < -1 << (bits - 1)) or (constant > 0 and constant >> bits):
        kept = constant & ((1 << bits) - 1)
        if number.signed and kept >> (bits - 1):
            kept -= 1 << bits
        ck.warn(node, f"conversion to {shown(target)} changes the value from {constant} to {kept}")


def _pointers_agree(a: Pointer, b: Pointer) -> bool:
    """Whether one pointer may become the other in silence."""
    x, y = strip(a.target), strip(b.target)
    if isinstance(x, Void) or isinstance(y, Void) or compatible(x, y):
        return True
    if isinstance(x, Pointer) and isinstance(y, Pointer):
        return _pointers_agree(x, y)
    return is_integer(x) and is_integer(y) and sizeof(x) == sizeof(y)


def _warn_pointers(ck: Checker, node: ast.Expr, source: CType, target: CType, doing: str) -> None:
    ck.warn(node, f"{doing} {shown(target)} from an incompatible pointer of type {shown(source)}")


def check_cast(ck: Checker, node: ast.Cast, source: CType, target: CType) -> None:
    """Check an explicit conversion. Raises CompileError."""
    if is_void(target):
        return
    if isinstance(strip(target), Float) or isinstance(strip(source), Float):
        raise no_floats(ck, node)
    a, b = strip(source), strip(target)
    if is_scalar(a) and is_scalar(b):
        return
    if isinstance(b, Struct) and compatible(a, b):
        return
    if isinstance(b, Struct) and b.kind == "union" and any(compatible(m.ctype, a) for m in b.members):
        return  # GNU: a value as a union that has a member of its type
    if isinstance(b, FuncProto) or not is_scalar(b):
        raise ck.fail(node, f"{shown(target)} is no type to cast to: a number or a pointer is required")
    raise ck.fail(node, f"a value of type {shown(source)} cannot be cast to {shown(target)}")


def complete_object(ck: Checker, at: ast.Node, ctype: CType, what: str) -> None:
    """Require a type that objects can have. Raises CompileError; `what` names the use."""
    if is_incomplete(ctype):
        raise ck.fail(at, f"{what} has incomplete type {shown(ctype)}", hint=_incomplete_hint(ck, ctype))


def _incomplete_hint(ck: Checker, ctype: CType) -> str:
    inner = strip(ctype)
    if isinstance(inner, (Forward, Struct)) and inner.name:
        if f"{inner.kind} {inner.name}" in ck.text_tags:
            return "its definition comes later, or is this one"
        from .types_decl import did_you_mean

        close = did_you_mean(ck.environment.close_types(inner.kind, inner.name, _tags(ck, inner.kind)))
        return f"neither the text nor the kernel's BTF defines {inner.kind} {inner.name}" + (
            f"; {close}" if close else ""
        )
    return ""


def _tags(ck: Checker, kind: str) -> list[str]:
    """The names of the structs, unions or enumerations that the text defines."""
    return [tag.partition(" ")[2] for tag in ck.text_tags if tag.startswith(f"{kind} ")]


def dereferenced(ck: Checker, at: ast.Node, ctype: CType) -> CType:
    """Return what a pointer value of this type points to. Raises CompileError when it is no pointer."""
    inner = strip(ctype)
    if not isinstance(inner, Pointer):
        raise ck.fail(at, f"indirection requires a pointer, not {shown(ctype)}")
    return inner.target

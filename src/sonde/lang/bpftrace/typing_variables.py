"""Scratch variables: scopes, declarations, and types that grow with what is assigned."""

from __future__ import annotations

from ...debuginfo.ctype import INT64, UINT64, Array, Struct, sizeof, strip
from ..source import Place, diagnose
from . import ast
from .analysis import Type, VariableInfo
from .stype import CASTABLE, Aggregate, Buffer, Count, NoneT, Str, is_void, same, type_name
from .typing_promotion import promote
from .typing_state import CALLS, CHECKS, Assignment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from ...errors import Diagnostic, Span
    from .typing_state import Typer


def push_scope(typer: Typer) -> None:
    """Begin a block."""
    typer.scopes.append({})


def pop_scope(typer: Typer) -> None:
    """End a block: its variables are gone."""
    for name, info in typer.scopes.pop().items():
        typer.gone.add(name)
        if not info.assigned and isinstance(info.node, ast.Let):
            typer.warn(info.node, f"Variable {name} was never assigned to.")


def find_variable(typer: Typer, name: str) -> VariableInfo | None:
    """Return the variable that `name` means here."""
    for scope in typer.scopes:
        if name in scope:
            return scope[name]
    return None


def make_variable(typer: Typer, name: str, node: ast.Node) -> VariableInfo:
    """Make a variable in the innermost scope, or find the one that an earlier walk made for this node."""
    known = typer.group.variables
    info = known.get(node)
    if info is None:
        info = known[node] = VariableInfo(name, len(known), node)
    typer.scopes[-1][name] = info
    return info


def hoist(typer: Typer) -> None:
    """Begin a program: variables that it uses outside of the blocks that assign them belong to the whole of it."""
    for name in sorted(typer.group.hoisted):
        make_variable(typer, name, typer.group.hoisted_at[name])


def visit_variable(typer: Typer, node: ast.Variable) -> Type | None:
    """A variable is read."""
    info = find_variable(typer, node.name)
    if info is None:
        if node.name in typer.gone:
            typer.group.hoisted.add(node.name)
            typer.group.hoisted_at[node.name] = node
            typer.changed = True
            return None
        typer.error(node, f"Undefined or undeclared variable: {node.name}", CALLS)
        return None
    if info.node is node:
        hint = f"declare it before the block: let {node.name};"
        typer.warn(node, f"Variable {node.name} is used outside of the block that assigns it", hint=hint)
    typer.probe.variables[node] = info
    if not info.assigned and not typer.meta and not typer.loops:
        typer.warn(node, f"Variable used before it was assigned: {node.name}")
    info.used = True
    typer.seen[info] = info.type
    if info.type is None:
        typer.unresolved.append(node)
    return info.type


def assign(typer: Typer, variable: ast.Variable, value: ast.Expr, type_: Type | None, node: ast.Node) -> None:
    """`variable` gets the value of type `type_`; `node` is the whole statement."""
    info = find_variable(typer, variable.name)
    if info is None:
        info = make_variable(typer, variable.name, node)
    typer.probe.variables[variable] = info
    info.assigned = True
    if type_ is None:
        return
    plain = scratch_type(typer, type_, node)
    if plain is not None and grow(typer, info, plain, node):
        typer.assignments.append(Assignment(typer.group, node, value, plain, info, variable.name))


def scratch_type(typer: Typer, type_: Type, node: ast.Node) -> Type | None:
    """Return the type that a value has in a variable; an error if it can be in none."""
    ctype = type_.ctype
    if isinstance(ctype, Aggregate):
        if isinstance(ctype, CASTABLE):
            return Type(integer_of(ctype))
        typer.error(node, f"Value '{type_name(ctype)}' cannot be assigned to a scratch variable.")
        return None
    if isinstance(ctype, NoneT):
        typer.error(node, "Invalid expression for assignment", CHECKS)
        return None
    if is_void(ctype):
        typer.error(node, f"Value '{type_name(ctype)}' cannot be assigned to a scratch variable.")
        return None
    return own(type_)


def integer_of(ctype: Aggregate) -> CType:
    """Return the type of the one number that count(), sum() and their like stand for."""
    return UINT64 if isinstance(ctype, Count) or not ctype.signed else INT64


def grow(typer: Typer, info: VariableInfo, type_: Type, node: ast.Node) -> bool:
    """Let the type of a variable hold values of `type_` too; False after an error."""
    before = info.type
    if info.declared or (before is not None and before.ctype is type_.ctype and before.space == type_.space):
        return True
    ctype = promote(before.ctype if before else None, type_.ctype)
    if ctype is None:
        assert before is not None
        typer.error(
            node,
            f"Type mismatch for {info.name}: trying to assign value of type '{type_name(type_.ctype)}' "
            f"when variable already has a type '{type_name(before.ctype)}'",
        )
        return False
    after = merge(ctype, before, type_)
    if not same_type(before, after):
        info.type = after
        if info in typer.seen:
            typer.changed = True
    return True


_LEADS = {"ctx": "kernel", "btf": "kernel", "own": ""}


def own(type_: Type) -> Type:
    """Return the type of a value once it was copied into a variable, map or tuple; an aggregation becomes its number.

    What the verifier knows of a trusted pointer does not outlive all that happens to a variable.
    """
    ctype = strip(type_.ctype)
    if isinstance(ctype, CASTABLE):
        return Type(integer_of(ctype))
    if isinstance(ctype, (Struct, Array, Str)):
        leads = type_.leads or _LEADS.get(type_.space, type_.space)
        return Type(type_.ctype, "", leads)
    return Type(type_.ctype, "kernel", type_.leads) if type_.space == "btf" else type_


def merge(ctype: CType, a: Type | None, b: Type) -> Type:
    """Return the type of what may be a value of either; `ctype` holds both."""
    if a is None:
        return b if b.ctype is ctype else Type(ctype, b.space, b.leads)
    return Type(ctype, merge_spaces(a.space, b.space), merge_spaces(a.leads, b.leads))


def same_type(a: Type | None, b: Type) -> bool:
    """Tell whether nothing has changed; that a number got a sign is a change."""
    if a is None or a.space != b.space or a.leads != b.leads:
        return False
    return a.ctype is b.ctype or (same(a.ctype, b.ctype) and type(a.ctype) is type(b.ctype))


def merge_spaces(a: str, b: str) -> str:
    """Return the address space of a value that may come from either."""
    if a == b or not b:
        return a
    return b if not a else "any"


def visit_let(typer: Typer, node: ast.Let) -> None:
    """`let $x[: T][= e];`"""
    name = node.variable.name
    value = typer.visit(node.value) if node.value is not None else None
    known = find_variable(typer, name)
    if known is not None and name not in typer.group.hoisted:
        notes = (origin_note(known),)
        message = f"Variable {name} was already declared. Variable shadowing is not allowed."
        typer.error(Declaration(head_of(node)), message, CALLS, notes=notes)
        return
    info = known or make_variable(typer, name, node)
    typer.probe.variables[node.variable] = info
    if node.type is not None:
        _declare(typer, info, node.type)
    if node.value is not None:
        assign(typer, node.variable, node.value, value, node)


class Declaration(ast.Node, eq=False):
    """`let $x` without what follows, as the place of a diagnostic."""


def head_of(node: ast.Let) -> Span:
    """Return the place of `let $x` without what follows."""
    start, end = node.span, node.variable.span
    if isinstance(start, Place) and isinstance(end, Place):
        return Place(start.source, start.start, end.end, start.call)
    return start


def origin_note(info: VariableInfo) -> Diagnostic:
    node = info.node
    what = "initial declaration" if isinstance(node, ast.Let) else "initial assignment"
    if isinstance(node, (ast.ForMap, ast.ForRange)):
        what = "loop variable"
        node = node.variable
    return diagnose(head_of(node) if isinstance(node, ast.Let) else node.span, f"This is the {what}.")


def _declare(typer: Typer, info: VariableInfo, name: ast.TypeName) -> None:
    from .typing_names import resolve_type

    ctype = resolve_type(typer, name)
    if ctype is None:
        return
    if isinstance(ctype, (Aggregate, NoneT)) or is_void(ctype):
        typer.error(name, f"Invalid variable declaration type: {type_name(ctype)}", CHECKS)
        return
    if isinstance(ctype, (Str, Buffer)) and sizeof(ctype) == 0:
        return  # the assignments say how long it is
    info.declared = True
    if info.type is None:
        info.type = Type(ctype, default_space(typer.kind))


def default_space(kind: str) -> str:
    """Return where an address leads that says nothing of itself, in probes of type `kind`."""
    if kind in _KERNEL:
        return "kernel"
    return "user" if kind in _USER else "any"


_KERNEL = frozenset(["kprobe", "kretprobe", "fentry", "fexit", "tracepoint", "iter", "rawtracepoint"])
_USER = frozenset(["uprobe", "uretprobe", "usdt"])

"""Statements: assignments, jumps, blocks; loops are in `lower_loops`."""

from __future__ import annotations

from ...compiler.ir import I64, Const
from ...debuginfo.ctype import Pointer, sizeof
from . import ast
from .lower_branches import run
from .lower_expr import arithmetic, evaluate, pointer_arithmetic, store, variable_place, wide
from .lower_values import ir_type, is_scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .lower_frame import Frame


def run_statements(f: Frame, statements: Sequence[ast.Statement]) -> None:
    """Lower statements in their order; what follows a jump is not reached."""
    for statement in statements:
        f.b.span = statement.span
        STATEMENTS[type(statement)](f, statement)
        if f.b.closed:
            return


def _expression(f: Frame, node: ast.ExprStatement) -> None:
    run(f, node.expr)


def _let(f: Frame, node: ast.Let) -> None:
    if node.value is not None:
        store(f, node.value, variable_place(f, node.variable, assigned=True))
        return
    if f.probe.variables[node.variable].type is not None:
        place = variable_place(f, node.variable, assigned=True)
        f.clear(place.pointer, sizeof(place.ctype), place.offset)


def _assign(f: Frame, node: ast.Assign) -> None:
    target = node.target
    if isinstance(target, ast.Identifier):  # `_ = e;`
        run(f, node.value)
    elif isinstance(target, ast.Variable):
        _assign_variable(f, node, target)
    elif node.op:
        from .lower_maps import assign_operation

        assign_operation(f, node)
    else:
        from .lower_maps import assign

        assign(f, node)


def _assign_variable(f: Frame, node: ast.Assign, target: ast.Variable) -> None:
    if node.op:
        _operate_variable(f, node, target)
        return
    info = f.probe.variables[target]
    fresh = info not in f.variables
    place = variable_place(f, target, assigned=True)
    if is_scalar(place.ctype) or fresh or not _mentions(node.value, target.name):
        store(f, node.value, place)
        return
    temp = f.temp(place.ctype)  # the old value is read while the new one is written
    store(f, node.value, temp)
    f.put(temp, place)


def _mentions(node: ast.Node, name: str) -> bool:
    from .rewrite import iter_nodes

    return any(isinstance(n, ast.Variable) and n.name == name for n in iter_nodes(node))


def _operate_variable(f: Frame, node: ast.Assign, target: ast.Variable) -> None:
    place = variable_place(f, target)
    right = f.scalar(evaluate(f, node.value))
    old = f.load(place)
    if isinstance(place.ctype, Pointer):
        value = pointer_arithmetic(f, node.op, old, right).value
    else:
        ctype = f.operands.get(node) or place.ctype
        value = f.resize(arithmetic(f, node.op, old, right, ctype, node), ctype, ir_type(place.ctype))
    f.store(place, value)


def _jump(f: Frame, node: ast.Jump) -> None:
    if node.kind == "return":
        value = wide(f, node.value) if node.value is not None else Const(0, I64)
        f.finish(value)
    elif node.kind == "break":
        f.loops[-1].leave()
    else:
        f.loops[-1].next()


def _nothing(f: Frame, node: ast.Statement) -> None:
    """An import inside a block has done all it does."""


def _loop(f: Frame, node: ast.Statement) -> None:
    from .lower_loops import LOOPS

    LOOPS[type(node)](f, node)


STATEMENTS: dict[type, Callable[..., None]] = {
    ast.ExprStatement: _expression,
    ast.Let: _let,
    ast.Assign: _assign,
    ast.Jump: _jump,
    ast.LocalImport: _nothing,
    ast.While: _loop,
    ast.ForRange: _loop,
    ast.ForMap: _loop,
    ast.Unroll: _loop,
}

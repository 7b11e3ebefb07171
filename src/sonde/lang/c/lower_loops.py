"""Loops: as they stand, or unrolled where `#pragma unroll` asks for it and the number of rounds is a constant.

A `for` is unrolled when its variable starts at a constant, is compared with a constant, moves by a constant, and nothing in the body
changes it. Other loops stay loops, whose bound the verifier finds.
"""

from __future__ import annotations

from ...compiler.ir import Const
from ...debuginfo.ctype import Int, strip
from . import ast
from .analysis import Variable
from .lower_branches import branch_on
from .lower_expressions import run
from .lower_statements import note_cleanups, run_statement
from .values import ir_type
from .walk import iter_nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .lower_frame import Frame

_ROUNDS = 4096  # that are unrolled at most
_COMPARE = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "!=": lambda a, b: a != b,
}


def lower_loop(f: Frame, node: ast.Node) -> None:
    """Lower `for`, `while` or `do`."""
    if isinstance(node, ast.For):
        depth = len(f.cleanups)
        _for(f, node)
        f.end_scope(depth)
    elif isinstance(node, ast.While):
        _tested_first(f, node.condition, node.body, None)
    elif isinstance(node, ast.DoWhile):
        _tested_last(f, node)


def _for(f: Frame, node: ast.For) -> None:
    if isinstance(node.init, ast.Declaration):
        run_statement(f, node.init)
        note_cleanups(f, node, node.init)
    elif node.init is not None:
        run(f, node.init)
    rounds = _count_rounds(f, node) if node.unroll not in (0, 1) else None
    if rounds is not None:
        _unrolled(f, node, *rounds)
        return
    from .lower_pointer_loops import find_walk, lower_walk

    walk = find_walk(f, node)
    if walk is not None:
        lower_walk(f, node, walk)
    else:
        _tested_first(f, node.condition, node.body, node.step)


def _tested_first(f: Frame, condition: ast.Node | None, body: ast.Node, step: ast.Node | None) -> None:
    b = f.b
    head, inside, again, done = b.new_block("loop"), b.new_block("body"), b.new_block("again"), b.new_block("done")
    b.jump(head)
    b.at(head)
    if condition is None:
        b.jump(inside)
    else:
        b.span = condition.span
        branch_on(f, condition, inside, done)
    b.at(inside)
    f.enter(again, done)
    run_statement(f, body)
    f.leave.pop()
    b.jump(again)
    b.at(again)
    if step is not None:
        b.span = step.span
        run(f, step)
    b.jump(head)
    b.at(done)


def _tested_last(f: Frame, node: ast.DoWhile) -> None:
    b = f.b
    if f.program.analysis.constants.get(node.condition) == 0:  # do { … } while (0)
        done = b.new_block("done")
        f.enter(done, done)
        run_statement(f, node.body)
        f.leave.pop()
        b.jump(done)
        b.at(done)
        return
    inside, test, done = b.new_block("body"), b.new_block("test"), b.new_block("done")
    b.jump(inside)
    b.at(inside)
    f.enter(test, done)
    run_statement(f, node.body)
    f.leave.pop()
    b.jump(test)
    b.at(test)
    b.span = node.condition.span
    branch_on(f, node.condition, inside, done)
    b.at(done)


# Unrolling --------------------------------------------------------------------------------------------------------


def _count_rounds(f: Frame, node: ast.For) -> tuple[Variable, list[int], int] | None:
    """Return the variable of a loop, its values in the rounds, and that behind them; None where they are not constant."""
    start = _start(f, node.init)
    if start is None or not isinstance(node.condition, ast.Binary) or node.step is None:
        return None
    variable, value = start
    limit = f.program.analysis.constants.get(node.condition.right)
    step = step_of(f, node.step, variable)
    compare = _COMPARE.get(node.condition.op)
    if limit is None or not step or compare is None or variable_of(f, node.condition.left) is not variable:
        return None
    if is_changed(f, node.body, variable) or is_aliased(f, variable):
        return None
    values: list[int] = []
    while compare(value, limit):
        values.append(value)
        value += step
        if len(values) > _ROUNDS:
            return None
    return variable, values, value


def _start(f: Frame, init: ast.Node | None) -> tuple[Variable, int] | None:
    constants = f.program.analysis.constants
    if isinstance(init, ast.Assign) and init.op == "=":
        variable = variable_of(f, init.target)
        value = constants.get(init.value)
    elif isinstance(init, ast.Declaration) and len(init.declarators) == 1:
        symbol = f.program.analysis.symbols.get(init.declarators[0].declarator)
        variable = symbol if isinstance(symbol, Variable) else None
        value = constants.get(variable.init[0].value) if variable is not None and variable.init else None
    else:
        return None
    if variable is None or value is None or not isinstance(strip(variable.ctype), Int):
        return None
    return variable, value


def step_of(f: Frame, node: ast.Node, variable: Variable) -> int:
    """Return by how much the variable moves in each round; 0 where that is not known."""
    if isinstance(node, (ast.Unary, ast.Postfix)) and node.op in ("++", "--"):
        return (1 if node.op == "++" else -1) if variable_of(f, node.operand) is variable else 0
    if isinstance(node, ast.Assign) and node.op in ("+=", "-=") and variable_of(f, node.target) is variable:
        amount = f.program.analysis.constants.get(node.value, 0)
        return amount if node.op == "+=" else -amount
    return 0


def variable_of(f: Frame, node: ast.Node) -> Variable | None:
    """Return the variable that an expression is the name of, or None."""
    symbol = f.program.analysis.symbols.get(node) if isinstance(node, ast.Name) else None
    return symbol if isinstance(symbol, Variable) else None


def is_changed(f: Frame, body: ast.Node, variable: Variable) -> bool:
    """Tell whether the body may change the variable, or holds labels, which cannot be there twice."""
    for node in iter_nodes(body):
        if isinstance(node, (ast.Label, ast.Asm)):
            return True
        target = node.target if isinstance(node, ast.Assign) else None
        if isinstance(node, (ast.Unary, ast.Postfix)) and node.op in ("++", "--", "&"):
            target = node.operand
        if target is not None and variable_of(f, target) is variable:
            return True
    return False


def is_aliased(f: Frame, variable: Variable) -> bool:
    """Tell whether the function takes the address of a variable somewhere: then anything may change it."""
    definition = f.symbol.definition
    if definition is None:
        return True
    nodes = iter_nodes(definition.body)
    return any(isinstance(n, ast.Unary) and n.op == "&" and variable_of(f, n.operand) is variable for n in nodes)


def _unrolled(f: Frame, node: ast.For, variable: Variable, values: list[int], last: int) -> None:
    from .lower_places import variable_place

    b = f.b
    place = variable_place(f, variable)
    type_ = ir_type(variable.ctype)
    done = b.new_block("done")
    for value in values:
        f.store_value(place, Const(value, type_))
        again = b.new_block("round")
        f.enter(again, done)
        run_statement(f, node.body)
        f.leave.pop()
        b.jump(again)
        b.at(again)
    f.store_value(place, Const(last, type_))
    b.jump(done)
    b.at(done)

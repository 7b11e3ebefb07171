"""Statements to blocks: declarations, choices, labels, returns. Loops are in `lower_loops`."""

from __future__ import annotations

from ...compiler.ir import Const
from ...debuginfo.ctype import sizeof, strip
from . import ast
from .analysis import Variable
from .lower_branches import branch_on
from .lower_expressions import constant_of, evaluate, run
from .lower_frame import failure
from .lower_numbers import arithmetic, convert, promoted, truth
from .values import Place, Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Block
    from .analysis import CaseLabel
    from .lower_frame import Frame
    from .values import Operand

_NEAR = 2  # values in a range that are cheaper to compare one by one
_MOST_WIDE = 64  # values of 128 bits in a range, which are compared one by one


def run_body(f: Frame, node: ast.Compound) -> None:
    """Lower the body of a function, whose parameters have their values."""
    if f.walkers:
        from .walkers import start_walkers

        start_walkers(f)
    run_statement(f, node)


def run_statement(f: Frame, node: ast.Node) -> None:
    """Lower one statement."""
    f.b.span = node.span
    STATEMENTS[type(node)](f, node)


def _compound(f: Frame, node: ast.Compound) -> None:
    depth = len(f.cleanups)
    for item in node.items:
        run_statement(f, item)
        note_cleanups(f, node, item)
    f.end_scope(depth)


def note_cleanups(f: Frame, scope: ast.Node, item: ast.Node | None) -> None:
    """Remember what a declaration wants to be called at the end of the scope."""
    cleanups = f.program.analysis.cleanups
    for each in item.declarators if cleanups and isinstance(item, ast.Declaration) else ():
        variable = f.program.analysis.symbols.get(each.declarator)
        if isinstance(variable, Variable) and variable in cleanups:
            f.cleanups.append((scope, cleanups[variable]))


def _expression(f: Frame, node: ast.ExprStatement) -> None:
    if node.expr is not None:
        run(f, node.expr)


def _declaration(f: Frame, node: ast.Declaration) -> None:
    from .lower_initialisers import fill
    from .lower_places import variable_place

    for each in node.declarators:
        variable = f.program.analysis.symbols.get(each.declarator)
        if not isinstance(variable, Variable) or variable.storage not in ("auto", "register"):
            continue
        if variable.init is not None:
            f.b.span = each.span
            if variable in f.walkers:
                from .walkers import set_walker

                set_walker(f, variable, variable.init[0].value)
                continue
            fill(f, variable_place(f, variable), variable.init)


def _nothing(f: Frame, node: ast.Node) -> None:
    """A static assertion has been checked."""


def _if(f: Frame, node: ast.If) -> None:
    constant = f.program.analysis.constants.get(node.condition)
    if constant is not None and not _has_labels(node):
        chosen = node.yes if constant else node.no
        if chosen is not None:
            run_statement(f, chosen)
        return
    b = f.b
    then, done = b.new_block("then"), b.new_block("done")
    otherwise = b.new_block("else") if node.no is not None else done
    branch_on(f, node.condition, then, otherwise)
    b.at(then)
    run_statement(f, node.yes)
    b.jump(done)
    if node.no is not None:
        b.at(otherwise)
        run_statement(f, node.no)
        b.jump(done)
    b.at(done)


def _has_labels(node: ast.Node) -> bool:
    from .walk import iter_nodes

    return any(isinstance(each, (ast.Label, ast.Case)) for each in iter_nodes(node))


def _label(f: Frame, node: ast.Label) -> None:
    block = f.label(node.name)
    f.b.jump(block)
    f.b.at(block)
    run_statement(f, node.statement)


def _goto(f: Frame, node: ast.Goto) -> None:
    depth = next((i for i, (scope, _) in enumerate(f.cleanups) if not _has_label(scope, node.name)), len(f.cleanups))
    f.clean_up(depth)
    f.b.jump(f.label(node.name))


def _has_label(scope: ast.Node, name: str) -> bool:
    from .walk import iter_nodes

    return any(isinstance(node, ast.Label) and node.name == name for node in iter_nodes(scope))


def _break(f: Frame, node: ast.Break) -> None:
    _, done, depth = f.leave[-1]
    f.clean_up(depth)
    f.b.jump(done)


def _continue(f: Frame, node: ast.Continue) -> None:
    for again, _, depth in reversed(f.leave):
        if again is not None:
            f.clean_up(depth)
            f.b.jump(again)
            return
    raise failure(node.span, "continue outside of a loop")


def _return(f: Frame, node: ast.Return) -> None:
    operand: Operand | None = None
    if node.value is not None:
        if not strip(f.type(node.value)).size and not hasattr(strip(f.type(node.value)), "target"):
            run(f, node.value)  # return f(); of a void function
        else:
            operand = evaluate(f, node.value)
            if f.cleanups and isinstance(operand, Place):  # a struct: what is called may change it
                copy = f.local(operand.ctype, "returned")
                f.copy(copy, operand, sizeof(operand.ctype))
                operand = copy
    f.clean_up(0)
    f.finish(operand)


# switch -----------------------------------------------------------------------------------------------------------


def _switch(f: Frame, node: ast.Switch) -> None:
    b = f.b
    labels = f.program.analysis.cases[node]
    ctype = promoted(f.type(node.value))
    operand = convert(f, evaluate(f, node.value), ctype)
    done = b.new_block("done")
    for label in labels:
        f.cases[label.node] = b.new_block("case")
    default = next((f.cases[label.node] for label in labels if label.low is None), done)
    for label in labels:
        if label.low is not None:
            _dispatch(f, operand, label, f.cases[label.node])
    b.jump(default)
    b.at(b.new_block("switch"))  # what stands before the first label is reached by goto only
    f.enter(None, done)
    run_statement(f, node.body)
    f.leave.pop()
    b.jump(done)
    b.at(done)


def _dispatch(f: Frame, operand: Operand, label: CaseLabel, block: Block) -> None:
    """Go to `block` when the value is one of a label's, else go on."""
    assert label.low is not None and label.high is not None
    b = f.b
    if isinstance(operand, Scalar) and label.high - label.low >= _NEAR:
        value = operand.value
        distance = b.binary("sub", value, Const(label.low, value.type))
        following = b.new_block("next")
        b.branch(b.binary("ule", distance, Const(label.high - label.low, value.type)), block, following)
        b.at(following)
        return
    if label.high - label.low >= _MOST_WIDE:
        raise failure(
            label.node.span, f"a range of more than {_MOST_WIDE} numbers of 128 bits in a case label", "use if"
        )
    for wanted in range(label.low, label.high + 1):
        following = b.new_block("next")
        same = arithmetic(f, "==", operand, constant_of(f, wanted, operand.ctype), operand.ctype, label.node.span)
        b.branch(truth(f, same), block, following)
        b.at(following)


def _case(f: Frame, node: ast.Case) -> None:
    block = f.cases[node]
    f.b.jump(block)
    f.b.at(block)
    run_statement(f, node.statement)


def _asm(f: Frame, node: ast.Asm) -> None:
    from .lower_asm import lower_asm

    lower_asm(f, node)


def _loop(f: Frame, node: ast.Node) -> None:
    from .lower_loops import lower_loop

    lower_loop(f, node)


STATEMENTS: dict[type, Callable[..., None]] = {
    ast.Compound: _compound,
    ast.ExprStatement: _expression,
    ast.Declaration: _declaration,
    ast.StaticAssert: _nothing,
    ast.If: _if,
    ast.While: _loop,
    ast.DoWhile: _loop,
    ast.For: _loop,
    ast.Switch: _switch,
    ast.Case: _case,
    ast.Label: _label,
    ast.Goto: _goto,
    ast.Break: _break,
    ast.Continue: _continue,
    ast.Return: _return,
    ast.Asm: _asm,
}

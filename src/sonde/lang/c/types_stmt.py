"""Statements: scopes, conditions, labels, switches, returns; and which statements fall through to the next."""

from __future__ import annotations

from ...debuginfo.ctype import strip
from ...record import Record
from . import ast
from .analysis import CaseLabel, FunctionSymbol, Variable
from .arithmetic import is_integer, is_void, promoted, qualifiers, shown, underlying, unqualified, wrap
from .checker import SwitchState
from .constants import constant_value
from .conversions import condition, convert, value
from .lints import lint_function
from .types_ops import is_lvalue
from .types_var import check_static_assert, declare_locals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .checker import Checker, FunctionState, StatementRule


def _compound(ck: Checker, node: ast.Compound) -> None:
    ck.open_scope()
    try:
        for item in node.items:
            ck.statement(item)
    finally:
        ck.close_scope()


def _expression(ck: Checker, node: ast.ExprStatement) -> None:
    if node.expr is not None:
        ck.expr(node.expr)


def _if(ck: Checker, node: ast.If) -> None:
    _test(ck, node.condition)
    ck.statement(node.yes)
    if node.no is not None:
        ck.statement(node.no)


def _test(ck: Checker, node: ast.Expr) -> None:
    """Check a condition; an error in it does not hide those in the body."""
    ck.attempt(lambda: condition(ck, node))


def _while(ck: Checker, node: ast.While | ast.DoWhile) -> None:
    _test(ck, node.condition)
    _loop_body(ck, node.body)


def _for(ck: Checker, node: ast.For) -> None:
    ck.open_scope()
    try:
        if isinstance(node.init, ast.Declaration):
            ck.statement(node.init)
        elif node.init is not None:
            first = node.init
            ck.attempt(lambda: ck.expr(first))
        if node.condition is not None:
            _test(ck, node.condition)
        if node.step is not None:
            step = node.step
            ck.attempt(lambda: ck.expr(step))
        _loop_body(ck, node.body)
    finally:
        ck.close_scope()


def _loop_body(ck: Checker, body: ast.Statement) -> None:
    function = _function(ck)
    function.loops += 1
    function.breakable.append(True)
    ck.statement(body)
    function.breakable.pop()
    function.loops -= 1


def _function(ck: Checker) -> FunctionState:
    assert ck.function is not None
    return ck.function


# switch -----------------------------------------------------------------------------------------------------------


def _switch(ck: Checker, node: ast.Switch) -> None:
    ctype = promoted(value(ck, node.value))
    if not is_integer(ctype):
        raise ck.fail(node.value, f"a switch needs an integer, not {shown(ctype)}")
    function = _function(ck)
    state = SwitchState(node, ctype)
    function.switches.append(state)
    function.breakable.append(True)
    ck.statement(node.body)
    function.breakable.pop()
    function.switches.pop()
    _check_labels(ck, state)
    ck.cases[node] = tuple(state.labels)


def _case(ck: Checker, node: ast.Case) -> None:
    switches = _function(ck).switches
    if not switches:
        word = "default" if node.low is None else "case"
        ck.error(node, f"'{word}' outside of a switch")
    else:
        ck.attempt(lambda: switches[-1].labels.append(_label(ck, node, switches[-1])))
    ck.statement(node.statement)


def _label(ck: Checker, node: ast.Case, state: SwitchState) -> CaseLabel:
    if node.low is None:
        return CaseLabel(None, None, node)
    number = underlying(state.ctype)
    assert number is not None
    low = wrap(constant_value(ck, node.low, "a case label"), number)
    high = low if node.high is None else wrap(constant_value(ck, node.high, "a case label"), number)
    if high < low:
        ck.warn(node, f"the range {low} … {high} is empty")
    return CaseLabel(low, high, node)


def _check_labels(ck: Checker, state: SwitchState) -> None:
    """Report labels that say the same twice."""
    seen: list[CaseLabel] = []
    for label in state.labels:
        for other in seen:
            if label.low is None or other.low is None:
                same = label.low is other.low
            else:
                same = label.low <= (other.high or 0) and other.low <= (label.high or 0)
            if same:
                what = "default label" if label.low is None else f"case {label.low}"
                note = ck.note(_head(other.node), "the previous one is here")
                ck.error(_head(label.node), f"a second {what} in one switch", notes=note)
                break
        seen.append(label)


def _head(node: ast.Case) -> ast.Span:  # type: ignore[name-defined]
    """The place of a label without the statement behind it."""
    return node.low.span if node.low is not None else node.span


# jumps ------------------------------------------------------------------------------------------------------------


def _named_label(ck: Checker, node: ast.Label) -> None:
    labels = _function(ck).labels
    if node.name in labels:
        note = ck.note(labels[node.name].span, "the previous definition is here")
        ck.error(node, f"redefinition of label '{node.name}'", notes=note)
    labels[node.name] = node
    ck.statement(node.statement)


def _goto(ck: Checker, node: ast.Goto) -> None:
    _function(ck).gotos.append(node)


def _break(ck: Checker, node: ast.Break) -> None:
    if not _function(ck).breakable:
        raise ck.fail(node, "'break' outside of a loop or switch")


def _continue(ck: Checker, node: ast.Continue) -> None:
    if not _function(ck).loops:
        raise ck.fail(node, "'continue' outside of a loop")


def _return(ck: Checker, node: ast.Return) -> None:
    symbol = _function(ck).symbol
    wanted = symbol.ctype.result
    if node.value is None:
        if not is_void(wanted):
            ck.warn(node, f"'{symbol.name}' returns {shown(wanted)}, but nothing is given here")
        return
    if is_void(wanted):
        if not is_void(ck.expr(node.value)):
            ck.warn(node, f"'{symbol.name}' is void and returns no value")
        return
    convert(ck, node.value, value(ck, node.value), unqualified(wanted), "returning")


# asm, declarations ------------------------------------------------------------------------------------------------


def _asm(ck: Checker, node: ast.Asm) -> None:
    for operand in node.outputs:
        ctype = ck.expr(operand.expr)
        if not is_lvalue(operand.expr) or "const" in qualifiers(ctype):
            raise ck.fail(operand, "an output of inline assembly must be something that can be assigned to")
        symbol = ck.symbols.get(operand.expr)
        if isinstance(symbol, Variable):
            _function(ck).written.add(symbol)
    for operand in node.inputs:
        value(ck, operand.expr)


def _declaration(ck: Checker, node: ast.Declaration) -> None:
    declare_locals(ck, node)


def finish_function(ck: Checker, state: FunctionState, body: ast.Compound) -> None:
    """Check what only the end of a function shows: labels, the missing return, variables that nobody ever set."""
    for goto in state.gotos:
        if goto.name not in state.labels:
            from ...probes.close import close_names
            from .types_decl import did_you_mean

            close = close_names(goto.name, state.labels)
            ck.error(goto, f"use of undeclared label '{goto.name}'", hint=did_you_mean(close))
    if not is_void(state.symbol.ctype.result) and falls_through(ck, body):
        end = body.span
        ck.warn(_closing(end), f"'{state.symbol.name}' does not return a value on every way to its end")
    for variable, node in state.read.items():
        if variable not in state.written and is_integer(strip(variable.ctype)):
            note = ck.note(variable.span, "it is declared here")
            ck.warn(node, f"'{variable.name}' is used, but never set", notes=note)
    if ck.in_main(state.symbol.span):
        lint_function(ck, state, body)


def _closing(span: ast.Span) -> ast.Span:  # type: ignore[name-defined]
    """The place of the brace that ends a block."""
    from ..source import Place

    return Place(span.source, span.end - 1, span.end, span.call) if isinstance(span, Place) else span


# Flow -------------------------------------------------------------------------------------------------------------


class _Ways(Record):
    """How a statement may end: by going on, or by a `break` or `continue` of what is around it."""

    through: bool
    breaks: bool = False
    continues: bool = False


def falls_through(ck: Checker, node: ast.Statement) -> bool:
    """Tell whether control may come to the end of a statement. Loops with a constant true condition end by `break` only."""
    return _ways(ck, node).through


def _ways(ck: Checker, node: ast.Statement) -> _Ways:
    if isinstance(node, (ast.Return, ast.Goto)):
        return _Ways(False)
    if isinstance(node, ast.Continue):
        return _Ways(False, continues=True)
    if isinstance(node, ast.Break):
        return _Ways(False, True)
    if isinstance(node, ast.Compound):
        return _sequence(ck, node)
    if isinstance(node, ast.If):
        return _branch(ck, node)
    if isinstance(node, (ast.While, ast.DoWhile, ast.For)):
        return _loop(ck, node)
    if isinstance(node, ast.Switch):
        inner = _ways(ck, node.body)
        whole = any(label.low is None for label in ck.cases.get(node, ()))
        return _Ways(inner.through or inner.breaks or not whole, continues=inner.continues)
    if isinstance(node, (ast.Case, ast.Label)):
        return _ways(ck, node.statement)
    if isinstance(node, ast.ExprStatement) and isinstance(node.expr, ast.Call):
        symbol = ck.symbols.get(node.expr.function)
        return _Ways(not (isinstance(symbol, FunctionSymbol) and symbol.builtin in ("unreachable", "trap")))
    return _Ways(True)


def _sequence(ck: Checker, node: ast.Compound) -> _Ways:
    through, breaks, continues = True, False, False
    for item in node.items:
        if not through and not _has_label(item):
            continue
        ways = _ways(ck, item)
        through, breaks, continues = ways.through, breaks or ways.breaks, continues or ways.continues
    return _Ways(through, breaks, continues)


def _has_label(node: ast.Statement) -> bool:
    """Whether control may come into a statement from elsewhere."""
    if isinstance(node, (ast.Label, ast.Case)):
        return True
    if isinstance(node, ast.Compound):
        return any(_has_label(item) for item in node.items)
    if isinstance(node, ast.If):
        return _has_label(node.yes) or (node.no is not None and _has_label(node.no))
    return isinstance(node, (ast.While, ast.DoWhile, ast.For, ast.Switch)) and _has_label(node.body)


def _branch(ck: Checker, node: ast.If) -> _Ways:
    known = ck.constants.get(node.condition)
    yes = _ways(ck, node.yes)
    no = _Ways(True) if node.no is None else _ways(ck, node.no)
    breaks, continues = yes.breaks or no.breaks, yes.continues or no.continues
    if known is not None:
        taken = yes if known else no
        return _Ways(taken.through or _has_label(node), breaks, continues)
    return _Ways(yes.through or no.through, breaks, continues)


def _loop(ck: Checker, node: ast.While | ast.DoWhile | ast.For) -> _Ways:
    endless = node.condition is None or bool(ck.constants.get(node.condition))
    body = _ways(ck, node.body)
    if isinstance(node, ast.DoWhile):
        return _Ways(body.breaks or (not endless and (body.through or body.continues)))
    return _Ways(body.breaks or not endless)


STATEMENTS: dict[type, StatementRule] = {
    ast.Compound: _compound,
    ast.ExprStatement: _expression,
    ast.If: _if,
    ast.While: _while,
    ast.DoWhile: _while,
    ast.For: _for,
    ast.Switch: _switch,
    ast.Case: _case,
    ast.Label: _named_label,
    ast.Goto: _goto,
    ast.Break: _break,
    ast.Continue: _continue,
    ast.Return: _return,
    ast.Asm: _asm,
    ast.Declaration: _declaration,
    ast.StaticAssert: check_static_assert,
}

"""Conditions and choices: `&&`, `||`, `!`, `? :`, `if` and blocks, as branches wherever no value is wanted."""

from __future__ import annotations

from ...compiler.ir import I1, Const
from ...debuginfo.ctype import BOOL, INT64, sizeof, strip
from . import ast
from .lower_expr import are_numbers, evaluate, store
from .lower_values import Memory, Scalar, Text, ir_type, is_scalar
from .stype import Str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Block, Value
    from ...debuginfo.ctype import CType
    from .lower_frame import Frame
    from .lower_values import Operand


# Conditions -------------------------------------------------------------------------------------------------------


def branch_on(f: Frame, node: ast.Node, yes: Block, no: Block, sole: bool = False) -> None:
    """End the current block: go to `yes` when the condition holds, else to `no`.

    `sole`: nothing else leads to `yes`, so what the condition found out is known there.
    """
    constant = f.constants.get(node)
    if constant is not None:
        f.b.jump(yes if constant else no)
    elif isinstance(node, ast.Binary) and node.op in ("&&", "||"):
        middle = f.b.new_block("and" if node.op == "&&" else "or")
        if node.op == "&&":
            branch_on(f, node.left, middle, no, True)
        else:
            branch_on(f, node.left, yes, middle)
        f.branch_to(middle)
        branch_on(f, node.right, yes, no, sole and node.op == "&&")
        if sole and node.op == "&&":
            f.facts.expect_all(yes)
        f.leave_branch()
    elif isinstance(node, ast.Unary) and node.op == "!":
        branch_on(f, node.operand, no, yes)
    elif isinstance(node, ast.MapAccess) and _branch_on_entry(f, node, yes, no, sole):
        pass
    elif isinstance(node, ast.Binary) and node.op in ("==", "!=") and not are_numbers(f, node):
        from .lower_compare import branch_if_equal

        if node.op == "!=":
            yes, no = no, yes
        branch_if_equal(f, node.left, node.right, yes, no)
    else:
        f.b.branch(truth(f, node), yes, no)


def _branch_on_entry(f: Frame, node: ast.MapAccess, yes: Block, no: Block, sole: bool) -> bool:
    from .lower_maps import branch_on_entry

    return branch_on_entry(f, node, yes, no, sole)


def truth(f: Frame, node: ast.Node) -> Value:
    """A condition as a value to branch on: anything but 0, or a string that is not empty."""
    operand = evaluate(f, node)
    if isinstance(operand, Text):
        return Const(int(bool(operand.data)), I1)
    if isinstance(operand, Memory) and not is_scalar(operand.ctype):
        if isinstance(operand.ctype, Str):
            from .lower_compare import first_byte

            return first_byte(f, operand)
        return Const(1, I1)
    return f.scalar(operand).value


def as_flag(f: Frame, node: ast.Node) -> Scalar:
    """`&&`, `||` and `!` as values."""
    b = f.b
    if isinstance(node, ast.Unary):
        value = truth(f, node.operand)
        return Scalar(b.binary("eq", value, 0), BOOL)
    yes, no, done = b.new_block("true"), b.new_block("false"), b.new_block("flag", [I1])
    branch_on(f, node, yes, no)
    b.at(yes)
    b.jump(done, Const(1, I1))
    b.at(no)
    b.jump(done, Const(0, I1))
    b.at(done)
    return Scalar(done.params[0], BOOL)


# Choices and blocks -----------------------------------------------------------------------------------------------


def choose(f: Frame, node: ast.Ternary | ast.IfExpr) -> Operand:
    """`c ? a : b` and `if` as values."""
    ctype = strip(f.type(node).ctype) if node in f.type_of else None
    if ctype is None or sizeof(ctype) == 0 or not _has_value(ctype):
        _either(f, node, lambda chosen: run(f, chosen))
        return Scalar(Const(0), INT64)
    if is_scalar(ctype):
        return _choose_number(f, node, ctype)
    place = f.temp(ctype)
    write_choice(f, node, place, True)
    return place


def _has_value(ctype: CType) -> bool:
    from .stype import NoneT, is_void

    return not isinstance(ctype, NoneT) and not is_void(ctype)


def _choose_number(f: Frame, node: ast.Ternary | ast.IfExpr, ctype: CType) -> Scalar:
    done = f.b.new_block("chosen", [ir_type(ctype)])

    def give(chosen: ast.Node) -> None:
        operand = evaluate(f, chosen)
        f.b.jump(done, f.number(operand, ctype))

    _either(f, node, give, done)
    return Scalar(done.params[0], ctype, f.type(node).space)


def write_choice(f: Frame, node: ast.Ternary | ast.IfExpr, place: Memory, pad: bool) -> bool:
    _either(f, node, lambda chosen: store(f, chosen, place, pad))
    return True


def _either(
    f: Frame, node: ast.Ternary | ast.IfExpr, use: Callable[[ast.Node], None], done: Block | None = None
) -> None:
    """Run `use` with each branch in its own block; go on in `done`, where `use` may have jumped by itself."""
    otherwise = node.otherwise
    if isinstance(node, ast.Ternary) and node.then is None:
        _elvis(f, node, use, done)
        return
    then = node.then
    assert then is not None
    constant = f.constants.get(node.condition)
    b = f.b
    if constant is not None:
        taken = then if constant else otherwise
        if taken is not None:
            use(taken)
        if done is not None:
            b.jump(done)
            b.at(done)
        return
    yes, no = b.new_block("then"), b.new_block("else")
    done = done or b.new_block("done")
    branch_on(f, node.condition, yes, no, True)
    for block, chosen in ((yes, then), (no, otherwise)):
        f.branch_to(block)
        if chosen is not None:
            use(chosen)
        if not b.closed:
            b.jump(done)
        f.leave_branch()
    b.at(done)


def _elvis(f: Frame, node: ast.Ternary, use: Callable[[ast.Node], None], done: Block | None) -> None:
    """`c ?: b`: the condition is evaluated once."""
    operand = evaluate(f, node.condition)
    if isinstance(operand, Memory) and is_scalar(operand.ctype):
        operand = f.load(operand)
    f.overrides[node.condition] = operand
    whole = ast.Ternary(node.span, node.condition, node.condition, node.otherwise)
    try:
        _either(f, whole, use, done)
    finally:
        del f.overrides[node.condition]


def run_block(f: Frame, node: ast.BlockExpr) -> Operand:
    from .lower_statements import run_statements

    run_statements(f, node.statements)
    if node.value is None:
        return Scalar(Const(0), INT64)
    return evaluate(f, node.value)


def write_block(f: Frame, node: ast.BlockExpr, place: Memory, pad: bool) -> bool:
    from .lower_statements import run_statements

    run_statements(f, node.statements)
    if node.value is not None:
        store(f, node.value, place, pad)
    return True


def run(f: Frame, node: ast.Node) -> None:
    """Lower an expression for its effect."""
    if isinstance(node, ast.BlockExpr):
        from .lower_statements import run_statements

        run_statements(f, node.statements)
        if node.value is not None:
            run(f, node.value)
    elif isinstance(node, (ast.IfExpr, ast.Ternary)):
        _either(f, node, lambda chosen: run(f, chosen))
    elif isinstance(node, ast.Unary) and node.op in ("++", "--") and not isinstance(node.operand, ast.Variable):
        from .lower_maps import step_map

        assert isinstance(node.operand, (ast.Map, ast.MapAccess))
        step_map(f, node, node.operand, wanted=False)
    else:
        evaluate(f, node)

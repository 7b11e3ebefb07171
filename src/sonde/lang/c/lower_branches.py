"""Conditions and choices: `&&`, `||`, `!` and `?:` as branches wherever no value is wanted."""

from __future__ import annotations

from ...compiler.ir import I1, I64, Const
from ...debuginfo.ctype import INT32, Pointer, Struct, strip
from . import ast
from .lower_expressions import evaluate, put, run
from .lower_numbers import convert, fit, truth
from .values import Place, Scalar, Wide, ir_type, is_pointer, is_wide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Block
    from ...debuginfo.ctype import CType
    from .lower_frame import Frame
    from .values import Operand


def branch_on(f: Frame, node: ast.Node, yes: Block, no: Block) -> None:
    """End the current block: go to `yes` when the condition holds, else to `no`."""
    constant = f.program.analysis.constants.get(node)
    if constant is not None:
        f.b.jump(yes if constant else no)
    elif isinstance(node, ast.Binary) and node.op in ("&&", "||"):
        middle = f.b.new_block("and" if node.op == "&&" else "or")
        if node.op == "&&":
            branch_on(f, node.left, middle, no)
        else:
            branch_on(f, node.left, yes, middle)
        f.b.at(middle)
        branch_on(f, node.right, yes, no)
    elif isinstance(node, ast.Unary) and node.op == "!":
        branch_on(f, node.operand, no, yes)
    elif isinstance(node, ast.Call) and _is_expect(f, node):
        branch_on(f, node.args[0], yes, no)
    else:
        f.b.branch(truth(f, evaluate(f, node)), yes, no)


def _is_expect(f: Frame, node: ast.Call) -> bool:
    """`__builtin_expect(condition, 0 or 1)`: only a hint."""
    symbol = f.program.analysis.symbols.get(node.function)
    return getattr(symbol, "builtin", "") == "expect" and len(node.args) == 2


def logic_value(f: Frame, node: ast.Binary) -> Scalar:
    """`&&` and `||` as values."""
    b = f.b
    yes, no, done = b.new_block("true"), b.new_block("false"), b.new_block("flag", [I1])
    branch_on(f, node, yes, no)
    b.at(yes)
    b.jump(done, Const(1, I1))
    b.at(no)
    b.jump(done, Const(0, I1))
    b.at(done)
    return Scalar(done.params[0], INT32)


def effect_of_logic(f: Frame, node: ast.Binary) -> None:
    """`a && b;` as a statement."""
    then, done = f.b.new_block("then"), f.b.new_block("done")
    if node.op == "&&":
        branch_on(f, node.left, then, done)
    else:
        branch_on(f, node.left, done, then)
    f.b.at(then)
    run(f, node.right)
    f.b.jump(done)
    f.b.at(done)


def choose_effect(f: Frame, node: ast.Conditional) -> None:
    """`c ? a : b` for its effect."""
    if node.yes is None:
        evaluate(f, node)
        return
    _either(f, node.condition, lambda chosen: run(f, chosen), node.yes, node.no)


def choose(f: Frame, node: ast.Conditional) -> Operand:
    """`c ? a : b` as a value."""
    constant = f.program.analysis.constants.get(node.condition)
    if constant is not None:
        chosen = (node.yes or node.condition) if constant else node.no
        return _brought(f, chosen, f.type(node))
    ctype = strip(f.type(node))
    if node.yes is None:
        return _elvis(f, node, ctype)
    yes = node.yes
    if isinstance(ctype, Struct):
        place = f.local(ctype, "chosen")
        _either(f, node.condition, lambda chosen: put(f, chosen, place), yes, node.no)
        return place
    if is_wide(ctype):
        return _choose_wide(f, node, yes, ctype)
    if not ctype.size and not isinstance(ctype, Pointer):
        choose_effect(f, node)
        return Scalar(Const(0, ir_type(INT32)), INT32)
    space = f.spaces.of(node)
    space = f.spaces.external if is_pointer(ctype) and space in ("", "null", "slot") else space
    done = f.b.new_block("chosen", [ir_type(ctype, space)])

    def give(chosen: ast.Node) -> None:
        operand = convert(f, evaluate(f, chosen), ctype)
        assert isinstance(operand, Scalar)
        f.b.jump(done, fit(f, operand, ctype, space))

    _either(f, node.condition, give, yes, node.no, done)
    return Scalar(done.params[0], ctype, space)


def _brought(f: Frame, node: ast.Node, ctype: CType) -> Operand:
    operand = evaluate(f, node)
    return operand if isinstance(operand, Place) or not strip(ctype).size else convert(f, operand, ctype)


def _choose_wide(f: Frame, node: ast.Conditional, yes: ast.Node, ctype: CType) -> Wide:
    done = f.b.new_block("chosen", [I64, I64])

    def give(chosen: ast.Node) -> None:
        operand = convert(f, evaluate(f, chosen), ctype)
        assert isinstance(operand, Wide)
        f.b.jump(done, operand.low, operand.high)

    _either(f, node.condition, give, yes, node.no, done)
    return Wide(done.params[0], done.params[1], ctype)


def _elvis(f: Frame, node: ast.Conditional, ctype: CType) -> Operand:
    """`c ?: b`: the condition is evaluated once."""
    f.known[node.condition] = evaluate(f, node.condition)
    whole = ast.Conditional(node.span, node.condition, node.condition, node.no)
    f.program.analysis.types[whole] = ctype
    try:
        return choose(f, whole)
    finally:
        del f.known[node.condition], f.program.analysis.types[whole]


def _either(
    f: Frame,
    condition: ast.Node,
    use: Callable[[ast.Node], None],
    yes: ast.Node,
    no: ast.Node,
    done: Block | None = None,
) -> None:
    """Run `use` with each side in its own block; go on in `done`, where `use` may have jumped by itself."""
    b = f.b
    then, otherwise = b.new_block("then"), b.new_block("else")
    done = done or b.new_block("done")
    branch_on(f, condition, then, otherwise)
    for block, chosen in ((then, yes), (otherwise, no)):
        b.at(block)
        use(chosen)
        if not b.closed:
            b.jump(done)
    b.at(done)

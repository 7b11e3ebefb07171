"""Loops that end where a pointer reaches an address: they count bytes, since the verifier does not compare addresses of memory.

`for (p = a; p < a + 8; p++)` becomes a loop over the distance between p and `a`, a number whose bound the verifier sees; p is `a` plus that
number. This works where both ends are constant distances from the same array, and the body does not move the pointer. It is for pointers that
loops give to one array after the other; others walk everywhere in the function (see `walkers`).
"""

from __future__ import annotations

from ...compiler.ir import I64, Const
from ...debuginfo.ctype import Array, Pointer, sizeof, strip
from ...record import Record
from . import ast
from .analysis import Variable
from .lower_loops import is_aliased, is_changed, step_of, variable_of
from .lower_places import variable_place
from .lower_statements import run_statement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .lower_frame import Frame

_SIGNED = {"<": "slt", "<=": "sle", ">": "sgt", ">=": "sge", "!=": "ne"}
_OWN = ("stack", "map")


class Walk(Record, eq=False):
    """A pointer that goes from `start` bytes behind `array` by `step` bytes, as long as its distance compares with `limit`."""

    pointer: Variable
    array: Variable
    start: int
    compare: str
    limit: int
    step: int


def find_walk(f: Frame, node: ast.For) -> Walk | None:
    """Return how a pointer walks in a loop; None for other loops."""
    condition, compare = node.condition, ""
    if isinstance(condition, ast.Binary):
        compare = _SIGNED.get(condition.op, "")
    if not compare or not isinstance(condition, ast.Binary) or node.step is None:
        return None
    pointer, value = _beginning(f, node.init)
    if pointer is None or pointer in f.walkers or value is None or variable_of(f, condition.left) is not pointer:
        return None
    kind = strip(pointer.ctype)
    start, limit = _distance(f, value), _distance(f, condition.right)
    if not isinstance(kind, Pointer) or start is None or limit is None or start[0] is not limit[0]:
        return None
    step = step_of(f, node.step, pointer) * sizeof(kind.target)
    if f.spaces.variables.get(pointer, "") not in _OWN or pointer.storage == "static":
        return None
    if not step or is_changed(f, node.body, pointer) or is_aliased(f, pointer):
        return None
    return Walk(pointer, start[0], start[1], compare, limit[1], step)


def lower_walk(f: Frame, node: ast.For, walk: Walk) -> None:
    """Lower the loop; its first part has been lowered already."""
    b = f.b
    head, inside, again, done = b.new_block("walk"), b.new_block("body"), b.new_block("again"), b.new_block("done")
    distance = b.alloca(8, 8, "distance")
    b.store(distance, Const(walk.start, I64))
    b.jump(head)
    b.at(head)
    array, place = variable_place(f, walk.array), variable_place(f, walk.pointer)
    now = b.load(I64, distance)
    f.store_value(place, b.ptradd(b.ptradd(array.pointer, array.offset), now))
    b.branch(b.binary(walk.compare, now, Const(walk.limit, I64)), inside, done)
    b.at(inside)
    f.enter(again, done)
    run_statement(f, node.body)
    f.leave.pop()
    b.jump(again)
    b.at(again)
    b.store(distance, b.binary("add", b.load(I64, distance), Const(walk.step, I64)))
    b.jump(head)
    b.at(done)


def _beginning(f: Frame, init: ast.Node | None) -> tuple[Variable | None, ast.Node | None]:
    """Return the variable that a loop begins with, and what it is given."""
    if isinstance(init, ast.Assign) and init.op == "=":
        return variable_of(f, init.target), init.value
    if isinstance(init, ast.Declaration) and len(init.declarators) == 1:
        symbol = f.program.analysis.symbols.get(init.declarators[0].declarator)
        if isinstance(symbol, Variable) and symbol.init:
            return symbol, symbol.init[0].value
    return None, None


def _distance(f: Frame, node: ast.Node) -> tuple[Variable, int] | None:
    """Return the array that an address lies in, and how many bytes behind its beginning; None where that is not constant."""
    if isinstance(node, ast.Cast):
        return _distance(f, node.operand) if isinstance(strip(f.type(node)), Pointer) else None
    if isinstance(node, ast.Name):
        variable = variable_of(f, node)
        return (variable, 0) if variable is not None and isinstance(strip(variable.ctype), Array) else None
    if isinstance(node, ast.Unary) and node.op == "&":
        inner = node.operand
        return _moved(f, inner.operand, inner.index, 1) if isinstance(inner, ast.Index) else _distance(f, inner)
    if isinstance(node, ast.Binary) and node.op in ("+", "-"):
        return _moved(f, node.left, node.right, 1 if node.op == "+" else -1)
    return None


def _moved(f: Frame, base: ast.Node, by: ast.Node, sign: int) -> tuple[Variable, int] | None:
    found, count = _distance(f, base), f.program.analysis.constants.get(by)
    element = _element(f.type(base))
    if found is None or count is None or element is None:
        return None
    return found[0], found[1] + sign * count * sizeof(element)


def _element(ctype: CType) -> CType | None:
    inner = strip(ctype)
    return inner.target if isinstance(inner, (Array, Pointer)) else None

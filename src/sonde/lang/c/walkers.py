"""Pointers that walk through an array until they reach an address in a variable: kept as distances, since the verifier does not compare addresses.

`char *p = text, *end = text + n; while (p < end) … *p++ …`: everything that `p` and `end` are ever given is so many bytes behind `text`. Such variables
hold that number; where one is read it becomes `text` plus the number; a comparison or difference of two of them is one of numbers, whose bounds the
verifier sees. What they start from (the root) is an array or struct variable, or a pointer into memory of the program's own: one that never changes, or the
first value of a parameter.

Only functions that compare pointers have such variables; all that a variable is given must have one root.
"""

from __future__ import annotations

from ...compiler.ir import I64, Const
from ...debuginfo.ctype import Array, Pointer, Struct, sizeof, strip
from . import ast
from .analysis import Variable
from .lower_numbers import wide_register
from .lower_places import decay, variable_place
from .values import OWN, Scalar, is_pointer, step_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from .lower_frame import Frame

_COMPARE = {"<": "slt", "<=": "sle", ">": "sgt", ">=": "sge", "==": "eq", "!=": "ne"}


def find_walkers(f: Frame) -> dict[Variable, Variable]:
    """Return the walking pointers of a function, each with its root."""
    flow = f.program.spaces.flow(f.program.analysis.functions[f.symbol.name])
    return _Finder(f).find() if flow.compared else {}


class _Finder:
    """Finds out what the pointers that a function compares are given."""

    def __init__(self, f: Frame) -> None:
        self.f = f
        self.flow = f.program.spaces.flow(f.program.analysis.functions[f.symbol.name])
        self.roots: dict[Variable, Variable | None] = {}
        self.moving: set[Variable] = set()  # parameters that move: their roots are what they are at first

    def find(self) -> dict[Variable, Variable]:
        found: dict[Variable, Variable] = {}
        for node in self.flow.compared:
            left, right = self.root(node.left), self.root(node.right)
            if left is None or left is not right:
                continue
            found |= {v: root for v, root in self.roots.items() if root is left and (v is not root or v in self.moving)}
        return found

    def root(self, node: ast.Node) -> Variable | None:
        """Return the variable that an address is a distance from; None where there is none, or where it is not known."""
        if isinstance(node, ast.Cast):
            return self.root(node.operand) if is_pointer(self.f.type(node)) else None
        if isinstance(node, (ast.Postfix, ast.Unary)) and node.op in ("++", "--"):
            return self.root(node.operand)
        if isinstance(node, ast.Binary) and node.op in ("+", "-"):
            left = is_pointer(self.f.type(node.left))
            both = left and is_pointer(self.f.type(node.right))
            return None if both else self.root(node.left if left else node.right)
        if isinstance(node, ast.Assign):
            return self.root(node.target)
        if isinstance(node, ast.Unary) and node.op == "&":
            return self._root_of_place(node.operand)
        if isinstance(strip(self.f.type(node)), Array):
            return self._root_of_place(node)
        variable = self._variable(node)
        return self._root_of_variable(variable) if variable is not None else None

    def _root_of_place(self, node: ast.Node) -> Variable | None:
        """The root of something in memory: of a variable, its members and elements."""
        while True:
            if (isinstance(node, ast.Index) and isinstance(strip(self.f.type(node.operand)), Array)) or (
                isinstance(node, ast.Member) and not node.arrow
            ):
                node = node.operand
            else:
                break
        if isinstance(node, ast.Index) or (isinstance(node, ast.Unary) and node.op == "*"):
            return self.root(node.operand)
        if isinstance(node, ast.Member):
            return self.root(node.operand)
        variable = self._variable(node)
        return variable if variable is not None and isinstance(strip(variable.ctype), (Array, Struct)) else None

    def _variable(self, node: ast.Node) -> Variable | None:
        symbol = self.f.program.analysis.symbols.get(node) if isinstance(node, ast.Name) else None
        return symbol if isinstance(symbol, Variable) else None

    def _root_of_variable(self, variable: Variable) -> Variable | None:
        if variable in self.roots:
            return self.roots[variable]
        self.roots[variable] = None
        local = variable.storage in ("auto", "param", "register") and isinstance(strip(variable.ctype), Pointer)
        if not local or variable in self.flow.exposed or self.f.spaces.variables.get(variable, "") not in OWN:
            return None
        given = [value for assigned, value in self.flow.assigned if assigned is variable]
        self.roots[variable] = variable  # while what it is given from itself is looked at
        found = {root for value in given if (root := self.root(value)) is not variable}
        if len(found) == 1 and variable.storage != "param" and None not in found:
            self.roots[variable] = found.pop()
        else:  # a pointer that never moves may be where others start from
            parameter = variable.storage == "param"
            steady = variable not in self.flow.changed and len(given) == (not parameter)
            if parameter and not steady and not found:
                self.moving.add(variable)
                steady = True
            self.roots[variable] = variable if steady else None
        return self.roots[variable]


# Lowering ---------------------------------------------------------------------------------------------------------


def walker_of(f: Frame, node: ast.Node) -> Variable | None:
    """Return the walking pointer that an expression names, or None."""
    symbol = f.program.analysis.symbols.get(node) if isinstance(node, ast.Name) else None
    return symbol if isinstance(symbol, Variable) and symbol in f.walkers else None


def read_walker(f: Frame, variable: Variable) -> Scalar:
    """The address that a walking pointer stands for now."""
    return address_of(f, variable, f.b.load(I64, _slot(f, variable)))


def address_of(f: Frame, variable: Variable, distance: Value) -> Scalar:
    """The address so many bytes behind the root of a walking pointer."""
    base = _base(f, f.walkers[variable])
    return Scalar(f.b.ptradd(base.value, distance), variable.ctype, base.space)


def _base(f: Frame, root: Variable) -> Scalar:
    if isinstance(strip(root.ctype), Pointer):
        space = f.spaces.variables[root]
        pointer = f.load(variable_place(f, root), space)
        assert isinstance(pointer, Scalar)
        return pointer
    return decay(f, variable_place(f, root))


def start_walkers(f: Frame) -> None:
    """At the beginning of a function: no parameter has moved yet."""
    for variable, root in f.walkers.items():
        if variable is root:
            f.b.store(_slot(f, variable), Const(0))


def _slot(f: Frame, variable: Variable) -> Value:
    """Where the distance of a walking pointer is kept; of a parameter beside its first value."""
    if f.walkers[variable] is not variable:
        return variable_place(f, variable).pointer
    if variable not in f.moved:
        f.moved[variable] = f.b.alloca(8, 8, f"{variable.name}_distance")
    return f.moved[variable]


def set_walker(f: Frame, variable: Variable, node: ast.Node) -> Value:
    """Give a walking pointer a value; returns the distance."""
    distance = _distance(f, node, f.walkers[variable])
    f.b.store(_slot(f, variable), distance)
    return distance


def move_walker(f: Frame, variable: Variable, count: Value) -> tuple[Value, Value]:
    """Move a walking pointer by so many elements; returns the distances before and after."""
    slot = _slot(f, variable)
    old = f.b.load(I64, slot)
    step = step_of(variable.ctype)
    by = Const(count.imm * step) if isinstance(count, Const) else f.b.binary("mul", count, step)
    new = f.b.binary("add", old, by)
    f.b.store(slot, new)
    return old, new


def common_root(f: Frame, node: ast.Binary) -> Variable | None:
    """Return the root of both sides of a comparison or difference; None unless walking pointers are among them."""
    if not f.walkers or not (is_pointer(f.type(node.left)) and is_pointer(f.type(node.right))):
        return None
    finder = _Finder(f)
    left, right = finder.root(node.left), finder.root(node.right)
    return left if left is right and left in f.walkers.values() else None


def distances_of(f: Frame, node: ast.Binary, root: Variable) -> tuple[Value, Value]:
    """Both sides of a comparison or difference as distances from their root."""
    left = _distance(f, node.left, root)
    return left, _distance(f, node.right, root)


def compare_distances(op: str) -> str:
    """Return the comparison of distances that stands for one of addresses."""
    return _COMPARE[op]


def _distance(f: Frame, node: ast.Node, root: Variable) -> Value:
    """How many bytes behind `root` an address is, by the rules of `_Finder.root`."""
    if isinstance(node, ast.Cast):
        return _distance(f, node.operand, root)
    if isinstance(node, ast.Binary):
        pointer, count = (node.left, node.right) if is_pointer(f.type(node.left)) else (node.right, node.left)
        start = _distance(f, pointer, root)
        return _plus(f, start, _scaled(f, count, step_of(f.type(pointer))), node.op)
    if isinstance(node, (ast.Postfix, ast.Unary)) and node.op in ("++", "--"):
        variable = walker_of(f, node.operand)
        assert variable is not None
        old, new = move_walker(f, variable, Const(1 if node.op == "++" else -1))
        return old if isinstance(node, ast.Postfix) else new
    if isinstance(node, ast.Assign):
        from .lower_expressions import run

        run(f, node)
        return _distance(f, node.target, root)
    if isinstance(node, ast.Unary) and node.op == "&":
        return _distance_of_place(f, node.operand, root)
    if isinstance(strip(f.type(node)), Array):
        return _distance_of_place(f, node, root)
    variable = walker_of(f, node)
    return f.b.load(I64, _slot(f, variable)) if variable is not None else Const(0)


def _distance_of_place(f: Frame, node: ast.Node, root: Variable) -> Value:
    if isinstance(node, ast.Member):
        access = f.program.analysis.accesses[node]
        start = _distance(f, node.operand, root) if node.arrow else _distance_of_place(f, node.operand, root)
        return _plus(f, start, Const(access.field.offset), "+")
    if isinstance(node, ast.Index):
        base = strip(f.type(node.operand))
        inner = _distance_of_place if isinstance(base, Array) else _distance
        element = sizeof(f.type(node))
        return _plus(f, inner(f, node.operand, root), _scaled(f, node.index, element), "+")
    if isinstance(node, ast.Unary):
        return _distance(f, node.operand, root)
    return Const(0)


def _scaled(f: Frame, node: ast.Node, size: int) -> Value:
    from .lower_expressions import evaluate

    known = f.program.analysis.constants.get(node)
    if known is not None:
        return Const(known * size)
    value = wide_register(f, evaluate(f, node))
    return f.b.binary("mul", value, size) if size != 1 else value


def _plus(f: Frame, left: Value, right: Value, op: str) -> Value:
    if isinstance(left, Const) and isinstance(right, Const):
        return Const(left.imm + (right.imm if op == "+" else -right.imm))
    return f.b.binary("add" if op == "+" else "sub", left, right)

"""Loops. Short ones with constant bounds stay loops that the verifier walks through; others call back a function.

A callback sees the program's variables through a struct on the caller's stack: numbers are copied in, and back when the body
assigns them; what is larger is reached by its address. The struct also says how the loop was left.
"""

from __future__ import annotations

from ...compiler.builder import Builder
from ...compiler.ir import CTX, I64, MAP, MAPOBJ, STACK, Const, Function, Param
from ...debuginfo.ctype import INT64, UINT64, strip
from . import ast
from .lower_branches import branch_on
from .lower_expr import evaluate, variable_place
from .lower_frame import Frame, Loop
from .lower_statements import run_statements
from .lower_values import Memory, Scalar, ir_type, is_scalar
from .rewrite import iter_nodes
from .stype import Aggregate, Tuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Block, Value
    from .analysis import VariableInfo
    from .lower_unit import MapPlace

INLINE_ROUNDS = 64  # a range with a constant length up to this needs no callback


# Loops in place ---------------------------------------------------------------------------------------------------


def _unroll(f: Frame, node: ast.Unroll) -> None:
    count = f.constants[node.count]
    for _ in range(int(count)):
        run_statements(f, node.body.statements)
        if f.b.closed:
            return


def _while(f: Frame, node: ast.While) -> None:
    b = f.b
    head, body, done = b.new_block("while"), b.new_block("body"), b.new_block("done")
    _enter(f)
    b.jump(head)
    b.at(head)
    branch_on(f, node.condition, body, done, True)
    f.branch_to(body)
    _body(f, node.body, done, head)
    f.leave_branch()
    b.at(done)


def _enter(f: Frame) -> None:
    """Entries that were found before a loop may be gone in its second round."""
    f.facts.forget_entries()


def _body(f: Frame, body: ast.BlockExpr, leave: Block, next_: Block) -> None:
    f.loops.append(Loop(lambda: f.b.jump(leave), lambda: f.b.jump(next_)))
    run_statements(f, body.statements)
    f.b.jump(next_)
    f.loops.pop()


def _for_range(f: Frame, node: ast.ForRange) -> None:
    ctype = f.operands.get(node) or f.ctype(node.start)
    start = f.resize(f.number(evaluate(f, node.start), ctype), ctype, I64)
    end = f.resize(f.number(evaluate(f, node.end), ctype), ctype, I64)
    if isinstance(start, Const) and isinstance(end, Const):
        if end.imm <= start.imm:
            return
        if end.imm - start.imm <= INLINE_ROUNDS:
            _range_in_place(f, node, start.imm, end.imm)
            return
    if not f.unit.have_helper("loop") and isinstance(start, Const) and isinstance(end, Const):
        _range_in_place(f, node, start.imm, end.imm)
        return
    f.unit.need_helper("loop", "a loop over a range that is not constant")
    _range_by_callback(f, node, start, end)


def _range_in_place(f: Frame, node: ast.ForRange, start: int, end: int) -> None:
    b = f.b
    head, next_, done = b.new_block("range", [I64]), b.new_block("next"), b.new_block("done")
    _enter(f)
    b.jump(head, Const(start))
    f.branch_to(head)
    number = head.params[0]
    place = variable_place(f, node.variable)
    f.store(place, f.resize(number, INT64, ir_type(place.ctype)))
    _body(f, node.body, done, next_)
    f.leave_branch()
    b.at(next_)
    following = b.binary("add", number, 1)
    b.branch(b.binary("slt", following, end), head, done, [following])
    b.at(done)


# Loops by callback ------------------------------------------------------------------------------------------------


class Captured:
    """The struct through which a callback sees the function that the loop stands in."""

    LEFT, RESULT, CONTEXT, FIRST = 0, 8, 16, 24  # offsets

    def __init__(self, f: Frame, body: ast.Node) -> None:
        self.outer = f
        self.returns = False
        self.variables: list[tuple[VariableInfo, Memory, int]] = []
        self._assigned = assigned_variables(f, body)
        size = self.FIRST
        used = _used_variables(f, body)
        changing = [v for v in used if v in self._assigned and is_scalar(f.variables[v].ctype)]
        self._changing = len(changing)  # they come first
        for info in changing + [v for v in used if v not in changing]:
            self.variables.append((info, f.variables[info], size))
            size += 8
        self.extra = size  # a number more, for the loop itself
        self.memory = f.b.alloca(size + 8, 8, "captured")

    def fill(self) -> None:
        """Copy in what the callback needs."""
        b = self.outer.b
        b.store(self.memory, Const(0), self.LEFT)
        b.store(self.memory, self.outer.ctx, self.CONTEXT)
        self._fill_changing()
        for _, place, offset in self.variables[self._changing :]:
            if is_scalar(place.ctype):
                b.store(self.memory, self.outer.load(place).value, offset)
            else:
                b.store(self.memory, self.outer.address(place), offset)

    def _fill_changing(self) -> None:
        """Numbers that the body assigns come in by a helper, so that the verifier does not know them: it would follow a counter
        that starts from a known value through each round of the loop, and there is no end to those that it must expect.
        """
        b, size = self.outer.b, 8 * self._changing
        if not size:
            return
        staged = b.alloca(size, 8, "staged")
        for _, place, offset in self.variables[: self._changing]:
            b.store(staged, self.outer.load(place).value, offset - self.FIRST)
        b.call("probe_read_kernel", [b.ptradd(self.memory, self.FIRST), size, staged])

    def enter(self, frame: Frame, pointer: Value) -> None:
        """Make the variables known in the callback."""
        for info, place, offset in self.variables:
            if is_scalar(place.ctype):
                inside = Memory(pointer, offset, place.ctype, leads=place.leads)
            else:
                inside = Memory(frame.b.load(STACK, pointer, offset), 0, place.ctype, leads=place.leads)
            frame.variables[info] = inside
        frame.loops = [Loop(lambda: frame.b.ret(1), lambda: frame.b.ret(0))]

        def finish(result: Value | int) -> None:
            self.returns = True
            value = Const(result) if isinstance(result, int) else result
            frame.b.store(pointer, Const(1), self.LEFT)
            frame.b.store(pointer, value, self.RESULT)
            frame.b.ret(1)

        frame.finish = finish

    def restore(self) -> None:
        """Behind the loop: copy back what the body assigned, and leave the program where it said so."""
        f = self.outer
        b = f.b
        for info, place, offset in self.variables:
            if is_scalar(place.ctype) and info in self._assigned:
                f.store(place, b.load(ir_type(place.ctype), self.memory, offset))
        if self.returns:
            leave, on = b.new_block("leave"), b.new_block("on")
            b.branch(b.binary("ne", b.load(I64, self.memory, self.LEFT), 0), leave, on)
            b.at(leave)
            f.finish(b.load(I64, self.memory, self.RESULT))
            b.at(on)


def _used_variables(f: Frame, body: ast.Node) -> list[VariableInfo]:
    """The variables of the surrounding code that a body uses. Those of old scripts that are read behind it count as well."""
    found: dict[VariableInfo, None] = {}
    for node in iter_nodes(body):
        info = f.probe.variables.get(node)
        if info is None or info in found:
            continue
        if isinstance(info.node, ast.Variable) and isinstance(node, ast.Variable):
            variable_place(f, node)
        if info in f.variables:
            found[info] = None
    return list(found)


def assigned_variables(f: Frame, body: ast.Node) -> set[VariableInfo]:
    """The variables that a body may assign."""
    found = set()
    for node in iter_nodes(body):
        targets: tuple[object, ...] = ()
        if isinstance(node, ast.Assign):
            targets = (node.target,)
        elif isinstance(node, ast.Unary) and node.op in ("++", "--", "&"):
            targets = (node.operand,)
        elif isinstance(node, ast.Let):
            targets = (node.variable,)
        elif isinstance(node, ast.Call):
            targets = node.args
        for target in targets:
            if isinstance(target, ast.Variable) and target in f.probe.variables:
                found.add(f.probe.variables[target])
    return found


def _callback(f: Frame, hint: str, params: list[Param]) -> tuple[Frame, Function]:
    """Begin a function that is called back; its last parameter is the captured struct."""
    functions = f.unit.module.functions
    name = f"{f.b.function.name}_{hint}{len(functions)}"
    function = Function(name, params, callback=True)
    inner = Frame(f.unit, f.probe, Builder(f.unit.module, function), params[-1])
    inner.b.span = f.b.span
    inner.overrides = f.overrides
    inner.ctx = inner.b.load(CTX, params[-1], Captured.CONTEXT)
    return inner, function


def _range_by_callback(f: Frame, node: ast.ForRange, start: Value, end: Value) -> None:
    b = f.b
    captured = Captured(f, node.body)
    some, done = b.new_block("some"), b.new_block("done")
    b.branch(b.binary("slt", start, end), some, done)
    f.branch_to(some)
    captured.fill()
    b.store(captured.memory, start, captured.extra)
    index, memory = Param(I64, "index"), Param(STACK, "captured")
    inner, function = _callback(f, "range", [index, memory])
    captured.enter(inner, memory)
    place = variable_place(inner, node.variable)
    number = inner.b.binary("add", inner.b.load(I64, memory, captured.extra), index)
    inner.store(place, inner.resize(number, INT64, ir_type(place.ctype)))
    run_statements(inner, node.body.statements)
    inner.b.ret(0)
    b.call("loop", [_forgotten(f, b.binary("sub", end, start)), b.funcaddr(function), captured.memory, 0])
    f.facts.forget_entries()
    captured.restore()
    b.jump(done)
    f.leave_branch()
    b.at(done)


def _forgotten(f: Frame, number: Value) -> Value:
    """The same number, without its history. The verifier tracks how many rounds a loop has back to where the number comes
    from: through a callback that computed it, that takes it more steps than it has.
    """
    slot = f.b.alloca(8, 8, "rounds")
    f.b.store(slot, number)
    other = f.b.alloca(8, 8, "rounds")
    f.b.call("probe_read_kernel", [other, 8, slot])
    return f.b.load(I64, other)


def _for_map(f: Frame, node: ast.ForMap) -> None:
    f.unit.need_helper("for_each_map_elem", "a loop over a map")
    place = f.unit.maps[node.map.name]
    captured = Captured(f, node.body)
    captured.fill()
    params = [Param(MAPOBJ, "map"), Param(MAP, "key"), Param(MAP, "value"), Param(STACK, "captured")]
    inner, function = _callback(f, "each", params)
    captured.enter(inner, params[3])
    _bind_pair(inner, node, place, params[1], params[2])
    run_statements(inner, node.body.statements)
    inner.b.ret(0)
    b = f.b
    b.call("for_each_map_elem", [b.map(place.kernel_map), b.funcaddr(function), captured.memory, 0])
    f.facts.forget_entries()
    captured.restore()


def _bind_pair(f: Frame, node: ast.ForMap, place: MapPlace, key: Value, value: Value) -> None:
    """Make `$kv` known: key and value stay where they are when the body only reaches for one or the other."""
    info = f.probe.variables[node.variable]
    assert info.type is not None and place.key is not None
    pair = strip(info.type.ctype)
    assert isinstance(pair, Tuple)
    leads = info.type.leads
    key_memory = Memory(key, 0, place.key, leads=leads)
    if _only_parts(f, node, info) and not isinstance(place.value, Aggregate):
        f.pairs[info] = (key_memory, Memory(value, 0, place.value, leads=leads))
        return
    memory = f.temp(pair, "pair")
    memory.leads = leads
    f.clear_holes(memory)
    f.put(key_memory, memory.part(pair.offsets[0], pair.items[0]))
    second = memory.part(pair.offsets[1], pair.items[1])
    if isinstance(place.value, Aggregate):
        from .lower_reading import over_cpus

        number = over_cpus(f, place, key_memory)
        f.put(Scalar(number.value, UINT64), Memory(second.pointer, second.offset, UINT64))
    else:
        f.put(Memory(value, 0, place.value, leads=leads), second)
    f.variables[info] = memory


def _only_parts(f: Frame, node: ast.ForMap, info: VariableInfo) -> bool:
    """Tell whether a body uses `$kv` only as `$kv.0` and `$kv.1`, and not in a callback of its own."""
    whole = parts = 0
    for each in iter_nodes(node.body):
        if isinstance(each, ast.Variable):
            whole += f.probe.variables.get(each) is info
        elif isinstance(each, (ast.TupleAccess, ast.IndexAccess)):
            parts += isinstance(each.operand, ast.Variable) and f.probe.variables.get(each.operand) is info
        elif isinstance(each, (ast.ForMap, ast.ForRange)):
            return False
    return whole == parts


def count_entries(f: Frame, name: str) -> Value:
    """The number of entries of a map: how often the kernel calls back a function that does nothing."""
    f.unit.need_helper("for_each_map_elem", "len() of a map")
    functions = f.unit.module.functions
    function = functions.get("count_entries")
    if function is None:
        params = [Param(MAPOBJ, "map"), Param(MAP, "key"), Param(MAP, "value"), Param(STACK, "nothing")]
        function = Function("count_entries", params, callback=True)
        Builder(f.unit.module, function).ret(0)
    b = f.b
    nothing = b.alloca(8, 8, "nothing")
    b.store(nothing, Const(0))
    return b.call("for_each_map_elem", [b.map(f.unit.maps[name].kernel_map), b.funcaddr(function), nothing, 0])


LOOPS: dict[type, Callable[..., None]] = {
    ast.While: _while,
    ast.ForRange: _for_range,
    ast.ForMap: _for_map,
    ast.Unroll: _unroll,
}

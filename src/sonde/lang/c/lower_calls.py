"""Calls: functions of the text (as instances, or put in place), helpers of the kernel, kernel functions, callbacks."""

from __future__ import annotations

from ...compiler.helpers import get_helper
from ...compiler.ir import I64
from ...debuginfo.ctype import FuncProto, Pointer, strip
from . import ast
from .analysis import FunctionSymbol, Table
from .losses import count_begun, count_finished
from .lower_expressions import evaluate
from .lower_frame import Frame, failure
from .lower_numbers import convert, fit, wide_register
from .lower_places import decay, variable_place
from .values import Place, Scalar, ir_type, is_pointer, is_wide, leads, pointer_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from .values import Operand

_REGISTERS = 5  # arguments that a call passes


def call(f: Frame, node: ast.Call, *, wanted: bool) -> Operand | None:
    """Lower a call; None for what gives no value."""
    analysis = f.program.analysis
    method = analysis.methods.get(node)
    if method is not None:
        from .bcc_methods import call_method

        return call_method(f, node, *method, wanted=wanted)
    symbol = analysis.symbols.get(node.function)
    if not isinstance(symbol, FunctionSymbol):
        raise failure(node.span, "a call through a pointer, which eBPF cannot do", "call the function by its name")
    f.b.span = node.span
    if symbol.builtin:
        from .lower_builtins import call_builtin

        return call_builtin(f, node, symbol.builtin, wanted)
    if symbol.definition is not None:
        return _own_function(f, node, symbol)
    if symbol.helper:
        return call_helper(f, node, symbol)
    if symbol.kfunc:
        return _kernel_function(f, node, symbol)
    raise failure(node.span, f"function {symbol.name} is declared, but not defined")


# Functions of the text --------------------------------------------------------------------------------------------


def _own_function(f: Frame, node: ast.Call, symbol: FunctionSymbol) -> Operand | None:
    spaces = f.spaces.arguments(node, symbol)
    arguments = [convert(f, _argument(f, arg), p.ctype) for arg, p in zip(node.args, symbol.params)]
    f.b.span = node.span
    if f.program.is_inline(symbol):
        return _in_place(f, node, symbol, arguments, spaces)
    function = f.program.instance(symbol, spaces, node.span)
    values = [fit(f, a, p.ctype, s) for a, p, s in zip(arguments, symbol.params, spaces) if isinstance(a, Scalar)]
    result = f.b.callsub(function, values)
    ctype = strip(symbol.ctype.result)
    if not ctype.size:
        return None
    space = f.program.spaces.result(symbol, spaces)
    return Scalar(result, ctype, space)


def _argument(f: Frame, node: ast.Node) -> Operand:
    return evaluate(f, node)


def _in_place(
    f: Frame, node: ast.Call, symbol: FunctionSymbol, arguments: list[Operand], spaces: tuple[str, ...]
) -> Operand | None:
    """Lower the body of a function where it is called."""
    from .lower_statements import run_body

    program, b = f.program, f.b
    inner_spaces = program.spaces.instance(symbol, spaces)
    if inner_spaces is None or symbol in program.active:
        raise failure(node.span, f"function {symbol.name} calls itself, which eBPF cannot do")
    inner = Frame(program, b, symbol, inner_spaces)
    inner.ctx = f.ctx
    for param, argument in zip(symbol.params, arguments):
        inner.store(variable_place(inner, param), argument)
    done = b.new_block("returned")
    ctype = strip(symbol.ctype.result)
    result = inner.local(ctype, symbol.name) if ctype.size else None

    def finish(operand: Operand | None) -> None:
        if operand is not None and result is not None:
            inner.store(result, convert(inner, operand, ctype))
        b.jump(done)

    inner.finish = finish
    program.active.append(symbol)
    assert symbol.definition is not None
    run_body(inner, symbol.definition.body)
    program.active.pop()
    b.jump(done)
    b.at(done)
    b.span = node.span
    if result is None:
        return None
    if isinstance(ctype, Pointer):
        return f.load(result, program.spaces.result(symbol, spaces))
    from .lower_places import read

    return read(f, result)


# Helpers ----------------------------------------------------------------------------------------------------------


def call_helper(f: Frame, node: ast.Call, symbol: FunctionSymbol) -> Operand | None:
    """Call a helper by the kinds of its arguments."""
    name = symbol.helper
    if name == "trace_printk":
        from .bcc_output import trace_printk

        return trace_printk(f, node)
    helper = get_helper(name)
    if helper is None:
        raise failure(node.span, f"the kernel's helper bpf_{name} is not known here")
    f.program.need_helper(f, name, node.span)
    if name == "tail_call":
        _tail_call(f, node)
        return None
    proto = symbol.ctype
    values = []
    for i, arg in enumerate(node.args):
        kind = helper.args[i].rstrip("?") if i < len(helper.args) else "scalar"
        values.append(
            helper_argument(f, arg, kind, proto.params[i].ctype if i < len(proto.params) else None, node, name)
        )
    f.b.span = node.span
    return helper_result(f, name, values, f.type(node))


def helper_result(f: Frame, name: str, values: list[Value | int], ctype: CType) -> Operand | None:
    """Emit a call, and make of what it gives a value of `ctype`."""
    helper = get_helper(name)
    assert helper is not None
    kind = helper.result.rstrip("?")
    ctype = strip(ctype)
    count_begun(f, name)
    if kind in ("void",):
        f.b.call(name, values)
        count_finished(f, name, None)
        return None
    space = f.spaces._helper(name)
    type_ = pointer_type(space) if kind != "scalar" else I64
    result = f.b.call(name, values, type_)
    count_finished(f, name, result)
    if not ctype.size:
        return None
    if kind != "scalar":
        return Scalar(result, ctype, space)
    if isinstance(ctype, Pointer):
        space = leads(ctype, space, f.program.external)
        return Scalar(f.as_pointer(result, space), ctype, space)
    return Scalar(f.resize(result, True, ir_type(ctype)), ctype, space)


def helper_argument(f: Frame, arg: ast.Node, kind: str, ctype: CType | None, node: ast.Call, name: str) -> Value | int:
    """One argument of a helper: a map, a function, or a register of 64 bits."""
    if kind == "map":
        return map_argument(f, arg)
    if kind == "func":
        return _callback(f, arg, node, name)
    operand = _argument(f, arg)
    if isinstance(operand, Place):
        operand = decay(f, operand)
    if ctype is not None and not isinstance(strip(ctype), Pointer):
        if isinstance(operand, Scalar) and is_pointer(operand.ctype):  # an address where the helper takes any number
            return operand.value
        operand = convert(f, operand, ctype)
    return wide_register(f, operand)


def map_argument(f: Frame, node: ast.Node) -> Value:
    """A map for a helper: a table by its name or address, or a pointer that an outer map gave."""
    inner = node
    while isinstance(inner, (ast.Cast, ast.Unary)) and (isinstance(inner, ast.Cast) or inner.op == "&"):
        inner = inner.operand
    table = f.program.analysis.symbols.get(inner)
    if isinstance(table, Table):
        return f.program.map(f, table)
    return wide_register(f, evaluate(f, node))


def _callback(f: Frame, arg: ast.Node, node: ast.Call, name: str) -> Value:
    """A function that a helper calls back, with the spaces of what it is given."""
    inner = arg
    while isinstance(inner, (ast.Cast, ast.Unary)) and (isinstance(inner, ast.Cast) or inner.op in "&*"):
        inner = inner.operand
    symbol = f.program.analysis.symbols.get(inner)
    if not isinstance(symbol, FunctionSymbol) or symbol.definition is None:
        raise failure(arg.span, f"bpf_{name} takes the name of a function of this text")
    given = _CALLBACKS.get(name, ())
    spaces = []
    for i, param in enumerate(symbol.params):
        space = given[i] if i < len(given) else ""
        if space == "passed":
            passed = node.args[_PASSED[name]]
            space = f.spaces.of(passed)
        spaces.append(leads(param.ctype, space, f.program.external) if is_pointer(param.ctype) else "")
    function = f.program.instance(symbol, tuple(spaces), arg.span, callback=True)
    return f.b.funcaddr(function)


# Spaces of the parameters of callbacks, by helper; "passed": where the argument leads that is handed through.
_CALLBACKS = {
    "loop": ("", "passed"),
    "for_each_map_elem": ("own", "own", "map", "passed"),
    "timer_set_callback": ("own", "own", "map"),
    "find_vma": ("btf", "btf", "passed"),
    "user_ringbuf_drain": ("own", "passed"),
    "bpf_wq_set_callback_impl": ("own", "own", "map"),
    "bpf_rbtree_add_impl": ("btf", "btf"),
}
_PASSED = {"loop": 2, "for_each_map_elem": 2, "find_vma": 3, "user_ringbuf_drain": 2}


def _tail_call(f: Frame, node: ast.Call) -> None:
    ctx, map_, index = node.args
    table = map_argument(f, map_)
    context = wide_register(f, evaluate(f, ctx))
    f.b.tailcall(context, table, wide_register(f, evaluate(f, index)))


def _kernel_function(f: Frame, node: ast.Call, symbol: FunctionSymbol) -> Operand | None:
    values: list[Value | int] = []
    for i, arg in enumerate(node.args):
        if _names_function(f, arg):
            values.append(_callback(f, arg, node, symbol.kfunc))
            continue
        operand = _argument(f, arg)
        if i < len(symbol.ctype.params) and not isinstance(operand, Place):
            operand = convert(f, operand, symbol.ctype.params[i].ctype)
        values.append(wide_register(f, decay(f, operand) if isinstance(operand, Place) else operand))
    if len(values) > _REGISTERS:
        raise failure(node.span, f"kernel function {symbol.name} with more than {_REGISTERS} arguments")
    f.b.span = node.span
    ctype = strip(f.type(node))
    space = leads(ctype, "slot") if isinstance(ctype, Pointer) else ""
    result = f.b.kfunc(symbol.kfunc, values, pointer_type(space) if space else I64)
    if not ctype.size:
        return None
    return Scalar(result if space else f.resize(result, True, ir_type(ctype)), ctype, space)


def _names_function(f: Frame, node: ast.Node) -> bool:
    while isinstance(node, (ast.Cast, ast.Unary)):
        node = node.operand
    symbol = f.program.analysis.symbols.get(node)
    return isinstance(symbol, FunctionSymbol) and symbol.definition is not None


def needs_place(symbol: FunctionSymbol) -> bool:
    """Tell whether a function can only be lowered in place: more arguments than registers, or values that fit none."""
    proto = symbol.ctype
    assert isinstance(proto, FuncProto)
    values = [*(p.ctype for p in symbol.params), proto.result]
    return len(symbol.params) > _REGISTERS or any(_is_large(ctype) for ctype in values) or proto.variadic


def _is_large(ctype: CType) -> bool:
    from .values import is_aggregate

    return is_wide(ctype) or (is_aggregate(ctype) and not isinstance(strip(ctype), Pointer))

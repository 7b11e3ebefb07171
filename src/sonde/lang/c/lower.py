"""Lowering: one function of an analysed text to the IR module of a program, with the instances of what it calls."""

from __future__ import annotations

from ...compiler.builder import Builder
from ...compiler.helpers import get_helper
from ...compiler.ir import CTX, I64, Function, Module, Param
from ...debuginfo.ctype import INT64, Pointer, strip
from ...errors import FeatureError
from .entry import parameter_space, start
from .globals import Globals
from .lower_calls import needs_place
from .lower_frame import Frame, failure
from .lower_numbers import convert, fit
from .lower_statements import run_body
from .spaces import SpaceMaker
from .values import Scalar, ir_type, is_pointer, pointer_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from ...errors import Span
    from ...spec.target import Target
    from .analysis import Analysis, FunctionSymbol, Table
    from .compile import Text
    from .options import Entry
    from .values import Operand

TRACING = frozenset(
    ["kprobe", "tracepoint", "raw_tracepoint", "raw_tracepoint_writable", "perf_event", "tracing", "lsm"]
)
_ALWAYS_THERE = (5, 10)  # the oldest kernel that sonde works on: what it has need not be asked for


def lower_program(text: Text, symbol: FunctionSymbol, entry: Entry) -> Module:
    """Lower one function as a program. Raises CompileError, FeatureError."""
    program = Program(text, entry)
    ctx = Param(CTX, "ctx")
    function = Function(
        symbol.name,
        [ctx],
        I64,
        program=entry.type,
        attach_type=entry.attach_type,
        attach_btf=entry.attach_btf,
        license=text.analysis.license,
        sleepable=entry.sleepable,
    )
    builder = Builder(program.module, function)
    assert symbol.definition is not None
    builder.span = symbol.definition.span
    params = tuple(
        "ctx" if i == 0 else parameter_space(program, symbol, i - 1) if is_pointer(p.ctype) else ""
        for i, p in enumerate(symbol.params)
    )
    spaces = program.spaces.instance(symbol, params)
    assert spaces is not None
    f = Frame(program, builder, symbol, spaces)
    f.finish = lambda operand: _leave(f, operand)
    program.active.append(symbol)
    start(f, ctx)
    run_body(f, symbol.definition.body)
    builder.span = symbol.definition.span
    builder.ret(0)
    return program.module


def _leave(f: Frame, operand: Operand | None) -> None:
    """Return from a program: the result of the function as a number of 64 bits."""
    result = f.symbol.ctype.result
    if operand is None or not strip(result).size:
        f.b.ret(0)
        return
    value = convert(f, convert(f, operand, result), INT64)
    assert isinstance(value, Scalar)
    f.b.ret(value.value)


class Program:
    """What is shared by all frames of one program: the module, the instances, the entry and facts about the target."""

    def __init__(self, text: Text, entry: Entry) -> None:
        self.text = text
        self.analysis: Analysis = text.analysis
        self.target: Target = text.target
        self.entry = entry
        self.module = Module()
        self.spaces = SpaceMaker(text.analysis, entry, text.flows, text.globals.texts)
        self.globals = Globals(text.globals)
        self.active: list[FunctionSymbol] = []  # what is being lowered, outermost first
        self.external = "user" if entry.user else "any"
        self.is_tracing = entry.type in TRACING
        self.relocatable = text.options.relocatable
        self._instances: dict[tuple[FunctionSymbol, tuple[str, ...]], Function] = {}

    def have(self, feature: str) -> bool:
        """Tell whether the target has a feature."""
        return self.target.features.have(feature)

    def need_helper(self, f: Frame, name: str, span: Span) -> None:
        """Raise FeatureError when the target lacks a helper that not all kernels have."""
        helper = get_helper(name)
        assert helper is not None
        since = tuple(map(int, helper.since.split(".")))
        if since > _ALWAYS_THERE and not self.have(f"helper:{name}") and self.is_tracing:
            raise FeatureError(
                f"{span.file}:{span.line}: this program calls bpf_{name}, which {self.target.release} does not have",
                feature=f"helper:{name}",
                hint=f"it came with Linux {helper.since}",
            )

    def reader(self, space: str) -> str:
        """The helper that reads memory of an external space."""
        if space == "user":
            return "probe_read_user"
        if space == "kernel" or not self.is_tracing:
            return "probe_read_kernel"
        return "probe_read"

    def map(self, f: Frame, table: Table) -> Value:
        """A table as the argument of a helper."""
        self.module.add_map(self.text.map_specs[table.name])
        return f.b.map(table.name)

    # Functions --------------------------------------------------------------------------------------------------

    def is_inline(self, symbol: FunctionSymbol) -> bool:
        """Tell whether a function is lowered in place, rather than as a function that the compiler may inline."""
        return needs_place(symbol) or symbol.inline == "always"

    def instance(
        self, symbol: FunctionSymbol, spaces: tuple[str, ...], span: Span, *, callback: bool = False
    ) -> Function:
        """Return the IR function of an instance; lowered at its first call."""
        key = symbol, spaces
        known = self._instances.get(key)
        if known is not None:
            known.callback |= callback
            return known
        inferred = self.spaces.instance(symbol, spaces)
        if symbol in self.active or inferred is None:
            raise failure(span, f"function {symbol.name} calls itself, which eBPF cannot do")
        if needs_place(symbol):
            raise failure(span, f"function {symbol.name} cannot be called back: it takes too much, or returns a struct")
        name = symbol.name if symbol.name not in self.module.functions else f"{symbol.name}.{len(self._instances)}"
        params = [
            Param(ir_type(p.ctype, s) if p.ctype is not None else I64, p.name) for p, s in zip(symbol.params, spaces)
        ]
        result = strip(symbol.ctype.result)
        space = self.spaces.result(symbol, spaces)
        type_ = pointer_type(space) if isinstance(result, Pointer) else ir_type(result) if result.size else I64
        if callback:
            type_ = I64
        function = Function(name, params, type_, callback=callback)
        self._instances[key] = function
        self._lower_instance(symbol, function, inferred, space)
        return function

    def _lower_instance(self, symbol: FunctionSymbol, function: Function, spaces, space: str) -> None:  # type: ignore[no-untyped-def]
        from .lower_places import variable_place

        builder = Builder(self.module, function)
        assert symbol.definition is not None
        builder.span = symbol.definition.span
        f = Frame(self, builder, symbol, spaces)
        for variable, param in zip(symbol.params, function.params):
            f.store_value(variable_place(f, variable), param)
            if param.type == CTX:
                f.ctx = param
        result = symbol.ctype.result

        def finish(operand: Operand | None) -> None:
            if operand is None or not strip(result).size:
                builder.ret(0)
                return
            value = convert(f, operand, result)
            assert isinstance(value, Scalar)
            register = fit(f, value, result, space)
            builder.ret(
                f.resize(register, True, I64) if function.callback else _as_result(f, register, function.result)
            )

        f.finish = finish
        self.active.append(symbol)
        run_body(f, symbol.definition.body)
        self.active.pop()
        builder.ret(0)


def _as_result(f: Frame, register: Value, type_: str) -> Value:
    """A flag that a function returns as a number."""
    return f.b.convert("zext", register, type_) if register.type == "i1" else register

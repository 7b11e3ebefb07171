"""What programs hand to user space: the C types of each buffer's records, found from the calls that reserve and submit them.

A call knows the buffer, the record, or both; where one of them is a parameter of the function around it, or the record is what the function returns,
the callers know the rest. So each function has facts about its own parameters, which are carried to its callers until nothing new comes.
"""

from __future__ import annotations

from ...debuginfo.ctype import VOID, Array, Int, Pointer, Void, sizeof, strip
from ...record import Record
from . import ast
from .analysis import FunctionSymbol, Table, Variable
from .walk import iter_nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Union

    from ...debuginfo.ctype import CType
    from .analysis import Analysis, FunctionInfo

    Buffer = Union[str, int]  # a table's name, or the number of a parameter
    Data = Union[CType, int, None]  # a type, the number of a parameter, None: what the function returns

# Where the buffer and the data are among the arguments; data -1: it is what the call returns, its size the argument behind the buffer.
_METHODS = {
    "perf_submit": 1,
    "perf_submit_skb": 2,
    "ringbuf_output": 0,
    "ringbuf_submit": 0,
    "ringbuf_reserve": -1,
}
_HELPERS = {
    "perf_event_output": (1, 3),
    "ringbuf_output": (0, 1),
    "ringbuf_reserve": (0, -1),
    "ringbuf_reserve_dynptr": (0, -1),
    "skb_output": (1, 3),
    "xdp_output": (1, 3),
}


_BUFFERS = frozenset(["ringbuf", "perf_event_array"])


class _Fact(Record):
    """A function hands `data` to `buffer`."""

    buffer: Buffer
    data: Data


def find_events(analysis: Analysis) -> dict[str, CType | None]:
    """Return the type of the events of each buffer; None where there are several."""
    found = find_event_types(analysis)
    return {name: types[0] if len(types) == 1 else None for name, types in found.items() if types}


def find_event_types(analysis: Analysis) -> dict[str, list[CType]]:
    """Return the types of the records of each buffer that something is written to, in the order of the text; none where no call tells."""
    if not any(table.kind in _BUFFERS for table in analysis.tables.values()):
        return {}
    finder = _Finder(analysis)
    found: dict[str, list[CType]] = {}
    for fact in finder.run():
        if not isinstance(fact.buffer, str):
            continue
        types = found.setdefault(fact.buffer, [])
        data = fact.data
        if data is None or isinstance(data, int) or isinstance(strip(data), Void):
            continue
        if not any(_same(data, known) for known in types):
            types.append(data)
    return found


def _same(a: CType, b: CType) -> bool:
    """Tell whether two types are one, as far as a reader of records is concerned."""
    a, b = strip(a), strip(b)
    if isinstance(a, Array) and isinstance(b, Array):
        return a.count == b.count and _same(a.element, b.element)
    if isinstance(a, Int) and isinstance(b, Int):
        return (a.size, a.signed, a.encoding) == (b.size, b.signed, b.encoding)
    return a is b


class _Finder:
    """The facts of all functions of a text."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.facts: dict[FunctionSymbol, dict[_Fact, None]] = {}
        self.nodes: list[ast.Node] = []  # of the function that is looked at
        self.calls: dict[FunctionSymbol, list[ast.Call]] = {}
        self.places: dict[ast.Node, CType | str] = {}  # of a call: the type that it is given to; "returned"

    def run(self) -> Iterator[_Fact]:
        """Yield all facts, functions in the order of the text."""
        functions = [info for info in self.analysis.functions.values() if info.symbol.definition is not None]
        for info in functions:
            self.facts[info.symbol] = {}
            self._place_calls(info)
            self.calls[info.symbol] = [node for node in self.nodes if isinstance(node, ast.Call)]
        while sum(self._look(info) for info in functions):
            pass
        for facts in self.facts.values():
            yield from facts

    def _place_calls(self, info: FunctionInfo) -> None:
        """Note what becomes of the result of each call."""
        definition = info.symbol.definition
        assert definition is not None
        self.nodes = list(iter_nodes(definition.body))
        for node in self.nodes:
            if isinstance(node, ast.Assign) and node.op == "=":
                self._place(node.value, self.analysis.types.get(node.target))
            elif isinstance(node, ast.Declarator):
                variable = self.analysis.symbols.get(node)
                if isinstance(variable, Variable) and variable.init and len(variable.init) == 1:
                    self._place(variable.init[0].value, variable.ctype)
            elif isinstance(node, ast.Return) and node.value is not None:
                result = info.symbol.ctype.result
                self._place(node.value, result if _target(result) is not None else "returned")
            elif isinstance(node, ast.Cast):
                self._place(node.operand, self.analysis.types.get(node))

    def _place(self, node: ast.Node, where: CType | str | None) -> None:
        if where is None or (not isinstance(where, str) and _target(where) is None):
            return
        while isinstance(node, (ast.Cast, ast.Conditional)):
            if isinstance(node, ast.Conditional):
                self._place(node.no, where)
                node = node.yes or node.no
            else:
                node = node.operand
        if isinstance(node, ast.Call):
            self.places.setdefault(node, where)

    def _look(self, info: FunctionInfo) -> int:
        """Collect the facts of a function; return how many are new."""
        facts = self.facts[info.symbol]
        before = len(facts)
        for node in self.calls[info.symbol]:
            for fact in self._of_call(node):
                facts.setdefault(fact)
        return len(facts) - before

    def _of_call(self, node: ast.Call) -> Iterator[_Fact]:
        method = self.analysis.methods.get(node)
        if method is not None:
            index = _METHODS.get(method[1])
            if index is not None and index < len(node.args):
                yield from self._combine(method[0].name, self._data(node, index, node.args[:1]))
            return
        symbol = self.analysis.symbols.get(node.function)
        if not isinstance(symbol, FunctionSymbol):
            return
        if symbol.helper in _HELPERS:
            where, index = _HELPERS[symbol.helper]
            if max(where, index) < len(node.args):
                buffer = self._buffer(node.args[where])
                yield from self._combine(buffer, self._data(node, index, node.args[where + 1 :]))
        for fact in list(self.facts.get(symbol, ())):
            yield from self._carry(node, fact)

    def _carry(self, node: ast.Call, fact: _Fact) -> Iterator[_Fact]:
        """A fact of a function, as a call of it has it."""
        buffer: Buffer | None = fact.buffer
        data: list[Data] = [fact.data]
        if isinstance(buffer, int):
            buffer = self._buffer(node.args[buffer]) if buffer < len(node.args) else None
        if isinstance(fact.data, int):
            data = self._data(node, fact.data, ()) if fact.data < len(node.args) else []
        elif fact.data is None:
            data = self._data(node, -1, node.args)
        elif isinstance(fact.buffer, str):
            return  # nothing of it depends on the caller
        yield from self._combine(buffer, data)

    def _combine(self, buffer: Buffer | None, data: list[Data]) -> Iterator[_Fact]:
        for each in data if buffer is not None else ():
            yield _Fact(buffer, each)  # type: ignore[arg-type]

    def _buffer(self, node: ast.Node) -> Buffer | None:
        """The table, or the parameter, that an argument names."""
        while isinstance(node, (ast.Cast, ast.Unary)):
            node = node.operand
        named = self.analysis.symbols.get(node)
        if isinstance(named, Table):
            return named.name
        return named.index if isinstance(named, Variable) and named.storage == "param" else None

    def _data(self, node: ast.Call, index: int, sizes: tuple[ast.Expr, ...]) -> list[Data]:
        """What a call hands over: its argument `index`, or (-1) what its result is given to; else the type whose size it names."""
        if index >= 0:
            return self._type_of(node.args[index])
        place = self.places.get(node)
        if isinstance(place, str):
            return [None]
        target = _target(place) if place is not None else None
        if target is not None:
            return [target]
        for size in sizes:
            named = next((part for part in iter_nodes(size) if isinstance(part, ast.Sizeof)), None)
            if named is not None:
                ctype = self.analysis.types.get(named.operand)
                return [ctype] if ctype is not None else []
        return [VOID]

    def _type_of(self, node: ast.Node) -> list[Data]:
        """The type of the data that an argument points to, below casts that hide it."""
        casts = []
        while isinstance(node, ast.Cast):
            casts.append(self.analysis.types[node])
            node = node.operand
        ctype = strip(self.analysis.types[node])
        if isinstance(ctype, Array):
            return [ctype]
        target = _target(ctype)
        if target is not None:
            return [target]
        named = self.analysis.symbols.get(node)
        if isinstance(named, Variable) and named.storage == "param":
            return [named.index]
        known: list[Data] = [target for each in reversed(casts) if (target := _target(each)) is not None]
        return known[:1] or [VOID]


def _target(ctype: CType) -> CType | None:
    """What a pointer leads to, if that is something."""
    inner = strip(ctype)
    if not isinstance(inner, Pointer):
        return None
    target = strip(inner.target)
    return None if isinstance(target, Void) or (not sizeof(target) and not isinstance(target, Array)) else target

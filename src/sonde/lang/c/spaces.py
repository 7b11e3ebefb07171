"""Where pointers lead: the address space of every pointer of one instance of a function.

An instance is a function together with the spaces of its arguments. The spaces of local variables are found by a small fixpoint over all
that they are assigned, in no order; those of expressions follow from them. See `values` for the spaces.
"""

from __future__ import annotations

from ...compiler.helpers import get_helper
from ...debuginfo.ctype import Array, FuncProto, Pointer, Struct, strip
from . import ast
from .analysis import FunctionSymbol, Table, Variable
from .values import OWN, join, leads, loaded_space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...debuginfo.ctype import CType
    from .analysis import Analysis, FunctionInfo
    from .options import Entry
    from .walk import Flow

_ROUNDS = 20  # each changes the space of a variable for good: null, own, any
_RESULTS = {"value": "map", "record": "mem", "mem": "mem", "percpu_mem": "mem", "socket": "sock", "sock_common": "sock",
            "tcp_sock": "sock"}  # fmt: skip
_ADDRESSES = {"get_current_task": "kernel", "get_func_ip": "kernel"}  # numbers that are addresses
_METHODS = {"lookup": "map", "lookup_or_init": "map", "lookup_or_try_init": "map", "ringbuf_reserve": "mem",
            "sk_storage_get": "map", "inode_storage_get": "map", "task_storage_get": "map", "get_local_storage": "map"}  # fmt: skip
_PACKET_CONTEXTS = frozenset(["__sk_buff", "xdp_md", "sk_msg_md", "sk_reuseport_md"])
_PACKET_FIELDS = frozenset(["data", "data_end", "data_meta"])
_ITERATORS = "bpf_iter__"
_TRACING = frozenset(["tracing", "lsm", "struct_ops"])


class Spaces:
    """The spaces of one instance. `variables` has those of pointer variables (and of integers that hold addresses)."""

    def __init__(self, maker: SpaceMaker, info: FunctionInfo, params: tuple[str, ...]) -> None:
        self.maker = maker
        self.analysis = maker.analysis
        self.external = "user" if maker.entry.user else "any"
        self.variables: dict[Variable, str] = {}
        self.result = ""
        for variable, space in zip(info.symbol.params, params):
            self.variables[variable] = space
        self._infer(maker.flow(info))

    def _infer(self, flow: Flow) -> None:
        for _ in range(_ROUNDS):
            changed = False
            for variable, value in flow.assigned:
                old = self.variables.get(variable, "")
                new = join(old, self._as(variable.ctype, self.of(value)))
                if new != old:
                    self.variables[variable] = new
                    changed = True
            result = ""
            for value in flow.returned:
                result = join(result, self.of(value))
            if not changed and result == self.result:
                break
            self.result = result
        for variable in flow.exposed:  # whoever has the address may put any pointer there
            if isinstance(strip(variable.ctype), Pointer) and self.variables.get(variable) != self.external:
                self.variables[variable] = "any"

    def _as(self, ctype: CType, space: str) -> str:
        """The space of a value once it has a type."""
        if isinstance(strip(ctype), Pointer):
            return leads(ctype, space, self.external)
        return "" if space == "null" else space

    # Expressions ------------------------------------------------------------------------------------------------

    def of(self, node: ast.Node) -> str:
        """Return where the value of an expression leads; of an array or struct, where it lies."""
        ctype = strip(self.analysis.types[node])
        if isinstance(ctype, (Array, Struct)):
            return self.place(node)
        if node in self.analysis.constants:
            return "null" if self.analysis.constants[node] == 0 else ""
        rule = _VALUES.get(type(node))
        return rule(self, node) if rule is not None else ""

    def place(self, node: ast.Node) -> str:
        """Return the space that an expression lies in: a variable, a member, an element, what a pointer leads to."""
        rule = _PLACES.get(type(node))
        return rule(self, node) if rule is not None else "stack"

    def arguments(self, call: ast.Call, symbol: FunctionSymbol) -> tuple[str, ...]:
        """Return the spaces of the arguments of a call of a function of the text, as its parameters have them."""
        given = [self.of(arg) for arg in call.args]
        return tuple(self._as(param.ctype, space) for param, space in zip(symbol.params, given))

    # Values ---------------------------------------------------------------------------------------------------------

    def _name(self, node: ast.Name) -> str:
        symbol = self.analysis.symbols.get(node)
        if not isinstance(symbol, Variable):
            return ""
        if symbol.storage in ("auto", "param", "register"):
            space = self.variables.get(symbol, "")
            return self._as(symbol.ctype, space) if space != "null" else space
        return loaded_space(symbol.ctype, self.maker.texts.get(symbol, "map"))

    def _loaded(self, node: ast.Member | ast.Index | ast.Unary) -> str:
        """Of a member, an element, or what a pointer leads to."""
        space = self.place(node)
        ctype = self.analysis.types[node]
        if space in ("ctx", "inner"):
            return self._from_context(node, ctype)
        return loaded_space(ctype, space, self.external)

    def _from_context(self, node: ast.Node, ctype: CType) -> str:
        access = self.analysis.accesses.get(node)
        entry = self.maker.entry
        if access is None:  # an element of the array of arguments
            return "slot" if entry.type in _TRACING else ""
        struct, name = access.struct.name, access.field.member.name
        if struct == "pt_regs" and entry.context in ("sys_enter", "raw_enter"):
            if name not in ("di", "regs"):
                return "user"
            return "register" if entry.context == "sys_enter" else "raw register"
        if struct in _PACKET_CONTEXTS and name in _PACKET_FIELDS:
            return "packet"
        if struct.startswith(_ITERATORS) and isinstance(strip(ctype), Pointer):
            return leads(ctype, "slot")
        if isinstance(strip(ctype), Pointer) and name in ("sk", "migrating_sk", "flow_keys"):
            return "sock" if name != "flow_keys" else "mem"
        return loaded_space(ctype, "ctx", self.external)

    def _unary(self, node: ast.Unary) -> str:
        if node.op == "*":
            return self._loaded(node)
        if node.op == "&":
            return self.place(node.operand)
        return self.of(node.operand) if node.op in ("++", "--", "+") else ""

    def _binary(self, node: ast.Binary) -> str:
        if node.op not in ("+", "-"):
            return ""
        left, right = self.of(node.left), self.of(node.right)
        if node.op == "-":
            return "" if _is_address(left) and _is_address(right) else left
        return left if _is_address(left) else right

    def _assign(self, node: ast.Assign) -> str:
        if node.op != "=":
            return self.of(node.target)
        return self._as(self.analysis.types[node.target], self.of(node.value))

    def _conditional(self, node: ast.Conditional) -> str:
        yes = node.yes if node.yes is not None else node.condition
        return join(self.of(yes), self.of(node.no))

    def _cast(self, node: ast.Cast) -> str:
        space = self.of(node.operand)
        return space if space == "null" else self._as(self.analysis.types[node], space)

    def _statements(self, node: ast.StatementExpr) -> str:
        last = node.body.items[-1] if node.body.items else None
        while isinstance(last, (ast.Label, ast.Case)):
            last = last.statement
        return self.of(last.expr) if isinstance(last, ast.ExprStatement) and last.expr is not None else ""

    def _call(self, node: ast.Call) -> str:
        method = self.analysis.methods.get(node)
        if method is not None:
            return _METHODS.get(method[1], "")
        symbol = self.analysis.symbols.get(node.function)
        if not isinstance(symbol, FunctionSymbol):
            return ""
        if symbol.helper:
            return self._helper(symbol.helper)
        if symbol.definition is not None:
            return self.maker.result(symbol, self.arguments(node, symbol))
        if symbol.kfunc:
            result = strip(self.analysis.types[node])
            return leads(result, "slot") if isinstance(result, Pointer) else ""
        passed = symbol.builtin in ("memcpy", "memset", "memmove", "expect", "preserve_access_index", "strcpy")
        return self.of(node.args[0]) if passed and node.args else ""

    def _helper(self, name: str) -> str:
        helper = get_helper(name)
        if helper is None:
            return ""
        result = helper.result.rstrip("?")
        if result.startswith("btf"):
            return "btf"
        return _RESULTS.get(result, _ADDRESSES.get(name, ""))

    # Places -----------------------------------------------------------------------------------------------------

    def _variable_place(self, node: ast.Name) -> str:
        symbol = self.analysis.symbols.get(node)
        if isinstance(symbol, Table):
            return ""
        if isinstance(symbol, Variable) and symbol.storage in ("auto", "param", "register"):
            return "stack"
        return self.maker.texts.get(symbol, "map")  # type: ignore[arg-type]

    def _member_place(self, node: ast.Member) -> str:
        return self._pointer(node.operand) if node.arrow else self.place(node.operand)

    def _index_place(self, node: ast.Index) -> str:
        base = node.operand
        if not isinstance(strip(self.analysis.types[base]), (Pointer, Array)):
            base = node.index
        return self._pointer(base)

    def _deref_place(self, node: ast.Unary) -> str:
        return self._pointer(node.operand) if node.op == "*" else "stack"

    def _pointer(self, node: ast.Node) -> str:
        """The space that a pointer leads to when it is followed."""
        space = self.of(node)
        return self.external if space in ("", "null") else space


def _is_address(space: str) -> bool:
    return space not in ("", "null")


_VALUES: dict[type, Callable[..., str]] = {
    ast.Name: Spaces._name,
    ast.Member: Spaces._loaded,
    ast.Index: Spaces._loaded,
    ast.Unary: Spaces._unary,
    ast.Postfix: lambda self, node: self.of(node.operand),
    ast.Binary: Spaces._binary,
    ast.Assign: Spaces._assign,
    ast.Conditional: Spaces._conditional,
    ast.Comma: lambda self, node: self.of(node.right),
    ast.Cast: Spaces._cast,
    ast.StatementExpr: Spaces._statements,
    ast.Call: Spaces._call,
    ast.String: lambda self, node: "map",
}
_PLACES: dict[type, Callable[..., str]] = {
    ast.Name: Spaces._variable_place,
    ast.Member: Spaces._member_place,
    ast.Index: Spaces._index_place,
    ast.Unary: Spaces._deref_place,
    ast.String: lambda self, node: "map",
    ast.Comma: lambda self, node: self.place(node.right),
    ast.Cast: lambda self, node: self.place(node.operand),
}


class SpaceMaker:
    """Makes the spaces of instances, each once. One for each program: they depend on what its context is."""

    def __init__(
        self, analysis: Analysis, entry: Entry, flows: dict[FunctionSymbol, Flow], texts: dict[Variable, str]
    ) -> None:
        self.analysis = analysis
        self.texts = texts  # the spaces of variables that hold pointers to texts
        self.entry = entry
        self._flows = flows
        self._made: dict[tuple[FunctionSymbol, tuple[str, ...]], Spaces | None] = {}

    def flow(self, info: FunctionInfo) -> Flow:
        """Return what a function does to its variables; collected once for all programs of a text."""
        from .walk import flow_of

        known = self._flows.get(info.symbol)
        if known is None:
            known = self._flows[info.symbol] = flow_of(self.analysis, info)
        return known

    def instance(self, symbol: FunctionSymbol, params: tuple[str, ...]) -> Spaces | None:
        """Return the spaces of an instance; None while they are being found (the function calls itself)."""
        key = symbol, params
        if key not in self._made:
            self._made[key] = None
            self._made[key] = Spaces(self, self.analysis.functions[symbol.name], params)
        return self._made[key]

    def result(self, symbol: FunctionSymbol, params: tuple[str, ...]) -> str:
        """Return where the result of an instance leads."""
        instance = self.instance(symbol, params)
        if instance is None:
            return ""
        result = symbol.ctype.result if isinstance(symbol.ctype, FuncProto) else symbol.ctype
        space = instance.result
        if isinstance(strip(result), Pointer) and space != "null":
            space = leads(result, space, instance.external)
        return space


def is_own(space: str) -> bool:
    """Tell whether loads and stores reach a space."""
    return space in OWN

"""The syntax tree of a bpftrace script.

Nodes compare and hash by identity, so that side tables (node -> type) can be plain dicts. They are never changed: a
pass that rewrites makes new nodes with the old spans. A node that a macro expansion made has a span in the macro's text
whose `call` is the place of the call (see `source.Place`); `source.diagnose` makes the "expanded from" notes of it.
"""

from __future__ import annotations

from ...errors import Diagnostic, Span
from ...record import Record


class Node(Record, eq=False):
    """Base of all nodes; `span` is the whole text of the node."""

    span: Span


# Expressions -----------------------------------------------------------------------------------------------------


class Expr(Node, eq=False):
    """Base of all expressions."""


class Integer(Expr, eq=False):
    """A number, suffixes applied (`1s` is 1000000000). `text` is the source spelling."""

    value: int
    text: str = ""


class String(Expr, eq=False):
    """A string literal, escapes resolved."""

    value: str


class Boolean(Expr, eq=False):
    """`true` or `false`."""

    value: bool


class Identifier(Expr, eq=False):
    """A bare name: an enum constant, a macro argument, a builtin (`pid`, `comm`, `args`, `arg0`), a stack mode …"""

    name: str


class Positional(Expr, eq=False):
    """`$1`: its value is resolved by the parameter pass into Integer or String."""

    number: int


class PositionalCount(Expr, eq=False):
    """`$#`."""


class Variable(Expr, eq=False):
    """A scratch variable; `name` includes the `$`."""

    name: str


class Map(Expr, eq=False):
    """A map by itself: a scalar map's value, or a whole map as an argument. `name` includes the `@` ("@" alone too)."""

    name: str


class MapAccess(Expr, eq=False):
    """`@m[k]` or `@m[a, b]`: several keys make one TupleExpr key."""

    map: Map
    key: Expr


class Call(Expr, eq=False):
    """A function call. Map-value functions (`count()`) are calls too."""

    name: str
    args: tuple[Expr | TypeName, ...]


class Unary(Expr, eq=False):
    """`- ! ~ * &` and `++ --`, which may be postfix."""

    op: str
    operand: Expr
    postfix: bool = False


class Binary(Expr, eq=False):
    """All infix operators but assignment; `&&` and `||` evaluate from the left and stop early."""

    op: str
    left: Expr
    right: Expr


class Ternary(Expr, eq=False):
    """`c ? a : b`; `then` is None in `c ?: b`."""

    condition: Expr
    then: Expr | None
    otherwise: Expr


class Cast(Expr, eq=False):
    """`(type)expr`."""

    type: TypeName
    operand: Expr


class FieldAccess(Expr, eq=False):
    """`a.name` or, with `arrow`, `a->name`."""

    operand: Expr
    name: str
    arrow: bool = False


class TupleAccess(Expr, eq=False):
    """`a.0`."""

    operand: Expr
    index: int


class IndexAccess(Expr, eq=False):
    """`a[i]` of an array, pointer, or tuple (constant index)."""

    operand: Expr
    index: Expr


class TupleExpr(Expr, eq=False):
    """`()`, `(a,)`, `(a, b)`."""

    items: tuple[Expr, ...]


class RecordExpr(Expr, eq=False):
    """`(x=1, y="s")`."""

    names: tuple[str, ...]
    items: tuple[Expr, ...]


class Sizeof(Expr, eq=False):
    """`sizeof(type or expression)`."""

    operand: Expr | TypeName


class Offsetof(Expr, eq=False):
    """`offsetof(type or expression, a.b)`."""

    operand: Expr | TypeName
    path: tuple[str, ...]


class Comptime(Expr, eq=False):
    """`comptime e`: must fold to a constant."""

    operand: Expr


class IfExpr(Expr, eq=False):
    """`if` as a value and as a statement (inside ExprStatement); a missing else is an empty block."""

    condition: Expr
    then: BlockExpr
    otherwise: BlockExpr | IfExpr | None = None


class BlockExpr(Expr, eq=False):
    """`{ statements; value }`; `value` is None for a plain block."""

    statements: tuple[Statement, ...]
    value: Expr | None = None


class TypeName(Node, eq=False):
    """A type as written: base name ("uint64", "struct task_struct", "string", "buffer", "enum e"), pointer depth,
    array dimensions (None for `[]`), string/buffer size in `dims` too. `typeof` holds the operand of `typeof(…)`.
    """

    name: str
    pointers: int = 0
    dims: tuple[int | None, ...] = ()
    typeof: Expr | TypeName | None = None


# Statements ------------------------------------------------------------------------------------------------------


class Statement(Node, eq=False):
    """Base of all statements."""


class ExprStatement(Statement, eq=False):
    """An expression for its effect: a call, `++`, an `if`, a bare block."""

    expr: Expr


class Let(Statement, eq=False):
    """`let $x[: type][= e];`"""

    variable: Variable
    type: TypeName | None = None
    value: Expr | None = None


class Assign(Statement, eq=False):
    """`target op= value`; `op` is "" for plain assignment, else "+", "<<" … `target` Identifier "_" discards."""

    target: Variable | Map | MapAccess | Identifier
    op: str
    value: Expr


class While(Statement, eq=False):
    """`while (c) { … }`."""

    condition: Expr
    body: BlockExpr


class ForRange(Statement, eq=False):
    """`for ($i : a..b) { … }`, b excluded."""

    variable: Variable
    start: Expr
    end: Expr
    body: BlockExpr


class ForMap(Statement, eq=False):
    """`for ($kv : @m) { … }`."""

    variable: Variable
    map: Map
    body: BlockExpr


class Unroll(Statement, eq=False):
    """`unroll (n) { … }`."""

    count: Expr
    body: BlockExpr


class Jump(Statement, eq=False):
    """`break`, `continue`, `return [e]`."""

    kind: str
    value: Expr | None = None


# Top level -------------------------------------------------------------------------------------------------------


class AttachPoint(Node, eq=False):
    """One attach point as written, parameters expanded: `text` "tracepoint:syscalls:sys_enter_*", split at ':'
    outside quotes into `parts` (the provider is parts[0], as written)."""

    text: str
    parts: tuple[str, ...]


class Probe(Node, eq=False):
    """`[name =] attach points [/predicate/] { … }`."""

    attach_points: tuple[AttachPoint, ...]
    predicate: Expr | None
    body: BlockExpr
    name: str = ""


class ConfigItem(Node, eq=False):
    """One assignment of the config block."""

    name: str
    value: str | int | bool


class MapDecl(Node, eq=False):
    """`let @m = hash(N);`"""

    name: str
    type: str
    max_entries: int


class MacroParam(Node, eq=False):
    """A macro's parameter. `kind` is "var" (`$v`, by name), "map" (`@m`) or "expr" (an expression, a type, a member)."""

    kind: str
    name: str


class Macro(Node, eq=False):
    """`macro name(params) { … }`."""

    name: str
    params: tuple[MacroParam, ...]
    body: BlockExpr


class Subprogram(Node, eq=False):
    """`fn name($a : type) : type { … }`: parsed and checked, cannot be called (as in bpftrace)."""

    name: str
    params: tuple[tuple[Variable, TypeName], ...]
    result: TypeName
    body: BlockExpr


class Import(Node, eq=False):
    """`import "path";`"""

    path: str


class LocalImport(Statement, eq=False):
    """`import "stdlib/…";` inside a block."""

    path: str


class CDefinition(Node, eq=False):
    """C text at the top of a script: directives, struct, union, enum, typedef definitions, verbatim."""

    text: str


class Program(Node, eq=False):
    """A whole script."""

    c_definitions: tuple[CDefinition, ...] = ()
    config: tuple[ConfigItem, ...] = ()
    imports: tuple[Import, ...] = ()
    map_decls: tuple[MapDecl, ...] = ()
    macros: tuple[Macro, ...] = ()
    subprograms: tuple[Subprogram, ...] = ()
    probes: tuple[Probe, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()  # what the passes so far had to say; never fatal
    words: frozenset[str] = (
        frozenset()
    )  # all bare names and names of calls, "$1" and "$#": tells passes what to look for

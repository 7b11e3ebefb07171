"""Checker: the state of one analysis of a C text, and the few operations that all of its rules share.

Rules are functions of (checker, node), one for each kind of node, in the `types_*` files. A rule that cannot go on raises CompileError;
the statement or declaration around it reports that and goes on with the next one, so that a text shows all of its errors at once.
"""

from __future__ import annotations

from ...debuginfo.ctype import CType, Void
from ...errors import CompileError
from ..source import Place, diagnose
from .analysis import EnumConstant, FunctionSymbol, Table, Variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Union

    from ...debuginfo.ctype import Struct
    from ...errors import Diagnostic, Span
    from ..source import Source
    from . import ast
    from .analysis import Access, CaseLabel, FunctionInfo, Initialiser, Symbol
    from .environment import Environment

    Rule = Callable[["Checker", Any], CType]
    StatementRule = Callable[["Checker", Any], None]
    Meaning = Union[Symbol, CType]  # of a name in a scope: a CType for a typedef

MAX_ERRORS = 20


class Poison(Void):
    """The type of what was declared in error: whoever uses it stays silent."""

    __slots__ = ()


POISON = Poison()


class Silent(Exception):
    """A consequence of an error that was reported already. Never leaves this package."""


class TooMany(Exception):
    """There are too many errors to go on. Never leaves this package."""


class Scope:
    """Names of one block, or of the file. `tags` holds "struct s", "union u", "enum e"; `spans` where each name was declared."""

    __slots__ = ("names", "outer", "spans", "tags")

    def __init__(self, outer: Scope | None = None) -> None:
        self.outer = outer
        self.names: dict[str, Meaning] = {}
        self.tags: dict[str, CType] = {}
        self.spans: dict[str, Span] = {}

    def find(self, name: str) -> Meaning | None:
        """Return what a name means here, or None."""
        scope: Scope | None = self
        while scope is not None:
            found = scope.names.get(name)
            if found is not None:
                return found
            scope = scope.outer
        return None

    def find_tag(self, key: str) -> CType | None:
        """Return the type of a tag ("struct s"), or None."""
        scope: Scope | None = self
        while scope is not None:
            found = scope.tags.get(key)
            if found is not None:
                return found
            scope = scope.outer
        return None

    def iter_names(self) -> Iterator[str]:
        """Yield every name that can be seen from here."""
        scope: Scope | None = self
        while scope is not None:
            yield from scope.names
            scope = scope.outer


class FunctionState:
    """The function whose body is being checked."""

    __slots__ = (
        "breakable",
        "calls",
        "gotos",
        "labels",
        "locals",
        "loops",
        "named",
        "read",
        "spared",
        "switches",
        "symbol",
        "written",
    )

    def __init__(self, symbol: FunctionSymbol) -> None:
        self.symbol = symbol
        self.locals: list[Variable] = []
        self.labels: dict[str, ast.Label] = {}
        self.gotos: list[ast.Goto] = []
        self.calls: dict[FunctionSymbol, ast.Node] = {}
        self.loops = 0
        self.breakable: list[bool] = []  # loops and switches around the statement
        self.switches: list[SwitchState] = []
        self.read: dict[Variable, ast.Node] = {}  # scalars without an initialiser: where they are first read
        self.named: set[Variable] = set()  # variables that are named after their declaration
        self.spared: set[Variable] = set()  # those that may stay unused
        self.written: set[Variable] = set()  # assigned, or their address taken


class SwitchState:
    """The switch around a statement: the type of its value, and its labels so far."""

    __slots__ = ("ctype", "labels", "node")

    def __init__(self, node: ast.Switch, ctype: CType) -> None:
        self.node = node
        self.ctype = ctype
        self.labels: list[CaseLabel] = []


class Checker:
    """What is known of the text so far. The tables are those of `Analysis`."""

    def __init__(self, environment: Environment, dialect: str, main: Source | None) -> None:
        self.environment = environment
        self.dialect = dialect
        self.linkable = False
        self.main = main
        self.rules: dict[type, Rule] = {}
        self.statement_rules: dict[type, StatementRule] = {}
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.file_scope = self.scope = Scope()
        self.function: FunctionState | None = None
        self.types: dict[ast.Node, CType] = {}
        self.common: dict[ast.Node, CType] = {}
        self.symbols: dict[ast.Node, Symbol] = {}
        self.constants: dict[ast.Node, int] = {}
        self.accesses: dict[ast.Node, Access] = {}
        self.literals: dict[ast.Node, tuple[Initialiser, ...]] = {}
        self.cases: dict[ast.Node, tuple[CaseLabel, ...]] = {}
        self.methods: dict[ast.Node, tuple[Table, str]] = {}
        self.chosen: dict[ast.Node, ast.Expr] = {}
        self.cleanups: dict[Variable, ast.Call] = {}
        self.functions: dict[str, FunctionInfo] = {}
        self.globals: dict[str, Variable] = {}
        self.tables: dict[str, Table] = {}
        self.table_structs: dict[Table, Struct] = {}  # what a table's name is in an expression
        self.license = "GPL"
        self.named_functions: set[FunctionSymbol] = set()  # outside of functions, or in another way than by a call
        self.edges: dict[FunctionSymbol, dict[FunctionSymbol, ast.Node]] = {}  # which function names which, and where
        self.bases: dict[ast.Specifiers, CType] = {}  # declarators share their specifiers
        self.alignments: dict[CType, int] = {}  # of typedefs that have that attribute
        self.text_tags: set[str] = set()  # the tags that the text defines at file scope, somewhere
        self.waiting: dict[str, ast.FunctionDef] = {}  # functions of headers, checked when somebody names them
        self.wanted: list[ast.FunctionDef] = []  # those that somebody did name
        self.at_end: list[Callable[[], None]] = []  # checks that want to have seen the whole text

    # diagnostics ----------------------------------------------------------------------------------------------

    def fail(
        self, at: ast.Node | Span, message: str, *, hint: str = "", notes: tuple[Diagnostic, ...] = ()
    ) -> CompileError:
        """Make the error of a rule that cannot go on, to be raised."""
        return CompileError([diagnose(_span(at), message, hint=hint, notes=notes)])

    def error(self, at: ast.Node | Span, message: str, *, hint: str = "", notes: tuple[Diagnostic, ...] = ()) -> None:
        """Report an error and go on."""
        self.report(diagnose(_span(at), message, hint=hint, notes=notes))

    def report(self, diagnostic: Diagnostic) -> None:
        """Keep an error, once. Raises TooMany."""
        if diagnostic not in self.errors:
            self.errors.append(diagnostic)
            if len(self.errors) >= MAX_ERRORS:
                raise TooMany

    def warn(self, at: ast.Node | Span, message: str, *, hint: str = "", notes: tuple[Diagnostic, ...] = ()) -> None:
        """Report a warning, unless it is about the text of a header."""
        span = _span(at)
        if self.in_main(span, macros=False):
            self.warnings.append(diagnose(span, message, severity="WARNING", hint=hint, notes=notes))

    def note(self, span: Span, message: str) -> tuple[Diagnostic, ...]:
        """Make the note of a diagnostic about another place."""
        return (diagnose(span, message, severity="NOTE"),)

    def in_main(self, span: Span, *, macros: bool = True) -> bool:
        """Tell whether a place belongs to the main text; with `macros`, also when a header's macro wrote it there."""
        if self.main is None or not isinstance(span, Place):
            return True
        if macros:
            while span.call is not None:
                span = span.call
        return span.source is self.main

    # walking --------------------------------------------------------------------------------------------------

    def expr(self, node: ast.Expr) -> CType:
        """Return the type of an expression; checks it. Raises CompileError, Silent."""
        ctype = self.types[node] = self.rules[node.__class__](self, node)
        return ctype

    def statement(self, node: ast.Statement) -> None:
        """Check a statement. Errors inside of it are reported."""
        try:
            self.statement_rules[node.__class__](self, node)
        except CompileError as error:
            self.report_all(error)
        except Silent:
            pass

    def attempt(self, check: Callable[[], object]) -> None:
        """Run a part of a rule whose errors are not to hide those of the rest."""
        try:
            check()
        except CompileError as error:
            self.report_all(error)
        except Silent:
            pass

    def report_all(self, error: CompileError) -> None:
        """Keep the diagnostics of an error that was caught. Raises TooMany."""
        for diagnostic in error.diagnostics:
            self.report(diagnostic)

    def open_scope(self) -> None:
        """Begin a block."""
        self.scope = Scope(self.scope)

    def close_scope(self) -> None:
        """End a block."""
        assert self.scope.outer is not None
        self.scope = self.scope.outer

    # names ----------------------------------------------------------------------------------------------------

    def declare(self, name: str, meaning: Meaning, span: Span) -> None:
        """Give a name a meaning in the current scope."""
        self.scope.names[name] = meaning
        self.scope.spans[name] = span

    def previous(self, name: str) -> tuple[Diagnostic, ...]:
        """Make the note that tells where the current scope declares `name`."""
        span = self.scope.spans.get(name)
        return self.note(span, "the previous declaration is here") if span is not None else ()


def change(record: FunctionSymbol | Variable | Table | EnumConstant, **fields: object) -> None:
    """Complete a symbol that was made at its first declaration: everybody who named it since holds the same object."""
    for field, value in fields.items():
        setattr(record, field, value)


def _span(at: ast.Node | Span) -> Span:
    span: Span | None = getattr(at, "span", None)
    return at if span is None else span  # type: ignore[return-value]

"""What the analysis of a C program finds, in tables beside the syntax tree; what `lower` reads.

Types are those of `debuginfo.ctype`. An expression's type is the one that it has before arrays and functions decay and before
integers are promoted; a node that needs its operands in a common type has that in `common`.
"""

from __future__ import annotations

from ...debuginfo.ctype import Struct
from ...record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from ...debuginfo.ctype import CType, Field, FuncProto
    from ...errors import Diagnostic, Span
    from . import ast

    Symbol = Union["Variable", "FunctionSymbol", "Table", "EnumConstant"]


class TextStruct(Struct):
    """A struct or union that the text defines, or names before it defines it (`defined` is False until then).

    `marks` are what attributes said of it: "packed", "preserve_access_index" (CO-RE relocates its members by name), "packet" (BCC's
    packet headers: members are bits of the packet, most significant first).
    """

    __slots__ = ("broken", "defined", "marks", "span")

    def __init__(self, kind: str, name: str, span: Span) -> None:
        super().__init__(kind, name, 0, (), align=1)
        self.defined = False
        self.broken = False  # some of its members were in error, and are not there
        self.marks: frozenset[str] = frozenset()
        self.span = span

    def define(self, layout: Struct, marks: frozenset[str]) -> None:
        """Take size, alignment and members from `layout`."""
        self.size = layout.size
        self._align = layout.align
        self._members = layout.members
        self.marks = marks
        self.defined = True


class Variable(Record, eq=False):
    """A variable. `storage`: "auto", "param", "static" (a local or file-scope static), "global", "extern".

    `index` is the place of a parameter. `init` is None where there is none; see `Initialiser`. `section` is what an attribute asked for.
    """

    name: str
    ctype: CType
    storage: str
    span: Span
    index: int = 0
    init: tuple[Initialiser, ...] | None = None
    section: str = ""
    weak: bool = False


class Initialiser(Record, eq=False):
    """One scalar, string or struct that an initialiser puts at `offset` (bytes) of the object; what no entry covers is zero.

    Entries are in order of evaluation; where two overlap, the later one wins.

    A bit-field lies `bit_offset` bits into the `ctype` at `offset` and is `bit_width` wide. `value` has been checked to convert to `ctype`;
    a String for a char array keeps its ast node.
    """

    offset: int
    ctype: CType
    value: ast.Expr
    bit_offset: int = 0
    bit_width: int = 0


class FunctionSymbol(Record, eq=False):
    """A function. One of: `definition` in this text; `helper` (kernel helper by its name without bpf_); `kfunc`; `builtin` (its name
    without __builtin_: "memcpy", "preserve_field_info"; or whole: "__sync_fetch_and_add", "__atomic_load_n"). All empty: declared only.

    `inline`: "always", "never", or "" (as it suits). `section` is that of SEC("…"); `is_program` says that it is an entry point.
    """

    name: str
    ctype: FuncProto
    span: Span
    definition: ast.FunctionDef | None = None
    helper: str = ""
    kfunc: str = ""
    builtin: str = ""
    static: bool = False
    inline: str = ""
    section: str = ""
    is_program: bool = False
    params: tuple[Variable, ...] = ()  # of a definition


class Table(Record, eq=False):
    """A map. `kind` is the kernel's map type ("hash", "percpu_array", "perf_event_array" …), `bcc_kind` BCC's word or "" (libbpf style)."""

    name: str
    kind: str
    key: CType | None
    leaf: CType | None
    max_entries: int
    flags: int
    span: Span
    bcc_kind: str = ""
    pinning: str = ""  # a path, "by_name", or options.EXTERN: another object defines the map
    inner: str = ""  # name of the inner map's template
    public: bool = False
    initial: tuple[tuple[int, str], ...] = ()  # of maps of maps and programs: index, and the name of what is put there


class EnumConstant(Record, eq=False):
    """An enumeration constant."""

    name: str
    value: int
    ctype: CType


class Access(Record, eq=False):
    """A member access that has been found: through anonymous members, by `field` of `struct`.

    `own` is False for a struct of the kernel (its layout is the target's, and CO-RE relocates it), and for a TextStruct that is marked
    "preserve_access_index": relocated by name.
    """

    struct: CType
    field: Field
    own: bool


class CaseLabel(Record, eq=False):
    """A label of a switch: values `low` to `high`; the default has None."""

    low: int | None
    high: int | None
    node: ast.Case


class FunctionInfo(Record, eq=False):
    """The tables of one function's body."""

    symbol: FunctionSymbol
    locals: tuple[Variable, ...]
    labels: dict[str, ast.Label]
    calls: tuple[FunctionSymbol, ...] = ()  # functions of this text that it names, each once


class Analysis(Record, eq=False):
    """A program text that makes sense. `tables`, `globals` and `functions` are in order of declaration; only what is used of the virtual
    headers is in them.
    """

    unit: ast.TranslationUnit
    functions: dict[str, FunctionInfo]
    globals: dict[str, Variable]
    tables: dict[str, Table]
    types: dict[ast.Node, CType]  # of every expression, TypeName and Declarator
    # Binary, compound Assign, Conditional: what the operands are brought to. Of a shift: the promoted left operand. Of pointer ± integer,
    # pointer - pointer and comparisons of pointers: the pointer. Nothing for && and ||.
    common: dict[ast.Node, CType]
    symbols: dict[ast.Node, Symbol]  # Name → what it names; Declarator → the Variable declared (locals, params)
    constants: dict[ast.Node, int]  # expressions whose value is known; none of their parts has to be evaluated
    accesses: dict[ast.Node, Access]  # Member
    literals: dict[ast.Node, tuple[Initialiser, ...]]  # CompoundLiteral
    cases: dict[ast.Node, tuple[CaseLabel, ...]]  # Switch
    methods: dict[ast.Node, tuple[Table, str]]  # Call of a table's method: table, method
    chosen: dict[ast.Node, ast.Expr]  # Generic, and Call of __builtin_choose_expr: the operand that it stands for
    cleanups: dict[
        Variable, ast.Call
    ]  # what `__attribute__((cleanup(f)))` has called when the variable goes out of scope
    warnings: tuple[Diagnostic, ...] = ()
    license: str = "GPL"

"""The syntax tree of C: C11 with the GNU extensions that programs for BPF use, and BCC's map declarations.

Frozen nodes that keep their place in the text. The parser knows which names are types and nothing else about them: what a
declaration means is said by `analysis`, in tables beside the tree. Nodes are compared by identity, so that they can be keys there.
"""

from __future__ import annotations

from ...record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from ...errors import Span

    Expr = Union[
        "Name", "Number", "Character", "String", "Unary", "Postfix", "Binary", "Assign", "Conditional", "Comma", "Call",
        "Member", "Index", "Cast", "Sizeof", "CompoundLiteral", "StatementExpr", "Generic", "OffsetOf", "TypesCompatible",
    ]  # fmt: skip
    Init = Union[Expr, "InitList"]
    Statement = Union[
        "Compound", "ExprStatement", "If", "While", "DoWhile", "For", "Switch", "Case", "Label", "Goto", "Break",
        "Continue", "Return", "Asm", "Declaration", "StaticAssert",
    ]  # fmt: skip
    TypeSyntax = Union["BasicType", "NamedType", "StructType", "EnumType", "TypeofType"]
    Derived = Union["PointerTo", "ArrayOf", "FunctionOf"]
    External = Union["FunctionDef", "Declaration", "TableDecl", "StaticAssert"]


class Node(Record, eq=False):
    """Base of all nodes."""

    span: Span


# Types and declarations -------------------------------------------------------------------------------------------


class Attribute(Node, eq=False):
    """`__attribute__((name(args)))`, `_Alignas(x)` as "aligned", or `_Noreturn` as "noreturn". Underscores around the name are gone.

    An argument is an expression, a type, or a String; an identifier such as the mode in `mode(DI)` is a Name.
    """

    name: str
    args: tuple[Expr | TypeName, ...] = ()


class BasicType(Node, eq=False):
    """Words of a basic type as written, in any order: ("unsigned", "long"), ("void",), ("_Bool",), ("__int128",).

    The words are those of a type of C; `__auto_type`, which stands alone, is the type of the initialiser.
    """

    words: tuple[str, ...]


class NamedType(Node, eq=False):
    """A typedef name."""

    name: str


class StructType(Node, eq=False):
    """`struct` or `union` (`kind`); `members` is None for a mere reference, `name` "" where there is none."""

    kind: str
    name: str
    members: tuple[MemberDecl, ...] | None
    attributes: tuple[Attribute, ...] = ()


class MemberDecl(Node, eq=False):
    """One member, or an anonymous struct or union (`declarator` is None), or an unnamed bit-field (None, with a width).

    `attributes` are those around its declarator, which has none itself.
    """

    specifiers: Specifiers
    declarator: Declarator | None
    width: Expr | None = None
    attributes: tuple[Attribute, ...] = ()


class EnumType(Node, eq=False):
    """`enum`; `enumerators` is None for a reference."""

    name: str
    enumerators: tuple[Enumerator, ...] | None
    attributes: tuple[Attribute, ...] = ()


class Enumerator(Node, eq=False):
    """One name of an enumeration, with its value where it is given."""

    name: str
    value: Expr | None = None
    attributes: tuple[Attribute, ...] = ()


class TypeofType(Node, eq=False):
    """`typeof(x)` of an expression or a type; `unqualified`: typeof_unqual, without const and its like."""

    operand: Expr | TypeName
    unqualified: bool = False


class Specifiers(Node, eq=False):
    """What stands before the declarators: `storage` is "typedef", "static", "extern", "register", "auto" or ""."""

    type: TypeSyntax
    qualifiers: tuple[str, ...] = ()  # "const", "volatile", "restrict", "_Atomic"
    storage: str = ""
    inline: bool = False
    attributes: tuple[Attribute, ...] = ()


class PointerTo(Node, eq=False):
    """`*` with its qualifiers."""

    qualifiers: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()


class ArrayOf(Node, eq=False):
    """`[size]`; None: `[]`."""

    size: Expr | None


class FunctionOf(Node, eq=False):
    """`(params)`. `prototype` is False for `()`, which says nothing about them."""

    params: tuple[ParamDecl, ...]
    variadic: bool = False
    prototype: bool = True


class ParamDecl(Node, eq=False):
    """One parameter; its declarator may have the name ""."""

    specifiers: Specifiers
    declarator: Declarator


class Declarator(Node, eq=False):
    """A name ("" in a type name) and what it is, from the name outwards.

    `int *a[3]` is (ArrayOf 3, PointerTo): an array of pointers. `int (*f)(void)` is (PointerTo, FunctionOf).
    """

    name: str
    derived: tuple[Derived, ...] = ()
    attributes: tuple[Attribute, ...] = ()


class TypeName(Node, eq=False):
    """A type as casts and sizeof have it."""

    specifiers: Specifiers
    declarator: Declarator


class InitDeclarator(Node, eq=False):
    """A declarator with its initialiser, if any."""

    declarator: Declarator
    init: Init | None = None


class Declaration(Node, eq=False):
    """`int a = 1, *b;` Also `struct s { … };`, which has no declarators."""

    specifiers: Specifiers
    declarators: tuple[InitDeclarator, ...] = ()


class StaticAssert(Node, eq=False):
    """`_Static_assert(condition, "message")`."""

    condition: Expr
    message: str = ""


class FunctionDef(Node, eq=False):
    """A function with its body. The first of `declarator.derived` is a FunctionOf."""

    specifiers: Specifiers
    declarator: Declarator
    body: Compound

    @property
    def name(self) -> str:
        """The function's name."""
        return self.declarator.name


class TableDecl(Node, eq=False):
    """A map of the BCC dialect, which its macros spell `__bcc_table(kind, key, leaf, name, max_entries, flags[, extra])`.

    `kind` is BCC's word ("hash", "percpu_array", "perf_output", "queue" …); `key` and `leaf` may be None where the kind has none. `extra` is
    a path for "pinned…" kinds, or the name of the inner map.
    """

    kind: str
    name: str
    key: TypeName | None
    leaf: TypeName | None
    max_entries: Expr | None = None
    flags: Expr | None = None
    extra: str = ""


class TranslationUnit(Node, eq=False):
    """A whole program text after preprocessing."""

    items: tuple[External, ...]


# Initialisers -----------------------------------------------------------------------------------------------------


class MemberDesignator(Node, eq=False):
    """`.name`."""

    name: str


class IndexDesignator(Node, eq=False):
    """`[low]` or `[low ... high]`."""

    low: Expr
    high: Expr | None = None


class InitItem(Node, eq=False):
    """One item of a braced list, for the place that its designators name, or for the next one."""

    designators: tuple[MemberDesignator | IndexDesignator, ...]
    init: Init


class InitList(Node, eq=False):
    """`{ … }`."""

    items: tuple[InitItem, ...]


# Expressions ------------------------------------------------------------------------------------------------------


class Name(Node, eq=False):
    """An identifier in an expression."""

    name: str


class Number(Node, eq=False):
    """An integer constant. `suffix` is in lower case without order ("u", "l", "ul", "ll", "ull"); `decimal`: it has no prefix."""

    value: int
    suffix: str = ""
    decimal: bool = True


class Character(Node, eq=False):
    """A character constant; its value is an int."""

    value: int


class String(Node, eq=False):
    """A string literal, adjacent ones joined, without the NUL at its end."""

    value: bytes


class Unary(Node, eq=False):
    """A prefix operator: + - ! ~ * & ++ --."""

    op: str
    operand: Expr


class Postfix(Node, eq=False):
    """`x++` or `x--`."""

    op: str
    operand: Expr


class Binary(Node, eq=False):
    """An operator of two operands that is neither an assignment nor a comma; && and || too."""

    op: str
    left: Expr
    right: Expr


class Assign(Node, eq=False):
    """`=` and the compound assignments."""

    op: str
    target: Expr
    value: Expr


class Conditional(Node, eq=False):
    """`c ? yes : no`; `yes` is None in `c ?: no`."""

    condition: Expr
    yes: Expr | None
    no: Expr


class Comma(Node, eq=False):
    """`a, b`."""

    left: Expr
    right: Expr


class Call(Node, eq=False):
    """A call; of a function, a pointer to one, a builtin, or a table's method (a Member of a table's name)."""

    function: Expr
    args: tuple[Expr, ...]


class Member(Node, eq=False):
    """`x.name`, or `x->name` (`arrow`)."""

    operand: Expr
    name: str
    arrow: bool


class Index(Node, eq=False):
    """`a[i]`."""

    operand: Expr
    index: Expr


class Cast(Node, eq=False):
    """`(type)x`."""

    type: TypeName
    operand: Expr


class Sizeof(Node, eq=False):
    """`sizeof` or `_Alignof` (`op` "sizeof", "alignof") of an expression or a type."""

    op: str
    operand: Expr | TypeName


class CompoundLiteral(Node, eq=False):
    """`(type){ … }`."""

    type: TypeName
    init: InitList


class StatementExpr(Node, eq=False):
    """`({ … })`: its value is that of the last expression statement."""

    body: Compound


class Generic(Node, eq=False):
    """`_Generic(control, type: value, default: value)`; the type of the default is None."""

    control: Expr
    choices: tuple[tuple[TypeName | None, Expr], ...]


class OffsetOf(Node, eq=False):
    """`__builtin_offsetof(type, path)`."""

    type: TypeName
    path: tuple[MemberDesignator | IndexDesignator, ...]


class TypesCompatible(Node, eq=False):
    """`__builtin_types_compatible_p(a, b)`."""

    left: TypeName
    right: TypeName


# Statements -------------------------------------------------------------------------------------------------------


class Compound(Node, eq=False):
    """`{ … }`."""

    items: tuple[Statement, ...]


class ExprStatement(Node, eq=False):
    """An expression for its effect; None: an empty statement."""

    expr: Expr | None


class If(Node, eq=False):
    """`if (condition) yes else no`."""

    condition: Expr
    yes: Statement
    no: Statement | None = None


class While(Node, eq=False):
    """`while`. `unroll` of a loop: 0 as it suits, 1 not at all (`nounroll`), N that often, -1 wholly (`#pragma unroll`)."""

    condition: Expr
    body: Statement
    unroll: int = 0


class DoWhile(Node, eq=False):
    """`do … while`."""

    body: Statement
    condition: Expr
    unroll: int = 0


class For(Node, eq=False):
    """`for`; each part may be None."""

    init: Declaration | Expr | None
    condition: Expr | None
    step: Expr | None
    body: Statement
    unroll: int = 0


class Switch(Node, eq=False):
    """`switch`."""

    value: Expr
    body: Statement


class Case(Node, eq=False):
    """`case low:`, `case low ... high:`, or `default:` (`low` is None), with the statement behind it."""

    low: Expr | None
    high: Expr | None
    statement: Statement


class Label(Node, eq=False):
    """`name:` with the statement behind it."""

    name: str
    statement: Statement


class Goto(Node, eq=False):
    """`goto name`."""

    name: str


class Break(Node, eq=False):
    """`break`."""


class Continue(Node, eq=False):
    """`continue`."""


class Return(Node, eq=False):
    """`return`."""

    value: Expr | None


class AsmOperand(Node, eq=False):
    """One operand of inline assembly: `[name] "constraint" (expr)`."""

    name: str
    constraint: str
    expr: Expr


class Asm(Node, eq=False):
    """Inline assembly."""

    template: str
    outputs: tuple[AsmOperand, ...] = ()
    inputs: tuple[AsmOperand, ...] = ()
    clobbers: tuple[str, ...] = ()

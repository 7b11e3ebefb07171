"""C text for the tests of the C front end: to tokens, to a tree, and a tree to a shape that can be compared."""

from __future__ import annotations

from typing import Any

from sonde.lang.c import ast
from sonde.lang.c.parser import parse
from sonde.lang.c.tokens import Token, tokenize
from sonde.lang.source import Place, Source

TYPES = frozenset(["u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "size_t", "pid_t", "bool"])


def tokens_of(source: str | Source) -> list[Token]:
    """The tokens of a text without directives but #pragma, which become tokens as the preprocessor makes them."""
    source = Source("t.c", source) if isinstance(source, str) else source
    text = source.text
    tokens = tokenize(source)
    out: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token.kind == "#" and token.line_start and tokens[at].text == "pragma":
            at += 1
            start = tokens[at].span.start
            while not tokens[at].line_start:
                at += 1
            end = tokens[at - 1].span.end
            token = Token("pragma", text[start:end], Place(token.span.source, token.span.start, end))
        out.append(token)
    return out


def parse_c(text: str, types: frozenset[str] = TYPES) -> ast.TranslationUnit:
    """Parse a text that needs no preprocessor; the names in `types` are types."""
    return parse(tokens_of(text), types.__contains__)


def parse_expression(text: str) -> ast.Expr:
    """Parse the value that a function returns."""
    unit = parse_c(
        "struct s { int a; struct s *n; int b[4]; }; int f(int x, int y, struct s *p) { return " + text + "; }"
    )
    function = unit.items[-1]
    assert isinstance(function, ast.FunctionDef)
    last = function.body.items[-1]
    assert isinstance(last, ast.Return) and last.value is not None
    return last.value


def shape(node: Any) -> Any:
    """A tree without its places."""
    if isinstance(node, ast.Node):
        return (type(node).__name__, *(shape(getattr(node, field)) for field in node._fields[1:]))
    if isinstance(node, tuple):
        return tuple(map(shape, node))
    return node


def short(node: Any) -> str:
    """An expression, a type or a statement as an S-expression, for comparison."""
    if node is None:
        return "none"
    if isinstance(node, tuple):
        return " ".join(filter(None, map(short, node)))
    if not isinstance(node, ast.Node):
        return str(node)
    maker = SHORT.get(type(node))
    if maker:
        return maker(node)
    defaults = node._defaults
    parts = [short(getattr(node, f)) for f in node._fields[1:] if getattr(node, f) not in ((), "", defaults.get(f, ()))]
    return f"({' '.join([type(node).__name__, *parts])})"


def _short_specifiers(node: ast.Specifiers) -> str:
    words = [node.storage, "inline" if node.inline else "", *(short(a) for a in node.attributes), *node.qualifiers]
    return " ".join(filter(None, [*words, short(node.type)]))


def _short_declarator(node: ast.Declarator) -> str:
    return " ".join([node.name or "_", *(short(d) for d in node.derived), *(short(a) for a in node.attributes)])


SHORT: dict[type, Any] = {
    ast.Name: lambda n: n.name,
    ast.Number: lambda n: f"{n.value}{n.suffix}",
    ast.Character: lambda n: f"'{n.value}'",
    ast.String: lambda n: repr(n.value)[1:],
    ast.Unary: lambda n: f"({n.op} {short(n.operand)})",
    ast.Postfix: lambda n: f"({short(n.operand)} {n.op})",
    ast.Binary: lambda n: f"({short(n.left)} {n.op} {short(n.right)})",
    ast.Assign: lambda n: f"({short(n.target)} {n.op} {short(n.value)})",
    ast.Conditional: lambda n: f"({short(n.condition)} ? {short(n.yes)} : {short(n.no)})",
    ast.Comma: lambda n: f"({short(n.left)} , {short(n.right)})",
    ast.Call: lambda n: f"{short(n.function)}({', '.join(map(short, n.args))})",
    ast.Member: lambda n: f"{short(n.operand)}{'->' if n.arrow else '.'}{n.name}",
    ast.Index: lambda n: f"{short(n.operand)}[{short(n.index)}]",
    ast.Cast: lambda n: f"({short(n.type)} <- {short(n.operand)})",
    ast.TypeName: lambda n: f"<{short(n.specifiers)} {short(n.declarator)}>".replace(" _>", ">").replace(" _ ", " "),
    ast.BasicType: lambda n: " ".join(n.words),
    ast.NamedType: lambda n: n.name,
    ast.StructType: lambda n: f"{n.kind} {n.name}" if n.members is None else f"({n.kind} {n.name} {{{short(n.members)}}} {short(n.attributes)})",
    ast.Specifiers: _short_specifiers,
    ast.Declarator: _short_declarator,
    ast.PointerTo: lambda n: "".join(["*", *n.qualifiers]),
    ast.ArrayOf: lambda n: f"[{'' if n.size is None else short(n.size)}]",
    ast.FunctionOf: lambda n: f"({', '.join(map(short, n.params))}{', ...' * n.variadic}{'' if n.prototype else '?'})",
    ast.ParamDecl: lambda n: f"{short(n.specifiers)} {short(n.declarator)}",
    ast.Attribute: lambda n: f"@{n.name}" + (f"({', '.join(map(short, n.args))})" if n.args else ""),
}  # fmt: skip


def iter_nodes(node: Any) -> Any:
    """Yield every node of a tree."""
    if isinstance(node, ast.Node):
        yield node
        for field in node._fields[1:]:
            yield from iter_nodes(getattr(node, field))
    elif isinstance(node, tuple):
        for item in node:
            yield from iter_nodes(item)

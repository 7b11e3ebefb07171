"""A syntax tree to C text: for `--explain`, and for tests, since what is printed parses to a tree of the same shape.

The text is what the parser understood, not what was written: parentheses stand where they are needed, attributes and qualifiers in one
place, alternate keywords as plain ones, BCC's maps as `__bcc_table(…)`.
"""

from __future__ import annotations

from . import ast
from .parser_expressions import PRECEDENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_COMMA, _ASSIGN, _CONDITIONAL, _BINARY, _UNARY, _POSTFIX = 0, 1, 2, 2, 13, 14


def print_unit(unit: ast.TranslationUnit) -> str:
    """Return a whole program as C text."""
    return "\n".join(print_external(item) for item in unit.items) + "\n"


def print_external(item: ast.External) -> str:
    """Return one item of the file level as C text."""
    if isinstance(item, ast.FunctionDef):
        head = _declared(item.specifiers, [print_declarator(item.declarator)])
        return f"\n{head}\n{_compound(item.body, 0)}"
    if isinstance(item, ast.TableDecl):
        return _table(item)
    return _STATEMENTS[type(item)](item, 0)


def print_statement(node: ast.Statement, depth: int = 0) -> str:
    """Return a statement as C text, indented by `depth` levels except in its first line."""
    return _STATEMENTS[type(node)](node, depth)


def print_expression(node: ast.Expr, least: int = _COMMA) -> str:
    """Return an expression as C text, in parentheses where it binds less than `least`."""
    level, text = _EXPRESSIONS[type(node)](node)
    return text if level >= least else f"({text})"


def _table(table: ast.TableDecl) -> str:
    parts = [
        _quoted(table.kind.encode()),
        "" if table.key is None else print_type_name(table.key),
        "" if table.leaf is None else print_type_name(table.leaf),
        table.name,
        "" if table.max_entries is None else print_expression(table.max_entries, _ASSIGN),
        "" if table.flags is None else print_expression(table.flags, _ASSIGN),
    ]
    if table.extra:
        parts.append(_quoted(table.extra.encode()))
    return f"__bcc_table({', '.join(parts)});"


# Types and declarations -------------------------------------------------------------------------------------------


def print_type_name(node: ast.TypeName) -> str:
    """Return a type name as C text."""
    return _declared(node.specifiers, [print_declarator(node.declarator)])


def _declared(specifiers: ast.Specifiers, declarators: Iterable[str], depth: int = 0) -> str:
    head = _specifiers(specifiers, depth)
    rest = ", ".join(declarators)
    return f"{head} {rest}" if rest else head


def _specifiers(node: ast.Specifiers, depth: int = 0) -> str:
    words = [node.storage] if node.storage else []
    if node.inline:
        words.append("inline")
    words += [_attribute(a) for a in node.attributes]
    words += node.qualifiers
    words.append(_TYPES[type(node.type)](node.type, depth))
    return " ".join(words)


def _attribute(node: ast.Attribute) -> str:
    if node.name == "asm_label":
        return f"asm({_argument(node.args[0])})"
    arguments = f"({', '.join(_argument(a) for a in node.args)})" if node.args else ""
    return f"__attribute__(({node.name}{arguments}))"


def _argument(node: ast.Expr | ast.TypeName) -> str:
    return print_type_name(node) if isinstance(node, ast.TypeName) else print_expression(node, _ASSIGN)


def _behind(attributes: tuple[ast.Attribute, ...]) -> str:
    return "".join(" " + _attribute(a) for a in attributes)


def print_declarator(node: ast.Declarator) -> str:
    """Return a declarator as C text, with its attributes behind it."""
    text = node.name
    was_pointer = False
    for step in node.derived:
        if isinstance(step, ast.PointerTo):
            words = [*(_attribute(a) for a in step.attributes), *step.qualifiers]
            text = "*" + "".join(word + " " for word in words) + text
            was_pointer = True
            continue
        if was_pointer:
            text = f"({text})"
            was_pointer = False
        text += _array(step) if isinstance(step, ast.ArrayOf) else _parameters(step)
    return (text + _behind(node.attributes)).strip()


def _array(node: ast.ArrayOf) -> str:
    return "[]" if node.size is None else f"[{print_expression(node.size, _ASSIGN)}]"


def _parameters(node: ast.FunctionOf) -> str:
    if not node.params:
        return "(void)" if node.prototype else "()"
    params = [_declared(p.specifiers, [print_declarator(p.declarator)]) for p in node.params]
    return f"({', '.join(params + ['...'] * node.variadic)})"


def _struct(node: ast.StructType, depth: int) -> str:
    head = " ".join([node.kind, *(_attribute(a) for a in node.attributes), *filter(None, [node.name])])
    if node.members is None:
        return head
    lines = [_indent(depth + 1) + line + ";" for line in _members(node.members, depth + 1)]
    return "\n".join([head + " {", *lines, _indent(depth) + "}"])


def _members(members: tuple[ast.MemberDecl, ...], depth: int) -> list[str]:
    """Return one line for each declaration; members that share their specifiers were declared together."""
    lines: list[str] = []
    last: ast.Specifiers | None = None
    for member in members:
        text = "" if member.declarator is None else print_declarator(member.declarator)
        if member.width is not None:
            text += f" : {print_expression(member.width, _CONDITIONAL)}"
        text = text.strip() + _behind(member.attributes)
        if member.specifiers is last:
            lines[-1] += ", " + text
        else:
            lines.append(_declared(member.specifiers, [text] if text else [], depth))
        last = member.specifiers
    return lines


def _enum(node: ast.EnumType, depth: int) -> str:
    head = " ".join(["enum", *(_attribute(a) for a in node.attributes), *filter(None, [node.name])])
    if node.enumerators is None:
        return head
    lines = []
    for item in node.enumerators:
        value = "" if item.value is None else f" = {print_expression(item.value, _CONDITIONAL)}"
        lines.append(f"{_indent(depth + 1)}{item.name}{_behind(item.attributes)}{value},")
    return "\n".join([head + " {", *lines, _indent(depth) + "}"])


_TYPES: dict[type, Callable[[Any, int], str]] = {
    ast.BasicType: lambda node, depth: " ".join(node.words),
    ast.NamedType: lambda node, depth: node.name,
    ast.StructType: _struct,
    ast.EnumType: _enum,
    ast.TypeofType: lambda node, depth: (
        f"{'typeof_unqual' if node.unqualified else 'typeof'}({_argument_of_word(node.operand)})"
    ),
}


def _argument_of_word(node: ast.Expr | ast.TypeName) -> str:
    return print_type_name(node) if isinstance(node, ast.TypeName) else print_expression(node)


def _declaration(node: ast.Declaration, depth: int) -> str:
    return _declared(node.specifiers, [_initialised(d) for d in node.declarators], depth) + ";"


def _initialised(node: ast.InitDeclarator) -> str:
    text = print_declarator(node.declarator)
    return text if node.init is None else f"{text} = {_init(node.init)}"


def _init(node: ast.Init) -> str:
    if not isinstance(node, ast.InitList):
        return print_expression(node, _ASSIGN)
    return _init_list(node)


def _init_list(node: ast.InitList) -> str:
    items = []
    for item in node.items:
        place = "".join(map(_designator, item.designators))
        items.append(f"{place} = {_init(item.init)}" if place else _init(item.init))
    return f"{{ {', '.join(items)} }}" if items else "{}"


def _designator(node: ast.MemberDesignator | ast.IndexDesignator) -> str:
    if isinstance(node, ast.MemberDesignator):
        return "." + node.name
    low = print_expression(node.low, _CONDITIONAL)
    return f"[{low}]" if node.high is None else f"[{low} ... {print_expression(node.high, _CONDITIONAL)}]"


def _static_assert(node: ast.StaticAssert, depth: int) -> str:
    message = f", {_quoted(node.message.encode())}" if node.message else ""
    return f"_Static_assert({print_expression(node.condition, _CONDITIONAL)}{message});"


# Expressions ------------------------------------------------------------------------------------------------------


def _number(node: ast.Number) -> tuple[int, str]:
    return _POSTFIX, (str(node.value) if node.decimal else hex(node.value)) + node.suffix


def _character(node: ast.Character) -> tuple[int, str]:
    value = node.value
    if 32 <= value < 127 and chr(value) not in "'\\":
        return _POSTFIX, f"'{chr(value)}'"
    size = 1 if -128 <= value < 128 else 2 if 0 < value < 0x10000 else 4
    data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "big")
    return _POSTFIX, "'" + "".join(f"\\x{byte:02x}" for byte in data) + "'"


def _quoted(data: bytes) -> str:
    out = []
    for byte in data:
        if byte in _ESCAPES:
            out.append(_ESCAPES[byte])
        else:
            out.append(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


_ESCAPES = {10: "\\n", 9: "\\t", 13: "\\r", 34: '\\"', 92: "\\\\"}


def _unary(node: ast.Unary) -> tuple[int, str]:
    operand = print_expression(node.operand, _UNARY)
    space = " " if operand[0] == node.op[-1] else ""
    return _UNARY, node.op + space + operand


def _postfix(node: ast.Postfix) -> tuple[int, str]:
    return _POSTFIX, print_expression(node.operand, _POSTFIX) + node.op


def _binary(node: ast.Binary) -> tuple[int, str]:
    level = _BINARY + PRECEDENCE[node.op]
    return level, f"{print_expression(node.left, level)} {node.op} {print_expression(node.right, level + 1)}"


def _assign(node: ast.Assign) -> tuple[int, str]:
    return _ASSIGN, f"{print_expression(node.target, _UNARY)} {node.op} {print_expression(node.value, _ASSIGN)}"


def _conditional(node: ast.Conditional) -> tuple[int, str]:
    yes = "" if node.yes is None else f" {print_expression(node.yes)} "
    condition = print_expression(node.condition, _CONDITIONAL + 1)
    return _CONDITIONAL, f"{condition} ?{yes}: {print_expression(node.no, _CONDITIONAL)}"


def _comma(node: ast.Comma) -> tuple[int, str]:
    return _COMMA, f"{print_expression(node.left)}, {print_expression(node.right, _ASSIGN)}"


def _call(node: ast.Call) -> tuple[int, str]:
    arguments = ", ".join(print_expression(a, _ASSIGN) for a in node.args)
    return _POSTFIX, f"{print_expression(node.function, _POSTFIX)}({arguments})"


def _member(node: ast.Member) -> tuple[int, str]:
    operand = print_expression(node.operand, _POSTFIX)
    if isinstance(node.operand, ast.Number):  # 1.x would be one token
        operand = f"({operand})"
    return _POSTFIX, f"{operand}{'->' if node.arrow else '.'}{node.name}"


def _index(node: ast.Index) -> tuple[int, str]:
    return _POSTFIX, f"{print_expression(node.operand, _POSTFIX)}[{print_expression(node.index)}]"


def _cast(node: ast.Cast) -> tuple[int, str]:
    return _UNARY, f"({print_type_name(node.type)}){print_expression(node.operand, _UNARY)}"


def _sizeof(node: ast.Sizeof) -> tuple[int, str]:
    word = "sizeof" if node.op == "sizeof" else "_Alignof"
    return _UNARY, f"{word}({_argument_of_word(node.operand)})"


def _compound_literal(node: ast.CompoundLiteral) -> tuple[int, str]:
    return _POSTFIX, f"({print_type_name(node.type)}){_init_list(node.init)}"


def _generic(node: ast.Generic) -> tuple[int, str]:
    parts = [print_expression(node.control, _ASSIGN)]
    for type_name, value in node.choices:
        label = "default" if type_name is None else print_type_name(type_name)
        parts.append(f"{label}: {print_expression(value, _ASSIGN)}")
    return _POSTFIX, f"_Generic({', '.join(parts)})"


def _offset_of(node: ast.OffsetOf) -> tuple[int, str]:
    path = "".join(map(_designator, node.path))[1:]
    return _POSTFIX, f"__builtin_offsetof({print_type_name(node.type)}, {path})"


def _types_compatible(node: ast.TypesCompatible) -> tuple[int, str]:
    types = f"{print_type_name(node.left)}, {print_type_name(node.right)}"
    return _POSTFIX, f"__builtin_types_compatible_p({types})"


_EXPRESSIONS: dict[type, Callable[[Any], tuple[int, str]]] = {
    ast.Name: lambda node: (_POSTFIX, node.name),
    ast.Number: _number,
    ast.Character: _character,
    ast.String: lambda node: (_POSTFIX, _quoted(node.value)),
    ast.Unary: _unary,
    ast.Postfix: _postfix,
    ast.Binary: _binary,
    ast.Assign: _assign,
    ast.Conditional: _conditional,
    ast.Comma: _comma,
    ast.Call: _call,
    ast.Member: _member,
    ast.Index: _index,
    ast.Cast: _cast,
    ast.Sizeof: _sizeof,
    ast.CompoundLiteral: _compound_literal,
    ast.StatementExpr: lambda node: (_POSTFIX, f"({_compound(node.body, 0)})"),
    ast.Generic: _generic,
    ast.OffsetOf: _offset_of,
    ast.TypesCompatible: _types_compatible,
}


# Statements -------------------------------------------------------------------------------------------------------


def _indent(depth: int) -> str:
    return "    " * depth


def _compound(node: ast.Compound, depth: int) -> str:
    lines = [_indent(depth + 1) + print_statement(item, depth + 1) for item in node.items]
    return "\n".join(["{", *lines, _indent(depth) + "}"])


def _body(node: ast.Statement, depth: int) -> str:
    """Return the statement behind a head: a block on its line, anything else on the next one."""
    if isinstance(node, ast.Compound):
        return " " + _compound(node, depth)
    return "\n" + _indent(depth + 1) + print_statement(node, depth + 1)


def _if(node: ast.If, depth: int) -> str:
    text = f"if ({print_expression(node.condition)}){_body(node.yes, depth)}"
    if node.no is None:
        return text
    text += "\n" + _indent(depth) + "else"
    return text + (" " + _if(node.no, depth) if isinstance(node.no, ast.If) else _body(node.no, depth))


def _unrolled(unroll: int, depth: int) -> str:
    """Return the pragma before a loop, on lines of its own."""
    if unroll == 0:
        return ""
    count = "nounroll" if unroll == 1 else "unroll" if unroll == -1 else f"unroll {unroll}"
    return f"\n#pragma {count}\n{_indent(depth)}"


def _while(node: ast.While, depth: int) -> str:
    head = f"while ({print_expression(node.condition)})"
    return _unrolled(node.unroll, depth) + head + _body(node.body, depth)


def _do_while(node: ast.DoWhile, depth: int) -> str:
    body = _body(node.body, depth)
    tail = f"\n{_indent(depth)}while ({print_expression(node.condition)});"
    return _unrolled(node.unroll, depth) + "do" + body + tail


def _for(node: ast.For, depth: int) -> str:
    if isinstance(node.init, ast.Declaration):
        init = _declaration(node.init, depth)
    else:
        init = ";" if node.init is None else print_expression(node.init) + ";"
    condition = "" if node.condition is None else " " + print_expression(node.condition)
    step = "" if node.step is None else " " + print_expression(node.step)
    return f"{_unrolled(node.unroll, depth)}for ({init}{condition};{step}){_body(node.body, depth)}"


def _switch(node: ast.Switch, depth: int) -> str:
    return f"switch ({print_expression(node.value)}){_body(node.body, depth)}"


def _case(node: ast.Case, depth: int) -> str:
    if node.low is None:
        label = "default:"
    else:
        high = "" if node.high is None else f" ... {print_expression(node.high, _CONDITIONAL)}"
        label = f"case {print_expression(node.low, _CONDITIONAL)}{high}:"
    return f"{label} {print_statement(node.statement, depth)}"


def _return(node: ast.Return, depth: int) -> str:
    return "return;" if node.value is None else f"return {print_expression(node.value)};"


def _asm(node: ast.Asm, depth: int) -> str:
    parts = [_quoted(node.template.encode("latin-1"))]
    for operands in (node.outputs, node.inputs):
        parts.append(", ".join(map(_asm_operand, operands)))
    parts.append(", ".join(_quoted(c.encode("latin-1")) for c in node.clobbers))
    return f"asm volatile ({' : '.join(parts)});"


def _asm_operand(node: ast.AsmOperand) -> str:
    name = f"[{node.name}] " if node.name else ""
    return f"{name}{_quoted(node.constraint.encode('latin-1'))} ({print_expression(node.expr)})"


_STATEMENTS: dict[type, Callable[[Any, int], str]] = {
    ast.Compound: _compound,
    ast.ExprStatement: lambda node, depth: ("" if node.expr is None else print_expression(node.expr)) + ";",
    ast.If: _if,
    ast.While: _while,
    ast.DoWhile: _do_while,
    ast.For: _for,
    ast.Switch: _switch,
    ast.Case: _case,
    ast.Label: lambda node, depth: f"{node.name}: {print_statement(node.statement, depth)}",
    ast.Goto: lambda node, depth: f"goto {node.name};",
    ast.Break: lambda node, depth: "break;",
    ast.Continue: lambda node, depth: "continue;",
    ast.Return: _return,
    ast.Asm: _asm,
    ast.Declaration: _declaration,
    ast.StaticAssert: _static_assert,
}

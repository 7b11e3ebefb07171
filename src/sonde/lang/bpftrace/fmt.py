"""The formatter: a script in the layout of bpftrace's own tools.

Two spaces of indentation, a probe's brace on its own line, parentheses around all operands that are not simple, lines of up
to 90 columns that are filled from their end. Comments and blank lines stay where they are; literals stay as written.
"""

from __future__ import annotations

from functools import partial

from ...errors import CompileError
from ..source import Place, Source
from . import ast
from .comments import Comment, find_comments
from .expressions import PRECEDENCE
from .parser import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

WIDTH = 90  # of a line up to its last closing bracket
_OVERLONG = 93  # from here on, what cannot be broken goes to a line of its own
_COMPARISONS = frozenset(["==", "!=", "<", "<=", ">", ">="])
_CHAINS = ("&&", "||")
_WRAPPED = (ast.Binary, ast.Ternary, ast.Cast, ast.Unary, ast.IfExpr, ast.BlockExpr, ast.Comptime)


def format_source(source: Source) -> str:
    """Return the formatted text of a script, with a newline at its end. Raises CompileError."""
    parser = Parser(source)
    parser.keep_values = True
    program = parser.parse_program()
    text = _Formatter(source, program).format()
    _check_same(source, text)
    return text


def _check_same(source: Source, text: str) -> None:
    """Formatting must never change what a script says: compare the trees."""
    from .dump import dump
    from .parser import parse

    before, after = (dump(parse(s)).replace(" arrow\n", "\n") for s in (source, Source(source.name, text)))
    if before != after:
        whole = source.span(0, len(source.text))
        message = "the formatter would change the meaning of this script; please report this as a bug"
        raise CompileError([source.diagnostic(message, whole)])


class _Formatter:
    """Writes lines. `last` is the offset in the source up to which everything is written."""

    def __init__(self, source: Source, program: ast.Program) -> None:
        self.source = source
        self.text = source.text
        self.program = program
        self.comments = find_comments(source, program)
        self.next_comment = 0
        self.lines: list[str] = []
        self.indent = 0
        self.last = 0

    # lines and comments ---------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Write text that may have several lines; all but the first are indented already."""
        self.lines.append(" " * self.indent + text if text else "")

    def blank_lines(self, start: int) -> None:
        """Keep the blank lines of the source before `start`, but none at the top."""
        if self.lines:
            newlines = self.text.count("\n", self.last, start)
            self.lines += [""] * (newlines - 1)

    def flush_comments(self, end: int) -> None:
        """Write the comments that begin before `end`, each on lines of its own."""
        while self.next_comment < len(self.comments) and self.comments[self.next_comment].start < end:
            comment = self.comments[self.next_comment]
            self.next_comment += 1
            self.blank_lines(comment.start)
            self._write_comment(comment)
            self.last = max(self.last, comment.end)

    def _write_comment(self, comment: Comment) -> None:
        for line in comment.lines:
            self.write(f"// {line}".rstrip())

    def finish(self, end: int) -> None:
        """Everything up to `end` is written; a comment behind it in the same line stays there."""
        self.last = max(self.last, end)
        if self.next_comment < len(self.comments):
            comment = self.comments[self.next_comment]
            between = self.text[self.last : comment.start]
            if comment.start >= self.last and not between.strip(" \t;,") and len(comment.lines) == 1:
                self.lines[-1] += f" // {comment.lines[0]}".rstrip()
                self.next_comment += 1
                self.last = comment.end

    def begin(self, node: ast.Node) -> None:
        """Write what stands before a node: blank lines, comments."""
        start, end = _range(node)
        self.flush_comments(start)
        self.blank_lines(start)
        if _is_plain(node):
            self.flush_comments(end)  # comments inside expressions go above them
        self.last = max(self.last, start)

    # top level ------------------------------------------------------------------------------------------------

    def format(self) -> str:
        """Return the formatted program."""
        program = self.program
        if self.text.startswith("#!"):
            self.last = self.text.find("\n") if "\n" in self.text else len(self.text)
            self.lines.append(self.text[: self.last].rstrip())
        items = [
            *program.c_definitions, *program.imports, *program.map_decls, *program.macros, *program.subprograms,
            *program.probes,
        ]  # fmt: skip
        work: list[tuple[int, Callable[[], None]]] = []
        for item in items:
            work.append((_range(item)[0], partial(_WRITERS[type(item)], self, item)))
        work += self._find_config()
        for _, run in sorted(work, key=lambda pair: pair[0]):
            run()
        self.flush_comments(len(self.text))
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n") + "\n"

    def _find_config(self) -> list[tuple[int, Callable[[], None]]]:
        """The config block: its place follows from its first item (an empty block is dropped)."""
        items = self.program.config
        if not items:
            return []
        start = self.text.rfind("config", 0, self.text.rfind("{", 0, _range(items[0])[0]))
        return [(start, lambda: self._write_config(start, items))]

    def _write_config(self, start: int, items: tuple[ast.ConfigItem, ...]) -> None:
        self.flush_comments(start)
        self.blank_lines(start)
        self.write("config = {")
        self.indent += 2
        self.finish(self.text.index("{", start) + 1)
        for item in items:
            self.flush_comments(_range(item)[0])
            self.blank_lines(_range(item)[0])
            value = _source_text(item).split("=", 1)[1].strip()
            self.write(f"{item.name} = {value};")
            self.finish(_range(item)[1])
        end = self._closing_brace()
        self.flush_comments(end)
        self.indent -= 2
        self.write("}")
        self.finish(end + 1)

    def _closing_brace(self) -> int:
        """Offset of the next `}` that is not in a comment."""
        at = self.last
        pending = self.comments[self.next_comment :]
        while True:
            at = self.text.index("}", at)
            inside = next((c for c in pending if c.start <= at < c.end), None)
            if inside is None:
                return at
            at = inside.end

    def _write_c_definition(self, node: ast.CDefinition) -> None:
        self.begin(node)
        self.lines.append(node.text)
        self.finish(_range(node)[1])

    def _write_import(self, node: ast.Import) -> None:
        self.begin(node)
        self.write(_import_text(node) + ";")
        self.finish(_range(node)[1])

    def _write_map_decl(self, node: ast.MapDecl) -> None:
        self.begin(node)
        self.write(f"let {node.name} = {node.type}({node.max_entries});")
        self.finish(_range(node)[1])

    def _write_macro(self, node: ast.Macro) -> None:
        self.begin(node)
        self.write(f"macro {node.name}({', '.join(p.name for p in node.params)})")
        self._write_body(node.body)

    def _write_subprogram(self, node: ast.Subprogram) -> None:
        self.begin(node)
        params = ", ".join(f"{v.name} : {self.type_text(t)}" for v, t in node.params)
        self.write(f"fn {node.name}({params}) : {self.type_text(node.result)}")
        self._write_body(node.body)

    def _write_probe(self, node: ast.Probe) -> None:
        self.begin(node)
        name = f"{node.name}=" if node.name else ""
        for index, point in enumerate(node.attach_points):
            self.flush_comments(_range(point)[0])
            more = "," if index + 1 < len(node.attach_points) else ""
            self.write(name + point.text + more)
            name = ""
            self.finish(_range(point)[1])
        if node.predicate is not None:
            self.flush_comments(_range(node.predicate)[1])
            text = self.expr(node.predicate, 1)
            self.write(f"/ {text}/" if text.startswith("*") else f"/{text}/")  # `/*` would be a comment
            self.finish(self.text.index("/", _range(node.predicate)[1]) + 1)
        self._write_body(node.body)

    def _write_body(self, body: ast.BlockExpr) -> None:
        """A block whose brace stands on its own line."""
        start, end = _range(body)
        self.flush_comments(start)
        if not body.statements and body.value is None and not self._has_comment(end):
            self.write("{}")
        else:
            self.write("{")
            self._write_inside(body)
        self.finish(end)

    def _has_comment(self, end: int) -> bool:
        return self.next_comment < len(self.comments) and self.comments[self.next_comment].start < end

    def _write_inside(self, block: ast.BlockExpr) -> None:
        """The statements of a block and its closing brace; the opening one is written."""
        start, end = _range(block)
        self.indent += 2
        self.finish(start + 1)
        for statement in block.statements:
            self._write_statement(statement)
        if block.value is not None:
            self.begin(block.value)
            self.write(self.expr(block.value, self.indent))
            self.finish(_range(block.value)[1])
        self.flush_comments(end)
        self.indent -= 2
        self.write("}")
        self.last = max(self.last, end)

    # statements -----------------------------------------------------------------------------------------------

    def _write_statement(self, node: ast.Statement) -> None:
        self.begin(node)
        end = _range(node)[1]
        if isinstance(node, ast.ExprStatement):
            self._write_expression(node.expr)
        elif isinstance(node, (ast.While, ast.Unroll, ast.ForRange, ast.ForMap)):
            self.write(self._loop_head(node) + " {" + ("" if self._holds(node.body) else "}"))
            if self._holds(node.body):
                self._write_inside(node.body)
        else:
            self.write(self._simple(node) + ";")
        self.finish(end)

    def _holds(self, block: ast.BlockExpr) -> bool:
        return bool(block.statements or block.value is not None or self._has_comment(_range(block)[1]))

    def _write_expression(self, expr: ast.Expr) -> None:
        """An expression as a statement."""
        if isinstance(expr, ast.IfExpr):
            self._write_if(expr, "", "")
        elif isinstance(expr, ast.BlockExpr):
            one_line = self._one_line_block(expr)
            self.write(one_line or "{")
            if not one_line:
                self._write_inside(expr)
        else:
            self.write(self.expr(expr, self.indent) + ";")

    def _write_if(self, node: ast.IfExpr, before: str, after: str) -> None:
        """`if`, with `before` in front of it (`} else `, `$x = `) and `after` behind its end (`;`)."""
        flat = self._one_line_if(node)
        if flat and len(before) + self.indent + len(flat) < WIDTH:
            self.write(before + flat + after)
            return
        head = f"{before}if {self.condition(node.condition, self.indent + len(before) + 3)} {{"
        while True:
            self._write_arm(head, node.then)
            otherwise = node.otherwise
            if otherwise is None:
                break
            self.lines.pop()
            start = _range(otherwise)[0]
            if isinstance(otherwise, ast.IfExpr):
                self._comments_before_else(start)
                node = otherwise
                head = f"}} else if {self.condition(node.condition, self.indent + 10)} {{"
                continue
            self._comments_before_else(start)
            self._write_arm("} else {", otherwise)
            break
        self.lines[-1] += after

    def _comments_before_else(self, start: int) -> None:
        """Comments between `}` and the next block belong to the block before it."""
        self.indent += 2
        self.flush_comments(start)
        self.indent -= 2
        self.last = max(self.last, start)

    def _write_arm(self, head: str, block: ast.BlockExpr) -> None:
        if self._holds(block):
            self.write(head)
            self._write_inside(block)
        else:
            self.write(head + "}")

    def _loop_head(self, node: ast.While | ast.Unroll | ast.ForRange | ast.ForMap) -> str:
        column = self.indent
        if isinstance(node, ast.While):
            return f"while {self.condition(node.condition, column + 6)}"
        if isinstance(node, ast.Unroll):
            return f"unroll ({self.expr(node.count, column + 8)})"
        if isinstance(node, ast.ForMap):
            return f"for {node.variable.name} : {node.map.name}"
        return f"for {node.variable.name} : {self.operand(node.start, column)}..{self.operand(node.end, column)}"

    def _simple(self, node: ast.Statement) -> str:
        """A statement without a block of its own, without its `;`."""
        column = self.indent
        if isinstance(node, ast.Assign):
            target = self.expr(node.target, column)
            head = f"{target} {node.op}= "
            return head + self._value(node.value, column + len(head.rsplit("\n", 1)[-1]), len(head))
        if isinstance(node, ast.Let):
            head = f"let {node.variable.name}"
            if node.type is not None:
                head += f" : {self.type_text(node.type)}"
            if node.value is None:
                return head
            return f"{head} = " + self._value(node.value, column + len(head) + 3, len(head) + 3)
        if isinstance(node, ast.Jump):
            if node.value is None:
                return node.kind
            return f"{node.kind} " + self.operand(node.value, column + len(node.kind) + 1)
        return _import_text(node)

    def _value(self, value: ast.Expr, column: int, head: int) -> str:
        """The right side of an assignment, which may be an `if` or a block."""
        if isinstance(value, (ast.IfExpr, ast.BlockExpr)):
            return self._nested(value)
        return self.expr(value, column)

    def _nested(self, value: ast.Expr) -> str:
        """An `if` or a block inside an expression: several lines, the first of which is not indented."""
        saved, self.lines = self.lines, ["x"]
        if isinstance(value, ast.IfExpr):
            self._write_if(value, "", "")
        elif isinstance(value, ast.BlockExpr):
            one_line = self._one_line_block(value)
            self.write(one_line or "{")
            if not one_line:
                self._write_inside(value)
        text = "\n".join(self.lines[1:])
        self.lines = saved
        return text.lstrip(" ")

    def _one_line_block(self, block: ast.BlockExpr) -> str:
        """`{ value }` or `{ statement; }`; "" when it holds more than one thing."""
        if self._has_comment(_range(block)[1]) or "\n" in _source_text(block):
            return ""
        if block.value is not None and not block.statements and not _has_block(block.value):
            text = f"{{ {self.expr(block.value, 0)} }}"
        elif block.value is None and len(block.statements) == 1 and not _has_block(block.statements[0]):
            statement = block.statements[0]
            inner = (
                self.expr(statement.expr, 0) if isinstance(statement, ast.ExprStatement) else self._simple(statement)
            )
            text = f"{{ {inner}; }}"
        elif block.value is None and not block.statements:
            text = "{}"
        else:
            return ""
        return text if "\n" not in text and self.indent + len(text) < WIDTH else ""

    def _one_line_if(self, node: ast.IfExpr) -> str:
        """`if c { a } else { b }` where both blocks are one value; "" otherwise."""
        otherwise = node.otherwise
        blocks = [node.then, otherwise]
        for block in blocks:
            if (
                not isinstance(block, ast.BlockExpr)
                or block.statements
                or block.value is None
                or _has_block(block.value)
            ):
                return ""
        if self._has_comment(_range(node)[1]) or _has_block(node.condition):
            return ""
        assert isinstance(otherwise, ast.BlockExpr)
        values = [self.expr(b.value, 0) for b in (node.then, otherwise) if b.value is not None]
        text = f"if {self.condition(node.condition, 0)} {{ {values[0]} }} else {{ {values[1]} }}"
        return "" if "\n" in text else text

    # expressions ----------------------------------------------------------------------------------------------

    def condition(self, node: ast.Expr, column: int) -> str:
        """The condition of `if` and `while`: parentheses unless it is simple."""
        text = self.operand(node, column)
        # Behind `if`, a first parenthesis encloses the whole condition.
        return f"({text})" if text.startswith("(") and not isinstance(node, _WRAPPED) else text

    def operand(self, node: ast.Expr, column: int) -> str:
        """An expression inside another one: parentheses unless it is simple."""
        if isinstance(node, _WRAPPED):
            return f"({self.expr(node, column + 1)})"
        return self.expr(node, column)

    def expr(self, node: Any, column: int) -> str:
        """The text of an expression that begins at `column`."""
        writer = _EXPRESSIONS.get(type(node))
        return writer(self, node, column) if writer is not None else _source_text(node)

    def _call(self, node: ast.Call, column: int) -> str:
        return self._list(f"{node.name}(", node.args, ")", column)

    def _map_access(self, node: ast.MapAccess, column: int) -> str:
        keys: tuple[ast.Expr, ...] = (node.key,)
        if isinstance(node.key, ast.TupleExpr) and len(node.key.items) > 1:
            keys = node.key.items
        return self._list(f"{node.map.name}[", keys, "]", column)

    def _tuple(self, node: ast.TupleExpr, column: int) -> str:
        if len(node.items) == 1:
            return f"({self.expr(node.items[0], column + 1)},)"
        return self._list("(", node.items, ")", column)

    def _record(self, node: ast.RecordExpr, column: int) -> str:
        items = [f"{name}={self.expr(value, column)}" for name, value in zip(node.names, node.items)]
        return self._fill("(", items, ")", column, ", ")

    def _list(self, opener: str, items: tuple[Any, ...], closer: str, column: int) -> str:
        inner = column + len(opener)
        return self._fill(opener, [self.expr(item, inner) for item in items], closer, column, ", ")

    def _fill(self, opener: str, items: list[str], closer: str, column: int, separator: str) -> str:
        """Lay out a list: on one line, or on several that are filled from the last one up."""
        inner = column + len(opener)
        joined = separator.join(items)
        if inner + len(joined) < WIDTH and "\n" not in joined:
            return opener + joined + closer
        lines: list[str] = []
        rest = items
        while rest:
            count = 1
            while count < len(rest):
                line = separator.join(rest[-count - 1 :])
                if inner + len(line) + (len(separator) if lines else 0) >= WIDTH or "\n" in line:
                    break
                count += 1
            lines.insert(0, separator.join(rest[-count:]))
            rest = rest[:-count]
        widest = max((len(line) for text in lines for line in text.split("\n")), default=0)
        if inner + widest >= _OVERLONG and closer == ")" and "\n" not in joined:
            indent = " " * (self.indent + 2)
            return f"{opener}\n{indent}{joined}\n{' ' * self.indent}{closer}"
        return opener + f"{separator.rstrip()}\n{' ' * inner}".join(lines) + closer

    def _unary(self, node: ast.Unary, column: int) -> str:
        operand = self.operand(node.operand, column + 1)
        return operand + node.op if node.postfix else node.op + operand

    def _binary(self, node: ast.Binary, column: int) -> str:
        if node.op in _CHAINS:
            items = [self._side(item, node.op, False, column) for item in _flatten(node, node.op)]
            return self._fill("", items, "", column, f" {node.op} ")
        left = self._side(node.left, node.op, False, column)
        right = self._side(node.right, node.op, True, column)
        last = left.rsplit("\n", 1)[-1]
        used = len(last) + (0 if "\n" in left else column)
        if used + len(node.op) + 2 + len(right.split("\n", 1)[0]) < WIDTH and "\n" not in left:
            return f"{left} {node.op} {right}"
        return f"{left} {node.op}\n{' ' * column}{right}"

    def _side(self, node: ast.Expr, op: str, right: bool, column: int) -> str:
        """An operand of `op`. A comparison needs no parentheses where it binds tighter."""
        if isinstance(node, ast.Binary) and node.op in _COMPARISONS:
            inner, outer = PRECEDENCE[node.op], PRECEDENCE[op]
            if inner > outer or (inner == outer and not right):
                return self.expr(node, column)
        return self.operand(node, column)

    def _ternary(self, node: ast.Ternary, column: int) -> str:
        condition = self.operand(node.condition, column)
        otherwise = self.operand(node.otherwise, column)
        if node.then is None:
            return f"{condition} ?: {otherwise}"
        then = self.operand(node.then, column)
        text = f"{condition} ? {then} : {otherwise}"
        if column + len(text) < WIDTH or "\n" in text:
            return text
        indent = "\n" + " " * self.indent
        return f"{condition}{indent}? {then}{indent}: {otherwise}"

    def _cast(self, node: ast.Cast, column: int) -> str:
        type_ = f"({self.type_text(node.type)})"
        return type_ + self.operand(node.operand, column + len(type_))

    def _member(self, node: ast.FieldAccess, column: int) -> str:
        return f"{self.operand(node.operand, column)}.{node.name}"

    def _element(self, node: ast.TupleAccess, column: int) -> str:
        return f"{self.operand(node.operand, column)}.{node.index}"

    def _index(self, node: ast.IndexAccess, column: int) -> str:
        operand = self.operand(node.operand, column)
        if isinstance(node.operand, ast.Map):
            operand = f"({operand})"  # the map's value is indexed, not the map
        return f"{operand}[{self.expr(node.index, column)}]"

    def _sizeof(self, node: ast.Sizeof, column: int) -> str:
        return f"sizeof({self.expr(node.operand, column)})"

    def _offsetof(self, node: ast.Offsetof, column: int) -> str:
        return f"offsetof({self.expr(node.operand, column)}, {'.'.join(node.path)})"

    def _comptime(self, node: ast.Comptime, column: int) -> str:
        return f"comptime {self.operand(node.operand, column)}"

    def _block(self, node: ast.Expr, column: int) -> str:
        return self._nested(node)

    def _type(self, node: ast.TypeName, column: int) -> str:
        return self.type_text(node)

    def type_text(self, node: ast.TypeName) -> str:
        """A type as it is written, or `typeof(…)` where it stands in an argument list."""
        if _source_text(node).startswith("typeof"):
            suffix = "*" * node.pointers + "".join(f"[{'' if d is None else d}]" for d in node.dims)
            return f"typeof({self.expr(node.typeof, 0)}){suffix}" if node.typeof is not None else _source_text(node)
        return _tight(_source_text(node))


_WRITERS: dict[type, Any] = {
    ast.CDefinition: _Formatter._write_c_definition,
    ast.Import: _Formatter._write_import,
    ast.MapDecl: _Formatter._write_map_decl,
    ast.Macro: _Formatter._write_macro,
    ast.Subprogram: _Formatter._write_subprogram,
    ast.Probe: _Formatter._write_probe,
}
_EXPRESSIONS: dict[type, Any] = {
    ast.Call: _Formatter._call,
    ast.MapAccess: _Formatter._map_access,
    ast.TupleExpr: _Formatter._tuple,
    ast.RecordExpr: _Formatter._record,
    ast.Unary: _Formatter._unary,
    ast.Binary: _Formatter._binary,
    ast.Ternary: _Formatter._ternary,
    ast.Cast: _Formatter._cast,
    ast.FieldAccess: _Formatter._member,
    ast.TupleAccess: _Formatter._element,
    ast.IndexAccess: _Formatter._index,
    ast.Sizeof: _Formatter._sizeof,
    ast.Offsetof: _Formatter._offsetof,
    ast.Comptime: _Formatter._comptime,
    ast.IfExpr: _Formatter._block,
    ast.BlockExpr: _Formatter._block,
    ast.TypeName: _Formatter._type,
}


def _range(node: ast.Node) -> tuple[int, int]:
    span = node.span
    assert isinstance(span, Place)
    return span.start, span.end


def _source_text(node: ast.Node) -> str:
    span = node.span
    assert isinstance(span, Place)
    return span.text


def _import_text(node: ast.Node) -> str:
    text = _source_text(node)
    return "import " + text[text.index('"') : text.rindex('"') + 1]


def _tight(text: str) -> str:
    """A type name with single spaces between words and none before `*` and `[`."""
    words = " ".join(text.replace("*", " * ").replace("[", " [ ").replace("]", " ] ").split())
    for mark in ("*", "[", "]"):
        words = words.replace(f" {mark}", mark)
    return words.replace("[ ", "[")


def _flatten(node: ast.Expr, op: str) -> list[ast.Expr]:
    """The operands of `a op b op c`."""
    operands: list[ast.Expr] = []
    while isinstance(node, ast.Binary) and node.op == op:
        operands.append(node.right)
        node = node.left
    return [node, *reversed(operands)]


def _is_plain(node: ast.Node) -> bool:
    """Tell whether a node is a statement or expression without any block in it."""
    return isinstance(node, (ast.ExprStatement, ast.Assign, ast.Let, ast.Jump, ast.Expr)) and not _has_block(node)


def _has_block(node: ast.Node) -> bool:
    """Tell whether a node holds an `if` or a block."""
    from .rewrite import iter_nodes

    return any(isinstance(n, (ast.IfExpr, ast.BlockExpr)) for n in iter_nodes(node))

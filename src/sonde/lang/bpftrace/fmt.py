"""The formatter: a script in the layout of bpftrace's own tools.

Two spaces of indentation, a probe's brace on its own line, parentheses around all operands that are not simple, lines of up
to 90 columns that are filled from their end. Comments and blank lines stay where they are; literals stay as written.
"""

from __future__ import annotations

from functools import partial

from ...errors import CompileError
from ..source import Source
from . import ast
from .fmt_expressions import WIDTH, ExpressionWriter
from .fmt_lines import has_block, range_of, source_text
from .parser import Parser
from .statements import drop_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


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


class _Formatter(ExpressionWriter):
    """Adds statements and the top level."""

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
            work.append((range_of(item)[0], partial(_WRITERS[type(item)], self, item)))
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
        start = self.text.rfind("config", 0, self.text.rfind("{", 0, range_of(items[0])[0]))
        return [(start, lambda: self._write_config(start, items))]

    def _write_config(self, start: int, items: tuple[ast.ConfigItem, ...]) -> None:
        self.flush_comments(start)
        self.blank_lines(start)
        self.write("config = {")
        self.indent += 2
        self.finish(self.text.index("{", start) + 1)
        for item in items:
            self.flush_comments(range_of(item)[0])
            self.blank_lines(range_of(item)[0])
            value = source_text(item).split("=", 1)[1].strip()
            self.write(f"{item.name} = {value};")
            self.finish(range_of(item)[1])
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
        self.finish(range_of(node)[1])

    def _write_import(self, node: ast.Import) -> None:
        self.begin(node)
        self.write(_import_text(node) + ";")
        self.finish(range_of(node)[1])

    def _write_map_decl(self, node: ast.MapDecl) -> None:
        self.begin(node)
        self.write(f"let {node.name} = {node.type}({node.max_entries});")
        self.finish(range_of(node)[1])

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
            self.flush_comments(range_of(point)[0])
            more = "," if index + 1 < len(node.attach_points) else ""
            self.write(name + point.text + more)
            name = ""
            self.finish(range_of(point)[1])
        if node.predicate is not None:
            self.flush_comments(range_of(node.predicate)[1])
            text = self.expr(node.predicate, 1)
            self.write(f"/ {text}/" if text.startswith("*") else f"/{text}/")  # `/*` would be a comment
            self.finish(self.text.index("/", range_of(node.predicate)[1]) + 1)
        self._write_body(_valueless(node.body))

    def _write_body(self, body: ast.BlockExpr) -> None:
        """A block whose brace stands on its own line."""
        start, end = range_of(body)
        self.flush_comments(start)
        if not body.statements and body.value is None and not self.has_comment(end):
            self.write("{}")
        else:
            self.write("{")
            self._write_inside(body)
        self.finish(end)

    def _write_inside(self, block: ast.BlockExpr) -> None:
        """The statements of a block and its closing brace; the opening one is written."""
        start, end = range_of(block)
        self.indent += 2
        self.finish(start + 1)
        for statement in block.statements:
            self._write_statement(statement)
        if block.value is not None:
            self.begin(block.value)
            self.write(self.expr(block.value, self.indent))
            self.finish(range_of(block.value)[1])
        self.flush_comments(end)
        self.indent -= 2
        self.write("}")
        self.last = max(self.last, end)

    # statements -----------------------------------------------------------------------------------------------

    def _write_statement(self, node: ast.Statement) -> None:
        self.begin(node)
        end = range_of(node)[1]
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
        return bool(block.statements or block.value is not None or self.has_comment(range_of(block)[1]))

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
            start = range_of(otherwise)[0]
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
            return self.nested(value)
        return self.expr(value, column)

    def nested(self, value: ast.Expr) -> str:
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
        if self.has_comment(range_of(block)[1]) or "\n" in source_text(block):
            return ""
        if block.value is not None and not block.statements and not has_block(block.value):
            text = f"{{ {self.expr(block.value, 0)} }}"
        elif block.value is None and len(block.statements) == 1 and not has_block(block.statements[0]):
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
                or has_block(block.value)
            ):
                return ""
        if self.has_comment(range_of(node)[1]) or has_block(node.condition):
            return ""
        assert isinstance(otherwise, ast.BlockExpr)
        values = [self.expr(b.value, 0) for b in (node.then, otherwise) if b.value is not None]
        text = f"if {self.condition(node.condition, 0)} {{ {values[0]} }} else {{ {values[1]} }}"
        return "" if "\n" in text else text


_WRITERS: dict[type, Any] = {
    ast.CDefinition: _Formatter._write_c_definition,
    ast.Import: _Formatter._write_import,
    ast.MapDecl: _Formatter._write_map_decl,
    ast.Macro: _Formatter._write_macro,
    ast.Subprogram: _Formatter._write_subprogram,
    ast.Probe: _Formatter._write_probe,
}


def _valueless(body: ast.BlockExpr) -> ast.BlockExpr:
    """The body of a probe has no value: neither have the branches of an `if` at its end."""
    last = body.statements[-1] if body.statements else None
    if body.value is not None or not isinstance(last, ast.ExprStatement) or not isinstance(last.expr, ast.IfExpr):
        return body
    last = ast.ExprStatement(last.span, drop_value(last.expr))
    return ast.BlockExpr(body.span, (*body.statements[:-1], last), None)


def _import_text(node: ast.Node) -> str:
    text = source_text(node)
    return "import " + text[text.index('"') : text.rindex('"') + 1]

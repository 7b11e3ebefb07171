"""A bpftrace script to its syntax tree: the top level, above statements and expressions.

Both dialects are read, 0.17 to 0.27: the tree says how things were written, and later passes accept either. Errors have
the wording of 0.27, several in one run; CompileError carries them all.
"""

from __future__ import annotations

from ...errors import CompileError
from ..source import Place, Source
from . import ast
from .attachpoints import find_end, find_name_end, split_parts
from .fault import Fault
from .lexer import END, NAME_START, skip_comment, skip_layout, skip_name
from .statements import GiveUp, StatementParser
from .typenames import is_builtin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def parse(source: Source) -> ast.Program:
    """Parse a whole script. Raises CompileError with every error found."""
    return Parser(source).parse_program()


def parse_expression(source: Source) -> ast.Expr:
    """Parse a text that is one expression, such as the body of a C macro. Raises CompileError."""
    parser = Parser(source)
    parser.start_at(0)
    try:
        expr = parser.parse_expression()
        if parser.token.kind != "end":
            raise parser.fault("unexpected input")
        parser.check_height(expr)
    except Fault as fault:
        parser.report(fault)
    except GiveUp:
        pass
    if parser.errors:
        raise CompileError(parser.errors)
    return expr


class Parser(StatementParser):
    """Parses one source. Between the items of the top level, `at` is the offset that comes next."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.at = 0
        self.config: list[ast.ConfigItem] | None = None
        self.c_definitions: list[ast.CDefinition] = []
        self.imports: list[ast.Import] = []
        self.map_decls: list[ast.MapDecl] = []
        self.macros: list[ast.Macro] = []
        self.subprograms: list[ast.Subprogram] = []
        self.probes: list[ast.Probe] = []

    def parse_program(self) -> ast.Program:
        """Parse the source to its end. Raises CompileError."""
        text = self.text
        self.at = skip_layout(text, 0)
        if text.startswith("#!", self.at):
            self.at = _end_of_line(text, self.at)
        try:
            while self._next_item():
                self._parse_item_of_top_level()
        except GiveUp:
            pass
        if self.errors:
            raise CompileError(self.errors)
        return ast.Program(
            Place(self.source, 0, len(self.source.text)),
            tuple(self.c_definitions),
            tuple(self.config or ()),
            tuple(self.imports),
            tuple(self.map_decls),
            tuple(self.macros),
            tuple(self.subprograms),
            tuple(self.probes),
            tuple(self.warnings),
            frozenset(self.words),
        )

    def _next_item(self) -> bool:
        self.at = skip_layout(self.text, self.at)
        return self.at < len(self.source.text)

    def _parse_item_of_top_level(self) -> None:
        start = self.at
        parse, offset = self._find_item(start)
        self.depth = 0
        self.macro_params = frozenset()
        try:
            self.at = offset
            parse(self)
        except Fault as fault:
            self.report(fault)
            behind = max(_behind_next_block(self.text, max(fault.start, start)), start + 1)
            self.at = min(behind, len(self.source.text))

    def _find_item(self, start: int) -> tuple[Callable[[Parser], None], int]:
        """Return the function that parses what begins at `start`."""
        text = self.text
        if text[start] == "#":
            return Parser._parse_directive, start
        word = text[start : skip_name(text, start)]
        if word in ("struct", "union", "enum", "typedef"):
            if word == "typedef" or _begins_c_definition(text, start):
                return Parser._parse_c_definition, start
        elif word in _ITEMS and text[skip_layout(text, start + len(word))] not in ":,":
            return _ITEMS[word], start
        return Parser._parse_probe, start

    def _refuse_late(self, what: str, start: int) -> None:
        if self.probes or self.macros or self.subprograms:
            raise Fault(f"{what} must appear before probes and functions", start, self.done)

    # C ---------------------------------------------------------------------------------------------------------

    def _parse_directive(self) -> None:
        """A preprocessor line, with its continuation lines."""
        start = self.at
        end = _end_of_line(self.text, start)
        while self.text[end - 1] == "\\":
            end = _end_of_line(self.text, end + 1)
        self._add_c_definition(start, end)

    def _parse_c_definition(self) -> None:
        """struct, union, enum or typedef, up to its `;` (which bpftrace lets one leave out)."""
        start = self.at
        end = _end_of_c_definition(self.text, start)
        if end < 0:
            raise Fault("expected '}'", start, skip_name(self.text, start))
        self._add_c_definition(start, end)

    def _add_c_definition(self, start: int, end: int) -> None:
        self.at = self.done = end
        self._refuse_late("C definitions", start)
        place = self.span(start)
        text = place.text
        if text[0] != "#" and not text.endswith(";"):
            text += ";"
        self.c_definitions.append(ast.CDefinition(place, text))

    # config, import --------------------------------------------------------------------------------------------

    def _parse_config(self) -> None:
        self.start_at(self.at)
        start = self.take().start
        if self.config is not None:
            raise Fault("duplicate config block", start, self.done)
        self._refuse_late("config", start)
        self.expect("=")
        self.expect("{")
        self.config = []
        while self.token.kind != "}":
            self.config.append(self._parse_config_item())
            if self.token.kind != "}":
                self.expect(";")
        self.expect("}")
        self.at = self.done

    def _parse_config_item(self) -> ast.ConfigItem:
        start = self.token.start
        name = self.expect_name("expected config key")
        self.expect("=")
        if self.token.kind not in ("name", "int", "string"):
            raise self.fault("expected string, int, boolean, or ident")
        token = self.take()
        value = token.value
        if token.kind == "name" and value in ("true", "false"):
            value = value == "true"
        return ast.ConfigItem(self.span(start), name, value)

    def _parse_root_import(self) -> None:
        self.start_at(self.at)
        start = self.take().start
        self._refuse_late("root imports", start)
        if self.token.kind != "string":
            raise self.fault("expected string after 'import'")
        path = self.take().value
        if self.token.kind != ";":
            raise self.fault("expected ';' after import")
        self.imports.append(ast.Import(self.span(start), path))
        self.take()
        self.at = self.done

    # declarations ----------------------------------------------------------------------------------------------

    def _parse_map_decl(self) -> None:
        self.start_at(self.at)
        start = self.take().start
        if self.token.kind != "map":
            raise Fault(
                "root-level let statements need to be map declarations, e.g. let @a = hash(2);", start, start + 3
            )
        name = self.take().value
        self.expect("=")
        type_ = self.expect_name("expected map type name")
        self.expect("(")
        if self.token.kind != "int":
            raise self.fault("expected positive integer for map declaration max entries")
        entries = self.take().value
        self.expect(")")
        self.map_decls.append(ast.MapDecl(self.span(start), name, type_, entries))
        if self.token.kind == ";":
            self.take()
        self.at = self.done

    def _parse_macro(self) -> None:
        self.start_at(self.at)
        start = self.take().start
        name = self.expect_name("expected macro name")
        self.expect("(")
        params: list[ast.MacroParam] = []
        if self.token.kind != ")":
            params.append(self._parse_macro_param())
            while self.accept(","):
                params.append(self._parse_macro_param())
        self.expect(")")
        self.macro_params = frozenset(p.name for p in params)
        body = self.parse_block(True)
        self.check_height(body)
        self.macros.append(ast.Macro(self.span(start), name, tuple(params), body))
        self.at = self.done

    def _parse_macro_param(self) -> ast.MacroParam:
        token = self.token
        if token.kind in ("var", "map"):
            self.take()
            return ast.MacroParam(self.span(token.start), token.kind, token.value)
        name = self.expect_name("expected macro argument ($var, @map, or identifier)")
        if is_builtin(name):
            raise self.fault_since(token.start, f"builtin '{name}' can't be used as a macro argument")
        return ast.MacroParam(self.span(token.start), "expr", name)

    def _parse_subprogram(self) -> None:
        self.start_at(self.at)
        start = self.take().start
        name = self.expect_name("expected function name")
        self.expect("(")
        params: list[tuple[ast.Variable, ast.TypeName]] = []
        while self.token.kind != ")":
            if self.token.kind != "var":
                raise self.fault("expected variable in function argument")
            token = self.take()
            variable = ast.Variable(self.span(token.start), token.value)
            self.expect(":")
            params.append((variable, self.parse_type()))
            if not self.accept(","):
                break
        self.expect(")")
        self.expect(":")
        result = self.parse_type()
        body = self.parse_block(False)
        self.check_height(body)
        self.subprograms.append(ast.Subprogram(self.span(start), name, tuple(params), result, body))
        self.at = self.done

    # probes ----------------------------------------------------------------------------------------------------

    def _parse_probe(self) -> None:
        text = self.text
        start = self.at
        after_name = find_name_end(text, start)
        name = text[start : skip_name(text, start)] if after_name > start else ""
        points = [self._parse_attach_point(skip_layout(text, after_name))]
        while text[self.at] == ",":
            self.at = skip_layout(text, self.at + 1)
            if text[self.at] in "/{":
                break
            points.append(self._parse_attach_point(self.at))
        self.start_at(self.at)
        predicate = None
        if self.accept("/"):
            predicate = self.parse_expression()
            if self.token.kind != "/":
                raise self.fault("expected '/' to close predicate")
            self.take()
        body = self.parse_block(False)
        probe = ast.Probe(self.span(start), tuple(points), predicate, body, name)
        self.check_height(probe)
        self.probes.append(probe)
        self.at = self.done

    def _parse_attach_point(self, start: int) -> ast.AttachPoint:
        text = self.text
        self.at = self.done = find_end(text, start)
        place = self.span(start)
        self.at = skip_layout(text, self.at)
        return ast.AttachPoint(place, place.text, split_parts(place.text))


_ITEMS: dict[str, Callable[[Parser], None]] = {
    "config": Parser._parse_config,
    "import": Parser._parse_root_import,
    "macro": Parser._parse_macro,
    "fn": Parser._parse_subprogram,
    "let": Parser._parse_map_decl,
}


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) - 1 if end < 0 else end


def _begins_c_definition(text: str, at: int) -> bool:
    """`struct name {`, perhaps with attributes between; not `struct:…`, which is a probe of an unknown provider."""
    while text[at] != "{":
        if text[at] in NAME_START:
            at = skip_name(text, at)
        elif text[at] == "(":
            at = _skip_balanced(text, at, "(", ")")
        else:
            return False
        at = skip_layout(text, at)
    return True


def _skip_balanced(text: str, at: int, opener: str, closer: str) -> int:
    """Return the offset behind the bracket that closes the one at `at`; the end of the text if there is none."""
    depth = 0
    last = len(text) - 1
    while at < last:
        c = text[at]
        if c == "/" and text[at + 1] in "/*":
            at = skip_comment(text, at)
            continue
        at += 1
        if c == opener:
            depth += 1
        elif c == closer:
            depth -= 1
            if depth == 0:
                return at
    return last


def _end_of_c_definition(text: str, at: int) -> int:
    """Return the offset behind a definition, -1 when its brace is never closed."""
    typedef = text.startswith("typedef", at)
    while text[at] not in "{;" and not (text[at] == END and at == len(text) - 1):
        at += 1
    if text[at] == ";":
        return at + 1
    end = _skip_balanced(text, at, "{", "}")
    if text[end - 1] != "}":
        return -1
    after = skip_layout(text, end)
    if text.startswith("__attribute__", after):
        end = _skip_balanced(text, skip_layout(text, after + 13), "(", ")")
        after = skip_layout(text, end)
    elif typedef:
        semicolon = text.find(";", end)
        after = semicolon if semicolon >= 0 else after
    return after + 1 if text[after] == ";" else end


def _behind_next_block(text: str, at: int) -> int:
    """Where to go on after an error outside of blocks: behind the next block."""
    opener = text.find("{", at)
    if opener < 0:
        return len(text)
    return _skip_balanced(text, opener, "{", "}")

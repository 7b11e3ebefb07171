"""Tokens of a C program to its syntax tree: the file level, and the door of the parser.

C11 with GNU's extensions as programs for BPF use them, and BCC's map declarations. Errors come several in one run, each where the
text went wrong; the grammar is in `parser_statements`, `parser_declarations`, `parser_types` and `parser_expressions`.
"""

from __future__ import annotations

from ...errors import CompileError
from . import ast
from .parser_cursor import Fault, GiveUp
from .parser_pragmas import Pragmas, is_pragma_for_us
from .parser_statements import Reopened, StatementParser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .tokens import Token


def parse(tokens: Sequence[Token], is_type: Callable[[str], bool]) -> ast.TranslationUnit:
    """Parse a preprocessed text, which ends in a token of the kind "end".

    `is_type` says whether a name that the text does not declare is a type. Raises CompileError with up to 20 errors; that of an unknown
    type is an `UnknownTypeName`.
    """
    return Parser(tokens, is_type).parse_unit()


class Parser(StatementParser):
    """Parses one text."""

    def __init__(self, tokens: Sequence[Token], is_type: Callable[[str], bool]) -> None:
        super().__init__([t for t in tokens if t.kind != "pragma" or is_pragma_for_us(t.text)], is_type)
        self._pragmas = Pragmas()

    def parse_unit(self) -> ast.TranslationUnit:
        """Parse to the end. Raises CompileError."""
        items: list[ast.External] = []
        try:
            while self.kind != "end":
                self._next_item(items)
        except GiveUp:
            pass
        if self.errors:
            raise CompileError(self.errors)
        span = self.span(0) if self.at else self.span_of_nothing()
        return ast.TranslationUnit(span, tuple(items))

    def _next_item(self, items: list[ast.External]) -> None:
        start = self.at
        try:
            item = self._external()
            if item is not None:
                items.append(item)
                self.check_height(item)
        except Reopened:
            self._reset()
        except Fault as fault:
            self.report(fault.diagnostic)
            if self.kind == "end":
                raise GiveUp from None
            self._reset()
            self.skip_statement(start)

    def _reset(self) -> None:
        self.depth = 0
        self.unroll = 0
        self.close_scopes(1)
        self._blocks.clear()

    def _external(self) -> ast.External | None:
        """Parse one item of the file level; None where there is nothing to keep. Raises Fault."""
        kind = self.kind
        if kind == ";":
            self.next()
            return None
        parse = _EXTERNALS.get(kind)
        if parse is not None:
            return parse(self)
        while self.kind == "__extension__":
            self.next()
        if self.kind == "name" and self.kinds[self.at + 1] == "(" and not self.at_type():
            raise self._no_macro()
        return self._declaration_or_function()

    def _no_macro(self) -> Fault:
        name = self.tokens[self.at].text
        message = f"'{name}' is neither a type nor a macro that is known here"
        hint = "a function needs its return type; a macro needs its #define or its header, before it is used."
        return self.fault(message, hint=hint)

    def _declaration_or_function(self) -> ast.External:
        start = self.at
        specifiers = self.specifiers()
        if self.kind == ";":
            self.next()
            return ast.Declaration(self.span(start), specifiers)
        if self._lacks_semicolon(specifiers):
            self.semicolon("behind the definition")
            return ast.Declaration(self.span(start), specifiers)
        at = self.at
        declarator = self.declarator(True)
        if self.kind == "{" and declarator.derived and isinstance(declarator.derived[0], ast.FunctionOf):
            return self._function_definition(start, specifiers, declarator)
        return self.declaration_behind(start, specifiers, declarator, at)

    def _lacks_semicolon(self, specifiers: ast.Specifiers) -> bool:
        """Whether `struct s { … }` is followed, on a later line, by what is no declarator."""
        return self.kinds[self.at - 1] == "}" and self.kind not in ("name", "*", "(") and self.begins_line()

    def _function_definition(
        self, start: int, specifiers: ast.Specifiers, declarator: ast.Declarator
    ) -> ast.FunctionDef:
        if specifiers.storage == "typedef":
            raise self.fault("a typedef has no body")
        self.declare(declarator.name, False)
        self.open_scope()
        function = declarator.derived[0]
        assert isinstance(function, ast.FunctionOf)
        for param in function.params:
            if param.declarator.name:
                self.declare(param.declarator.name, False)
        body = self.block()
        self.close_scope()
        return ast.FunctionDef(self.span(start), specifiers, declarator, body)

    # words that have an item of their own ---------------------------------------------------------------------

    def _table(self) -> ast.TableDecl:
        """Parse `__bcc_table(kind, key, leaf, name, max_entries, flags[, extra])`, with or without a semicolon behind it."""
        start = self.at
        opened = self._open()
        kind = self._word_or_string("of the kind of table")
        self.expect(",", "behind the kind of a table")
        key = self._optional_type()
        self.expect(",", "behind the type of the key")
        leaf = self._optional_type()
        self.expect(",", "behind the type of the value")
        name = self.expect_name("of the table")
        max_entries = self._optional_constant()
        flags = self._optional_constant()
        extra = self._word_or_string("of a path or of the inner table") if self.accept(",") else ""
        self._close(opened)
        self.declare(name, False)
        self.accept(";")
        return ast.TableDecl(self.span(start), kind, name, key, leaf, max_entries, flags, extra)

    def _word_or_string(self, what: str) -> str:
        if self.kind == "string":
            return self.string().value.decode("utf-8", "replace")
        return self.expect_name(what)

    def _optional_type(self) -> ast.TypeName | None:
        return None if self.kind == "," else self.type_name()

    def _optional_constant(self) -> ast.Expr | None:
        if not self.accept(",") or self.kind in (",", ")"):
            return None
        return self.assignment()

    def _refuse_brace(self) -> ast.External:
        brace = self.tokens[self.at].span
        self.next()
        raise self.fault("there is no '{' that this '}' closes", brace)

    def _refuse_asm(self) -> ast.External:
        raise self.fault("assembly outside a function is not supported")

    def _file_pragma(self) -> None:
        at = self.at
        self.pragma()
        if self.unroll:
            raise self.fault("expected a loop behind this #pragma", self.tokens[at].span)

    def pragma(self) -> None:
        """Take in the pragma at the cursor. Raises Fault."""
        token = self.tokens[self.at]
        self.next()
        try:
            unroll = self._pragmas.take(token.text)
        except ValueError as error:
            raise self.fault(str(error), token.span) from None
        if unroll is not None:
            self.unroll = unroll

    def packing(self) -> list[ast.Attribute]:
        """Return what `#pragma pack` says about the struct just read."""
        limit = self._pragmas.pack
        place = self.span(self.at - 1)
        if limit == 0:
            return []
        return [ast.Attribute(place, "pragma_pack", (ast.Number(place, limit),))]


_EXTERNALS: dict[str, Callable[[Parser], ast.External | None]] = {
    "__bcc_table": Parser._table,
    "_Static_assert": Parser.static_assert,
    "}": Parser._refuse_brace,
    "asm": Parser._refuse_asm,
    "pragma": Parser._file_pragma,
}

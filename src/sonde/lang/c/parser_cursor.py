"""A cursor over the tokens of a C program: look, take, expect; names that are types; places; errors and their limits.

The classes of the parser build on it. A syntax error travels as a Fault to the next place where the parser can go on.
"""

from __future__ import annotations

from ...errors import Diagnostic
from ..source import Place, diagnose
from .parser_words import KEYWORDS, TYPE_STARTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from . import ast
    from .tokens import Token

MAX_DEPTH = (
    100  # of parentheses, blocks, declarators and prefix operators within each other: what the parser itself can take
)
MAX_HEIGHT = 200  # of a tree, so that later passes may walk it by recursion
MAX_ERRORS = 20


class UnknownTypeName(Diagnostic):
    """The error that `name` is no type; whoever knows all types can add which ones are called alike."""

    name: str = ""


class Fault(Exception):
    """A syntax error on its way to where the parser goes on. Never leaves this package."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class GiveUp(Exception):
    """There are too many errors, or one that makes the rest meaningless. Never leaves this package."""


class TokenCursor:
    """`kind` is the kind of the token at index `at`: "name", "number", "character", "string", "pragma", "end", or its own spelling."""

    def __init__(self, tokens: Sequence[Token], is_type: Callable[[str], bool]) -> None:
        self.tokens = tokens
        self.kinds = [KEYWORDS.get(t.text, "name") if t.kind == "name" else _KINDS.get(t.kind, t.kind) for t in tokens]
        self.at = 0
        self.kind = self.kinds[0]
        self.depth = 0
        self.deepest = 0  # the largest depth, and the longest chain, since the last check of a tree's height
        self.longest = 0
        self.errors: list[Diagnostic] = []
        self._is_type = is_type
        self._names = {
            "__builtin_va_list": True
        }  # whether a name that the text declares is a type, innermost scope first
        self._foreign: dict[str, bool] = {}  # what `is_type` said
        self._scopes: list[list[tuple[str, bool | None]]] = [[]]

    # tokens ---------------------------------------------------------------------------------------------------

    def next(self) -> None:
        """Move past the current token, which is not the end."""
        self.at += 1
        self.kind = self.kinds[self.at]

    def go_to(self, index: int) -> None:
        """Put the cursor on the token at `index`."""
        self.at = index
        self.kind = self.kinds[index]

    def accept(self, kind: str) -> bool:
        """Take the current token if it is a `kind`."""
        if self.kind != kind:
            return False
        self.at += 1
        self.kind = self.kinds[self.at]
        return True

    def expect(self, kind: str, where: str = "") -> None:
        """Take a token of this kind. Raises Fault; `where` says in words where it was expected."""
        if self.kind != kind:
            raise self.missing(kind, where)
        self.at += 1
        self.kind = self.kinds[self.at]

    def expect_close(self, kind: str, opened: int) -> None:
        """Take the bracket that closes the one at index `opened`. Raises Fault that names both."""
        if self.kind != kind:
            opener = self.kinds[opened]
            note = diagnose(self.tokens[opened].span, f"to match this '{opener}'", severity="NOTE")
            raise self.missing(kind, "", (note,))
        self.at += 1
        self.kind = self.kinds[self.at]

    def expect_name(self, where: str) -> str:
        """Take an identifier. Raises Fault."""
        if self.kind != "name":
            raise self.unexpected("the name " + where)
        text = self.tokens[self.at].text
        self.next()
        return text

    # places ---------------------------------------------------------------------------------------------------

    def span(self, start: int) -> Place:
        """Return the place from the token at index `start` to the last token taken."""
        first, last = self.tokens[start].span, self.tokens[self.at - 1].span
        if first is last:
            return first
        if first.call is last.call and first.source is last.source:
            return Place(first.source, first.start, last.end, first.call)
        return join_places(first, last)

    def span_of_nothing(self) -> Place:
        """Return the empty place before the current token."""
        place = self.tokens[self.at].span
        return Place(place.source, place.start, place.start, place.call)

    # names ----------------------------------------------------------------------------------------------------

    def is_type_name(self, name: str) -> bool:
        """Whether `name` is a typedef here."""
        known = self._names.get(name)
        if known is None:
            known = self._foreign.get(name)
            if known is None:
                known = self._foreign[name] = self._is_type(name)
        return known

    def is_known_type(self, name: str) -> bool:
        """Whether `name` is a typedef that the text has declared or used."""
        known = self._names.get(name)
        return self._foreign.get(name, False) if known is None else known

    def is_declared(self, name: str) -> bool:
        """Whether the text has declared `name`, as whatever."""
        return name in self._names

    def at_type(self) -> bool:
        """Whether a type begins here."""
        kind = self.kind
        if kind == "name":
            return self.is_type_name(self.tokens[self.at].text)
        return kind in TYPE_STARTS or kind == "__attribute__"

    def declare(self, name: str, is_type: bool) -> None:
        """Make `name` known in the current scope."""
        names = self._names
        self._scopes[-1].append((name, names.get(name)))
        names[name] = is_type

    def open_scope(self) -> None:
        """Begin a scope; names declared in it are forgotten by `close_scope`."""
        self._scopes.append([])

    def close_scope(self) -> None:
        """End the innermost scope."""
        names = self._names
        for name, before in reversed(self._scopes.pop()):
            if before is None:
                del names[name]
            else:
                names[name] = before

    def behind_attributes(self, index: int) -> int:
        """Return the index of the token behind any `__attribute__((…))` at `index`."""
        kinds = self.kinds
        while kinds[index] == "__attribute__":
            depth = 0
            index += 1
            while kinds[index] != "end":
                depth += {"(": 1, ")": -1}.get(kinds[index], 0)
                index += 1
                if depth <= 0:
                    break
        return index

    def close_scopes(self, count: int) -> None:
        """End scopes until `count` are left; what a Fault skipped."""
        while len(self._scopes) > count:
            self.close_scope()

    @property
    def open_scopes(self) -> int:
        """The number of open scopes."""
        return len(self._scopes)

    # errors ---------------------------------------------------------------------------------------------------

    def found(self) -> str:
        """Return words for the current token."""
        return _FOUND.get(self.kind) or f"'{self.tokens[self.at].text}'"

    def unexpected(self, expected: str, hint: str = "") -> Fault:
        """Make the error that something else was expected at the current token."""
        return self.fault(f"expected {expected}, found {self.found()}", hint=hint)

    def fault(
        self, message: str, place: Place | None = None, *, hint: str = "", notes: tuple[Diagnostic, ...] = ()
    ) -> Fault:
        """Make an error about `place`, or about the current token."""
        return Fault(diagnose(place or self.tokens[self.at].span, message, hint=hint, notes=notes))

    def missing(self, kind: str, where: str = "", notes: tuple[Diagnostic, ...] = ()) -> Fault:
        """Make the error that punctuation is missing. Where the next token is on a later line, it points behind the last one."""
        message = f"expected '{kind}'" + (f" {where}" if where else "")
        if self.at and (self.kind == "end" or self.begins_line()):
            return Fault(diagnose(behind(self.tokens[self.at - 1].span), message, notes=notes))
        return self.fault(f"{message}, found {self.found()}", notes=notes)

    def semicolon(self, where: str) -> None:
        """Take a `;`. A missing one is reported, and is as if it were there, where the next token begins a line or ends the
        block. Raises Fault elsewhere.
        """
        if self.kind == ";":
            self.next()
            return
        fault = self.missing(";", where)
        if self.kind != "}" and not self.begins_line():
            raise fault
        self.report(fault.diagnostic)

    def unclosed(self, opened: int) -> GiveUp:
        """Report that the text ends inside the brace at index `opened`."""
        note = diagnose(self.tokens[opened].span, "to match this '{'", severity="NOTE")
        self.report(self.missing("}", "before the end of the file", (note,)).diagnostic)
        return GiveUp()

    def begins_line(self) -> bool:
        """Whether the current token stands on a later line than the one before it."""
        last, place = outermost(self.tokens[self.at - 1].span), outermost(self.tokens[self.at].span)
        return last.source is place.source and "\n" in last.source.text[last.end : place.start]

    def report(self, diagnostic: Diagnostic) -> None:
        """Keep an error. Raises GiveUp when there are too many."""
        self.errors.append(diagnostic)
        if len(self.errors) >= MAX_ERRORS:
            raise GiveUp

    # limits ---------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Go one level deeper; every `enter` is paired with `self.depth -= 1`, except on the way of a Fault."""
        self.depth += 1
        if self.depth > self.deepest:
            self.deepest = self.depth
            if self.depth > MAX_DEPTH:
                self.report(
                    diagnose(self.tokens[self.at].span, f"nested deeper than {MAX_DEPTH} levels", hint=_SPLIT_HINT)
                )
                raise GiveUp

    def check_chain(self, length: int) -> None:
        """Count operators, members, labels or `else if` in one row: each makes the tree one node higher."""
        if length > self.longest:
            self.longest = length
            if length > MAX_HEIGHT:
                self.report(
                    diagnose(self.tokens[self.at].span, f"more than {MAX_HEIGHT} of a kind in a row", hint=_SPLIT_HINT)
                )
                raise GiveUp

    def check_height(self, node: ast.Node) -> None:
        """Refuse a finished tree that is higher than MAX_HEIGHT; cheap for those that cannot be. Raises GiveUp."""
        if self.deepest * (self.longest + 6) > MAX_HEIGHT and height_of(node) > MAX_HEIGHT:
            message = f"nested deeper than {MAX_HEIGHT} levels"
            self.report(diagnose(node.span, message, hint=_SPLIT_HINT))
            raise GiveUp
        self.deepest = self.longest = 0


_SPLIT_HINT = "split it up, for example with variables or functions of its own."
_KINDS = {"char": "character"}  # "char" is a word of the language
_FOUND = {"end": "the end of the file", "string": "a string", "pragma": "a #pragma"}


def height_of(node: ast.Node) -> int:
    """Return the number of nodes on the longest way down from `node`."""
    from .ast import Node

    height = 0
    stack: list[tuple[object, int]] = [(node, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, Node):
            height = max(height, depth)
            stack += [(getattr(item, field), depth + 1) for field in item._fields[1:]]
        elif type(item) is tuple:
            stack += [(part, depth) for part in item]
    return height


def outermost(place: Place) -> Place:
    """Return where the text itself has `place`: the macro call that everything came from, or the place."""
    while place.call is not None:
        place = place.call
    return place


def behind(place: Place) -> Place:
    """Return the place of the character behind `place` in the text itself, also where that is the end of a line."""
    place = outermost(place)
    after = Place(place.source, place.end, place.end)
    after.end_column = after.column + 1  # type: ignore[misc]
    return after


def join_places(first: Place, last: Place) -> Place:
    """Return the smallest place that covers two which came from different macro calls, or from none; else the first."""
    ends: dict[tuple[int, int], Place] = {}
    at: Place | None = last
    while at is not None:
        ends[id(at.source), id(at.call)] = at
        at = at.call
    at = first
    while at is not None:
        end = ends.get((id(at.source), id(at.call)))
        if end is not None and end.end >= at.start:
            return Place(at.source, at.start, end.end, at.call)
        at = at.call
    return first

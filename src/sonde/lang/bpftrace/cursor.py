"""A cursor over the tokens of a script: look, take, expect, and the limits of nesting. The parser's classes build on it."""

from __future__ import annotations

from ..source import Place, Source
from . import ast
from .fault import Fault
from .lexer import Lexer, Token
from .rewrite import height_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    Mark = tuple[Token, int, int, int]

MAX_DEPTH = 100  # of parentheses, blocks, casts and prefix operators within each other: what the parser itself can take
MAX_HEIGHT = 200  # of a tree, so that later passes may walk it by recursion


class TokenCursor:
    """`token` is the next token; `done` is the end of the last one taken."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.lexer = Lexer(source)
        self.text = self.lexer.text
        self.token = Token("end", None, 0, 0)
        self.done = 0
        self.depth = 0
        self.deepest = 0  # the largest depth, and the longest chain, since the last check of a tree's height
        self.longest = 0
        self.words: set[str] = set()
        self.macro_params: frozenset[str] = frozenset()
        self._tokens: list[Token] = []
        self._next = 0

    # cursor ---------------------------------------------------------------------------------------------------

    def start_at(self, offset: int) -> None:
        """Put the cursor on the token at `offset`, leaving whatever was scanned before."""
        self._tokens = self.lexer.scan(offset)
        self.token = self._tokens[0]
        self._next = 1
        self.done = offset

    def take(self) -> Token:
        """Move past the current token and return it; the end is never passed."""
        token = self.token
        self.done = token.end
        if self._next == len(self._tokens):
            if token.kind == "end":
                return token
            self._tokens += self.lexer.scan(token.end)
        self.token = self._tokens[self._next]
        self._next += 1
        return token

    def look(self, distance: int = 1) -> Token:
        """Return a token behind the current one, without moving."""
        while self._next + distance > len(self._tokens):
            last = self._tokens[-1]
            if last.kind == "end":
                return last
            self._tokens += self.lexer.scan(last.end)
        return self._tokens[self._next + distance - 1]

    def mark(self) -> Mark:
        """Return where the cursor is, for `back_to`."""
        return self.token, self._next, self.done, self.depth

    def back_to(self, mark: Mark) -> None:
        """Put the cursor back."""
        self.token, self._next, self.done, self.depth = mark

    def accept(self, kind: str) -> bool:
        """Take the current token if it is a `kind`."""
        if self.token.kind != kind:
            return False
        self.take()
        return True

    def accept_word(self, word: str) -> bool:
        """Take the current token if it is the name `word`."""
        if self.token.kind != "name" or self.token.value != word:
            return False
        self.take()
        return True

    def expect(self, kind: str) -> Token:
        """Take a token of this kind. Raises Fault."""
        if self.token.kind != kind:
            raise self.fault(f"expected '{kind}'")
        return self.take()

    def expect_name(self, message: str) -> str:
        """Take a name, keywords included. Raises Fault with `message`."""
        if self.token.kind != "name":
            raise self.fault(message)
        return self.take().value  # type: ignore[no-any-return]

    def fault(self, message: str, hint: str = "") -> Fault:
        """Make the error that `message` is about the current token; a token that is itself wrong says so instead."""
        token = self.token
        if token.kind == "bad":
            return token.value  # type: ignore[no-any-return]
        return Fault(message, token.start, token.end, hint)

    def fault_since(self, start: int, message: str, hint: str = "") -> Fault:
        """Make an error about the text from `start` to the last token taken."""
        return Fault(message, start, self.done, hint)

    def span(self, start: int) -> Place:
        """Return the place from `start` to the end of the last token taken."""
        return Place(self.source, start, self.done)

    def enter(self) -> None:
        """Go one level deeper; every `enter` is paired with `self.depth -= 1`, except on the way of a Fault."""
        self.depth += 1
        if self.depth > self.deepest:
            self.deepest = self.depth
            if self.depth > MAX_DEPTH:
                raise self.fault(f"nested deeper than {MAX_DEPTH} levels", _SPLIT_HINT)

    def check_chain(self, length: int) -> None:
        """Count operators, members or `else if` in one row: each makes the tree one node higher."""
        if length > self.longest:
            self.longest = length
            if length > MAX_HEIGHT:
                raise self.fault(f"more than {MAX_HEIGHT} operators in a row", _SPLIT_HINT)

    def check_height(self, node: ast.Node) -> None:
        """Refuse a tree that is too high to walk. Nearly always the two maxima show that it cannot be."""
        if self.deepest * (self.longest + 3) > MAX_HEIGHT and height_of(node) > MAX_HEIGHT:
            raise self.fault_since(self.done, f"nested deeper than {MAX_HEIGHT} levels", _SPLIT_HINT)
        self.deepest = self.longest = 0


_SPLIT_HINT = "split it with scratch variables."

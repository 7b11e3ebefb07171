"""The C preprocessor, as far as scripts need it: conditions, object-like and function-like macros, constant expressions.

Takes the C definitions of a script, gives the tokens that are left and the macros that are defined in the end. Of the kernel's headers, whose
types come from BTF, and of those whose constants `cheaders` knows no file is read; others are found by `headers`.
"""

from __future__ import annotations

from ...errors import CompileError
from ..source import Place, Source, diagnose
from . import ast
from .lexer import DIGITS, NAME, NAME_START, SPACE, skip_comment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...errors import Span
    from .headers import Headers

MAX_EXPANSION = 20_000  # tokens that one use of a macro may grow to
MAX_DEPTH = 100
_PUNCTUATION = ("...", "<<=", ">>=", "##", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "->", "++", "--")
_ESCAPES = {"n": 10, "t": 9, "r": 13, "0": 0, "a": 7, "b": 8, "f": 12, "v": 11, "\\": 92, "'": 39, '"': 34}


class CToken:
    """A token of C. `kind` is "name", "number", "string", "char", "end", or the punctuation itself; `text` is as written."""

    __slots__ = ("kind", "span", "text")

    def __init__(self, kind: str, text: str, span: Span) -> None:
        self.kind = kind
        self.text = text
        self.span = span


class CMacro:
    """A macro: `params` is None for an object-like one."""

    __slots__ = ("body", "name", "params")

    def __init__(self, name: str, params: tuple[str, ...] | None, body: tuple[CToken, ...]) -> None:
        self.name = name
        self.params = params
        self.body = body


def c_error(span: Span, message: str, hint: str = "") -> CompileError:
    """Make the error that stops the processing of C text."""
    return CompileError([diagnose(span, message, hint=hint)])


# tokens -----------------------------------------------------------------------------------------------------------


def tokenize(text: str, place: Span) -> list[CToken]:
    """Split C text that stands at `place` into tokens. Raises CompileError."""
    tokens: list[CToken] = []
    text += "\0"
    at = 0
    while at < len(text) - 1:
        c = text[at]
        if c in SPACE or (c == "\\" and text[at + 1] in "\r\n"):
            at += 1
        elif c == "/" and text[at + 1] in "/*":
            at = skip_comment(text, at)
        else:
            kind, end = _scan_token(text, at)
            span = _part(place, at, end)
            if kind == "bad":
                raise c_error(span, f"unexpected character {c!r} in a C definition")
            tokens.append(CToken(kind, text[at:end], span))
            at = end
    return tokens


def _part(place: Span, start: int, end: int) -> Span:
    if isinstance(place, Place):
        return Place(place.source, min(place.start + start, place.end), min(place.start + end, place.end))
    return place


def _scan_token(text: str, at: int) -> tuple[str, int]:
    c = text[at]
    end = at + 1
    if c in NAME_START:
        while text[end] in NAME:
            end += 1
        return "name", end
    if c in DIGITS:
        while text[end] in NAME or text[end] == ".":
            end += 1
        return "number", end
    if c in "\"'":
        while text[end] not in (c, "\n", "\0"):
            end += 2 if text[end] == "\\" and text[end + 1] != "\0" else 1
        return ("string" if c == '"' else "char", end + 1) if text[end] == c else ("bad", end)
    for punctuation in _PUNCTUATION:
        if text.startswith(punctuation, at):
            return punctuation, at + len(punctuation)
    return (c, end) if c in "{}()[];,:?~!%^&*-+=|<>/.#" else ("bad", end)


def unquote(token: CToken) -> str:
    """Return the value of a string or character token, without its quotes."""
    value = ""
    text = token.text[1:-1]
    at = 0
    while at < len(text):
        c = text[at]
        at += 1
        if c != "\\":
            value += c
            continue
        c = text[at : at + 1]
        at += 1
        if c == "x":
            end = at
            while end < len(text) and text[end] in "0123456789abcdefABCDEF":
                end += 1
            if end == at:
                raise c_error(token.span, "a \\x escape without digits")
            value += chr(int(text[at:end], 16) & 0xFF)
            at = end
        elif c in "01234567" and c:
            end = at
            while end < min(len(text), at + 2) and text[end] in "01234567":
                end += 1
            value += chr(int(text[at - 1 : end], 8) & 0xFF)
            at = end
        else:
            value += chr(_ESCAPES.get(c, ord(c or "\\")))
    return value


# directives -------------------------------------------------------------------------------------------------------


class Preprocessor:
    """Runs over the C definitions in order. `macros` is what is defined; `headers` the constants of a header by its path."""

    def __init__(self, predefined: Mapping[str, str], have_btf: bool, headers: Headers | None = None) -> None:
        self.have_btf = have_btf
        self.headers = headers
        self._once: set[str] = set()  # files that say #pragma once
        self.macros: dict[str, CMacro] = {}
        self.header_constants: dict[str, int] = {}
        self._conditions: list[list[bool]] = []  # for each open #if: [active now, a branch was taken, enclosing active]
        self._expanding: set[str] = set()
        for name, body in predefined.items():
            self.macros[name] = CMacro(name, None, tuple(tokenize(body, NOWHERE)))

    def run(self, definitions: Iterable[ast.CDefinition]) -> list[CToken]:
        """Return the tokens of all active text, macros expanded. Raises CompileError."""
        output: list[CToken] = []
        last: ast.CDefinition | None = None
        depth = len(self._conditions)
        for definition in definitions:
            last = definition
            if definition.text.startswith("#"):
                output += self._run_directive(definition)
            elif self._active():
                self._add_text(definition, output)
        if len(self._conditions) > depth and last is not None:
            raise c_error(last.span, "an #if without its #endif")
        return output

    def _add_text(self, definition: ast.CDefinition, output: list[CToken]) -> None:
        """Add the tokens of a definition; directives may stand inside it, on lines of their own."""
        if "#" not in definition.text:
            output += self.expand(tokenize(definition.text, definition.span))
            return
        at = 0
        for line in definition.text.splitlines(keepends=True):
            piece = ast.CDefinition(_part(definition.span, at, at + len(line)), line.lstrip())
            if piece.text.startswith("#"):
                output += self._run_directive(piece)
            elif self._active():
                output += self.expand(tokenize(line, piece.span))
            at += len(line)

    def _active(self) -> bool:
        return all(condition[0] for condition in self._conditions)

    def _run_directive(self, definition: ast.CDefinition) -> list[CToken]:
        """Run a directive; the tokens are those of a file that it includes."""
        text = definition.text.replace("\\\n", "  ")
        word = text[1:].split(None, 1)[0] if text[1:].strip() else ""
        word = word[: next((i for i, c in enumerate(word) if c not in NAME), len(word))]
        if word == "include":
            return self._include(text[text.index("include") + 7 :].strip(), definition.span) if self._active() else []
        if word == "pragma" and text.split()[1:] == ["once"] and self._active():
            self._once.add(definition.span.file)
        rest = text[text.index(word) + len(word) :] if word else ""
        tokens = tokenize(rest, _part(definition.span, len(text) - len(rest), len(text)))
        if word in _CONDITIONALS:
            self._run_condition(word, tokens, definition.span)
        elif self._active():
            self._run_definition(word, tokens, rest, definition.span)
        return []

    def _run_condition(self, word: str, tokens: list[CToken], span: Span) -> None:
        if word in ("if", "ifdef", "ifndef"):
            enclosing = self._active()
            value = enclosing and self._test(word, tokens, span)
            self._conditions.append([value, value, enclosing])
            return
        if not self._conditions:
            raise c_error(span, f"an #{word} without its #if")
        condition = self._conditions[-1]
        if word == "endif":
            self._conditions.pop()
        elif word == "else":
            condition[:2] = [condition[2] and not condition[1], True]
        else:
            condition[0] = condition[2] and not condition[1] and self._test("if", tokens, span)
            condition[1] = condition[1] or condition[0]

    def _test(self, word: str, tokens: list[CToken], span: Span) -> bool:
        if word == "if":
            return self.evaluate(self._replace_defined(tokens), span) != 0
        if not tokens or tokens[0].kind != "name":
            raise c_error(span, f"#{word} needs a name")
        return (tokens[0].text in self.macros) == (word == "ifdef")

    def _replace_defined(self, tokens: list[CToken]) -> list[CToken]:
        """Replace `defined X` and `defined(X)` by 1 or 0, before macros are expanded."""
        output: list[CToken] = []
        at = 0
        while at < len(tokens):
            token = tokens[at]
            at += 1
            if token.kind == "name" and token.text == "defined":
                rest = [t.text for t in tokens[at : at + 3]]
                name = rest[1] if len(rest) == 3 and rest[0] == "(" and rest[2] == ")" else (rest[0] if rest else "")
                at += 3 if rest[:1] == ["("] else 1
                token = CToken("number", "1" if name in self.macros else "0", token.span)
            output.append(token)
        return output

    def _run_definition(self, word: str, tokens: list[CToken], rest: str, span: Span) -> None:
        if word == "define":
            self._define(tokens, rest, span)
        elif word == "undef" and tokens:
            self.macros.pop(tokens[0].text, None)
        elif word == "error":
            raise c_error(span, f"#error {rest.strip()}")
        elif word not in ("pragma", "warning", "line", "ident", ""):
            raise c_error(span, f"#{word} is not a preprocessor directive")

    def _define(self, tokens: list[CToken], rest: str, span: Span) -> None:
        if not tokens or tokens[0].kind != "name":
            raise c_error(span, "#define needs a name")
        name = tokens[0].text
        if not rest.lstrip()[len(name) :].startswith("("):
            self.macros[name] = CMacro(name, None, tuple(tokens[1:]))
            return
        params: list[str] = []
        at = 2
        while at < len(tokens) and tokens[at].kind != ")":
            if tokens[at].kind in ("name", "..."):
                params.append(tokens[at].text.replace("...", "__VA_ARGS__"))
            at += 1
        if at >= len(tokens):
            raise c_error(span, f"the parameters of the macro {name} are never closed")
        self.macros[name] = CMacro(name, tuple(params), tuple(tokens[at + 1 :]))

    def _include(self, what: str, span: Span) -> list[CToken]:
        """Take in a header: constants that are known here, nothing where BTF has the types, else a file, whose tokens are returned."""
        from .cheaders import HEADERS, is_kernel_header

        path = what[1:].split(">")[0] if what.startswith("<") else what.strip('"').split('"')[0]
        if path in HEADERS:
            self.header_constants.update(HEADERS[path])
        if self.have_btf if is_kernel_header(path) else path in HEADERS:
            return []
        found = self.headers.find(path, what.startswith('"'), span) if self.headers is not None else ""
        if found:
            return self._include_file(found, span)
        if is_kernel_header(path):
            hint = "the kernel's types come from BTF (/sys/kernel/btf/vmlinux), which this kernel does not have; -I names a directory of headers"
            raise c_error(span, f"there is no header {what}", hint)
        hint = "-I names the directory of a header; kernel types need no #include"
        raise c_error(span, f"there is no header {what}", hint)

    def _include_file(self, path: str, span: Span) -> list[CToken]:
        assert self.headers is not None
        if path in self._once:
            return []
        self.headers.depth += 1
        try:
            return self.run(self.headers.lines(path, span))
        finally:
            self.headers.depth -= 1

    # macros ---------------------------------------------------------------------------------------------------

    def expand(self, tokens: list[CToken]) -> list[CToken]:
        """Expand all macros in a list of tokens. Raises CompileError when they grow without end."""
        output: list[CToken] = []
        at = 0
        while at < len(tokens):
            token = tokens[at]
            at += 1
            macro = self.macros.get(token.text) if token.kind == "name" and token.text not in self._expanding else None
            if macro is None or (macro.params is not None and (at >= len(tokens) or tokens[at].kind != "(")):
                output.append(token)
                continue
            body = list(macro.body)
            if len(self._expanding) >= MAX_DEPTH:
                raise c_error(token.span, f"macros use each other more than {MAX_DEPTH} levels deep")
            if macro.params is not None:
                args, at = _collect_args(tokens, at, token)
                body = self._substitute(macro, args, token)
            self._expanding.add(macro.name)
            output += self.expand([CToken(t.kind, t.text, token.span) for t in body])
            self._expanding.discard(macro.name)
            if len(output) > MAX_EXPANSION:
                raise c_error(token.span, f"the macro {macro.name} expands to more than {MAX_EXPANSION} tokens")
        return output

    def _substitute(self, macro: CMacro, args: list[list[CToken]], call: CToken) -> list[CToken]:
        params = macro.params or ()
        if len(args) == 1 and not args[0] and not params:
            args = []
        if params[-1:] == ("__VA_ARGS__",) and len(args) > len(params):
            rest = [t for arg in args[len(params) - 1 :] for t in (*arg, CToken(",", ",", call.span))][:-1]
            args = [*args[: len(params) - 1], rest]
        if len(args) != len(params):
            raise c_error(call.span, f"the macro {macro.name} takes {len(params)} arguments, {len(args)} given")
        table = dict(zip(params, args))
        expanded = {name: self.expand(arg) for name, arg in table.items()}
        output: list[CToken] = []
        paste = False
        for index, token in enumerate(macro.body):
            if token.kind == "##":
                paste = bool(output)
                continue
            next_pastes = index + 1 < len(macro.body) and macro.body[index + 1].kind == "##"
            piece = (
                (table if paste or next_pastes else expanded).get(token.text, [token])
                if token.kind == "name"
                else [token]
            )
            if paste and piece:
                text = output.pop().text + piece[0].text
                output += [*tokenize(text, call.span), *piece[1:]]
                paste = False
            else:
                output += piece
            if len(output) > MAX_EXPANSION:
                raise c_error(call.span, f"the macro {macro.name} expands to more than {MAX_EXPANSION} tokens")
        return output

    # constants ------------------------------------------------------------------------------------------------

    def evaluate(self, tokens: list[CToken], span: Span) -> int:
        """Return the value of the constant expression of an #if; unknown names are 0. Raises CompileError."""
        from .cconst import Evaluator

        return Evaluator(self.expand(tokens), span, lambda name: self.header_constants.get(name, 0)).evaluate_all()


def _collect_args(tokens: list[CToken], at: int, call: CToken) -> tuple[list[list[CToken]], int]:
    """Split the arguments of a function-like macro; `at` is at its '('."""
    args: list[list[CToken]] = [[]]
    depth = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token.kind in ("(", "["):
            depth += 1
            if depth == 1:
                continue
        elif token.kind in (")", "]"):
            depth -= 1
            if depth == 0:
                return args, at
        elif token.kind == "," and depth == 1:
            args.append([])
            continue
        args[-1].append(token)
    raise c_error(call.span, f"the arguments of the macro {call.text} are never closed")


_CONDITIONALS = frozenset(["if", "ifdef", "ifndef", "elif", "else", "endif"])


NOWHERE = Place(Source("predefined macros", ""), 0, 0)  # of what no text of the script defines

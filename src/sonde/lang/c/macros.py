"""Macros: tokens to tokens by the rules of C11 §6.10.3, with GNU's comma and named variadics, and C23's `__VA_OPT__`.

The way is gcc's: a stack of token lists that are being rescanned, each with the macro that it came from, which does not expand until its
list is used up; a name that is met meanwhile is hidden for good. Only arguments are expanded by recursion.
"""

from __future__ import annotations

from ..source import Place, Source
from .tokens import Token, c_error, tokenize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Union

    from .headers import Dependent, Inline

    Arguments = list[list[Token]]
    # A macro; what a table says one is; a function of a virtual header; or what answers for __LINE__ and its like.
    Definition = Union["Macro", str, int, Inline, Dependent, Callable[[Any, Token], Token]]

MAX_DEPTH = 100  # calls within arguments of calls
MAX_CONTEXTS = 400  # macros that use each other
MAX_TOKENS = 1_000_000  # that one text may expand to


class Macro:
    """A macro. `params` is None for an object-like one; the last of a `variadic` one takes what is left of the arguments.

    `builtin`: it is of a table, and nobody wants to see its text. `virtual`: it also gives way to what the text itself declares.
    """

    __slots__ = ("body", "builtin", "is_plain", "name", "params", "place", "variadic", "virtual")

    def __init__(
        self,
        name: str,
        params: tuple[str, ...] | None,
        variadic: bool,
        body: list[Token],
        place: Place,
        builtin: bool = False,
        virtual: bool = False,
    ) -> None:
        self.name = name
        self.params = params
        self.variadic = variadic
        self.body = body
        self.place = place
        self.builtin = builtin
        self.virtual = virtual
        self.is_plain = not params and not any(t.kind == "##" for t in body)


class Context:
    """A list of tokens that is being rescanned. `macro` is what made it; a `barrier` is the end of an argument."""

    __slots__ = ("at", "barrier", "macro", "tokens")

    def __init__(self, tokens: list[Token], macro: str, barrier: bool = False) -> None:
        self.tokens = tokens
        self.macro = macro
        self.barrier = barrier
        self.at = 0


def parse_macro(tokens: list[Token], place: Place, *, builtin: bool = False, virtual: bool = False) -> Macro:
    """Make a macro of what stands behind `#define` on its line. Raises CompileError."""
    if not tokens or tokens[0].kind != "name":
        raise c_error(tokens[0].span if tokens else place, "#define needs the name of a macro")
    name = tokens[0]
    if name.text in ("defined", "__VA_ARGS__", "__VA_OPT__"):
        raise c_error(name.span, f"'{name.text}' cannot be the name of a macro")
    params: tuple[str, ...] | None = None
    variadic = False
    at = 1
    if len(tokens) > 1 and tokens[1].kind == "(" and not tokens[1].space:
        params, variadic, at = _parse_params(tokens)
    body = tokens[at:]
    _check_body(name, params, variadic, body)
    return Macro(name.text, params, variadic, body, name.span, builtin, virtual)


def _parse_params(tokens: list[Token]) -> tuple[tuple[str, ...], bool, int]:
    """Read `(a, b, ...)` or `(a, rest...)` at tokens[1]; return the names, whether the last is variadic, the index behind."""
    params: list[str] = []
    at = 2
    if at < len(tokens) and tokens[at].kind == ")":
        return (), False, at + 1
    while at + 1 < len(tokens):
        token = tokens[at]
        variadic = token.kind == "..."
        if variadic:
            params.append("__VA_ARGS__")
        elif token.kind != "name":
            raise c_error(token.span, f"expected the name of a parameter, found '{token.text}'")
        elif token.text in params or token.text in ("__VA_ARGS__", "__VA_OPT__"):
            raise c_error(token.span, f"'{token.text}' cannot be the name of this parameter")
        else:
            params.append(token.text)
            if tokens[at + 1].kind == "..." and at + 2 < len(tokens):
                variadic = True
                at += 1
        at += 1
        if tokens[at].kind == ")":
            return tuple(params), variadic, at + 1
        if tokens[at].kind != "," or variadic:
            raise c_error(tokens[at].span, f"expected ')' behind the parameters of a macro, found '{tokens[at].text}'")
        at += 1
    raise c_error(tokens[0].span, f"the parameters of the macro {tokens[0].text} are never closed")


def _check_body(name: Token, params: tuple[str, ...] | None, variadic: bool, body: list[Token]) -> None:
    if body and "##" in (body[0].kind, body[-1].kind):
        raise c_error(
            (body[0] if body[0].kind == "##" else body[-1]).span, "'##' cannot stand at either end of a macro"
        )
    if params is None:
        return
    optional_end = -1
    for i, token in enumerate(body):
        if token.kind == "#":
            follows = body[i + 1].text if i + 1 < len(body) else ""
            if follows not in params and not (follows == "__VA_OPT__" and variadic):
                raise c_error(token.span, "'#' has to be followed by a parameter of the macro")
        elif token.text == "__VA_OPT__" and variadic and token.kind == "name":
            end = _closing(body, i + 1) if i + 1 < len(body) and body[i + 1].kind == "(" else -1
            if end < 0 or i < optional_end:
                raise c_error(token.span, "__VA_OPT__ needs its argument in parentheses, and cannot be nested")
            optional_end = end


def _closing(tokens: list[Token], at: int) -> int:
    """Return the index of the `)` for the `(` at `at`, or -1."""
    depth = 0
    for i in range(at, len(tokens)):
        if tokens[i].kind == "(":
            depth += 1
        elif tokens[i].kind == ")":
            depth -= 1
            if not depth:
                return i
    return -1


class Expander:
    """Expands macros in what `next_of_text` delivers. `macros` holds a Macro, or what one can be made of when it is met."""

    def __init__(self) -> None:
        self.macros: dict[str, Definition] = {}
        self.contexts: list[Context] = []
        self.disabled: dict[str, int] = {}  # macro: how many of the contexts are its
        self.budget = MAX_TOKENS
        self.depth = 0
        self.space = False  # white space was left behind by an empty expansion

    # what the preprocessor gives -----------------------------------------------------------------------------

    def next_of_text(self) -> Token:
        """Return the next token of the text, within the arguments of a call; of the kind "end" where there is none."""
        raise NotImplementedError

    def next_is_parenthesis(self) -> bool:
        """Tell whether the text goes on with `(`, and if so, pass over it."""
        raise NotImplementedError

    def find_macro(self, token: Token) -> Macro | None:
        """Return the macro that a name stands for here, or None."""
        raise NotImplementedError

    def expand_special(self, token: Token, output: list[Token]) -> bool:
        """Put into `output` what a name means that is no macro but is not left as it is either; tell whether it was one."""
        raise NotImplementedError

    # rescanning ----------------------------------------------------------------------------------------------

    def push(self, tokens: list[Token], macro: str = "", barrier: bool = False) -> None:
        """Put tokens in front of what comes."""
        self.contexts.append(Context(tokens, macro, barrier))
        if macro:
            self.disabled[macro] = self.disabled.get(macro, 0) + 1
        if len(self.contexts) > MAX_CONTEXTS:
            raise c_error(tokens[0].span, f"macros use each other more than {MAX_CONTEXTS} levels deep")

    def pop(self) -> None:
        """Leave the innermost list; its macro may expand again."""
        macro = self.contexts.pop().macro
        if macro:
            self.disabled[macro] -= 1

    def expand_list(self, tokens: list[Token], place: Place) -> list[Token]:
        """Return tokens with all macros in them expanded, as if nothing followed. Raises CompileError."""
        if self.depth >= MAX_DEPTH:
            raise c_error(
                place, f"calls of macros are nested more than {MAX_DEPTH} levels deep in each other's arguments"
            )
        if not tokens:
            return []
        self.depth += 1
        output: list[Token] = []
        self.push(tokens, barrier=True)
        height = len(self.contexts)
        while True:
            while len(self.contexts) > height and self.contexts[-1].at == len(self.contexts[-1].tokens):
                self.pop()
            context = self.contexts[-1]
            if context.at == len(context.tokens):
                break
            context.at += 1
            self.expand_token(context.tokens[context.at - 1], output)
        self.pop()
        self.depth -= 1
        self.space = False
        return output

    def drain(self, output: list[Token]) -> None:
        """Rescan until all lists are used up."""
        contexts = self.contexts
        while contexts:
            context = contexts[-1]
            if context.at == len(context.tokens):
                self.pop()
            else:
                context.at += 1
                self.expand_token(context.tokens[context.at - 1], output)

    def expand_token(self, token: Token, output: list[Token]) -> None:
        """Put a token into `output`, or its macro's expansion in front of what comes."""
        if self.space:
            self.space = False
            token = _spaced(token, True)
        if token.kind == "name" and not token.hidden:
            macro = self.find_macro(token)
            if macro is None:
                if self.expand_special(token, output):
                    return
            elif self.disabled.get(token.text):
                token = Token("name", token.text, token.span, token.space, token.line_start, True)
            elif self.enter(macro, token, output):
                return
        output.append(token)

    def next_raw(self) -> Token:
        """Return the next token without expanding it; of the kind "end" at the end of an argument or of the text."""
        while self.contexts:
            context = self.contexts[-1]
            if context.at < len(context.tokens):
                context.at += 1
                return context.tokens[context.at - 1]
            if context.barrier:
                last = context.tokens[-1].span
                return Token("end", "", Place(last.source, last.end, last.end, last.call))
            self.pop()
        return self.next_of_text()

    def take_parenthesis(self) -> bool:
        """Tell whether the next token is `(`, and if so, pass over it."""
        while self.contexts:
            context = self.contexts[-1]
            if context.at < len(context.tokens):
                found = context.tokens[context.at].kind == "("
                context.at += found
                return found
            if context.barrier:
                return False
            self.pop()
        return self.next_is_parenthesis()

    # one call ------------------------------------------------------------------------------------------------

    def enter(self, macro: Macro, name: Token, output: list[Token]) -> bool:
        """Put the expansion of a macro in front of what comes; False where a function-like one has no arguments."""
        if macro.params is None:
            call = name.span
            given: list[list[Token] | None] = []
        else:
            if not self.take_parenthesis():
                return False
            args, end = self._collect(macro, name)
            call = _whole(name.span, end)
            given = self._checked(macro, args, call)
        body = (
            _placed(macro, macro.body, call)
            if macro.is_plain
            else _Substitution(self, macro, given, call).run(macro.body)
        )
        self.budget -= len(body) + 1
        if self.budget < 0:
            raise c_error(name.span, f"the macros of this text expand to more than {MAX_TOKENS} tokens")
        if body:
            if body[0].space != name.space or body[0].line_start:
                body[0] = _spaced(body[0], name.space)
            self.push(body, macro.name)
        elif name.space:
            self.space = True  # stringising shows the white space before an expansion that is empty
        return True

    def _collect(self, macro: Macro, name: Token) -> tuple[Arguments, Place]:
        """Read the arguments of a call up to its `)`; return them and the place of that."""
        assert macro.params is not None
        most = len(macro.params) if macro.variadic else 0
        args: Arguments = [[]]
        depth = 0
        while True:
            token = self.next_raw()
            kind = token.kind
            if kind == "name":
                if self.disabled.get(token.text) and not token.hidden:
                    token = Token(kind, token.text, token.span, token.space, False, True)
            elif kind == "(":
                depth += 1
            elif kind == ")":
                if not depth:
                    return args, token.span
                depth -= 1
            elif kind == "," and not depth and len(args) != most:
                args.append([])
                continue
            elif kind == "end":
                raise c_error(name.span, f"the arguments of the macro {macro.name} are never closed")
            args[-1].append(token)

    def _checked(self, macro: Macro, args: Arguments, call: Place) -> list[list[Token] | None]:
        """Return one argument for each parameter; None for a variadic one that is left out altogether."""
        assert macro.params is not None
        count, wanted = len(args), len(macro.params)
        given: list[list[Token] | None] = list(args)
        sole_empty = count == 1 and not args[0]
        if sole_empty and wanted == 0:
            return []
        if macro.variadic and (count == wanted - 1 or (sole_empty and wanted == 1)):
            return [*given[: wanted - 1], None]
        if count != wanted:
            few = f"at least {wanted - 1}" if macro.variadic else str(wanted)
            raise c_error(
                call,
                f"the macro {macro.name} takes {few} argument{'s' * (few != '1')}, {0 if sole_empty else count} given",
            )
        return given


class _Substitution:
    """One call of a macro: its arguments, raw and expanded."""

    def __init__(self, expander: Expander, macro: Macro, args: list[list[Token] | None], call: Place) -> None:
        self.expander = expander
        self.macro = macro
        self.args = args
        self.call = call
        self.index = {name: i for i, name in enumerate(macro.params or ())}
        self.expanded: dict[int, list[Token]] = {}

    def run(self, body: list[Token]) -> list[Token]:
        """Return the body with everything put in. Raises CompileError."""
        output: list[Token] = []
        at = 0
        space = False  # stood before operands that came to nothing
        while at < len(body):
            space = space or body[at].space
            made, at = self._chain(body, at)
            if made:
                if made[0].space != space:
                    made[0] = _spaced(made[0], space)
                output += made
                space = False
        return output

    def _chain(self, body: list[Token], at: int) -> tuple[list[Token], int]:
        """Return what the operands joined by `##` from index `at` on make together, and the index behind them."""
        made, after = self._operand(body, at, False)
        while after < len(body) and body[after].kind == "##":
            at = after + 1
            operand, after = self._operand(body, at, True)
            if self._is_gnu_comma(made, body[at]):
                made = made + operand if self.args[-1] is not None else made[:-1]
            elif made and operand:
                made[-1:] = [self._paste(made[-1], operand[0]), *operand[1:]]
            else:
                made = made or operand
        self._spend(len(made))
        return made, after

    def _is_gnu_comma(self, left: list[Token], token: Token) -> bool:
        """Tell whether this is `, ## __VA_ARGS__`: nothing is pasted, but the comma goes when the argument is left out."""
        if not (self.macro.variadic and left and left[-1].kind == ","):
            return False
        return self.index.get(token.text) == len(self.args) - 1

    def _spend(self, count: int) -> None:
        self.expander.budget -= count
        if self.expander.budget < 0:
            raise c_error(self.call, f"the macros of this text expand to more than {MAX_TOKENS} tokens")

    def _operand(self, body: list[Token], at: int, paste: bool) -> tuple[list[Token], int]:
        """Return what stands for the token at `at`, which ends at the index that is returned too."""
        token = body[at]
        if token.kind == "#" and self.macro.params is not None:
            if body[at + 1].text == "__VA_OPT__" and body[at + 1].text not in self.index:
                inside, after = self._optional(body, at + 1)
                return [self._string(token, inside)], after
            return [self._string(token, self.args[self.index[body[at + 1].text]] or [])], at + 2
        if token.kind == "name":
            i = self.index.get(token.text)
            if i is not None:
                raw = paste or (at + 1 < len(body) and body[at + 1].kind == "##")
                return list((self.args[i] or []) if raw else self._expanded(i)), at + 1
            if token.text == "__VA_OPT__" and self.macro.variadic:
                return self._optional(body, at)
        return _placed(self.macro, [token], self.call), at + 1

    def _expanded(self, i: int) -> list[Token]:
        found = self.expanded.get(i)
        if found is None:
            found = self.expanded[i] = self.expander.expand_list(self.args[i] or [], self.call)
        return found

    def _optional(self, body: list[Token], at: int) -> tuple[list[Token], int]:
        """`__VA_OPT__( … )`: its content where the variadic argument has any tokens."""
        end = _closing(body, at + 1)
        content = body[at + 2 : end]
        return (self.run(content) if self._expanded(len(self.args) - 1) else []), end + 1

    def _paste(self, left: Token, right: Token) -> Token:
        """Return the one token that two make together. Raises CompileError where they do not."""
        text = left.text + right.text
        self._spend(len(text) // 16)
        made = tokenize(Source("", text)) if text[:2] not in ("//", "/*") else []
        if len(made) != 2 or made[0].kind == "bad":
            raise c_error(self.call, f"pasting '{left.text}' and '{right.text}' does not give one token")
        return Token(made[0].kind, text, left.span, left.space)

    def _string(self, sign: Token, tokens: list[Token]) -> Token:
        """Return a string literal with the spelling of an argument."""
        text = ""
        for i, token in enumerate(tokens):
            if i and token.space:
                text += " "
            if token.kind in ("string", "char"):
                text += token.text.replace("\\", "\\\\").replace('"', '\\"')
            else:
                text += token.text
        if (len(text) - len(text.rstrip("\\"))) % 2:
            text = text[:-1]
        self._spend(len(text) // 16)
        return Token("string", f'"{text}"', _placed(self.macro, [sign], self.call)[0].span, sign.space)


def _placed(macro: Macro, tokens: list[Token], call: Place) -> list[Token]:
    """Copies of a macro's tokens that know the call; those of a built-in macro stand where the call does."""
    if macro.builtin:
        return [Token(t.kind, t.text, call, t.space, False, t.hidden) for t in tokens]
    return [
        Token(t.kind, t.text, Place(t.span.source, t.span.start, t.span.end, call), t.space, False, t.hidden)
        for t in tokens
    ]


def _spaced(token: Token, space: bool) -> Token:
    return Token(token.kind, token.text, token.span, space, False, token.hidden)


def _whole(name: Place, end: Place) -> Place:
    """The place of a call from its name to its `)`, where both stand in one text."""
    if name.source is end.source and name.call is end.call and end.end > name.start:
        return Place(name.source, name.start, end.end, name.call)
    return name

"""C text to the tokens that the parser reads: directives, conditions, `#include`, macros. The door is `preprocess`.

Virtual headers cost nothing before somebody uses them: their macros stand in a table by name, and are tokenised when they are met. Their
inline functions are put in front of the text when it calls them.
"""

from __future__ import annotations

from ..source import Place, Source, diagnose
from .conditions import evaluate
from .directives import BRANCHES, DIRECTIVES, Condition, check_branch, name_of, run_line, whole_line
from .headers import Dependent, Header, Inline, bcc_group, config_definition, kernel_group, predefined, target_group
from .includes import Includes, parse_flags
from .macros import Expander, Macro, parse_macro
from .parser_literals import decode_escapes
from .parser_pragmas import is_pragma_for_us
from .specials import OPERATORS, SPECIALS
from .tokens import Token, bad_token, c_error, tokenize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...errors import Diagnostic
    from ...spec.target import Target
    from .macros import Definition
    from .options import Options

MAX_FILES = 5_000  # that are included, each time counted
MAX_NESTING = 60
MAX_OUTPUT = 2_000_000  # tokens
_FAR = 5_000  # tokens behind which nobody looks for the beginning of an enum


def preprocess(
    source: Source, options: Options, target: Target | None = None, warnings: list[Diagnostic] | None = None
) -> list[Token]:
    """Return the tokens of a program text, the last of the kind "end". Raises CompileError. Same input, same tokens.

    The only files read are those that `#include`, `-include` and `options.header` name. `warnings` takes what is doubtful.
    """
    return Preprocessor(source, options, target, [] if warnings is None else warnings).run()


class File:
    """A text on its way through: where it is, and the conditions that are open in it."""

    __slots__ = ("at", "conditions", "directory", "line_shift", "name", "source", "tokens")

    def __init__(self, source: Source, directory: str) -> None:
        self.source = source
        self.tokens = tokenize(source)
        self.at = 0
        self.directory = directory
        self.conditions: list[Condition] = []
        self.name = source.name  # as #line has it
        self.line_shift = 0


class Preprocessor(Expander):
    """One run over one text."""

    def __init__(self, source: Source, options: Options, target: Target | None, warnings: list[Diagnostic]) -> None:
        super().__init__()
        self.options = options
        self.target = target
        self.warnings = warnings
        flags = parse_flags(options.flags)
        self.includes = Includes(flags.directories)
        self.output: list[Token] = []
        self.prelude: list[Token] = []  # inline functions of virtual headers
        self.once: set[str] = set()
        self.inserted: set[str] = set()  # virtual headers whose text has been put in
        # The tables of macros that are known; BCC's dialect begins with these.
        self.groups: set[Callable[[], dict[str, Definition]]] = (
            {kernel_group, bcc_group} if options.dialect == "bcc" else set()
        )
        self.saved: dict[str, list[object]] = {}  # by #pragma push_macro
        self.attributes: list[tuple[int, list[Token]]] = []  # by #pragma clang attribute push: where, and what
        self.counter = 0
        self.files_read = 0
        self.in_condition = False
        self.has_config = options.dialect == "bcc" and target is not None
        self.macros.update(predefined(options.dialect, target))
        self.macros.update(SPECIALS)
        self.first = flags.includes if not options.header else (options.header, *flags.includes)
        self.file: File = File(source, options.directory)
        self.files: list[File] = []
        for line in flags.changes:
            self._run_change(line)

    def _run_change(self, line: str) -> None:
        tokens = tokenize(Source("command line", line))
        if tokens[1].text == "undef":
            self.macros.pop(tokens[2].text, None)
        else:
            macro = parse_macro(tokens[2:-1], tokens[0].span)
            self.macros[macro.name] = macro

    # the text ------------------------------------------------------------------------------------------------

    def run(self) -> list[Token]:
        """Return all tokens."""
        place = Place(self.file.source, 0, 0)
        for name in reversed(self.first):
            self.include(name, place, self.options.directory)
        end = self._run_text()
        if self.options.dialect == "bcc":
            self.output += _license(self.macros.get("BPF_LICENSE"))
        return [*self.prelude, *self.output, end]

    def _run_text(self) -> Token:
        """Run to the end of the first file; all but macros' names and directives goes straight to the output."""
        get = self.macros.get
        add = self.output.append
        config = self.has_config
        file = self.file
        tokens, at = file.tokens, file.at
        while True:
            token = tokens[at]
            at += 1
            kind = token.kind
            if kind == "name":
                text = token.text
                if get(text) is None and not (config and text.startswith("CONFIG_")) and text != "_Pragma":
                    add(token)
                    continue
                file.at = at
                self._expand_into_output(token)
            elif kind == "#" and token.line_start:
                file.at = at
                self.run_directive(token)
            elif kind == "end":
                if not self.leave_file():
                    return token
            elif kind == "bad":
                raise bad_token(token)
            else:
                add(token)
                continue
            file = self.file
            tokens, at = file.tokens, file.at

    def _expand_into_output(self, token: Token) -> None:
        start = len(self.output)
        self.push([token])
        self.drain(self.output)
        for made in self.output[start:]:
            if made.kind == "bad":
                raise bad_token(made)

    def next_of_text(self) -> Token:
        """Return the next token for the arguments of a call; directives between them are carried out."""
        file = self.file
        while True:
            token = file.tokens[file.at]
            if token.kind == "end":
                return token
            file.at += 1
            if token.kind == "#" and token.line_start:
                self.run_directive(token)
                if self.file is not file:
                    raise c_error(token.span, "an #include among the arguments of a macro")
                continue
            return token

    def next_is_parenthesis(self) -> bool:
        """Tell whether the file goes on with `(`, and if so, pass over it."""
        if self.file.tokens[self.file.at].kind != "(":
            return False
        self.file.at += 1
        return True

    # files ---------------------------------------------------------------------------------------------------

    def include(self, name: str, place: Place, directory: str | None, *, once: bool = False) -> None:
        """Go on with a header, or make its macros known. Raises CompileError."""
        found = self.includes.find(name, directory)
        if found is None:
            hint = "headers of the kernel, of libc and of libbpf need no file here; others are looked for in the directories of -I."
            if directory is None and not self.includes.directories:
                hint += " None was given."
            raise c_error(place, f"there is no header '{name}'", hint)
        if isinstance(found, Header):
            self.include_virtual(found, place)
            return
        if found in self.once:
            return
        if once:
            self.once.add(found)
        self.files_read += 1
        if len(self.files) >= MAX_NESTING:
            raise c_error(place, f"headers include each other more than {MAX_NESTING} levels deep")
        if self.files_read > MAX_FILES or len(self.output) > MAX_OUTPUT:
            raise c_error(
                place, f"this text includes more than {MAX_FILES} files, or is larger than {MAX_OUTPUT} tokens"
            )
        try:
            source = self.includes.read(found)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise c_error(place, f"the header '{found}' cannot be read: {why}") from None
        self.files.append(self.file)
        self.file = File(source, found.rpartition("/")[0] or ("/" if found.startswith("/") else ""))

    def include_virtual(self, header: Header, place: Place) -> None:
        """Make the macros of a virtual header known; what the text has defined itself stays."""
        if header.name in self.inserted:
            return
        self.inserted.add(header.name)
        for group in header.groups:
            if group in self.groups:
                continue
            self.groups.add(group)
            own = dict(self.macros)
            self.macros.update(group())
            if group is kernel_group and self.target is not None:
                self.macros.update(target_group(self.target))
            self.macros.update(own)
        if header.text:
            self.files.append(self.file)
            self.file = File(Source(f"<{header.name}>", header.text()), "")

    def leave_file(self) -> bool:
        """Go back to the file that included this one; False where it is the first."""
        if self.file.conditions:
            raise c_error(self.file.conditions[-1].place, "an #if without its #endif")
        if not self.files:
            return False
        self.file = self.files.pop()
        return True

    # names ---------------------------------------------------------------------------------------------------

    def find_macro(self, token: Token) -> Macro | None:
        """Return the macro that a name stands for here, or None."""
        name = token.text
        definition = self.macros.get(name)
        if definition is None:
            if not (self.has_config and name.startswith("CONFIG_")):
                return None
            definition = self.config(name)
            if definition is None:
                return None
        if isinstance(definition, Macro):
            if definition.virtual and self._is_declared(token):
                del self.macros[name]
                return None
            return definition
        if isinstance(definition, Dependent):
            text = None if self.target is None else definition.make(self.target)
            if text is None:
                del self.macros[name]
                return None
            definition = text
        if isinstance(definition, (str, int)):
            virtual = kernel_group().get(name) is definition
            body = definition if isinstance(definition, str) else f" {definition}"
            definition = self.macros[name] = _make_macro(name, body, virtual)
            return self.find_macro(token)
        if isinstance(definition, Inline) and not self.in_condition and not self._is_member():
            self._take_inline(token, definition)
        return None

    def config(self, name: str) -> str | None:
        """Return what a CONFIG_ name of the target's configuration is defined as, or None."""
        assert self.target is not None
        return config_definition(name, self.target)

    def is_defined(self, name: str) -> bool:
        """Tell whether `#ifdef` holds for a name."""
        if name in self.macros:
            return not isinstance(self.macros[name], Inline)
        if self.has_config and name.startswith("CONFIG_"):
            return self.config(name) is not None
        return name in OPERATORS and name != "defined"

    def _take_inline(self, token: Token, inline: Inline) -> None:
        """Put an inline function of a virtual header in front of the text, unless the text has one of its own by that name."""
        del self.macros[token.text]
        if self._is_declared(token):
            return
        disabled, self.disabled = self.disabled, {}
        tokens = tokenize(Source(f"<{inline.header}>", inline.text))[:-1]
        self.prelude += self.expand_list(tokens, token.span)
        self.disabled = disabled

    def _is_member(self) -> bool:
        return len(self.contexts) == 1 and bool(self.output) and self.output[-1].kind in (".", "->")

    def _is_declared(self, token: Token) -> bool:
        """Tell whether the text itself declares this name of a kernel header here: a function, or an enumerator.

        Its own header need not be one that the text includes: here, one header of the kernel makes all of them known.
        """
        if len(self.contexts) != 1:
            return False
        before = self.output[-1].kind if self.output else ""
        if before in ("{", ","):
            return _is_in_enum(self.output)
        if before not in ("name", "*") or token.text.startswith("__") or token.text.isupper():
            return False
        following = self.file.tokens[self.file.at].kind
        return following == "(" and _is_outside(self.output)

    def expand_special(self, token: Token, output: list[Token]) -> bool:
        """Expand `__LINE__` and its like, `_Pragma`, and in a condition `defined` and its like."""
        definition = self.macros.get(token.text)
        if callable(definition):
            output.append(definition(self, token))
            return True
        if self.in_condition and token.text in OPERATORS:
            output.append(OPERATORS[token.text](self, token))
            return True
        if token.text == "_Pragma":
            self._pragma_operator(token)
            return True
        return False

    # directives ----------------------------------------------------------------------------------------------

    def run_directive(self, sign: Token) -> None:
        """Carry out the directive whose `#` has just been passed."""
        line = self.take_line()
        if not line:
            return
        word = line[0]
        run = DIRECTIVES.get(word.text)
        if run is not None:
            run(self, sign, line)
        elif word.kind == "number":
            run_line(self, sign, [sign, *line])
        else:
            from ...probes.close import close_names

            near = close_names(word.text, list(DIRECTIVES))
            hint = f"did you mean #{near[0]}?" if near else ""
            raise c_error(word.span, f"#{word.text} is no directive of the preprocessor", hint)

    def take_line(self) -> list[Token]:
        """Return the tokens up to the end of the line, and pass over them."""
        tokens = self.file.tokens
        start = at = self.file.at
        while not tokens[at].line_start:
            at += 1
        self.file.at = at
        return tokens[start:at]

    def test(self, tokens: list[Token], place: Place) -> bool:
        """Return what the condition of an #if comes to."""
        if not tokens:
            raise c_error(place, "an #if without a condition")
        self.in_condition = True
        try:
            expanded = self.expand_list(tokens, place)
        finally:
            self.in_condition = False
        return evaluate(expanded, place) != 0

    def skip_group(self, condition: Condition) -> None:
        """Pass over text to the #elif or #else that is taken, or behind the #endif."""
        file = self.file
        tokens = file.tokens
        depth = 0
        at = file.at
        while True:
            token = tokens[at]
            at += 1
            if not token.line_start:
                continue
            if token.kind == "end":
                raise c_error(condition.place, "an #if without its #endif")
            word = tokens[at].text if token.kind == "#" and not tokens[at].line_start else ""
            if word in ("if", "ifdef", "ifndef"):
                depth += 1
            elif word == "endif" and depth:
                depth -= 1
            elif not depth and word in BRANCHES:
                file.at = at
                if self._takes_branch(condition, token):
                    return
                at = file.at

    def _takes_branch(self, condition: Condition, sign: Token) -> bool:
        """Tell whether text counts again behind this #elif, #else or #endif."""
        line = self.take_line()
        word = line[0].text
        if word == "endif":
            self.file.conditions.pop()
            return True
        check_branch(condition, sign, word)
        if word == "else":
            condition.has_else = True
        if condition.is_taken:
            return False
        condition.is_taken = word == "else" or self._tests_branch(word, line, sign)
        return condition.is_taken

    def _tests_branch(self, word: str, line: list[Token], sign: Token) -> bool:
        if word == "elif":
            return self.test(line[1:], whole_line(sign, line))
        return self.is_defined(name_of(sign, line)) == (word == "elifdef")

    def warn(self, place: Place, message: str, *, notes: tuple[Diagnostic, ...] = ()) -> None:
        """Note something doubtful."""
        self.warnings.append(diagnose(place, message, severity="WARNING", notes=notes))

    # pragmas -------------------------------------------------------------------------------------------------

    def run_pragma(self, tokens: list[Token], place: Place) -> None:
        """Carry out the tokens behind `#pragma`, or hand them to the parser."""
        words = [t.text for t in tokens]
        if words == ["once"]:
            if self.files:
                self.once.add(self.file.source.name)
        elif words[:1] in (["push_macro"], ["pop_macro"]) and len(words) == 4:
            self._keep_macro(words[0] == "push_macro", words[2].strip('"'))
        elif words[:3] == ["clang", "attribute", "push"]:
            self.attributes.append((len(self.output), _attribute(tokens)))
        elif words[:3] == ["clang", "attribute", "pop"] and self.attributes:
            self._put_attributes(*self.attributes.pop())
        elif is_pragma_for_us(" ".join(words)):
            expanded = self.expand_list(tokens, place) if words[0] != "pack" else tokens
            text = " ".join(t.text for t in expanded)
            self.output.append(Token("pragma", text, place, True, True))

    def _keep_macro(self, push: bool, name: str) -> None:
        kept = self.saved.setdefault(name, [])
        if push:
            kept.append(self.macros.get(name))
        elif kept:
            definition = kept.pop()
            if definition is None:
                self.macros.pop(name, None)
            else:
                self.macros[name] = definition  # type: ignore[assignment]

    def _put_attributes(self, start: int, attribute: list[Token]) -> None:
        """Give an attribute to all structs and unions that the output has from `start` on."""
        tokens: list[Token] = []
        for token in self.output[start:]:
            tokens.append(token)
            if token.kind == "name" and token.text in ("struct", "union"):
                tokens += attribute
        self.output[start:] = tokens

    def _pragma_operator(self, token: Token) -> None:
        """`_Pragma("…")`."""
        opened = self.take_parenthesis()
        string = self.next_raw() if opened else token
        if string.kind != "string" or self.next_raw().kind != ")":
            raise c_error(token.span, "_Pragma needs one string in parentheses")
        text = decode_escapes(string.text[string.text.index('"') + 1 : -1]).decode(errors="replace")
        self.run_pragma(tokenize(Source("_Pragma", text))[:-1], token.span)


def _make_macro(name: str, body: str, virtual: bool) -> Macro:
    """Make a macro of what a table has behind its name."""
    tokens = tokenize(Source("<built-in>", f"#define {name}{body}"))
    end = next(i for i in range(1, len(tokens)) if tokens[i].line_start)
    return parse_macro(tokens[2:end], tokens[0].span, builtin=True, virtual=virtual)


def _is_outside(tokens: list[Token]) -> bool:
    """Tell whether all braces and parentheses are closed."""
    depth = 0
    for token in tokens:
        if token.kind in ("{", "("):
            depth += 1
        elif token.kind in ("}", ")"):
            depth -= 1
    return depth == 0


def _is_in_enum(tokens: list[Token]) -> bool:
    """Tell whether the brace that is open at the end of `tokens` is that of an enum."""
    depth = 0
    for at in range(len(tokens) - 1, max(-1, len(tokens) - _FAR), -1):
        kind = tokens[at].kind
        if kind in ("}", ")"):
            depth += 1
        elif kind in ("{", "("):
            depth -= 1
            if depth < 0:
                return kind == "{" and any(t.text == "enum" for t in tokens[max(0, at - 2) : at])
        elif kind == ";" and not depth:
            return False
    return False


def _license(macro: object) -> list[Token]:
    """The declaration that BCC makes of the macro BPF_LICENSE."""
    if not isinstance(macro, Macro):
        return []
    text = "".join(" " * (t.space and i > 0) + t.text for i, t in enumerate(macro.body)).strip('"')
    return tokenize(Source("BPF_LICENSE", f'char _license[] __attribute__((section("license"))) = "{text}";'))[:-1]


def _attribute(tokens: list[Token]) -> list[Token]:
    """The attribute in `clang attribute push (__attribute__((x)), apply_to = record)`."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token.kind == "(") - (token.kind == ")")
        if token.kind == "," and depth == 1:
            return tokens[4:i]
    return []

"""Random C: token soup and spoilt programs never raise anything but CompileError; valid programs survive printing."""

from __future__ import annotations

from random import Random

from c_trees import parse_c, shape, tokens_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sonde.errors import CompileError
from sonde.lang.c.parser import parse
from sonde.lang.c.parser_words import KEYWORDS
from sonde.lang.c.print_c import print_unit

PUNCTUATION = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ";",
    ",",
    ".",
    "->",
    "...",
    ":",
    "?",
    "=",
    "+",
    "-",
    "*",
    "&",
    "/",
    "%",
    "<<",
    ">>",
    "<",
    ">",
    "<=",
    ">=",
    "==",
    "!=",
    "^",
    "|",
    "&&",
    "||",
    "~",
    "!",
    "++",
    "--",
    "+=",
    "#",
    "##",
    "@",
]
OTHERS = [
    "x",
    "y",
    "u32",
    "u64",
    "0",
    "1",
    "0x1f",
    "08",
    "1.5",
    "'a'",
    "'\\q'",
    '"s"',
    'L"s"',
    "\n#pragma unroll\n",
    "\n",
]
WORDS = st.sampled_from([*PUNCTUATION * 3, *sorted(KEYWORDS), *OTHERS * 3])
SOUP = st.lists(WORDS, max_size=60).map(" ".join)


def survive(text: str) -> None:
    try:
        tokens = tokens_of(text)
    except CompileError:
        return
    try:
        parse(tokens, {"u32", "u64"}.__contains__)
    except CompileError as error:
        for diagnostic in error.diagnostics:
            assert diagnostic.span is not None
            diagnostic.render()


@settings(max_examples=800, deadline=None)
@given(SOUP)
def test_soup_at_file_level(text: str) -> None:
    survive(text)


@settings(max_examples=1200, deadline=None)
@given(SOUP)
@example("return } int f ( ) {")
def test_soup_in_a_function(text: str) -> None:
    survive("int f(u32 x, struct s *y) { " + text + " }\nint g(void) { return 0; }")


class Maker:
    """Random C text that the grammar allows; it need not make sense."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.budget = 60

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def flip(self, odds: float = 0.5) -> bool:
        return self.random.random() < odds

    def name(self) -> str:
        return self.pick("a", "b", "c", "d", "e2", "_f")

    def expression(self) -> str:
        self.budget -= 1
        if self.budget < 0:
            return self.pick("a", "1", "0x2fUL", "'c'", '"s\\n"', "b")
        return self.random.choice(_EXPRESSIONS)(self)

    def binary(self) -> str:
        op = self.pick(
            *["*", "/", "%", "+", "-", "<<", ">>", "<", ">", "<=", ">=", "==", "!=", "&", "^", "|", "&&", "||"]
        )
        return f"({self.expression()}) {op} {self.operand()}"

    def operand(self) -> str:
        """An expression that may stand beside any operator."""
        return f"({self.expression()})"

    def chain(self) -> str:
        """Operators without parentheses, so that their precedence matters."""
        parts = [self.pick("a", "1", "-b", "!c", "d++", "*e2", "(u32)a", "sizeof b")]
        for _ in range(self.random.randrange(1, 6)):
            parts.append(
                self.pick(
                    *["*", "/", "%", "+", "-", "<<", ">>", "<", ">", "<=", ">=", "==", "!=", "&", "^", "|", "&&", "||"]
                )
            )
            parts.append(self.pick("a", "1", "- b", "!c", "d--", "&e2", "(u64)a", "~b"))
        return " ".join(parts)

    def type_name(self) -> str:
        head = self.pick(
            "u32", "const int", "unsigned long", "struct s", "enum e", "char volatile", "typeof(a)", "void"
        )
        return f"{head} {self.declarator('')}".strip()

    def declarator(self, name: str, depth: int = 0) -> str:
        shape = self.random.randrange(6) if depth < 3 else 0
        if shape == 1:
            return "*" + self.pick("", "const ", "__attribute__((x)) ") + self.declarator(name, depth + 1)
        if shape == 2:
            return f"(*{self.declarator(name, depth + 1)})(int, {self.pick('u32 a', 'char *', 'void (*)(void)')})"
        if shape == 3:
            return f"(*{self.declarator(name, depth + 1)})[{self.pick('3', 'a + 1')}]"
        return name

    def attributes(self) -> str:
        if self.flip(0.85):
            return ""
        return " __attribute__((" + self.pick("unused", 'section("x")', "aligned(8), packed", "__mode__(DI)") + "))"

    def declaration(self, init: bool = True) -> str:
        head = self.pick("", "static ", "const ", "extern ") + self.pick(
            "u32", "int", "unsigned char", "struct s", self.struct()
        )
        parts = []
        for _ in range(self.random.randrange(1, 3)):
            value = f" = {self.initialiser()}" if init and self.flip() else ""
            parts.append(self.declarator(self.name()) + self.attributes() + value)
        return f"{head} {', '.join(parts)};"

    def initialiser(self) -> str:
        if self.flip(0.7):
            return self.expression()
        items = []
        for _ in range(self.random.randrange(0, 3)):
            items.append(self.pick("", ".a = ", "[1] = ", "[0 ... 3] = ", ".a.b[2] = ") + self.initialiser())
        return "{ " + ", ".join(items) + " }"

    def struct(self) -> str:
        members = []
        for _ in range(self.random.randrange(0, 4)):
            kind = self.random.randrange(4)
            if kind == 0:
                members.append(f"u32 {self.declarator(self.name())}, {self.name()}{self.attributes()};")
            elif kind == 1:
                members.append(f"int {self.pick('', self.name())} : {self.pick('1', '3')};")
            elif kind == 2 and self.budget > 20:
                self.budget -= 20
                members.append(self.struct() + self.pick("", " " + self.name()) + ";")
            else:
                members.append(f"char {self.name()}[];")
        kind_name = self.pick("struct", "union")
        return f"{kind_name} {self.pick('', 's', 't')} {{ {' '.join(members)} }}{self.attributes()}"

    def statement(self) -> str:
        self.budget -= 1
        if self.budget < 0:
            return self.pick(";", "a;", "return;", "break;", "goto x;")
        return self.random.choice(_STATEMENTS)(self)

    def block(self) -> str:
        items = []
        for _ in range(self.random.randrange(0, 4)):
            items.append(self.declaration() if self.flip(0.3) else self.statement())
        return "{ " + " ".join(items) + " }"

    def conditional_statement(self) -> str:
        tail = f" else {self.statement()}" if self.flip() else ""
        return f"if ({self.expression()}) {self.block() if tail else self.statement()}{tail}"

    def loop(self) -> str:
        pragma = self.pick("", "", "\n#pragma unroll\n", "\n#pragma unroll 3\n", "\n#pragma nounroll\n")
        kind = self.random.randrange(3)
        if kind == 0:
            return f"{pragma}while ({self.expression()}) {self.statement()}"
        if kind == 1:
            return f"{pragma}do {self.statement()} while ({self.expression()});"
        init = self.pick(";", f"{self.expression()};", f"int i = {self.operand()};")
        return f"{pragma}for ({init} {self.pick('', self.expression())}; {self.pick('', self.expression())}) {self.statement()}"

    def switch(self) -> str:
        labels = [self.pick("case 1:", "case 2 ... 4:", "default:", "case a ? b : c:", "x:") for _ in range(2)]
        return f"switch ({self.expression()}) {{ {labels[0]} {self.statement()} {labels[1]} {self.statement()} }}"

    def assembly(self) -> str:
        return f'asm volatile("x %0" : "=r"({self.expression()}) : [n] "r"({self.expression()}) : "memory");'

    def external(self) -> str:
        self.budget = 60
        kind = self.random.randrange(5)
        if kind == 0:
            return self.declaration()
        if kind == 1:
            return f'__bcc_table("hash", {self.type_name()}, u64, t, {self.expression()}, 0)'
        if kind == 2:
            return f"enum {self.pick('', 'e')} {{ A, B = {self.operand()}, }};"
        head = self.pick("", "static ", "static inline ", "__attribute__((noinline)) ")
        return f"{head}int f(u32 a, struct s *b{self.attributes()}) {self.block()}"


_EXPRESSIONS = [
    Maker.binary,
    Maker.chain,
    lambda m: f"{m.pick('-', '+', '!', '~', '*', '&', '++', '--')} {m.operand()}",
    lambda m: m.operand() + m.pick("++", "--", ".a", "->b", f"[{m.expression()}]", f"({m.operand()}, {m.operand()})"),
    lambda m: f"({m.type_name()}) {m.operand()}",
    lambda m: f"sizeof({m.type_name()})",
    lambda m: f"_Alignof({m.type_name()})",
    lambda m: f"sizeof {m.operand()}",
    lambda m: f"{m.operand()} {m.pick('=', '+=', '<<=', '|=')} {m.expression()}",
    lambda m: f"{m.operand()} ? {m.pick('', m.expression())} : {m.operand()}",
    lambda m: f"(a, {m.expression()})",
    lambda m: f"({m.pick('u32', 'struct s', 'int []')}){{ {m.pick('', '.a = ', '[1] = ')}{m.operand()} }}",
    lambda m: f"({m.block()})",
    lambda m: f"_Generic({m.operand()}, int: {m.operand()}, default: {m.operand()})",
    lambda m: f"__builtin_offsetof(struct s, a{m.pick('', '.b', '[1].c')})",
    lambda m: f"__builtin_types_compatible_p({m.type_name()}, {m.type_name()})",
    lambda m: m.pick(
        "'\\''", "'\\377'", "'ab'", "L'x'", '"\\0\\"" "b"', "0777", "0b11", "1ull", "18446744073709551615u"
    ),
]
_STATEMENTS = [
    lambda m: m.operand() + ";",
    lambda m: m.operand() + ";",
    Maker.block,
    Maker.conditional_statement,
    Maker.loop,
    Maker.switch,
    Maker.assembly,
    lambda m: f"return {m.expression()};",
    lambda m: f"x: {m.statement()}",
    lambda m: m.pick("break;", "continue;", "goto x;", ";", "__attribute__((fallthrough));", '_Static_assert(1, "m");'),
]


def program_of(random: Random) -> str:
    maker = Maker(random)
    return "\n".join(maker.external() for _ in range(random.randrange(1, 4)))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 1 << 32))
def test_valid_programs_round_trip(seed: int) -> None:
    text = program_of(Random(seed))
    unit = parse_c(text)
    again = print_unit(unit)
    assert shape(parse_c(again)) == shape(unit), f"{text}\n---\n{again}"
    assert print_unit(parse_c(again)) == again


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 1 << 32))
def test_spoilt_programs(seed: int) -> None:
    random = Random(seed)
    words = [t.text if t.kind != "pragma" else "\n#pragma " + t.text + "\n" for t in tokens_of(program_of(random))]
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(words))
        what = random.randrange(3)
        if what == 0:
            del words[at : at + random.randrange(1, 3)]
        elif what == 1:
            words.insert(at, random.choice([*PUNCTUATION, "int", "u32", "struct", "x"]))
        else:
            words[at:at] = words[at : at + 4]
        words = words or [";"]
    survive(" ".join(words))

"""The preprocessor against `gcc -E`, token by token: written cases, and random macros whose rescanning nobody would write."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.errors import CompileError
from sonde.lang.c.headers.compiler import compiler_macros
from sonde.lang.c.options import Options
from sonde.lang.c.preprocessor import preprocess
from sonde.lang.c.tokens import tokenize
from sonde.lang.source import Source

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed"),
]


def ours(text: str) -> list[str] | None:
    """The tokens that our preprocessor leaves, or None where it refuses the text."""
    try:
        return [t.text for t in preprocess(Source("t.c", text), Options(dialect="libbpf"))[:-1]]
    except CompileError:
        return None


def theirs(text: str) -> list[str] | None:
    """The tokens that gcc leaves, or None where it refuses the text."""
    done = subprocess.run(
        ["gcc", "-E", "-P", "-w", "-std=gnu11", "-undef", "-x", "c", "-"],
        input=text.encode(errors="surrogateescape"),
        capture_output=True,
        timeout=60,
    )
    if done.returncode:
        return None
    return [t.text for t in tokenize(Source("gcc", done.stdout.decode()))[:-1]]


WRITTEN = {
    "the example of the standard": """
#define x 3
#define f(a) f(x * (a))
#undef x
#define x 2
#define g f
#define z z[0]
#define h g(~
#define m(a) a(w)
#define w 0,1
#define t(a) a
#define p() int
#define q(x) x
#define r(x,y) x ## y
#define str(x) # x
f(y+1) + f(f(z)) % t(t(g)(0) + t)(1);
g(x+(3,4)-w) | h 5) & m
(f)^m(m);
p() i[q()] = { q(1), r(2,3), r(4,), r(,5), r(,) };
char c[2][6] = { str(hello), str() };
""",
    "stringising and pasting": r"""
#define str(s) # s
#define xstr(s) str(s)
#define debug(s, t) printf("x" # s "= %d, x" # t "= %s", x ## s, x ## t)
#define INCFILE(n) vers ## n
#define glue(a, b) a ## b
#define xglue(a, b) glue(a, b)
#define HIGHLOW "hello"
#define LOW LOW ", world"
debug(1, 2);
fputs(str(strncmp("abc\0d", "abc", '\4') == 0) str(: @\n), s);
xstr(INCFILE(2).h) glue(HIGH, LOW); xglue(HIGH, LOW)
str( a   +   b ) str("a\\b" 'c' '\'' '"') xstr(LOW) str() str(  )
xglue(xglue(a,b),c) glue(1,e+) 3 glue(.,5) glue(<<,=) glue(a,1)
""",
    "the standard's hash_hash": """
#define hash_hash # ## #
#define mkstr(a) # a
#define in_between(a) mkstr(a)
#define join(c, d) in_between(c hash_hash d)
char p[] = join(x, y);
#define t(x,y,z) x ## y ## z
int j[] = { t(1,2,3), t(,4,5), t(6,,7), t(8,9,), t(10,,), t(,11,), t(,,12), t(,,) };
""",
    "variadic": """
#define showlist(...) puts(#__VA_ARGS__)
#define report(test, ...) ((test)?puts(#test): printf(__VA_ARGS__))
#define gnu(fmt, ...) p(fmt, ##__VA_ARGS__)
#define named(fmt, rest...) p(fmt, ##rest) #rest
#define all(...) p(0, ##__VA_ARGS__)
#define opt(f, ...) f(0 __VA_OPT__(,) __VA_ARGS__) __VA_OPT__(f) #__VA_OPT__(a f b)
#define optpaste(x, ...) a ## __VA_OPT__(x b) ## c
#define E
showlist(The first, second, and third items.) report(x>y, "x is %d but y is %d", x, y)
gnu(1) gnu(1,) gnu(1,2) gnu(1,2,3) gnu(1, E) gnu() named(1) named(1, 2, 3) named(1,) all() all(1) all(1,2)
opt(f) opt(f,) opt(f, 1, 2) opt(f, E) optpaste(q, 1) optpaste(q)
gnu(gnu(1, 2), gnu(3))
""",
    "calls that end elsewhere": """
#define f(x) x f
#define g(x) <x>
#define h g (
#define id(x) x
#define EMPTY
#define DEFER(x) x EMPTY
#define LP (
f(1)(2)(3) h 1) id(g)(2) id(id)(3) id(g LP) 4 ) DEFER(id)(5) id(DEFER(id)(5))
g
(
 1
 ) g + g
id(id(id)(id)(6))
#define AA BB
#define BB AA
AA BB id(AA) id(BB AA)
#define nil(x) x
#define f2(a) a*g2
#define g2(a) f2(a)
f2(2)(9)
""",
    "space": """
#define str(x) #x
#define xstr(x) str(x)
#define E
#define F(x) a x- a x -
#define G(x) [x]
xstr(F()) xstr(F( )) xstr(E -E- E E x) xstr( G( 1 )G(2) G( E ) ) xstr(a E
b) xstr(-E-) xstr(F(E)) xstr(E F(E E)E) str( /* c */ a/**/b ) xstr(G(a
)G(/**/))
""",
    "conditions": """
#define A 5
#define D defined(A)
#if A == 5 && defined A && !defined B && defined(A)
one
#elif 1 / 0
two
#endif
#if -1 > 0u
unsigned
#endif
#if (0 ? 1u : -1) > 0 && (1 ? -1 : 0u) > 0 && -1 < 0 && ~0 == -1 && ~0u == 0xffffffffffffffff
promoted
#endif
#if 1 || 1/0
lazy
#endif
#if 'a' == 97 && '\\n' == 10 && '\\377' < 0 && 'ab' == 24930 && L'a' == 97
characters
#endif
#if 0x7fffffffffffffff + 1 < 0
wraps
#endif
#if -7 / 2 == -3 && -7 % 2 == -1 && 7 % -2 == 1 && -8 >> 1 == -4 && 1 << 3 == 8 && -1 >> 63 == -1
arithmetic
#endif
#if D
macro with defined
#endif
#if (2 || 3) != 1 || (2 && 3) != 1 || (0 || 4) != 1 || (0 && 5) != 0
wrong
#else
logic
#endif
#if 0
#if 1
no
#else
no
#endif
#elif 0
it's skipped: "no
#elif 1
yes
#else
it's skipped
#endif
#ifdef B
it's "skipped
#bogus
#if garbage ( (
#else garbage
#endif
#elif A > 4 // comment
yes
#else
no
#endif /* comment */
#ifndef B
yes
#endif
#if 0b101 == 5 && 010 == 8
#endif
""",
    "lines": """
#define L __LINE__
#define K(x) L x
L __LINE__
L K(1)
#line 100
__LINE__ L
#line 7 "other.c"
__LINE__ __FILE__
# 12 "third.c"
__LINE__ __FILE__
__COUNTER__ __COUNTER__ __INCLUDE_LEVEL__
""",
    "directives among arguments": """
#define f(a, b) [a|b]
f(1
#ifdef X
, 2
#else
, 3
#endif
)
f
#define g 1
(g, 2)
""",
    "redefinition and undefinition": """
#define a 1
#undef a
#undef nothing
a
#define a 2
a
#define b() 3
b b() b ( )
#undef b
b()
#pragma push_macro("a")
#undef a
#define a 9
a
#pragma pop_macro("a")
a
""",
    "odd texts": """
#
# /* null */
#define EMPTY
 EMPTY # not a directive
a/**/b//c
#define s "a\\
b"
s
#define obj #x ## y
#define late x
""",
    "refused: too few": "#define f(a,b) a\nf(1)",
    "refused: too many": "#define f(a) a\nf(1,2)",
    "refused: none wanted": "#define f() a\nf(1)",
    "refused: never closed": "#define f(a) a\nf(1",
    "refused: paste of a call": "#define f(a, b) a ## b\nf(f(a, b), c)",
    "refused: bad paste": "#define f(a) a ## +\nf(1)\nf(x)",
    "refused: paste at the start": "#define f ## a",
    "refused: paste at the end": "#define f(x) x ##",
    "refused: hash without parameter": "#define f(x) #y",
    "refused: twice the same": "#define f(x,x) x",
    "refused: no name": "#define 3",
    "refused: defined": "#define defined 1",
    "refused: else twice": "#if 1\n#else\n#else\n#endif",
    "refused: elif behind else": "#if 1\n#else\n#elif 1\n#endif",
    "refused: no endif": "#if 1",
    "refused: no if": "#endif",
    "refused: no condition": "#if\n#endif",
    "refused: division": "#if 1/0\n#endif",
    "refused: modulo": "#if 1%0\n#endif",
    "refused: parenthesis": "#if (1\n#endif",
    "refused: trailing": "#if 1 2\n#endif",
    "refused: error": "#error no",
    "refused: directive": "#bogus",
    "refused: header": '#include "/nowhere.h"',
    "refused: string": "#if \"a\"\n#endif",
    "refused: opt nested": "#define f(...) __VA_OPT__(__VA_OPT__(a))\nf(1)",
    "refused: opt open": "#define f(...) __VA_OPT__(a\nf(1)",
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_written_cases(name: str) -> None:
    text = WRITTEN[name]
    expected = theirs(text)
    assert (expected is None) == name.startswith("refused")
    assert ours(text) == expected


NAMES = ["a", "b", "c", "d", "f", "g", "h"]
OPERANDS = ["a", "b", "c", "d", "f", "g", "h", "1", "+", "-", "(", ")", ",", "x", '"s"', "(x)", "f(1)", "g()", "h(1,2)"]


@st.composite
def definitions(draw: st.DrawFn) -> str:
    """One `#define`, often of a name that others use."""
    name = draw(st.sampled_from(NAMES))
    count = draw(st.integers(0, 3))
    params = ["p", "q", "r"][:count]
    is_function = draw(st.booleans())
    variadic = is_function and draw(st.integers(0, 3)) == 0
    words: list[str] = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.integers(0, 9))
        if is_function and params and kind < 4:
            words.append(draw(st.sampled_from(params)))
        elif is_function and params and kind == 4:
            words.append("#" + draw(st.sampled_from(params)))
        elif kind == 5 and words:
            words.append("##")
            words.append(draw(st.sampled_from([*params, "a", "f", "1"])))
        elif variadic and kind in (6, 7):
            words.append(draw(st.sampled_from([", ## __VA_ARGS__", "__VA_ARGS__", "__VA_OPT__(a p)", "#__VA_ARGS__"])))
        else:
            words.append(draw(st.sampled_from(OPERANDS)))
    body = "".join(w + draw(st.sampled_from([" ", " ", ""])) if w[-1:].isalnum() is False else w + " " for w in words)
    if not is_function:
        return f"#define {name} {body}"
    return f"#define {name}({', '.join(params + ['...'] * variadic)}) {body}"


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Definitions and uses."""
    lines = draw(st.lists(definitions(), min_size=1, max_size=6))
    uses = draw(
        st.lists(
            st.sampled_from(
                [*OPERANDS, "f (", ")", "(a)", "(b, c)", "()", "(f)", "\n", "str(a b)", "xstr(f(1) a)", "xstr(-b )"]
            ),
            min_size=1,
            max_size=14,
        )
    )
    return "\n".join([*lines, "#define str(x) #x", "#define xstr(x) str(x)", " ".join(uses), ""])


@settings(max_examples=400, deadline=None)
@given(programs())
def test_random_macros(text: str) -> None:
    assert ours(text) == theirs(text)


def test_headers_of_this_machine() -> None:
    """Headers of the kernel, libc and others, without what they include and what compilers say about themselves."""
    undefined = "".join(f"#undef {name}\n" for name in compiler_macros("libbpf"))
    ending = tuple(f"{letter}.h" for letter in "bdhkt")  # a part of them will do
    tokens = 0
    for path in sorted(Path("/usr/include").glob("*.h")) + sorted(Path("/usr/include/linux").glob("*.h")):
        text = path.read_text(errors="surrogateescape")
        if "__has_" in text or not path.name.endswith(ending):
            continue
        lines = ["" if line.lstrip(" \t#").startswith(("include", "pragma")) else line for line in text.split("\n")]
        found = ours(undefined + "\n".join(lines))
        assert found == theirs(undefined + "\n".join(lines)), path
        tokens += len(found or ())
    assert tokens > 10_000


EXPRESSIONS = st.recursive(
    st.sampled_from(
        ["0", "1", "2u", "-1", "0x7fffffffffffffff", "0xffffffffffffffff", "63", "'a'", "A", "B", "defined A", "(3)"]
    ),
    lambda inner: st.one_of(
        st.tuples(
            inner,
            st.sampled_from(
                ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "<", ">", "<=", ">=", "==", "!=", "&&", "||"]
            ),
            inner,
        ).map(" ".join),
        st.tuples(st.sampled_from(["-", "~", "!", "+"]), inner).map(" ".join),
        inner.map(lambda e: f"({e})"),
        st.tuples(inner, inner, inner).map(lambda e: f"{e[0]} ? {e[1]} : {e[2]}"),
    ),
    max_leaves=8,
)


@settings(max_examples=250, deadline=None)
@given(st.lists(EXPRESSIONS, min_size=1, max_size=6))
def test_random_conditions(expressions: list[str]) -> None:
    for expression in expressions:
        text = f"#define A 7\n#if {expression}\nyes\n#else\nno\n#endif\n"
        assert ours(text) == theirs(text), expression

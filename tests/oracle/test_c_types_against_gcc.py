"""Which expressions are right, and of which type, against gcc: pointers, arrays, structs, bit-fields, assignments, conditionals, made up by Hypothesis."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from c_analysed import analysed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sonde.debuginfo.ctype import declare
from sonde.errors import CompileError
from sonde.lang.c import ast
from sonde.lang.c.analysis import Analysis

if not shutil.which("gcc"):
    pytest.skip("there is no gcc to compare with", allow_module_level=True)

_HEAD = """
typedef _Bool bool;
enum e { E0, E5 = 5 };
union u { int ui; char uc[4]; };
struct s { int m; short sm; struct s *next; char text[8]; union u un; unsigned b3 : 3, b31 : 31, b32 : 32; long b40 : 40;
           const int cm; enum e en; struct { char inner; int deep[2][3]; }; struct s *const *pp; };
static int called(int x, long y) { return x; }
static void nothing(void) { }
static struct s *gives(void) { return 0; }
"""
_LOCALS = """int i = 1; char c = 2; unsigned char uc = 3; long l = 4; unsigned long ul = 5; _Bool t = 1; struct s v = { 0 }; struct s *p = &v;
int a[3] = { 0 }; char *cp = v.text; const char *ccp = v.text; void *vp = p; const int ci = 5; enum e en = E5; int m2[2][3] = { 0 };
unsigned __int128 w = 1; union u un = { 0 }; struct s vs[2] = { 0 }; int (*arr)[3] = &a; short sh = 2;"""
_LEAVES = st.sampled_from(
    """i c uc l ul t v p a cp ccp vp ci en m2 w un vs arr sh 0 1 5u 3l E5 'a' "text" called nothing gives() called(i,cp) nothing() sizeof(v)
    (void*)0 v.m p->m p->next p->b3 p->b31 p->b32 p->cm p->en p->inner p->deep p->pp p->text p->un (struct s){0} (int[]){1,2}
    (char)i (long)p (struct&s*)vp""".replace("\n", " ").split()
).map(lambda text: text.replace("&", " ") if text == "(struct&s*)vp" else text)
_BINARY = ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "<", ">=", "==", "!=", "&&", "||", ","]
_ASSIGN = ["=", "+=", "-=", "*=", "<<=", "&="]
_EXPRESSIONS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda op, x: f"{op}({x})", st.sampled_from(["-", "~", "!", "&", "*", "++", "--", "&", "*"]), inner),
        st.builds(lambda op, x, y: f"(({x}) {op} ({y}))", st.sampled_from(_BINARY), inner, inner),
        st.builds(lambda op, x, y: f"(({x}) {op} ({y}))", st.sampled_from(_ASSIGN), inner, inner),
        st.builds(lambda c, x, y: f"(({c}) ? ({x}) : ({y}))", inner, inner, inner),
        st.builds(lambda x, y: f"({x})[{y}]", inner, inner),
        st.builds(
            lambda x, m: f"({x}){m}",
            inner,
            st.sampled_from([".m", "->m", ".text", "->next", "->b3", ".uc", "->deep", "++"]),
        ),
        st.builds(
            lambda n, x: f"(({n})({x}))",
            st.sampled_from(["int", "char *", "struct s *", "void", "struct s", "_Bool"]),
            inner,
        ),
        st.builds(lambda x: f"sizeof({x})", inner),
        st.builds(lambda x: f"({{ {x}; }})", inner),
        st.builds(lambda x, y: f"called({x}, {y})", inner, inner),
        st.builds(lambda x: f"({x})()", inner),
    ),
    max_leaves=5,
)


def ours(text: str) -> str:
    """The C spelling of the type that we find; "" where we find an error, "?" for a bit-field."""
    try:
        analysis = analysed(f"{_HEAD} int x(void *ctx) {{ {_LOCALS} ({text}); return 0; }}")
    except CompileError:
        return ""
    definition = analysis.functions["x"].symbol.definition
    assert definition is not None
    statement = definition.body.items[-2]
    assert isinstance(statement, ast.ExprStatement) and statement.expr is not None
    if _is_bit_field(analysis, statement.expr):
        return "?"
    return declare(analysis.types[statement.expr])


def _is_bit_field(analysis: Analysis, node: ast.Expr) -> bool:
    """Whether gcc's typeof refuses an expression, or makes an integer of odd width of it."""
    if isinstance(node, ast.Comma):
        return _is_bit_field(analysis, node.right)
    if isinstance(node, (ast.Assign, ast.Unary, ast.Postfix)):
        return _is_bit_field(analysis, node.target if isinstance(node, ast.Assign) else node.operand)
    if isinstance(node, ast.StatementExpr):
        last = node.body.items[-1]
        return isinstance(last, ast.ExprStatement) and last.expr is not None and _is_bit_field(analysis, last.expr)
    return isinstance(node, ast.Member) and analysis.accesses[node].field.member.width_bits > 0


def gcc_s(texts: list[str], names: list[str]) -> list[str]:
    """What gcc says of each expression: "error", "type" where its type is another one, "enum", or ""."""
    lines = _HEAD.splitlines()
    first = len(lines) + 1
    for text, name in zip(texts, names):
        same = (
            f'_Static_assert(__builtin_types_compatible_p(__typeof__({text}), {name}), "");' if name.strip("?") else ""
        )
        lines.append(f"int x{len(lines)}(void *ctx) {{ {' '.join(_LOCALS.splitlines())} ({text}); {same} return 0; }}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "x.c")
        source.write_text("\n".join(lines) + "\n")
        command = [
            "gcc",
            "-w",
            "-fsyntax-only",
            "-fmax-errors=0",
            "-fno-diagnostics-show-caret",
            "-fsigned-char",
            source,
        ]
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
        )
    said = [""] * len(texts)
    for line in found.stderr.splitlines():
        place, _, message = line.partition(" error: ")
        index = int(place.split(":")[1]) - first if message else 0
        if "incompatible type" in message and "enum e" in message:
            said[index] = "enum"  # gcc refuses what clang warns of: an enumeration as a pointer
        elif message and said[index] != "enum":
            said[index] = "type" if message.startswith("static assertion") and not said[index] else "error"
    return said


# What GNU C has and BPF, or clang, has not: calls through pointers, a conditional of void and a value, arithmetic on functions,
# assignment to the value of a statement expression, a pointer added to an integer variable.
_ONLY_GNU = ("called", "nothing", "void", "({", "+=", "-=")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_EXPRESSIONS, min_size=25, max_size=25))
def test_expressions_are_what_gcc_takes_them_for(texts: list[str]) -> None:
    names = [ours(text) for text in texts]
    for text, name, said in zip(texts, names, gcc_s(texts, names)):
        exempt = any(word in text for word in _ONLY_GNU)
        if not name:
            assert exempt or said in ("error", "enum"), f"{text}: refused here only"
        elif not ("p->b" in text and ("=" in text or "({" in text)):  # to gcc, their value still is a bit-field
            assert said in ("", "enum") or (exempt and said == "type"), f"{text}: we say {name}, gcc says {said}"

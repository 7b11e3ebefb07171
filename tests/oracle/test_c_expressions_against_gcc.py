"""Types and values of constant expressions against gcc: expressions that Hypothesis makes up, all integer types of C in them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from c_analysed import analysed
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sonde.debuginfo.ctype import declare
from sonde.lang.c import ast
from sonde.lang.c.arithmetic import underlying

if not shutil.which("gcc"):
    pytest.skip("there is no gcc to compare with", allow_module_level=True)

_NAMES = [
    "char", "signed char", "unsigned char", "short", "unsigned short", "int", "unsigned int", "long", "unsigned long",
    "long long", "unsigned long long", "_Bool", "__int128", "unsigned __int128", "enum e", "enum n",
]  # fmt: skip
_HEAD = "enum e { E0, E5 = 5 }; enum n { NEG = -3, POS = 7 };"
_LITERALS = st.one_of(
    st.sampled_from(["0", "1", "2", "7", "31", "63", "0x7fffffff", "0x80000000", "0xffffffffffffffff", "2147483648", "'a'", "'\\xff'"]),
    st.sampled_from(["E5", "NEG", "POS", "sizeof(int)", "sizeof(\"abc\")", "sizeof(short[3])", "_Alignof(long)"]),
    st.builds(lambda n, s: f"{n}{s}", st.integers(0, 300), st.sampled_from(["", "u", "l", "ul", "ll", "ull"])),
)  # fmt: skip
_BINARY = ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "<", ">", "<=", ">=", "==", "!=", "&&", "||"]
_EXPRESSIONS = st.recursive(
    _LITERALS,
    lambda inner: st.one_of(
        st.builds(lambda op, x: f"{op}({x})", st.sampled_from(["-", "+", "~", "!"]), inner),
        st.builds(lambda op, x, y: f"(({x}) {op} ({y}))", st.sampled_from(_BINARY), inner, inner),
        st.builds(lambda name, x: f"(({name})({x}))", st.sampled_from(_NAMES), inner),
        st.builds(lambda c, x, y: f"(({c}) ? ({x}) : ({y}))", inner, inner, inner),
    ),
    max_leaves=8,
)


def ours(text: str) -> tuple[str, int] | None:
    """The type and value that we find; None where the value is not defined."""
    analysis = analysed(f"{_HEAD} int x(void *ctx) {{ return !({text}); }}")
    statement = analysis.functions["x"].symbol.definition.body.items[0]  # type: ignore[union-attr]
    assert isinstance(statement, ast.Return) and isinstance(statement.value, ast.Unary)
    node = statement.value.operand
    number = underlying(analysis.types[node])
    assert number is not None
    value = analysis.constants.get(node)
    return None if value is None else (declare(number), value)


def ask_gcc(texts: list[str], names: list[str]) -> list[tuple[bool, int]]:
    """Ask gcc whether each expression has the type that we think, and for its value."""
    lines = ["typedef _Bool bool;", _HEAD]
    for number, (text, name) in enumerate(zip(texts, names)):
        lines.append(f"int type{number}(void) {{ return __builtin_types_compatible_p(__typeof__({text}), {name}); }}")
        lines.append(f"void value{number}(__int128 *out) {{ *out = (__int128)({text}); }}")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "x.c"), Path(folder, "x.so")
        source.write_text("\n".join(lines))
        flags = ["-w", "-O0", "-fwrapv", "-fsigned-char", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, "-o", library, source], check=True, timeout=60)
        loaded = ctypes.CDLL(str(library))
        answers = []
        for number in range(len(texts)):
            out = (ctypes.c_uint64 * 2)()
            getattr(loaded, f"value{number}")(out)
            answers.append((bool(getattr(loaded, f"type{number}")()), out[0] | out[1] << 64))
    return answers


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.lists(_EXPRESSIONS, min_size=20, max_size=20))
def test_types_and_values_are_gcc_s(texts: list[str]) -> None:
    known = [(text, found) for text in texts if (found := ours(text)) is not None]
    assume(len(known) > 5)
    answers = ask_gcc([t for t, _ in known], [f[0] for _, f in known])
    for (text, (name, value)), (same_type, wanted) in zip(known, answers):
        assert same_type, f"{text} is no {name}"
        assert value & ((1 << 128) - 1) == wanted, text

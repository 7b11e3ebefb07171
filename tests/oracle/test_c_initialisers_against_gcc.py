"""Initialisers against gcc: the bytes of the object that our flat list describes, for nested aggregates and designators that Hypothesis makes up."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from c_analysed import analysed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sonde.debuginfo.ctype import Array, CType, Struct, sizeof, strip
from sonde.lang.c import ast
from sonde.lang.c.analysis import Analysis

if not shutil.which("gcc"):
    pytest.skip("there is no gcc to compare with", allow_module_level=True)

_HEAD = """
struct in { short p, q[2]; struct { char r; int s; }; };
union un { int i; char c[6]; struct in n; };
struct bits { unsigned a : 3, b : 7; int : 0; long c : 40; int d : 5; } __attribute__((packed));
struct out { int a; struct in b[2]; union un u; struct bits w; char text[5]; struct { int x, y; } z; };
"""
_TYPES = ["struct in", "union un", "struct bits", "struct out", "int", "char"]


def _analysed_type(name: str) -> CType:
    analysis = analysed(f"{_HEAD} static {name} v;")
    return analysis.globals["v"].ctype


_KNOWN: dict[str, CType] = {}


@st.composite
def lists(draw: st.DrawFn, ctype: CType, depth: int = 0) -> str:
    """A list in braces for an object of this type, with designators, strings, and braces left out here and there."""
    inner = strip(ctype)
    if not isinstance(inner, (Array, Struct)):
        value = str(draw(st.integers(-5, 200)))
        return f"{{ {value} }}" if draw(st.integers(0, 5)) == 0 else value
    if isinstance(inner, Array) and sizeof(inner.element) == 1 and draw(st.booleans()):
        return '"' + draw(st.text("abc", max_size=inner.count)) + '"'
    items = []
    for _ in range(draw(st.integers(0, 4))):
        designator, target = draw(designators(inner)) if draw(st.booleans()) else ("", None)
        if target is None:
            items.append(str(draw(st.integers(0, 100))))
        elif depth < 2 and draw(st.booleans()):
            items.append(f"{designator} = {draw(lists(target, depth + 1))}")
        else:
            items.append(f"{designator} = {draw(st.integers(0, 100))}")
    return f"{{ {', '.join(items)} }}"


@st.composite
def designators(draw: st.DrawFn, ctype: CType) -> tuple[str, CType]:
    """One or more designators that lead into a type, and what they lead to."""
    inner = strip(ctype)
    if isinstance(inner, Array):
        low = draw(st.integers(0, inner.count - 1))
        high = draw(st.integers(low, inner.count - 1))
        text = f"[{low}]" if low == high or draw(st.booleans()) else f"[{low} ... {high}]"
        target = inner.element
    else:
        assert isinstance(inner, Struct)
        name = draw(st.sampled_from(list(inner.iter_names())))
        field = inner.get_member(name)
        assert field is not None
        text, target = f".{name}", field.member.ctype
    if isinstance(strip(target), (Array, Struct)) and draw(st.booleans()):
        more, target = draw(designators(target))
        text += more
    return text, target


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, str]:
    """A declarator and its initialiser."""
    name = draw(st.sampled_from(_TYPES))
    if name not in _KNOWN:
        _KNOWN[name] = _analysed_type(name)
    suffix = draw(st.sampled_from(["", "", "[3]"]))
    ctype = Array(_KNOWN[name], 3) if suffix else _KNOWN[name]
    init = draw(lists(ctype))
    if isinstance(strip(ctype), (Array, Struct)) and not init.startswith(("{", '"')):
        init = f"{{ {init} }}"
    return f"{name} v%d{suffix}", init


def our_bytes(analysis: Analysis, name: str) -> bytes:
    """The object that an initialiser list describes."""
    variable = analysis.globals[name]
    size = sizeof(variable.ctype)
    whole = 0
    for entry in variable.init or ():
        start, width = 8 * entry.offset + entry.bit_offset, entry.bit_width or 8 * sizeof(entry.ctype)
        if isinstance(entry.value, ast.String):
            number = int.from_bytes(entry.value.value[: width // 8], "little")
        else:
            number = analysis.constants[entry.value]
        mask = (1 << width) - 1
        whole = whole & ~(mask << start) | (number & mask) << start
    return whole.to_bytes(size, "little")


def gcc_bytes(declarations: list[tuple[str, str]]) -> list[bytes]:
    """The objects as gcc makes them."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "x.c"), Path(folder, "x.so")
        lines = [f"{declarator % n} = {init};" for n, (declarator, init) in enumerate(declarations)]
        sizes = ", ".join(f"sizeof v{n}" for n in range(len(declarations)))
        source.write_text(_HEAD + "\n".join(lines) + f"\nunsigned long sizes[] = {{ {sizes} }};")
        subprocess.run(["gcc", "-w", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
        loaded = ctypes.CDLL(str(library))
        counts = (ctypes.c_ulong * len(declarations)).in_dll(loaded, "sizes")
        return [bytes((ctypes.c_char * size).in_dll(loaded, f"v{n}")) for n, size in enumerate(counts)]


@settings(
    max_examples=40,
    deadline=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(cases(), min_size=15, max_size=15))
def test_objects_are_gcc_s(declarations: list[tuple[str, str]]) -> None:
    wanted = gcc_bytes(declarations)
    for n, (declarator, init) in enumerate(declarations):
        analysis = analysed(f"{_HEAD} {declarator % n} = {init};")
        assert our_bytes(analysis, f"v{n}") == wanted[n], f"{declarator} = {init}"

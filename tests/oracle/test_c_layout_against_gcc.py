"""Layout of C structs against gcc: sizes, alignments, offsets, and which bits a bit-field takes, of structs that Hypothesis makes up."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sonde.debuginfo.ctype import Array, CType, Int, Pointer, Struct, alignof, sizeof
from sonde.debuginfo.layout import MemberDecl, lay_out

if not shutil.which("gcc"):
    pytest.skip("there is no gcc to compare with", allow_module_level=True)

_INTS = [
    Int("char", 1, True, "char"), Int("unsigned char", 1, False), Int("short", 2, True), Int("unsigned short", 2, False),
    Int("int", 4, True), Int("unsigned int", 4, False), Int("long", 8, True), Int("unsigned long", 8, False),
    Int("long long", 8, True), Int("__int128", 16, True), Int("_Bool", 1, False, "bool"),
]  # fmt: skip


class Case:
    """A struct as C text and as what we make of it."""

    def __init__(self, text: str, struct: Struct, fields: list[MemberDecl], pack: int) -> None:
        self.text = text
        self.pack = pack  # what `#pragma pack` says where it stands; 0 for nothing
        self.struct = struct
        self.fields = fields


@st.composite
def members(draw: st.DrawFn, depth: int, pack: int) -> tuple[str, MemberDecl]:
    """One member: its C text, with `NAME` for its name, and what lay_out takes."""
    aligned = draw(st.sampled_from([0, 0, 0, 0, 2, 4, 8, 16]))
    packed = draw(st.booleans()) and draw(st.booleans())
    suffix = (f" __attribute__((aligned({aligned})))" if aligned else "") + (
        " __attribute__((packed))" if packed else ""
    )
    kind = draw(
        st.sampled_from(["int", "bits", "bits", "bits", "array", "pointer", *(["struct"] if depth < 2 else [])])
    )
    base = draw(st.sampled_from(_INTS))
    if kind == "bits":
        width = draw(st.integers(0, 1 if base.encoding == "bool" else 8 * base.size))
        unnamed = width == 0 or draw(st.integers(0, 5)) == 0
        text = f"{base.name} {'' if unnamed else 'NAME'} : {width}"
        # gcc ignores attributes of bit-fields without a name
        return (text if unnamed else text + suffix) + ";", MemberDecl(
            "" if unnamed else "NAME", base, width, 0 if unnamed else aligned, packed and not unnamed
        )
    ctype: CType = base
    text = f"{base.name} NAME"
    if kind == "array":
        count = draw(st.integers(1, 3))
        ctype, text = Array(base, count), f"{base.name} NAME[{count}]"
    elif kind == "pointer":
        ctype, text = Pointer(base), f"{base.name} *NAME"
    elif kind == "struct":
        inner = draw(structs(depth + 1, pack))
        ctype, text = inner.struct, f"{inner.text} NAME"
    return f"{text}{suffix};", MemberDecl("NAME", ctype, -1, aligned, packed)


@st.composite
def structs(draw: st.DrawFn, depth: int = 0, pack: int = 0) -> Case:
    """A struct or union with one to six members."""
    if not depth:
        pack = draw(st.sampled_from([0, 0, 0, 1, 2, 4, 8, 16]))
    drawn = draw(st.lists(members(depth, pack), min_size=1, max_size=6))
    kind = draw(st.sampled_from(["struct", "struct", "struct", "union"]))
    packed = draw(st.sampled_from([False, False, True]))
    aligned = draw(st.sampled_from([0, 0, 0, 4, 32]))
    fields, lines = [], []
    for index, (text, member) in enumerate(drawn):
        name = f"m{index}"
        lines.append(text.replace("NAME", name))
        fields.append(
            MemberDecl(name if member.name else "", member.ctype, member.width, member.aligned, member.packed)
        )
    attributes = (" __attribute__((packed))" if packed else "") + (
        f" __attribute__((aligned({aligned})))" if aligned else ""
    )
    struct = lay_out(kind, "", fields, packed=packed, aligned=aligned, max_align=pack)
    return Case(f"{kind} {{ {' '.join(lines)} }}{attributes}", struct, fields, pack)


def measured(cases: list[Case]) -> list[list[int]]:
    """Ask gcc: size, alignment, then of each named member its offset, or the first and last bit that it changes."""
    lines = ["#define offsetof(t, m) __builtin_offsetof(t, m)", "extern void *memset(void *, int, unsigned long);"]
    for number, case in enumerate(cases):
        name = f"s{number}"
        lines += [f"#pragma pack({case.pack or ''})", f"typedef {case.text} {name};", "#pragma pack()"]
        lines.append(
            f"void ask{number}(long *out) {{ static union {{ {name} s; unsigned char b[sizeof({name}) + 1]; }} u;"
        )
        lines.append(f"*out++ = sizeof({name}); *out++ = _Alignof({name});")
        for member in case.struct.members:
            if not member.width_bits:
                lines.append(f"*out++ = offsetof({name}, {member.name});")
                continue
            lines.append(f"memset(&u, 0, sizeof u); u.s.{member.name} = -1; {{ long first = -1, last = -1;")
            lines.append(f"for (long i = 0; i < 8 * (long)sizeof({name}); i++) if (u.b[i / 8] >> (i % 8) & 1)")
            lines.append("{ if (first < 0) first = i; last = i; } *out++ = first; *out++ = last; }")
        lines.append("}")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "x.c"), Path(folder, "x.so")
        source.write_text("\n".join(lines))
        subprocess.run(["gcc", "-w", "-O1", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
        loaded = ctypes.CDLL(str(library))
        answers = []
        for number, case in enumerate(cases):
            count = 2 + sum(2 if m.width_bits else 1 for m in case.struct.members)
            out = (ctypes.c_long * count)()
            getattr(loaded, f"ask{number}")(out)
            answers.append(list(out))
    return answers


def predicted(case: Case) -> list[int]:
    """What our layout says to the same questions."""
    said = [sizeof(case.struct), alignof(case.struct)]
    for member in case.struct.members:
        if member.width_bits:
            said += [member.offset_bits, member.offset_bits + member.width_bits - 1]
        else:
            said.append(member.offset)
    return said


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(structs(), min_size=12, max_size=12))
def test_layout_is_gcc_s(cases: list[Case]) -> None:
    for case, answer in zip(cases, measured(cases)):
        assert predicted(case) == answer, (case.pack, case.text)

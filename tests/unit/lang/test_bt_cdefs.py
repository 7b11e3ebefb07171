"""C definitions inside scripts: preprocessor, types, constants; layouts against gcc where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.debuginfo.ctype import UINT32, Enum, Int, Pointer, Struct, Typedef, alignof, declare, sizeof, strip
from sonde.errors import CompileError
from sonde.lang.bpftrace.cdefs import CScope, expand_c_macros, parse_c
from sonde.lang.bpftrace.dump import dump
from sonde.lang.bpftrace.parser import parse
from sonde.lang.source import Source

KERNEL = {
    "struct task_struct": Struct("struct", "task_struct", 9000, ()),
    "u32": Typedef("u32", UINT32),
}


def scope_of(text: str, arch: str = "x86_64", btf: bool = True) -> CScope:
    program = parse(Source("t.bt", text + "\nbegin { }"))
    return parse_c(program.c_definitions, KERNEL.get if btf else None, arch)


def members(scope: CScope, key: str) -> list[tuple[str, int, int]]:
    ctype = strip(scope.types[key])
    assert isinstance(ctype, Struct)
    return [(m.name, m.offset_bits, m.width_bits) for m in ctype.members]


def error_of(text: str, **options: bool) -> str:
    with pytest.raises(CompileError) as caught:
        scope_of(text, **options)  # type: ignore[arg-type]
    return caught.value.render()


def test_struct_members_have_offsets() -> None:
    scope = scope_of("struct a { char c; int i; short s[3]; struct a *next; };")
    assert members(scope, "struct a") == [("c", 0, 0), ("i", 32, 0), ("s", 64, 0), ("next", 128, 0)]
    assert sizeof(scope.types["struct a"]) == 24
    next_ = strip(scope.types["struct a"]).members[3].ctype  # type: ignore[attr-defined]
    assert isinstance(next_, Pointer)
    assert next_.target is scope.types["struct a"]


def test_the_semicolon_behind_a_struct_may_be_missing() -> None:
    assert list(scope_of("struct a { int x; }\nstruct b { int y; }").types) == ["struct a", "struct b"]


def test_nested_and_anonymous_members() -> None:
    scope = scope_of("struct a { int x; union { char c; long l; }; struct { int p; } in; };")
    ctype = scope.types["struct a"]
    assert isinstance(ctype, Struct)
    found = ctype.get_member("l")
    assert found is not None
    assert found.offset == 8
    assert [m.name for m in ctype.members] == ["x", "", "in"]


def test_a_struct_of_the_script_hides_the_kernel_s() -> None:
    scope = scope_of("struct task_struct { int mine; }; struct b { struct task_struct t; };")
    assert sizeof(scope.types["struct b"]) == 4


def test_kernel_types_are_found() -> None:
    scope = scope_of("struct b { struct task_struct *t; u32 n; };")
    ctype = strip(scope.types["struct b"])
    assert isinstance(ctype, Struct)
    pointer = ctype.members[0].ctype
    assert isinstance(pointer, Pointer)
    assert pointer.target is KERNEL["struct task_struct"]
    assert ctype.size == 16


def test_pointers_to_what_nobody_defines() -> None:
    ctype = strip(scope_of("struct b { struct nowhere *t; };").types["struct b"])
    assert isinstance(ctype, Struct)
    assert declare(ctype.members[0].ctype, "t") == "struct nowhere *t"


def test_function_pointers_and_matrices() -> None:
    ctype = strip(scope_of("struct b { int (*f)(int, char *); int m[2][3]; char *names[4]; };").types["struct b"])
    assert isinstance(ctype, Struct)
    texts = [declare(m.ctype, m.name) for m in ctype.members]
    assert texts == ["int (*f)(void)", "int m[2][3]", "char *names[4]"]
    assert ctype.size == 8 + 24 + 32


def test_enums() -> None:
    scope = scope_of("enum e { A, B = 5, C, D = B << 2, };")
    ctype = scope.types["enum e"]
    assert isinstance(ctype, Enum)
    assert ctype.values == {"A": 0, "B": 5, "C": 6, "D": 20}
    assert (ctype.size, ctype.signed) == (4, False)
    assert scope.enumerators["C"] is ctype


@pytest.mark.parametrize(
    ("text", "size", "signed"),
    [
        ("A = -1", 4, True),
        ("A = 1ULL << 40", 8, False),
        ("A = -1, B = 0xffffffff", 8, True),
        ("A = 0xffffffff", 4, False),
    ],
)
def test_the_type_of_an_enum(text: str, size: int, signed: bool) -> None:
    ctype = scope_of(f"enum e {{ {text} }};").types["enum e"]
    assert isinstance(ctype, Enum)
    assert (ctype.size, ctype.signed) == (size, signed)


def test_typedefs() -> None:
    scope = scope_of(
        "typedef struct { int a; } t;\ntypedef unsigned long word, *word_ptr;\nstruct s { t x; word_ptr w; };"
    )
    assert members(scope, "struct s") == [("x", 0, 0), ("w", 64, 0)]
    assert isinstance(strip(scope.types["word"]), Int)


def test_constants() -> None:
    scope = scope_of(
        '#define X 5\n#define Y (X << 2)\n#define S "a\\x62" "c\\n"\n#define NEG -1\n#define MASK ~0U\n#define C \'a\'\n'
        "#define BIT(n) (1UL << (n))\n#define B40 BIT(40)\n#define CAT(a, b) a##b\n#define N CAT(1, 2)\n"
        "#define SIZE sizeof(struct s)\n#define CAST (unsigned char)0x1ff\n#define EMPTY\nstruct s { int a[X]; };"
    )
    assert scope.constants == {
        "X": 5, "Y": 20, "S": "abc\n", "NEG": -1, "MASK": 0xFFFFFFFF, "C": 97, "B40": 1 << 40, "N": 12, "SIZE": 20,
        "CAST": 255,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("1 ? 2 : 3", 2),
        ("-1 > 0U", 1),
        ("(long)-1 >> 1", -1),
        ("1 + 2 * 3 == 7 && !0", 1),
        ("0777 + 0xF", 511 + 15),
        ("1 << 31", -(1 << 31)),
        ("0x80000000 >> 31", 1),
        ("~0ULL", (1 << 64) - 1),
        ("'\\n' | '\\x20'", 42),
    ],
)
def test_constant_expressions_have_c_s_types(expression: str, value: int) -> None:
    assert scope_of(f"#define X {expression}").constants["X"] == value


def test_macros_that_are_no_constants_become_expressions_of_the_script() -> None:
    program = parse(Source("t.bt", "#define NEXT (arg0 + ONE)\n#define ONE (pid)\nbegin { print(NEXT); }"))
    scope = parse_c(program.c_definitions, KERNEL.get)
    assert set(scope.macros) == {"NEXT", "ONE"}
    text = dump(expand_c_macros(program, scope).probes[0])
    assert "Identifier arg0" in text
    assert "Identifier pid" in text
    assert "NEXT" not in text


def test_a_macro_that_names_itself_stays_as_it_is() -> None:
    program = parse(Source("t.bt", "#define A (A + 1)\nbegin { print(A); }"))
    assert "Identifier A" in dump(expand_c_macros(program, parse_c(program.c_definitions, KERNEL.get)))


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ("#ifdef BPFTRACE_HAVE_BTF", True),
        ("#ifndef BPFTRACE_HAVE_BTF", False),
        ("#if defined(X) && X > 4", True),
        ("#if defined Y || 0", False),
        ("#if Y", False),
        ("#if 0\n#elif X == 5", True),
        ("#if X\n#else", False),
        ("#if 0\n#if 1\n#else\n#endif\n#else", True),
    ],
)
def test_conditions(condition: str, taken: bool) -> None:
    scope = scope_of(f"#define X 5\n{condition}\nstruct a {{ int x; }};\n#endif")
    assert ("struct a" in scope.types) == taken


def test_conditions_inside_a_struct() -> None:
    scope = scope_of("struct a {\n int x;\n#if 0\n int y;\n#endif\n int z;\n};")
    assert [m[0] for m in members(scope, "struct a")] == ["x", "z"]


def test_includes() -> None:
    scope = scope_of(
        "#include <linux/sched.h>\n#include <sys/socket.h>\n#include <net/sock.h>\n#include <linux/whatever.h>"
    )
    assert (scope.constants["AF_INET6"], scope.constants["TASK_RUNNING"]) == (10, 0)
    assert "there is no header <foo.h>" in error_of("#include <foo.h>")
    assert "HINT" in error_of('#include "foo.h"')
    assert "BTF" in error_of("#include <linux/sched.h>", btf=False)
    scope_of("#ifdef NEVER\n#include <foo.h>\n#endif")


HEADER = """/* a header of a program, // as it is */
#ifndef MINE_H
#define MINE_H
#include <stdint.h>
#include "inner/other.h"
#define LIMIT (SIZE * 2) /* of \
 both */
#define TWICE(a) \\
    ((a) * 2)
typedef int (*handler)(struct mine *, const char *text);
struct mine { uint32_t id; char name[SIZE]; struct other inner; handler handle; };
extern int counter, others[];
static const char *const words[] = { "a", "{", ";" };
int open_it(struct mine *it, int flags) __attribute__((nonnull(1)));
struct mine *find_it(const unknown_t *key);
static inline int is_open(const struct mine *m)
{
    if (m) { return m->id; }
    return 0;
}
enum { FIRST = TWICE(LIMIT), SECOND };
#endif
"""


def test_headers_of_programs(tmp_path: Path) -> None:
    """Found beside the script and by -I; functions and variables in them are passed over."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "mine.h").write_text(HEADER)
    (tmp_path / "inner" / "other.h").write_text("#pragma once\n#define SIZE 12\nstruct other { long x; };\n")
    text = '#include <mine.h>\n#include "mine.h"\n#include <inner/other.h>\nstruct more { struct mine m; };'
    scope = parse_c(
        parse(Source(str(tmp_path / "t.bt"), text + "\nbegin { }")).c_definitions, None, directories=[str(tmp_path)]
    )
    assert [name for name, *_ in members(scope, "struct mine")] == ["id", "name", "inner", "handle"]
    assert (scope.constants["LIMIT"], scope.enumerators["SECOND"].values["SECOND"]) == (24, 49)
    assert sizeof(scope.types["struct more"]) == 32
    with pytest.raises(CompileError, match="there is no header"):
        scope_of("#include <mine.h>")


def test_headers_that_include_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text('#include "b.h"\n')
    (tmp_path / "b.h").write_text('#include "a.h"\n')
    with pytest.raises(CompileError, match="without end"):
        parse_c(parse(Source("t.bt", "#include <a.h>\nbegin { }")).c_definitions, None, directories=[str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("struct a { struct b x; };", "'struct b' is not defined"),
        ("struct a { struct a x; };", "'struct a' is not defined"),
        ("struct a { foo x; };", "unknown type name 'foo'"),
        ("struct a { int x };", "expected ';'"),
        ("struct a { int x; int x; };", "duplicate member 'x'"),
        ("struct a { int x : 33; };", "a bit-field of 33 bits"),
        ("struct a { int x[-1]; };", "cannot have -1 elements"),
        ("struct a { void x; };", "cannot be a member"),
        ("struct a { int x; }; struct a { int y; };", "redefinition of 'struct a'"),
        ("enum e { A, A };", "redefinition of 'A'"),
        ("#if 1", "without its #endif"),
        ("#endif", "without its #if"),
        ("#frob", "#frob is not a preprocessor directive"),
        ("#error no good", "#error no good"),
        ("#define", "#define needs a name"),
        ("#if 1 / 0\n#endif", "division by zero"),
        ("#if (1\n#endif", "constant expression"),
        ("struct a { int x[1UL << 60]; };", "an array cannot have 1152921504606846976 elements"),
        ("struct a __attribute__((aligned(3))) { int x; };", "not a power of two"),
        ("struct a { int x @ };", "unexpected character '@'"),
    ],
)
def test_errors_say_where(text: str, message: str) -> None:
    rendered = error_of(text)
    assert message in rendered
    assert rendered.startswith("t.bt:")


LAYOUTS = """
struct plain { char a; int b; char c; long d; short e; };
struct bits { char a:4; int b:20; char c:6; long d:33; unsigned e:1; };
struct zero { int a:3; int:0; int b:5; char c; };
struct unnamed { char a; int:5; char b; long:0; };
struct crossing { short a:9; short b:9; unsigned char c:7; unsigned char d:2; };
struct wide { unsigned long a:40; unsigned long b:30; int c; };
struct flags { _Bool x:1; unsigned char y:7; unsigned long z:64; };
struct __attribute__((packed)) tight { char a; int b; short c:3; long d:50; char e; };
struct tight_aligned { char a; long b; } __attribute__((packed, aligned(4)));
struct member_aligned { char a; int b __attribute__((aligned(16))); char c; };
struct member_packed { char a; long b __attribute__((packed)); char c; };
struct over { char a; } __attribute__((aligned(32)));
struct nest { char a; struct over o; struct tight t; struct { char x; long y; } in[2]; union { char p; double q; }; };
union both { char a[7]; int b; struct plain c; int d:9; };
struct __attribute__((aligned)) most { int x; };
struct flexible { int n; long tail[]; };
struct pointers { char a; void *p; int (*f)(void); char *names[3]; long double ld; float fl; };
struct wide_char { char a; __int128 b; };
"""
KEYS = [line.split("{")[0] for line in LAYOUTS.strip().splitlines()]


def keys_of(scope: CScope) -> list[str]:
    return [key for key in scope.types if key.startswith(("struct", "union"))]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed: layouts cannot be checked")
def test_layouts_are_those_of_gcc(tmp_path_factory: pytest.TempPathFactory) -> None:
    import platform

    machine = platform.machine()
    if machine not in ("x86_64", "aarch64"):
        pytest.skip(f"layouts are those of x86_64 and aarch64, this is {machine}")
    scope = scope_of(LAYOUTS, machine)
    lines = []
    for key in keys_of(scope):
        ctype = strip(scope.types[key])
        assert isinstance(ctype, Struct)
        lines.append(f'printf("{key} %zu %zu\\n", sizeof({key}), _Alignof({key}));')
        lines += [
            f'printf("{key} {m.name} %zu\\n", __builtin_offsetof({key}, {m.name}));'
            for m in ctype.members
            if m.name and not m.width_bits
        ]
        # The place of a bit-field: the bits that change when all of them are set.
        lines += [
            f"{{ {key} v; memset(&v, 0, sizeof v); v.{m.name} = -1; show({key!r:s}, {m.name!r:s}, &v, sizeof v); }}".replace(
                "'", '"'
            )
            for m in ctype.members
            if m.width_bits
        ]
    directory = tmp_path_factory.mktemp("layout")
    show = (
        "static void show(const char *k, const char *m, void *p, unsigned long n) { int first = -1, count = 0;"
        " for (unsigned long i = 0; i < 8 * n; i++) if (((unsigned char *)p)[i / 8] >> i % 8 & 1) { if (first < 0) first = i; count++; }"
        ' printf("%s %s %d:%d\\n", k, m, first, count); }'
    )
    source = (
        f"#include <stdio.h>\n#include <string.h>\n{LAYOUTS}\n{show}\nint main(void) {{ {' '.join(lines)} return 0; }}"
    )
    (directory / "layout.c").write_text(source)
    subprocess.run(["gcc", "-w", "-o", directory / "layout", directory / "layout.c"], check=True)
    expected = subprocess.run([directory / "layout"], check=True, capture_output=True, text=True).stdout.splitlines()

    ours = []
    for key in keys_of(scope):
        ctype = strip(scope.types[key])
        assert isinstance(ctype, Struct)
        ours.append(f"{key} {ctype.size} {alignof(ctype)}")
        ours += [f"{key} {m.name} {m.offset}" for m in ctype.members if m.name and not m.width_bits]
        ours += [f"{key} {m.name} {m.offset_bits}:{m.width_bits}" for m in ctype.members if m.width_bits]
    assert ours == expected


def test_unnamed_bit_fields_align_the_struct_on_arm_only() -> None:
    text = "struct a { char a; int:5; char b; };"
    assert alignof(scope_of(text).types["struct a"]) == 1
    assert alignof(scope_of(text, "aarch64").types["struct a"]) == 4


def test_char_is_unsigned_on_arm() -> None:
    def signed(arch: str) -> bool:
        ctype = strip(scope_of("struct a { char c; };", arch).types["struct a"])
        assert isinstance(ctype, Struct)
        inner = strip(ctype.members[0].ctype)
        assert isinstance(inner, Int)
        return inner.signed

    assert signed("x86_64")
    assert not signed("aarch64")


SOUP = r"""struct union enum typedef { } ( ) [ ] ; , : * = a b c int char unsigned long u32 const __attribute__((packed)) 3 0
    -1 sizeof << / ? "s" 'c' #define #if #endif #else #ifdef #include <x.h> <linux/x.h> defined ## \\ ... # A B A(x) ~"""
WORDS = st.sampled_from([*SOUP.split(), "\n"])


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=40))
def test_any_definitions_give_types_or_a_compile_error(words: list[str]) -> None:
    from sonde.lang.bpftrace import ast

    text = " ".join(words)
    source = Source("t.bt", text)
    pieces = text.split("\n")
    at = 0
    definitions = []
    for piece in pieces:
        definitions.append(ast.CDefinition(source.span(at, at + len(piece)), piece.lstrip()))
        at += len(piece) + 1
    try:
        scope = parse_c(definitions, KERNEL.get)
    except CompileError as error:
        assert error.render()
        return
    for ctype in scope.types.values():
        assert sizeof(ctype) >= 0


@pytest.mark.parametrize(
    "text",
    [
        "#define A B B\n"
        + "\n".join(f"#define {chr(66 + i)} {chr(67 + i)} {chr(67 + i)}" for i in range(20))
        + "\nstruct a { int x[A]; };",
        "\n".join(f"#define A{i} A{i + 1}" for i in range(500)) + "\nstruct a { int x[A0]; };",
        "#define X " + "(" * 500 + "1" + ")" * 500 + "\nstruct a { int x[X]; };",
        "struct a { int x[" + "-" * 500 + "1]; };",
        "struct a {" * 200 + "int x;" + "} y;" * 200,
        "struct a { int " + "*" * 5000 + " x; };",
        "struct a { int x" + "[1]" * 5000 + "; };",
        "struct a { int " + "(" * 500 + "x" + ")" * 500 + "; };",
    ],
    ids=["doubling", "chain", "parentheses", "minus", "structs", "pointers", "arrays", "declarators"],
)
def test_deep_definitions_are_refused_with_a_diagnostic(text: str) -> None:
    assert "ERROR" in error_of(text)

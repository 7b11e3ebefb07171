"""The preprocessor of the C front end: directives, macros, headers, diagnostics, hostile texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.errors import CompileError, Diagnostic
from sonde.lang.c.options import Options
from sonde.lang.c.preprocessor import preprocess
from sonde.lang.c.tokens import Token
from sonde.lang.source import Source


def run(text: str, *flags: str, directory: str = "", header: str = "", dialect: str = "libbpf") -> list[Token]:
    return preprocess(Source("t.c", text), Options(dialect, flags, directory, header=header))


def expand(text: str, *flags: str, directory: str = "", header: str = "", dialect: str = "libbpf") -> str:
    tokens = run(text, *flags, directory=directory, header=header, dialect=dialect)
    assert tokens[-1].kind == "end"
    return " ".join(t.text for t in tokens[:-1])


def fails(text: str, *flags: str, directory: str = "", dialect: str = "libbpf") -> CompileError:
    with pytest.raises(CompileError) as caught:
        run(text, *flags, directory=directory, dialect=dialect)
    span = caught.value.diagnostics[0].span
    assert span is not None and span.line >= 1
    return caught.value


def test_places_name_the_call() -> None:
    tokens = run("#define TWICE(x) ((x) + (x))\nint a = TWICE(b);\n")
    plus = next(t for t in tokens if t.text == "+")
    assert (plus.span.line, plus.span.column) == (1, 23)
    assert plus.span.call is not None
    assert plus.span.call.text == "TWICE(b)"
    argument = next(t for t in tokens if t.text == "b")
    assert argument.span.call is None
    assert (argument.span.line, argument.span.column) == (2, 15)


def test_an_error_in_a_macro_shows_the_chain() -> None:
    text = fails("#define IN(x) x @\n#define OUT(y) IN(y)\nint a = OUT(1);\n").render()
    assert text.splitlines()[0] == "t.c:1:17-18: ERROR: unexpected character '@'"
    assert "t.c:2:16-21: ERROR: expanded from" in text
    assert "t.c:3:9-15: ERROR: expanded from" in text


def test_flags() -> None:
    assert expand("A B C", "-DA", "-D", "B=2", "-DC=x y") == "1 2 x y"
    assert expand("F(3)", "-DF(x)=x+x") == "3 + 3"
    assert expand("__BPF__ A", "-U__BPF__", "-DA", "-UA", "-O2", "-Wall") == "__BPF__ A"


def test_own_headers(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "inc").mkdir()
    (tmp_path / "own.h").write_text('#include "sub/deep.h"\nown\n')
    (tmp_path / "sub" / "deep.h").write_text('#include "next.h"\ndeep\n')
    (tmp_path / "sub" / "next.h").write_text("next\n")
    (tmp_path / "inc" / "lib.h").write_text("lib __FILE__ __LINE__\n")
    (tmp_path / "inc" / "linux").mkdir()
    (tmp_path / "inc" / "linux" / "mine.h").write_text("mine\n")
    assert expand('#include "own.h"\nend', directory=str(tmp_path)) == "next deep own end"
    lib = str(tmp_path / "inc" / "lib.h")
    assert expand("#include <lib.h>", f"-I{tmp_path}/inc") == f'lib "{lib}" 1'
    assert expand('#include "lib.h"', "-I", f"{tmp_path}/inc") == f'lib "{lib}" 1'
    assert expand("#include <linux/mine.h>", f"-I{tmp_path}/inc") == "mine"
    assert expand("#define H <lib.h>\n#include H\n", "-isystem", f"{tmp_path}/inc").startswith("lib")
    assert expand("end", "-include", "own.h", directory=str(tmp_path)) == "next deep own end"
    assert expand("end", directory=str(tmp_path), header="own.h") == "next deep own end"
    error = fails('#include "own.h"\nend')
    assert "there is no header 'own.h'" in error.message
    assert "-I" in error.render()


def test_a_kernel_tree_among_the_directories_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "linux").mkdir()
    (tmp_path / "linux" / "types.h").write_text("types\n")
    (tmp_path / "linux" / "sched.h").write_text("#error is read\n")
    assert expand("#include <linux/sched.h>\nend", f"-I{tmp_path}") == "end"


def test_guards_and_once(tmp_path: Path) -> None:
    (tmp_path / "guard.h").write_text("#ifndef G\n#define G\nguarded\n#endif\n")
    (tmp_path / "once.h").write_text("#pragma once\nonce\n")
    (tmp_path / "many.h").write_text("many\n")
    text = (
        '#include "guard.h"\n#include "once.h"\n#include "many.h"\n' * 3
        + '#import "imported.h"\n#import "imported.h"\n'
    )
    (tmp_path / "imported.h").write_text("imported\n")
    assert expand(text, directory=str(tmp_path)) == "guarded once many many many imported"


def test_has_include(tmp_path: Path) -> None:
    (tmp_path / "own.h").write_text("")
    text = (
        '#if __has_include("own.h") && __has_include(<vmlinux.h>) && !__has_include("nowhere.h") '
        "&& defined(__has_include) && __has_include(<linux/bpf.h>)\nyes\n#endif"
    )
    assert expand(text, directory=str(tmp_path)) == "yes"


def test_has_builtin_and_attribute() -> None:
    text = (
        "#if __has_builtin(__builtin_memcpy) && !__has_builtin(__builtin_sinf) && __has_attribute(__packed__)"
        " && !__has_attribute(dllimport) && !__has_feature(x)\nyes\n#endif"
    )
    assert expand(text) == "yes"


def test_pragmas_for_the_parser() -> None:
    text = "#define N 4\n#pragma unroll\n#pragma GCC unroll N\n#pragma clang loop unroll(full)\n#pragma nounroll\n#pragma pack(1)\n"
    text += '#pragma GCC diagnostic push\n#pragma mark\n_Pragma("unroll") x\n#define P _Pragma("unroll 2")\nP y'
    pragmas = [t.text for t in run(text) if t.kind == "pragma"]
    assert pragmas == [
        "unroll",
        "GCC unroll 4",
        "clang loop unroll ( full )",
        "nounroll",
        "pack ( 1 )",
        "unroll",
        "unroll 2",
    ]


def test_clang_attribute_push() -> None:
    text = (
        "struct a {};\n#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)\n"
        "struct b {};\n#pragma clang attribute pop\nunion c {};"
    )
    assert expand(text) == (
        "struct a { } ; struct __attribute__ ( ( preserve_access_index ) ) b { } ; union c { } ;"
    )  # fmt: skip


def test_warnings() -> None:
    warnings: list[Diagnostic] = []
    text = "#warning look out\n#define A 1\n#define A 1\n#define A 2\n#define __BPF__ 3\n"
    preprocess(Source("t.c", text), Options("libbpf"), None, warnings)
    assert [w.message for w in warnings] == ["#warning look out", "the macro A is defined again, as something else"]
    assert warnings[1].notes[0].message == "first defined here"


def test_a_misspelt_directive() -> None:
    assert "did you mean #include?" in fails("#inclde <a.h>").render()
    assert expand("#if 0\n#inclde <a.h>\n#endif\nx") == "x"


def test_nothing_of_a_table_is_left_disabled_by_an_error() -> None:
    fails("#include <linux/kernel.h>\nint x = min(1;")
    assert "__min_a" in expand("#include <linux/kernel.h>\nint x = min(1, 2);")


# hostile texts --------------------------------------------------------------------------------------------------------


def test_a_header_that_includes_itself(tmp_path: Path) -> None:
    (tmp_path / "self.h").write_text('#include "self.h"\n')
    assert "levels deep" in fails('#include "self.h"', directory=str(tmp_path)).message


def test_headers_that_double(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"h{i}.h").write_text(f'#include "h{i + 1}.h"\n' * 2)
    (tmp_path / "h40.h").write_text("x\n")
    assert "more than" in fails('#include "h0.h"', directory=str(tmp_path)).message


def test_devices_and_pipes_are_no_headers(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.h")
    for name in ("/dev/zero", "pipe.h", "", "a\0b", "x" * 5000):
        fails(f'#include "{name}"', directory=str(tmp_path))


def test_macros_that_double() -> None:
    lines = ["#define a0 x x"] + [f"#define a{i} a{i - 1} a{i - 1}" for i in range(1, 60)]
    assert "more than" in fails("\n".join([*lines, "a59"])).message
    lines = ["#define f(x) x x x x", "f(" * 60 + "1" + ")" * 60]
    assert "more than" in fails("\n".join(lines)).message
    lines = ["#define s0(x) #x"] + [f"#define s{i}(x) s{i - 1}(x x)" for i in range(1, 60)]
    assert "more than" in fails("\n".join([*lines, "s59(a)"])).message
    lines = ["#define p0(x) x##x"] + [f"#define p{i}(x) p{i - 1}(x##x)" for i in range(1, 40)]
    fails("\n".join([*lines, "p39(a)"]))


def test_nesting_without_end() -> None:
    assert "levels deep" in fails("#define f(x) x\n" + "f(" * 5000 + ")" * 5000).message
    chain = "\n".join(f"#define a{i} a{i + 1}" for i in range(5000))
    assert "levels deep" in fails(chain + "\na0").message
    assert "levels deep" in fails("#if " + "(" * 5000 + "1" + ")" * 5000 + "\n#endif").message
    assert "levels deep" in fails("#if " + "1 ? " * 5000 + "1" + " : 1" * 5000 + "\n#endif").message
    assert expand("#if " + "!" * 5001 + "0\nyes\n#endif") == "yes"
    assert expand("#if 1\n" * 5000 + "yes\n" + "#endif\n" * 5000) == "yes"


@pytest.mark.parametrize(
    "text",
    [
        "#define f(a", "#define f(", "#define f(a,", "#define f(a b) x", "#define f(...", "#if", "#ifdef", "#ifdef 3", "#elif 1",
        "#if defined", "#if defined(", "#if defined(X", "#if __has_include", "#if __has_include(", "#if __has_include(<a", "#include",
        "#include <a", '#include "a', "#include X", "#line", "#line x", "#line 99999999999999", "#undef", "#define", "_Pragma",
        '_Pragma("x', "_Pragma(3)", "/* ", '"', "'", "'\\", '"\\', "\0", "#if 'a\n#endif", "#define f(x) #", "#if 1 +\n#endif", "#if 0x\n#endif",
        "#if 1.5\n#endif", "#if 99999999999999999999\n#endif", "#if 1 ? 2\n#endif",
        "#if 1 /* \n#endif", "#error", "#define A(x) #x\nA(", "\udcff", "#define __VA_ARGS__ 1", "@", "`",
    ],
)  # fmt: skip
def test_unfinished_texts_fail_with_a_place(text: str) -> None:
    fails(text)


WORDS = [
    "#", "##", "#define", "#undef", "#if", "#ifdef", "#else", "#elif", "#endif", "#include", "#pragma", "#line", "\n", "\n", "\n", " ",
    "(", ")", ",", "...", "a", "b", "f", "f(", "f(a)", "x", "1", "0", "defined", "__VA_ARGS__", "__VA_OPT__", "min(", "BPF_HASH(", "'",
    '"', "\\\n", "/*", "*/", "//", "<linux/sched.h>", '"a.h"', "__has_include(", "_Pragma(", "__LINE__", "+", "&&", "?", ":", "{", "}",
    "struct", "enum", "CONFIG_X", "clang attribute push", "clang attribute pop", "push_macro", "pop_macro", "once", "\0", "é", "\udc80",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=40), st.sampled_from(["bcc", "libbpf"]))
def test_any_text_gives_tokens_or_an_error_with_a_place(words: list[str], dialect: str) -> None:
    text = " ".join(words).replace("\n ", "\n")
    try:
        tokens = run(text, dialect=dialect)
    except CompileError as error:
        assert error.diagnostics[0].span is not None
        error.render()
        return
    assert tokens[-1].kind == "end"
    assert all(t.kind != "bad" for t in tokens)

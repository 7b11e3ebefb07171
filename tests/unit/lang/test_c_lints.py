"""Warnings about what is right C and likely not what was meant, and about formats that the kernel refuses."""

from __future__ import annotations

import pytest
from c_analysed import small_target

from sonde.errors import CompileError
from sonde.lang.c.compile import compile_c
from sonde.lang.c.formats import parse_format
from sonde.lang.c.options import Options
from sonde.lang.source import Source

HEAD = "#include <vmlinux.h>\n#include <bpf/bpf_helpers.h>\n"
BEFORE = "struct st { int value; char name[16]; const int fixed; };\n"


def said(body: str, dialect: str = "libbpf", before: str = BEFORE) -> list[str]:
    """The warnings about a function with this body."""
    text = f'{HEAD if dialect == "libbpf" else ""}{before}SEC("kprobe") int f(void *ctx)\n{{\n{body}\n}}\n'
    if dialect == "bcc":
        text = text.replace('SEC("kprobe") ', "")
    unit = compile_c(Source("x.bpf.c", text), small_target(), Options(dialect))
    return [warning.message for warning in unit.warnings]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("int x = 5; if (x = 6) return 1; return 0;", "an assignment as a condition"),
        ("int x; while (x = bpf_get_smp_processor_id()) ; return 0;", "an assignment as a condition"),
        ("int x = 1; if (x == 1); return x;", "this 'if' has an empty body"),
        ("int i, n = 0; for (i = 0; i < 3; i++); { n++; } return n;", "this loop has an empty body"),
        ("return 'abc';", "a character constant of several characters"),
        ('struct st s = {}; return s.name == "abc";', "a comparison with the address of a string"),
        ("int x = 1; x == 2; return x;", "the result of this comparison is not used"),
        ("int x = 1; return x & 1 == 0;", "'==' binds more tightly than '&'"),
        ("return 5 / 0;", "division by zero"),
    ],
)
@pytest.mark.parametrize("dialect", ["libbpf", "bcc"])
def test_what_clang_says_by_default(body: str, message: str, dialect: str) -> None:
    (found,) = said(body, dialect)
    assert message in found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("int x = 5; return 0;", "unused variable 'x'"),
        ("int x; return 0;", "unused variable 'x'"),
        ("again: return 0;", "unused label 'again'"),
        ("return 0; bpf_ktime_get_ns();", "this is never reached"),
        ("int x = 1; x + 1; return x;", "the result of this expression is not used"),
        ("const int x = 1; int *p = &x; return *p;", "discards 'const'"),
    ],
)
def test_what_clang_says_with_wall(body: str, message: str) -> None:
    (found,) = said(body)
    assert message in found
    assert said(body, "bcc") == []


def test_functions_that_nobody_calls() -> None:
    before = (
        BEFORE
        + "static int g(void) { return 1; }\nstatic inline int h(void) { return 1; }\nstatic int k(void) { return 1; }\n"
    )
    assert said("return k();", before=before) == ["unused function 'g'"]


@pytest.mark.parametrize(
    "body",
    [
        "int x; if ((x = bpf_get_smp_processor_id())) return x; return 0;",
        "int x __attribute__((unused)) = 5; return 0;",
        "int x = 1; typeof(x) y = 2; return y;",
        "int x = 1; return (x & 1) == 0 && (x == 2) | (x == 3);",
        "switch (bpf_get_smp_processor_id()) { case 1: return 1; break; default: return 2; }",
        "goto out; out: return 0;",
        "for (;;) { if (bpf_get_smp_processor_id()) break; continue; } return 0;",
        "int n = 0; for (int i = 0; i < 3; n += i++); return n;",
        "struct st s = {}, *p = &s; p->value = 1; return s.value;",
        'const char *name = "x"; return name[0];',
        'bpf_printk("%d %llx %s %c %p %pI4 %pks 100%%", 1, 2ULL, "x", \'c\', ctx, ctx, ctx); return 0;',
    ],
)
def test_what_is_meant_passes_in_silence(body: str) -> None:
    assert said(body) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('bpf_printk("%d %s", 1)', "the format has 2 conversions, but 1 value is given"),
        ('bpf_printk("%d", 1, 2)', "the format has 1 conversion, but 2 values are given"),
        ('bpf_printk("%s", 5)', "%s prints a string, but the value is of type 'int'"),
        ('bpf_printk("%d", "x")', "%d prints a number, but the value is of type 'char[2]'"),
        ('bpf_printk("%o", 1)', "%o is not known to the kernel"),
        ('bpf_printk("%hd", 1)', "%hd has a length or precision that the kernel does not know"),
        ('bpf_printk("%5.2d", 1)', "%5.2d has a length or precision"),
        ('bpf_printk("%d %d %d %d %s", 1, 2, 3, 4, 5)', "%s prints a string"),
        ('char t[8]; BPF_SNPRINTF(t, sizeof(t), "%d %d", 1)', "the format has 2 conversions, but 1 value is given"),
    ],
)
def test_formats(call: str, message: str) -> None:
    (found,) = said(f"{call}; return 0;")
    assert message in found


def test_formats_of_bcc() -> None:
    (found,) = said('bpf_trace_printk("%d %d\\n", 1); return 0;', "bcc")
    assert found == "the format has 2 conversions, but 1 value is given"


def test_a_format_as_the_kernel_reads_it() -> None:
    found = parse_format(b"%%d %-08lld %pks %pI6 %ps %p. %s%c")
    assert [(c.text, c.kind) for c in found] == [
        ("%-08lld", "number"), ("%pks", "string"), ("%pI6", "pointer"), ("%ps", "pointer"), ("%p", "pointer"), ("%s", "string"),
        ("%c", "character"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "struct st a = {}, b = {}; a = b; return a.value;",
            "cannot assign to an object of type 'struct st': its member 'fixed' is const",
        ),
        ("struct st a = {}, *p = &a; *p = a; return 0;", "its member 'fixed' is const"),
        ("struct { struct st in[2]; } a = {}, b = {}; a = b; return 0;", "its member 'fixed' is const"),
        ("struct st a = {}; a.fixed = 1; return 0;", "cannot assign to 'fixed' of const-qualified type"),
    ],
)
def test_structs_with_const_members_are_not_assigned_to(body: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        said(body)
    assert message in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("int cout = 1; return cuot;", "cout"),
        ("return bpf_get_curent_pid();", "bpf_get_current_pid_tgid"),
        ("return bpf_ktime_get_n();", "bpf_ktime_get_ns"),
        ("struct st s = {}; return s.valeu;", "value"),
    ],
)
def test_close_names(body: str, hint: str) -> None:
    with pytest.raises(CompileError) as caught:
        said(body)
    assert hint in caught.value.diagnostics[0].hint


def test_close_types_and_enumerators() -> None:
    for body, hint in (
        ("struct task_strut *t = 0; return t->pid;", "task_struct"),
        ("struct stt *t = 0; return t->value;", "'st'"),
        ("return TASK_COMM_LENN;", "TASK_COMM_LEN"),
    ):
        with pytest.raises(CompileError) as caught:
            said(body)
        assert hint in caught.value.diagnostics[0].hint

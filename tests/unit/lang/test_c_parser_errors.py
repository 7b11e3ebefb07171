"""What wrong C is told: what was expected, what was found, where; several errors in one run; limits on hostile nesting."""

from __future__ import annotations

import pytest
from c_trees import parse_c, tokens_of

from sonde.errors import CompileError, Diagnostic
from sonde.lang.c.parser import parse
from sonde.lang.c.parser_cursor import MAX_ERRORS, UnknownTypeName


def errors_of(text: str) -> list[Diagnostic]:
    """The errors of a text, which has some."""
    with pytest.raises(CompileError) as caught:
        parse_c(text)
    return list(caught.value.diagnostics)


def told(text: str) -> list[str]:
    """The errors as "line:column: message"."""
    out = []
    for error in errors_of(text):
        assert error.span is not None
        out.append(f"{error.span.line}:{error.span.column}: {error.message}")
    return out


ONE_ERROR = [
    ("int x = ;", "1:9: expected an expression, found ';'"),
    ("int x", "1:6: expected ';' behind the declaration"),
    ("int f(void) { return (1 + 2; }", "1:28: expected ')', found ';'"),
    ("int f(void) { x[1; }", "1:18: expected ']', found ';'"),
    ("int f(void) { if x; }", "1:18: expected '(' behind 'if', found 'x'"),
    ("int f(void) { do ; }", "1:20: expected 'while' behind the body of 'do', found '}'"),
    ("int f(void) { else ; }", "1:15: expected an expression, found 'else'"),
    ("int f(void) { return 1 }", "1:24: expected ';' behind 'return', found '}'"),
    ("int f(void) { x = 1\n  y = 2; }", "1:20: expected ';' behind the expression"),
    ("int f(void) { x->1; }", "1:18: expected the name of a member behind '->', found '1'"),
    ("int f(void) { goto ; }", "1:20: expected the name of a label behind 'goto', found ';'"),
    ("int f(void) { 1 + 2 = 3; }", "1:21: the left side of '=' cannot be assigned to"),
    ("int f(void) { x ? 1; }", "1:20: expected ':', found ';'"),
    ("int f(void) { case 1 x; }", "1:22: expected ':' behind 'case', found 'x'"),
    ("int int x;", "1:1: there is no type 'int int'"),
    ("unsigned _Bool x;", "1:1: there is no type 'unsigned _Bool'"),
    ("int u32 x;", "1:9: expected ';' behind the declaration, found 'x'"),
    ("u32 int x;", "1:5: 'int' cannot be combined with the type before it"),
    ("static extern int x;", "1:8: 'extern' cannot be combined with 'static'"),
    ("static x = 1;", "1:8: expected a type behind 'static', found 'x'"),
    ("struct { int x; } y z;", "1:21: expected ';' behind the declaration, found 'z'"),
    ("struct ;", "1:8: expected a name or '{' behind 'struct', found ';'"),
    ("enum ;", "1:6: expected a name or '{' behind 'enum', found ';'"),
    ("enum e { };", "1:10: expected the name of an enumeration constant, found '}'"),
    ("enum e { A B };", "1:12: expected '}', found 'B'"),
    ("int for;", "1:5: expected a name, but 'for' is a word of the language"),
    ("int *;", "1:6: expected a name, found ';'"),
    ("int x[3;", "1:8: expected ']', found ';'"),
    ("int f(int x;", "1:12: expected ')', found ';'"),
    ("int f(...);", "1:7: a parameter with a name is needed before '...'"),
    ("int f(static int x);", "1:7: a parameter cannot be 'static'"),
    ("int x = sizeof(int static);", "1:16: 'static' cannot stand in a type name"),
    ("int x = { 1, 2;", "1:15: expected '}', found ';'"),
    ("int x = { . = 2 };", "1:13: expected the name of a member behind '.', found '='"),
    ("struct s x = { .a 2 };", "1:19: expected '=' behind a designator, found '2'"),
    ("}", "1:1: there is no '{' that this '}' closes"),
    ("asm(\"nop\");", "1:1: assembly outside a function is not supported"),
    ("int f(void) { asm goto(\"\" : : : : out); out: ; }", "1:19: 'asm goto' is not supported"),
    ("int f(void) { goto *x; }", "1:20: a BPF program cannot jump to a computed address"),
    ("int f(void) { x = &&out; out: ; }", "1:19: the address of a label cannot be taken in a BPF program"),
    ("int f(void) { __label__ a; }", "1:15: local labels (__label__) are not supported"),
    ("int f(void) { __builtin_va_arg(a, int); }", "1:15: a function of a BPF program cannot read variable arguments"),
    ("__thread int x;", "1:1: a BPF program has no thread-local variables"),
    ("int x = 1.5;", "1:9: '1.5' is a floating-point constant, and programs for BPF have no floating-point numbers"),
    ("int x = 08;", "1:9: invalid digit '8' in an octal constant"),
    ("int x = 1lul;", "1:9: invalid suffix 'lul' on an integer constant"),
    ("int x = 0x10000000000000000;", "1:9: integer constant is too large: it does not fit 64 bits"),
    ("int x = '\\q';", "1:9: unknown escape sequence '\\q'"),
    ("int x = 'abcde';", "1:9: character constant is longer than an int"),
    ("char *x = L\"a\";", '1:11: wide strings (L"…") are not supported: leave the L out'),
    ("int f(void) { if (x) int y; }", "1:22: a declaration cannot stand here"),
    ("int f(void) { for (;;) u32 y; }", "1:24: a declaration cannot stand here"),
    ("BPF_HSAH(x, u32);", "1:1: 'BPF_HSAH' is neither a type nor a macro that is known here"),
    ("int f(void) {\n#pragma unroll\nx; }", "2:1: expected a loop behind this #pragma"),
    ("#pragma unroll\nint x;", "1:1: expected a loop behind this #pragma"),
    ("#pragma unroll many\n", "1:1: expected a number of rounds in '#pragma unroll many', found 'many'"),
    ("#pragma pack(3)\n", "1:1: expected push, pop, 1, 2, 4, 8 or 16 in '#pragma pack(3)', found '3'"),
    ("struct a { int x; }\nint y;", "1:20: expected ';' behind the definition of 'struct a'"),
    ("struct a { int x; }\nvoid f(void) {}", "1:20: expected ';' behind the definition of 'struct a'"),
    ("struct a { int x }; int y;", "1:18: expected ';' behind a member, found '}'"),
    ("struct a { static int x; };", "1:12: a member cannot be 'static'"),
    ("struct a { _Static_assert(1, \"\"); };", "1:12: a _Static_assert inside a struct is not supported"),
    ("int f(foo_t *x) { return 1; }", "1:7: unknown type name 'foo_t'"),
    ("foo_t x;", "1:1: unknown type name 'foo_t'"),
    ("foo_t *f(void);", "1:1: unknown type name 'foo_t'"),
    ("const foo_t *f(void);", "1:7: unknown type name 'foo_t'"),
    ("struct a { foo_t x; foo_t *y; };", "1:12: unknown type name 'foo_t'"),
    ("int f(void) { foo_t x = 3; foo_t *y; }", "1:15: unknown type name 'foo_t'"),
    ("int f(void) { foo_t *x = 0; }", "1:15: unknown type name 'foo_t'"),
    ("int f(int x) { return *(foo_t *)x; }", "1:25: unknown type name 'foo_t'"),
    ("int f(int x) { return (foo_t)x; }", "1:24: unknown type name 'foo_t'"),
    ("int f(void) { return sizeof(foo_t *); }", "1:29: unknown type name 'foo_t'"),
    ('__bcc_table("hash", foo_t, u64, t, 1, 0)', "1:21: unknown type name 'foo_t'"),
    ('__bcc_table("hash", u32, u64, 3, 1, 0)', "1:31: expected the name of the table, found '3'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), ONE_ERROR, ids=[e[0] for e in ONE_ERROR])
def test_one_error(text: str, expected: str) -> None:
    assert told(text) == [expected]


def test_several_errors_in_one_run() -> None:
    text = """int a = ;
struct s { int x y; foo_t z; };
int f(int x) {
    for (int i = 0; i < ; i++) { x++; }
    if (x { return 1; } else { return 2; }
    x = (1;
    { int y = 3 }
    return x +;
}
int good(void) { return 0; }
int b = ];
"""
    assert told(text) == [
        "1:9: expected an expression, found ';'",
        "2:18: expected ';' behind a member, found 'y'",
        "2:21: unknown type name 'foo_t'",
        "4:25: expected an expression, found ';'",
        "5:11: expected ')', found '{'",
        "6:11: expected ')', found ';'",
        "7:17: expected ';' behind the declaration, found '}'",
        "8:15: expected an expression, found ';'",
        "11:9: expected an expression, found ']'",
    ]


def test_a_limit_on_errors() -> None:
    assert len(errors_of("int x = ;\n" * 100)) == MAX_ERRORS


def test_an_unclosed_brace_is_found_where_the_next_function_begins() -> None:
    text = "int f(int x) {\n  if (x) {\n    x++;\n  return x;\n}\nint g(void) { return 1; }\nint h = ;\n"
    errors = errors_of(text)
    assert [e.message for e in errors] == [
        "function 'g' begins inside another one",
        "expected an expression, found ';'",
    ]
    assert errors[0].hint == "is a '}' missing before it?"
    (note,) = errors[0].notes
    assert note.message == "this '{' may be the one that is not closed" and note.span and note.span.line == 1


def test_a_brace_that_is_never_closed() -> None:
    (error,) = errors_of("int f(int x) {\n  while (x) {\n    x++;\n")
    assert error.message == "expected '}' before the end of the file"
    assert error.notes[0].message == "to match this '{'" and error.notes[0].span and error.notes[0].span.line == 2
    (error,) = errors_of("struct s {\n  int x;\n")
    assert error.message == "expected '}' before the end of the file"


def test_an_error_names_the_bracket_that_it_misses() -> None:
    (error,) = errors_of("int f(int x) { return g(x, (x + 1; }")
    assert error.notes[0].message == "to match this '('" and error.notes[0].span and error.notes[0].span.column == 28


def test_a_missing_semicolon_is_shown_at_the_end_of_its_line() -> None:
    (error,) = errors_of("int f(int x) {\n\tx = 1 // done\n\treturn x;\n}")
    assert error.render() == ("t.c:2:7-8: ERROR: expected ';' behind the expression\n    x = 1 // done\n         ~")


def test_an_unknown_type_gives_its_name() -> None:
    (error,) = errors_of("strct data x;")
    assert isinstance(error, UnknownTypeName)
    assert error.name == "strct"
    assert error.excerpt == "strct data x;"


def test_names_of_types_are_asked_only_where_a_type_may_stand() -> None:
    asked: list[str] = []

    def is_type(name: str) -> bool:
        asked.append(name)
        return name == "u32"

    parse(tokens_of("u32 f(u32 x) { x = g(x) + h->u64; return sizeof(x) + (x); }"), is_type)
    assert asked == ["u32"]


N = 10_000  # ten times Python's own limit
HOSTILE = [
    "int x = " + "(" * 100_000,
    "int x = " + "(" * 100_000 + "1" + ")" * 100_000 + ";",
    "int x = " + "-" * N + "1;",
    "int x = " + "- " * N + "1;",
    "int x = " + "!(int)" * N + "1;",
    "int x = " + "(int)" * N + "1;",
    "int x = " + "sizeof " * N + "1;",
    "int x = 1" + " + 1" * N + ";",
    "int x = 1" + " ? 1 : 1" * N + ";",
    "int x = " + "1 ? " * N + "1;",
    "int x = y" + ".a" * N + ";",
    "int x = y" + "[0]" * N + ";",
    "int x = y" + "[y" * N + ";",
    "int x = y" + "(y" * N + ";",
    "int x = a" + " = a" * N + ";",
    "int x = " + "({" * N,
    "int x = " + "{" * N,
    "int x = { " + "[0]" * N + " = 1 };",
    "int x = __builtin_offsetof(struct s, a" + ".a" * N + ");",
    "int x = " + "_Generic(1, int: " * N + "1;",
    "int x = " + "sizeof(typeof(" * N + "1;",
    "int x = " + "sizeof(int (*)(" * N + "1;",
    "int " + "*" * N + "x;",
    "int " + "(" * N + "x;",
    "int x" + "[1]" * N + ";",
    "int x" + "()" * N + ";",
    "int f(" + "int (*)(" * N + ";",
    "struct a { " * N,
    "struct { " * N,
    "enum { A = sizeof(" * N,
    "typeof(" * N,
    "_Alignas(" * N,
    "_Atomic(" * N,
    "__attribute__((a(" * N,
    "int (" + "__attribute__((a(int (" * N,
    "int f(void) " + "{" * N,
    "int f(void) { " + "if (1) " * N + ";",
    "int f(void) { " + "if (1) ; else " * N + "; }",
    "int f(void) { " + "while (1) " * N + ";",
    "int f(void) { " + "for (;;) " * N + ";",
    "int f(void) { " + "do " * N + ";",
    "int f(void) { " + "a: " * N + "; }",
    "int f(void) { " + "case 1: " * N + "; }",
    "int f(void) { " + "switch (1) case 1: " * N + "; }",
    "int f(void) { " + "__attribute__((a(({ " * N,
    "int f(void) { " + "asm(\"\" : \"r\"(({ " * N,
    "int f(void) {\n" + "#pragma unroll\n" * N + "x; }",
    "int f(void) {" + "\n#pragma unroll\nfor (;;)" * N + "; }",
    "}" * N,
    ")" * N,
    "int x = ;" * N,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[t[:40].replace("\n", " ") for t in HOSTILE])
def test_hostile_nesting(text: str) -> None:
    with pytest.raises(CompileError):
        parse_c(text)


def test_what_people_write_is_not_too_deep() -> None:
    parse_c("int x = " + "(" * 90 + "1" + ")" * 90 + ";")
    parse_c("int x = 1" + " + 1" * 190 + ";")
    parse_c("int f(int x) { " + "if (x) { " * 40 + "}" * 40 + "}")
    parse_c("int f(int x) { " + "if (x == 1) x++; else " * 150 + "; }")
    parse_c("int f(int x) { " + "x = x + 1; " * 5000 + "}")
    parse_c("int x[] = { " + "1, " * 5000 + "};")
    parse_c("int x = " + "__extension__ " * 5000 + "1;")
    parse_c("int f(int x) { switch (x) { " + "".join(f"case {n}: x++; " for n in range(5000)) + "} }")

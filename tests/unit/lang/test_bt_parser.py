"""The grammar of bpftrace scripts: what each form parses to, in both dialects, and what wrong scripts are told."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.errors import CompileError, Span
from sonde.lang.bpftrace import ast
from sonde.lang.bpftrace.dump import dump
from sonde.lang.bpftrace.parser import parse, parse_expression
from sonde.lang.bpftrace.rewrite import iter_nodes
from sonde.lang.source import Source


def program_of(text: str) -> ast.Program:
    return parse(Source("t.bt", text))


def short(node: Any) -> str:
    """An expression or statement as an S-expression, for comparison."""
    if node is None:
        return "none"
    if type(node) is tuple:
        return " ".join(short(n) for n in node)
    if not isinstance(node, ast.Node):
        return str(node)
    maker = SHORT.get(type(node))
    if maker:
        return maker(node)
    parts = [getattr(node, f) for f in node._fields[1:]]
    return f"({type(node).__name__} {' '.join(short(p) for p in parts)})".replace("  ", " ")


SHORT: dict[type, Any] = {
    ast.Integer: lambda n: str(n.value),
    ast.String: lambda n: repr(n.value),
    ast.Boolean: lambda n: str(n.value).lower(),
    ast.Identifier: lambda n: n.name,
    ast.Variable: lambda n: n.name,
    ast.Map: lambda n: n.name,
    ast.Positional: lambda n: f"${n.number}",
    ast.PositionalCount: lambda n: "$#",
    ast.MapAccess: lambda n: f"{n.map.name}[{short(n.key)}]",
    ast.Call: lambda n: f"{n.name}({', '.join(short(a) for a in n.args)})",
    ast.Unary: lambda n: f"({short(n.operand)} {n.op})" if n.postfix else f"({n.op} {short(n.operand)})",
    ast.Binary: lambda n: f"({n.op} {short(n.left)} {short(n.right)})",
    ast.Ternary: lambda n: f"(? {short(n.condition)} {short(n.then)} {short(n.otherwise)})",
    ast.Cast: lambda n: f"(cast {short(n.type)} {short(n.operand)})",
    ast.FieldAccess: lambda n: f"{short(n.operand)}{'->' if n.arrow else '.'}{n.name}",
    ast.TupleAccess: lambda n: f"{short(n.operand)}.{n.index}",
    ast.IndexAccess: lambda n: f"{short(n.operand)}[{short(n.index)}]",
    ast.TupleExpr: lambda n: f"<{', '.join(short(i) for i in n.items)}>",
    ast.RecordExpr: lambda n: f"<{', '.join(f'{k}={short(v)}' for k, v in zip(n.names, n.items))}>",
    ast.TypeName: lambda n: (short(n.typeof) if n.typeof else n.name) + "*" * n.pointers + "".join(f"[{'' if d is None else d}]" for d in n.dims),
    ast.BlockExpr: lambda n: "{" + " ".join([short(s) for s in n.statements] + ([f"=> {short(n.value)}"] if n.value else [])) + "}",
    ast.IfExpr: lambda n: f"(if {short(n.condition)} {short(n.then)} {short(n.otherwise)})",
    ast.ExprStatement: lambda n: f"{short(n.expr)};",
    ast.Assign: lambda n: f"{short(n.target)} {n.op}= {short(n.value)};",
}  # fmt: skip


def expression_of(text: str) -> str:
    return short(parse_expression(Source("t.bt", text)))


def body_of(text: str) -> str:
    (probe,) = program_of(f"begin {{ {text} }}").probes
    return short(probe.body)


def errors_of(text: str) -> list[str]:
    with pytest.raises(CompileError) as caught:
        program_of(text)
    return [d.message for d in caught.value.diagnostics]


# literals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("42", 42), ("0777", 511), ("0x1F", 31), ("0X1f", 31), ("1_000_000", 1000000), ("0x1_0", 16), ("1e6", 1000000),
        ("5E3", 5000), ("1e1_0", 10**10), ("5u", 5), ("5ul", 5), ("5ull", 5), ("5l", 5), ("5ll", 5), ("5ULL", 5), ("0x10ull", 16),
        ("1ns", 1), ("1us", 1000), ("1ms", 10**6), ("1s", 10**9), ("1m", 60 * 10**9), ("1h", 3600 * 10**9),
        ("1d", 86400 * 10**9), ("1e3s", 10**12), ("010s", 8 * 10**9), ("18446744073709551615", (1 << 64) - 1),
    ],
)  # fmt: skip
def test_integers(text: str, value: int) -> None:
    node = parse_expression(Source("t.bt", text))
    assert isinstance(node, ast.Integer)
    assert (node.value, node.text) == (value, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1k", "invalid integer suffix 'k'"),
        ("0b1", "invalid integer suffix 'b1'"),
        ("5lu", "invalid integer suffix 'lu'"),
        ("1_", "trailing underscore in integer literal"),
        ("0x1_", "trailing underscore in integer literal"),
        ("1e", "invalid trailing bytes: 1e"),
        ("1e03", "invalid trailing bytes: 1e03"),
        ("08", "invalid trailing bytes: 08"),
        ("0x", "invalid integer: 0x"),
        ("12e3", "coefficient part of scientific literal must be 1-9: 12e3"),
        ("0e3", "coefficient part of scientific literal must be 1-9: 0e3"),
        ("18446744073709551616", "overflow error, maximum value is 18446744073709551615: 18446744073709551616"),
        ("1e20", "overflow error, maximum value is 18446744073709551615: 1e20"),
        ("300000000000d", "overflow error, maximum value is 18446744073709551615: 300000000000d"),
        ("5000000000u", "overflow error, maximum value is 4294967295: 5000000000u"),
        ("1" * 5000, f"overflow error, maximum value is 18446744073709551615: {'1' * 5000}"),
    ],
    ids=lambda text: text[:24],
)
def test_wrong_integers(text: str, message: str) -> None:
    assert errors_of(f"begin {{ print({text}); }}") == [f"syntax: {message}"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a b"', "a b"),
        (r'"\n\t\r\"\\"', '\n\t\r"\\'),
        (r'"\101\x42\0"', "AB\0"),
        (r'"\xc3\xa9"', "é"),
        (r'"é"', "é"),
        (r'"\xff"', "\udcff"),
        (r'"// no comment /* */"', "// no comment /* */"),
        (r'"\33[1m"', "\x1b[1m"),
    ],
)
def test_strings(text: str, value: str) -> None:
    node = parse_expression(Source("t.bt", text))
    assert isinstance(node, ast.String)
    assert node.value == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (r'"\q"', r"invalid escape character '\q'"),
        (r'"\xg"', "invalid hex escape sequence"),
        (r'"\777"', r"octal escape sequence out of range '\777'"),
        ('"a\nb"', "unterminated string"),
        ('"abc', "unterminated string"),
    ],
)
def test_wrong_strings(text: str, message: str) -> None:
    assert errors_of(f"begin {{ print({text}); }}")[0] == f"syntax: {message}"


# expressions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("1 + 2 * 3", "(+ 1 (* 2 3))"),
        ("(1 + 2) * 3", "(* (+ 1 2) 3)"),
        ("1 - 2 - 3", "(- (- 1 2) 3)"),
        ("1 << 2 + 3", "(<< 1 (+ 2 3))"),
        ("1 < 2 == 3 > 4", "(== (< 1 2) (> 3 4))"),
        ("1 & 2 == 3", "(& 1 (== 2 3))"),
        ("1 | 2 ^ 3 & 4", "(| 1 (^ 2 (& 3 4)))"),
        ("a || b && c", "(|| a (&& b c))"),
        ("1 % 2 / 3", "(/ (% 1 2) 3)"),
        ("a <= b >= c != d", "(!= (>= (<= a b) c) d)"),
        ("a ? b : c ? d : e", "(? a b (? c d e))"),
        ("a ?: b", "(? a none b)"),
        ("a ? b ? c : d : e", "(? a (? b c d) e)"),
        ("-1", "(- 1)"),
        ("- -1", "(- (- 1))"),
        ("!a", "(! a)"),
        ("~a + 1", "(+ (~ a) 1)"),
        ("!!a", "(! (! a))"),
        ("**a", "(* (* a))"),
        ("*a.b", "(* a.b)"),
        ("&$a", "(& $a)"),
        ("&@m", "(& @m)"),
        ("$a++", "($a ++)"),
        ("--@m", "(-- @m)"),
        ("@m[1]--", "(@m[1] --)"),
        ("$a - -$b", "(- $a (- $b))"),
        ("$a-->b", "(> ($a --) b)"),
        ("a.b->c.0[1]", "a.b->c.0[1]"),
        ("a.0.1", "a.0.1"),
        ("args.for.struct", "args.for.struct"),
        ("comptime 1 + 2", "(+ (Comptime 1) 2)"),
        ("true == false", "(== true false)"),
        ("f(1, g(2), @m)", "f(1, g(2), @m)"),
        ("f()", "f()"),
        ("pid", "pid"),
        ("$1 + $#", "(+ $1 $#)"),
        ("@", "@"),
        ("@[1]", "@[1]"),
        ("@m[1, 2]", "@m[<1, 2>]"),
        ("@m[1][2]", "@m[1][2]"),
        ("@m[(1, 2)]", "@m[<1, 2>]"),
        ("kstack(perf, 3)", "kstack(perf, 3)"),
    ],
)
def test_expressions(text: str, tree: str) -> None:
    assert expression_of(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("()", "<>"),
        ("(1,)", "<1>"),
        ("(1, 2)", "<1, 2>"),
        ("(1, 2,)", "<1, 2>"),
        ("((1, 2), 3)", "<<1, 2>, 3>"),
        ("(x=1)", "<x=1>"),
        ('(x=1, y="s",)', "<x=1, y='s'>"),
        ("(x == 1)", "(== x 1)"),
        ("(1)", "1"),
        ("((1))", "1"),
    ],
)
def test_tuples_and_records(text: str, tree: str) -> None:
    assert expression_of(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("(uint8)1", "(cast uint8 1)"),
        ("(uint8)1 + 2", "(+ (cast uint8 1) 2)"),
        ("(uint8)-1", "(cast uint8 (- 1))"),
        ("(struct foo *)arg0", "(cast struct foo* arg0)"),
        ("((struct foo *)arg0)->bar", "(cast struct foo* arg0)->bar"),
        ("(struct foo*)arg0->bar", "(cast struct foo* arg0->bar)"),
        ("(uint8**)$a", "(cast uint8** $a)"),
        ("(uint8[4])$a", "(cast uint8[4] $a)"),
        ("(uint8[])$a", "(cast uint8[] $a)"),
        ("(int32*[2])$a", "(cast int32*[2] $a)"),
        ("(int32[2]*)$a", "(cast int32[2]* $a)"),
        ("(enum foo)1", "(cast enum foo 1)"),
        ("(union foo *)1", "(cast union foo* 1)"),
        ("(foo_t)$a", "(cast foo_t $a)"),
        ("(unsigned long)$a", "(cast unsigned long $a)"),
        ("(typeof($b))$a", "(cast $b $a)"),
        ("(typeof(struct foo)*)$a", "(cast struct foo* $a)"),
        ("(uint8)(uint16)1", "(cast uint8 (cast uint16 1))"),
        ("(pid) - 1", "(- pid 1)"),
        ("(arg0) * 2", "(* arg0 2)"),
        ("($a) - 1", "(- $a 1)"),
        ("(foo)", "foo"),
        ("(foo) + 1", "(+ foo 1)"),
        ("(string[64])$a", "(cast string[64] $a)"),
        ("(0)", "0"),
    ],
)
def test_casts(text: str, tree: str) -> None:
    assert expression_of(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("sizeof(uint64)", "(Sizeof uint64)"),
        ("sizeof(struct foo)", "(Sizeof struct foo)"),
        ("sizeof(struct foo *)", "(Sizeof struct foo*)"),
        ("sizeof($a)", "(Sizeof $a)"),
        ("sizeof(foo)", "(Sizeof foo)"),
        ("sizeof(foo *)", "(Sizeof foo*)"),
        ("sizeof(*$a)", "(Sizeof (* $a))"),
        ("sizeof(int)", "(Sizeof int)"),
        ("offsetof(struct foo, a.b)", "(Offsetof struct foo a b)"),
        ("offsetof($a, b)", "(Offsetof $a b)"),
        ("offsetof(*args.x, b)", "(Offsetof (* args.x) b)"),
        ("typeinfo(uint8)", "typeinfo(uint8)"),
        ("typeinfo($a + 1)", "typeinfo((+ $a 1))"),
        ("f(typeof(uint8 *))", "f(uint8*)"),
        ("container_of($p, struct foo, a)", "container_of($p, struct foo, a)"),
    ],
)
def test_what_takes_types(text: str, tree: str) -> None:
    assert expression_of(text) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 +", "expected expression"),
        ("f(1", "expected ')'"),
        ("f(1 2)", "expected ')'"),
        ("f(,)", "expected expression"),
        ("@m[1", "expected ']'"),
        ("@m[]", "expected expression"),
        ("(1, 2", "expected ')'"),
        ("a.", "expected field name after '.'"),
        ("a->", "expected field name after '->'"),
        ("5++", "increment/decrement requires a variable or map"),
        ("++5", "increment/decrement requires a variable or map"),
        ("&5", "address-of operator (&) can only be used on a map or variable"),
        ("$", "expected identifier after '$'"),
        ("$0", "param $0 is out of integer range [1, 9223372036854775807]"),
        ("$99999999999999999999", "param $99999999999999999999 is out of integer range [1, 9223372036854775807]"),
        ("(x=1, x=2)", "Named argument list already contains name: x"),
        ("a ? b", "expected ':'"),
        ("+1", "expected expression"),
        ("#", "unexpected character '#'"),
        ("é", "unexpected character 'é'"),
        ("sizeof 1", "expected '('"),
        ("offsetof(struct foo)", "expected ','"),
    ],
)
def test_wrong_expressions(text: str, message: str) -> None:
    assert errors_of(f"begin {{ print({text}); }}")[0] == f"syntax: {message}"


# statements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("$a = 1;", "{$a = 1;}"),
        ("$a = 1", "{$a = 1;}"),
        ("@m = 1; @m[1] = 2; @m[1,2] = 3;", "{@m = 1; @m[1] = 2; @m[<1, 2>] = 3;}"),
        ("$a += 1; $a -= 1; $a *= 1; $a /= 1; $a %= 1;", "{$a += 1; $a -= 1; $a *= 1; $a /= 1; $a %= 1;}"),
        ("$a &= 1; $a |= 1; $a ^= 1; $a <<= 1; $a >>= 1;", "{$a &= 1; $a |= 1; $a ^= 1; $a <<= 1; $a >>= 1;}"),
        ("@m[1] |= 2;", "{@m[1] |= 2;}"),
        ("$a++; ++@m;", "{($a ++); (++ @m);}"),
        ("_ = f();", "{_ = f();}"),
        ("f(); g()", "{f(); g();}"),
        (";;", "{}"),
        ("let $a;", "{(Let $a none none)}"),
        ("let $a = 1;", "{(Let $a none 1)}"),
        ("let $a: uint8;", "{(Let $a uint8 none)}"),
        ("let $a : struct foo * = 0;", "{(Let $a struct foo* 0)}"),
        ("let $a : typeof($b) = 0;", "{(Let $a $b 0)}"),
        ("let $a : string[10] = 0", "{(Let $a string[10] 0)}"),
        ("if (a) { f(); }", "{(if a {f();} none);}"),
        ("if (a) { f() } else { g() }", "{(if a {f();} {g();});}"),
        ("if (a) { f() } else if (b) { g() } else { h() }", "{(if a {f();} (if b {g();} {h();}));}"),
        ("if a { f() } $x = 1;", "{(if a {f();} none); $x = 1;}"),
        ("if !a { f() }", "{(if (! a) {f();} none);}"),
        ("if (a) { f() };", "{(if a {f();} none);}"),
        ("if (a) { if (b) { f() } }", "{(if a {(if b {f();} none);} none);}"),
        ("$x = if (a) { 1 } else { 2 };", "{$x = (if a {=> 1} {=> 2});}"),
        ("$x = { f(); 3 };", "{$x = {f(); => 3};}"),
        ("{ f(); 3 }", "{{f(); 3;};}"),
        ("{ } f();", "{{}; f();}"),
        ("while (a) { break; continue }", "{(While a {(Jump break none) (Jump continue none)})}"),
        ("while a { }", "{(While a {})}"),
        ("unroll (3) { f(); }", "{(Unroll 3 {f();})}"),
        ("unroll 3 { f(); }", "{(Unroll 3 {f();})}"),
        ("unroll ($1) { f(); }", "{(Unroll $1 {f();})}"),
        ("for ($i : 0..10) { f(); }", "{(ForRange $i 0 10 {f();})}"),
        ("for $i : 0..$n { f(); }", "{(ForRange $i 0 $n {f();})}"),
        ("for ($i : a.b..c) { }", "{(ForRange $i a.b c {})}"),
        ("for ($kv : @m) { print($kv.0); }", "{(ForMap $kv @m {print($kv.0);})}"),
        ("for $kv : @ { }", "{(ForMap $kv @ {})}"),
        ("return;", "{(Jump return none)}"),
        ("return 1 + 2;", "{(Jump return (+ 1 2))}"),
        ("return", "{(Jump return none)}"),
        ('import "stdlib/x";', "{(LocalImport stdlib/x)}"),
        ("$x == 1; @m > 2", "{(== $x 1); (> @m 2);}"),
        ("$1;", "{$1;}"),
        ("/* c */ f(); // d\n g();", "{f(); g();}"),
    ],
)
def test_statements(text: str, tree: str) -> None:
    assert body_of(text) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$a = 1 $b = 2", "expected ';'"),
        ("f() g()", "expected ';'"),
        ("f() if (1) { }", "expected ';'"),
        (
            "$a.0 = 1;",
            "Tuples and records are immutable once created. Consider creating a new value and assigning it instead.",
        ),
        ("$a[0] = 1;", "invalid assignment target"),
        ("pid = 1;", "invalid assignment target"),
        ("1 = 1;", "invalid assignment target"),
        ("_ += 1;", "invalid assignment target"),
        ("let @a = 1;", "expected variable after 'let'"),
        ("let $a : = 1;", "expected type name"),
        ("if (1) f();", "expected '{'"),
        ("if (1) { } else f();", "expected '{' or 'if' after 'else'"),
        ("for (i : 0..1) { }", "expected variable in for loop"),
        ("for ($i : 5) { }", "expected map or range in for loop"),
        ("for ($i in @m) { }", "expected ':'"),
        ("while () { }", "expected expression"),
        ("import foo;", "expected string after 'import'"),
    ],
)
def test_wrong_statements(text: str, message: str) -> None:
    assert errors_of(f"begin {{ {text} }}")[0] == f"syntax: {message}"


# probes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("BEGIN { }", [("BEGIN",)]),
        ("begin{ }", [("begin",)]),
        ("END,BEGIN { }", [("END",), ("BEGIN",)]),
        ("begin, end, { }", [("begin",), ("end",)]),
        ("kprobe:a,\n// c\nkprobe:b /* d */ { }", [("kprobe", "a"), ("kprobe", "b")]),
        ("tracepoint:syscalls:sys_enter_* { }", [("tracepoint", "syscalls", "sys_enter_*")]),
        ("uprobe:/bin/bash:readline { }", [("uprobe", "/bin/bash", "readline")]),
        ("uprobe:./a.out:main+4 { }", [("uprobe", "./a.out", "main+4")]),
        ('uprobe:/bin/x:"foo(int, char)" { }', [("uprobe", "/bin/x", "foo(int, char)")]),
        ('uprobe:"/bin/a b:c":cpp:"ns::f" { }', [("uprobe", "/bin/a b:c", "cpp", "ns::f")]),
        ('uprobe:"/bin/a\\"b":f { }', [("uprobe", '/bin/a"b', "f")]),
        ("uprobe:/bin/x@main.c:12:3 { }", [("uprobe", "/bin/x@main.c", "12", "3")]),
        ("usdt:/bin/x:ns:name { }", [("usdt", "/bin/x", "ns", "name")]),
        ("kprobe : vfs_read { }", [("kprobe", "vfs_read")]),
        ("kprobe: vfs_read { }", [("kprobe", "vfs_read")]),
        ("kprobe:0xffff+0x10 { }", [("kprobe", "0xffff+0x10")]),
        ("interval:1s { }", [("interval", "1s")]),
        ("struct:probe { }", [("struct", "probe")]),
        ("macro:x { }", [("macro", "x")]),
        ("watchpoint:0x10000000:8:rw { }", [("watchpoint", "0x10000000", "8", "rw")]),
        ("iter:task_file:list { }", [("iter", "task_file", "list")]),
        ("self:signal:SIGUSR1 { }", [("self", "signal", "SIGUSR1")]),
        ("*ware:* { }", [("*ware", "*")]),
    ],
)
def test_attach_points(text: str, parts: list[tuple[str, ...]]) -> None:
    (probe,) = program_of(text).probes
    assert [p.parts for p in probe.attach_points] == parts
    assert probe.predicate is None


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("BEGIN /pid == 1/ { }", "(== pid 1)"),
        ("BEGIN/1/{ }", "1"),
        ("BEGIN /1/ /* c */ // d\n { }", "1"),
        ("kprobe:foo/pid == 1/{ }", "(== pid 1)"),
        ("kprobe:foo, kprobe:bar /pid/ { }", "pid"),
        ("uprobe:/bin/bash:readline /pid/ { }", "pid"),
        ("begin /6 / 2 == 3/ { }", "(== (/ 6 2) 3)"),
        ("begin /@a[1]/ { }", "@a[1]"),
        ("begin / { 1 } / { }", "{=> 1}"),
        ('begin /comm == "a/b"/ { }', "(== comm 'a/b')"),
    ],
)
def test_predicates(text: str, tree: str) -> None:
    (probe,) = program_of(text).probes
    assert short(probe.predicate) == tree


def test_named_probes() -> None:
    first, second = program_of("p1 = begin { } p2=end { }").probes
    assert (first.name, first.attach_points[0].parts) == ("p1", ("begin",))
    assert (second.name, second.attach_points[0].parts) == ("p2", ("end",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("begin", "expected '{'"),
        ("kprobe:\nbegin { }", "expected '{'"),
        ("begin print(1); }", "expected '{'"),
        ("begin /1 { }", "expected '/' to close predicate"),
        ("begin { print(1);", "expected '}'"),
        ("{ print(1); }", "expected attach point"),
        ("begin, , { }", "expected attach point"),
        ("begin { } }", "expected '{'"),
        ('uprobe:"x { }', "unterminated string"),
        ("begin { /* ", "unterminated comment"),
    ],
)
def test_wrong_probes(text: str, message: str) -> None:
    assert errors_of(text)[0] == f"syntax: {message}"


# top level --------------------------------------------------------------------------------------------------------


def test_a_whole_script() -> None:
    program = program_of(
        "#!/usr/bin/env bpftrace\n// hello\n#include <x.h>\nstruct foo { int a; }\n"
        'config = { max_strlen = 50; stack_mode = perf, }\nimport "x.bt";'.replace("perf,", "perf; a=true; b=false")
        + "\nlet @m = lruhash(10);\nmacro f(a, $b, @c) { a }\nfn g($x : uint8, $y : struct foo *) : int64 { return 1; }\nbegin { }"
    )
    assert [d.text for d in program.c_definitions] == ["#include <x.h>", "struct foo { int a; };"]
    assert [(c.name, c.value) for c in program.config] == [
        ("max_strlen", 50), ("stack_mode", "perf"), ("a", True), ("b", False)
    ]  # fmt: skip
    assert [i.path for i in program.imports] == ["x.bt"]
    assert [(m.name, m.type, m.max_entries) for m in program.map_decls] == [("@m", "lruhash", 10)]
    assert [(p.kind, p.name) for p in program.macros[0].params] == [("expr", "a"), ("var", "$b"), ("map", "@c")]
    function = program.subprograms[0]
    assert [(v.name, short(t)) for v, t in function.params] == [("$x", "uint8"), ("$y", "struct foo*")]
    assert short(function.result) == "int64"
    assert len(program.probes) == 1


def test_c_definitions_are_kept_as_written() -> None:
    text = "struct a {\n  int x; // }\n  /* } */ int y;\n} __attribute__((packed));\n#define X \\\n 5\nenum e { A };\n"
    definitions = program_of(text + "begin { }").c_definitions
    assert [d.text for d in definitions] == [
        "struct a {\n  int x; // }\n  /* } */ int y;\n} __attribute__((packed));",
        "#define X \\\n 5",
        "enum e { A };",
    ]


def test_the_preamble_may_come_in_any_order() -> None:
    program = program_of("config = { a = 1 }\nstruct foo { int x; };\n#define Y 1\nbegin { }")
    assert len(program.c_definitions) == 2


def test_an_empty_script() -> None:
    assert program_of("").probes == ()
    assert program_of("  // nothing\n/* at all */").probes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("begin { } #define X 1", "C definitions must appear before probes and functions"),
        ("begin { } struct a { int x; };", "C definitions must appear before probes and functions"),
        ("begin { } config = { a = 1 }", "config must appear before probes and functions"),
        ('begin { } import "x";', "root imports must appear before probes and functions"),
        ("config = { a = 1 } config = { b = 1 }", "duplicate config block"),
        ("config = { a = }", "expected string, int, boolean, or ident"),
        ("config = { a = 1 b = 2 }", "expected ';'"),
        ("config = { 5 = 1 }", "expected config key"),
        ("config { }", "expected '='"),
        ("let $a = 1;", "root-level let statements need to be map declarations, e.g. let @a = hash(2);"),
        ("let @a = hash(x);", "expected positive integer for map declaration max entries"),
        ("import x;", "expected string after 'import'"),
        ('import "x"', "expected ';' after import"),
        ("macro (a) { }", "expected macro name"),
        ("macro f(1) { }", "expected macro argument ($var, @map, or identifier)"),
        ("macro f(pid) { }", "builtin 'pid' can't be used as a macro argument"),
        ("fn f(x) : int8 { }", "expected variable in function argument"),
        ("fn f() { }", "expected ':'"),
        ("struct a { int x;", "expected '}'"),
    ],
)
def test_wrong_top_levels(text: str, message: str) -> None:
    assert errors_of(text)[0] == f"syntax: {message}"


def test_a_parenthesised_macro_parameter_is_no_cast() -> None:
    (macro,) = program_of("macro f(a) { (a) - 1 }").macros
    assert short(macro.body) == "{=> (- a 1)}"


# diagnostics ------------------------------------------------------------------------------------------------------


def test_several_errors_in_one_run() -> None:
    messages = errors_of("begin { $a = ; if (1) { f( ; g(; } $b = 1 $c; }\nend { 5 5 }\nkprobe:x { ok(); }")
    assert messages == [
        "syntax: expected expression", "syntax: expected expression", "syntax: expected expression", "syntax: expected ';'",
        "syntax: expected ';'",
    ]  # fmt: skip


def test_the_number_of_errors_is_limited() -> None:
    assert len(errors_of("begin { " + "$a = ; " * 100 + "}")) == 10


def test_errors_point_to_their_place() -> None:
    with pytest.raises(CompileError) as caught:
        program_of("begin {\n\t$a = 1 $b = 2;\n}")
    assert caught.value.render() == "t.bt:2:9-11: ERROR: syntax: expected ';'\n    $a = 1 $b = 2;\n           ~~"


def test_spans_cover_their_text() -> None:
    text = "begin /pid == 1/ {\n  @m[1, 2] = (uint8)$x + f(3);\n}"
    spans = {type(n).__name__: n.span.text for n in iter_nodes(program_of(text).probes[0])}  # type: ignore[attr-defined]
    assert spans["Probe"] == text
    assert spans["Assign"] == "@m[1, 2] = (uint8)$x + f(3)"
    assert spans["MapAccess"] == "@m[1, 2]"
    assert spans["Cast"] == "(uint8)$x"
    assert spans["Call"] == "f(3)"
    assert spans["TypeName"] == "uint8"
    assert spans["AttachPoint"] == "begin"


def test_places_equal_spans() -> None:
    span = Source("a", "xy\nz").span(1, 4)
    assert span == Span("a", 1, 2, 2, 2)
    assert Span("a", 1, 2, 2, 2) == span
    assert hash(span) == hash(Source("a", "xy\nz").span(1, 4))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 3000, "{" * 3000, "-" * 3000, "!" * 3000, "(uint8)" * 3000, "f(" * 3000, "@m[" * 3000, "a ? " * 3000,
        "a" + ".b" * 3000, "a" + " + a" * 3000, "$a = " + "{" * 3000, "if (1) {" * 3000, "if (1) { } else " * 3000 + "{ }",
        "while (1) {" * 3000, "comptime " * 3000, "typeof(" * 3000, "sizeof(" * 3000, "a ?: " * 3000, "let $a : typeof(" * 3000,
        "$a = (uint8" + "*" * 3000 + ")1", "[" * 3000, "++" * 3000, "*" * 3000, "a = " * 3000, "(x=" * 3000,
        "sizeof(typeof(" * 500, "(typeof(" * 500,
    ],
    ids=lambda text: text[:16],
)  # fmt: skip
def test_deep_nesting_is_refused_with_a_diagnostic(text: str) -> None:
    assert errors_of("begin { " + text + " }")


def test_moderate_nesting_is_fine() -> None:
    assert expression_of("(" * 40 + "1" + ")" * 40) == "1"
    program_of("begin { " + "if (1) { " * 40 + "}" * 40 + " }")
    program_of("begin { $a = 1" + " + 1" * 150 + "; }")


# fuzz -------------------------------------------------------------------------------------------------------------

SOUP = """begin end kprobe:f uprobe:/bin/x:y / { } ( ) [ ] ; , : . .. -> = == + - * & && || | ? $a $1 $# @ @m @m[ 1 0x1f 1s "s" "
    if else for while unroll let return break import macro fn config struct union enum typeof sizeof offsetof comptime
    #define #! // /* */ a f( uint8 args _ true $ \\ ++ <<= !"""
PIECES = st.sampled_from([*SOUP.split(), "\n"])
SEED = (
    '#define X 1\nstruct s { int a; };\nconfig = { max_strlen = 64; }\nimport "a";\nlet @m = hash(5);\nmacro f(a, $b) { a + $b }\n'
    'tracepoint:a:b, kprobe:c /comm == "x" && pid > 1s/ { @m[pid, comm] = count(); if ($1 == 0x10) { printf("%d\\n", (uint8)$x); }'
    " else { $a = (1, (x=2)); } for ($i : 0..10) { @h = hist($i); } $p = *(struct s *)arg0; $q = &$p; unroll(3) { @++; } }"
)


def parses(text: str) -> None:
    """Parsing ends in a tree or a CompileError whose text can be shown."""
    try:
        program = program_of(text)
    except CompileError as error:
        assert error.render()
        return
    assert dump(program)


def test_backslash_at_the_end_of_a_string_without_end() -> None:
    assert errors_of('begin { " \\')[0] == "syntax: unterminated string"


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=40))
def test_any_tokens_give_a_tree_or_a_compile_error(pieces: list[str]) -> None:
    parses(" ".join(pieces))
    parses("begin { " + "".join(pieces))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(SEED)), st.integers(0, 12), st.text(alphabet="{}()[];,:/*\"$@\\#=+-.'a1 \n\0é", max_size=6))
def test_mutated_scripts_give_a_tree_or_a_compile_error(at: int, cut: int, insert: str) -> None:
    parses(SEED[:at] + insert + SEED[at + cut :])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_a_tree_or_a_compile_error(text: str) -> None:
    parses(text)


# the tools of bpftrace --------------------------------------------------------------------------------------------

TOOLS = sorted(glob.glob("/usr/sbin/*.bt") + glob.glob("/usr/share/bpftrace/tools/*.bt"))


@pytest.mark.skipif(not TOOLS, reason="no bpftrace tools (*.bt) are installed here")
@pytest.mark.parametrize("path", TOOLS, ids=[Path(t).name for t in TOOLS])
def test_the_tools_of_bpftrace_parse(path: str) -> None:
    program = parse(Source(path, Path(path).read_text()))
    assert program.probes
    assert dump(program)

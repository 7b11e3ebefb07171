"""Maps: keys, values, aggregations, the functions on them; and statements: scopes, loops, jumps."""

from __future__ import annotations

import pytest
from bt_typing import calls, diagnostics, errors, maps, typed, variables, warnings
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.errors import CompileError, ProbeError
from sonde.lang.bpftrace.stype import Hist, LHist


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("@ = 1;", "", "int8"),
        ("@ = 1; @ = 1000;", "", "int16"),
        ("@++;", "", "int64"),
        ("@ += 1;", "", "int64"),
        ("@ = (uint64)5; @++;", "", "uint64"),
        ("@++; @ = (uint64)5;", "", "uint64"),
        ("print(1); $x = @;", "", "int64"),
        ("@[1] = 1; @[(uint64)2] = 1;", "uint64", "int8"),
        ("@[1] = 1; @[-2] = 1; @[(uint64)2] = 1;", "int64", "int8"),
        ('@["abc"] = 1; @["abcdef"] = 2;', "string[7]", "int8"),
        ('@[1, "abc"] = 1; @[1000, "abcdef"] = 2;', "(int16,string[7])", "int8"),
        ("@[comm, pid] = count();", "(string[16],uint32)", "count_t"),
        ("@[kstack, ustack] = count();", "(kstack_bpftrace_127,ustack_bpftrace_127)", "count_t"),
        ("@ = sum(5);", "", "sum_t"),
        ("@ = sum(nsecs);", "", "usum_t"),
        ("@ = sum(5); @ = sum(nsecs);", "", "usum_t"),
        ("@ = sum((int64)5); @ = sum(nsecs);", "", "sum_t"),
        ("@ = max(-1);", "", "max_t"),
        ("@ = stats(nsecs);", "", "ustats_t"),
        ("@ = (1, \"a\"); @ = (300, \"abc\");", "", "(int16,string[4])"),
        ("@ = curtask;", "", "struct task_struct *"),
        ("@ = *curtask;", "", "struct task_struct"),
        ("@a[1] = @; @ = kstack;", "", "kstack_bpftrace_127"),
    ],
)  # fmt: skip
def test_types(text: str, key: str, value: str) -> None:
    assert maps(text)["@"] == (key, value)


def test_histograms_know_their_buckets() -> None:
    found = typed("@h = hist(1, 2); @l = lhist(1, 0, 100, 10);").maps
    hist, linear = found["@h"].value, found["@l"].value
    assert isinstance(hist, Hist) and isinstance(linear, LHist)
    assert (hist.bits, linear.low, linear.high, linear.step, linear.buckets) == (2, 0, 100, 10, 12)


def test_sizes_of_maps() -> None:
    found = typed("let @a = lruhash(10); begin { @a[1] = 1; @b[1] = 1; @c = 1; }").maps
    assert [(m.max_entries, m.declared) for m in found.values()] == [(10, "lruhash"), (4096, ""), (1, "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('@a = 1; @a = "x";',
         "Type mismatch for @a: trying to assign value of type 'string[2]' when map already has a type 'int8'"),
        ("@a = count(); @a = 5;",
         "Type mismatch for @a: trying to assign value of type 'int8' when map already has a type 'count_t'"),
        ("@a = sum(5); @a = max(6);",
         "Type mismatch for @a: trying to assign value of type 'max_t' when map already has a type 'sum_t'"),
        ('@a[1] = 1; @a["x"] = 1;',
         "Argument mismatch for @a: trying to access with arguments: 'string[2]' when map expects arguments: 'int8'"),
        ("@a[1] = 1; @a[1, 2] = 1;",
         "Argument mismatch for @a: trying to access with arguments: '(int8,int8)' when map expects arguments: 'int8'"),
        ("@a[1] = 1; @a = 1;",
         "@a used as a map without an explicit key (scalar map), previously used with an explicit key (non-scalar map)"),
        ("@a = 1; @a[1] = 1;",
         "@a used as a map with an explicit key (non-scalar map), previously used without an explicit key (scalar map)"),
        ("@a = count(); @b = @a;",
         "Map value 'count_t' cannot be assigned from one map to another. The function that returns this type must be "
         "called directly e.g. `@b = count();`."),
        ("@a = stats(5); $x = @a;", "Value 'stats_t' cannot be assigned to a scratch variable."),
        ('@a = printf("x");', "Value 'void' cannot be assigned to a map."),
        ('@a[printf("x")] = 1;', "Value 'void' cannot be used as a map key."),
        ("@a = hist(1); @b[@a] = 1;", "Value 'hist_t' cannot be used as a map key."),
        ("count();", "count() must be assigned directly to a map"),
        ("$x = sum(1);", "sum() must be assigned directly to a map"),
        ("@a = hist(1, 6);", "hist: bits 6 must be 0..5"),
        ("@a = hist();", "hist() requires at least one argument (0 provided)"),
        ('@a = hist("a");', "hist() only supports int arguments (string provided)"),
        ('@a = sum("a");', "sum() only supports integer arguments (string[2] provided)"),
        ("@a = lhist(1, 0, 10);", "lhist() requires 4 arguments (3 provided)"),
        ("@a = lhist(1, 0, 10, 0);", "lhist() step must be >= 1 (0 provided)"),
        ("@a = lhist(1, 0, 10000, 1);", "lhist() too many buckets, must be <= 1000 (would need 10000)"),
        ("@a = lhist(1, 10, 0, 1);", "lhist() min must be less than max (provided min 10 and max 0)"),
        ("@a = lhist(1, 0, 10, 20);", "lhist() step is too large for the given range (provided step 20 for range 10)"),
        ("@a = lhist(1, pid, 10, 1);", "lhist: invalid min value (must be non-negative literal)"),
        ("@a = tseries(1, 0, 10);", "tseries() interval_ns must be >= 1 (0 provided)"),
        ('@a = tseries(1, 1s, 10, "foo");',
         "tseries() expects one of the following aggregation functions: avg, max, min, sum (\"foo\" provided)"),
        ("print(@a);", "Undefined map: @a"),
        ("clear(@a);", "Undefined map: @a"),
        ("clear(1);", "clear() expects a map argument"),
        ("@a[1] = 1; clear(@a[1]);", "clear() expects a map argument"),
        ("@a = 1; print(@a, pid);", "print() expects a int literal (int provided)"),
        ("@a[1] = hist(5); print(@a[1]);",
         "Map type hist_t cannot print the value of individual keys. You must print the whole map."),
        ("@a[1] = hist(5); print((1, @a[1]));", "Map type hist_t cannot exist inside a tuple."),
        ("@a[1] = 1; delete(@a);",
         "call to delete() with a single argument expects a map without explicit keys (scalar map)"),
        ("@a = 1; $x = has_key(@a, 1);", "call to has_key() expects a map with explicit keys (non-scalar map)"),
        ("@a[1] = 1; $x = has_key(@a);", "Call to has_key() has arguments that do not match any definition."),
        ("@a = 1; for $kv : @a { }", "@a has no explicit keys (scalar map), and cannot be used for iteration"),
        ("@a[1] = hist(5); for $kv : @a { }", "Loop expression does not support type: hist_t"),
        ("let @a = nosuch(5); begin { @a[1] = 1; }", "Invalid bpf map type: nosuch"),
        ("let @a = hash(5); begin { @a[1] = count(); }",
         "Incompatible map types. Type from declaration: hash. Type from value/key type: percpuhash"),
    ],
)  # fmt: skip
def test_errors(text: str, message: str) -> None:
    text = text if text.startswith("let @") else f"begin {{ {text} }}"
    assert errors(text) == [message]


def test_the_hint_for_copies_of_aggregations() -> None:
    (diagnostic,) = diagnostics("@a = count(); @b = @a;")
    assert diagnostic.hint.endswith("e.g. `@b = (int64)@a;`.")


def test_aggregations_as_numbers() -> None:
    text = "@c = count(); @a = avg(-5); $x = @c; $y = @a; $z = @c + 1; $w = @c > 5; @n = 1; @n = @c; @k[@c] = 1;"
    found = variables(text)
    assert (found["$x"], found["$y"], found["$z"], found["$w"]) == ("uint64", "int64", "uint64", "bool")
    assert maps(text)["@n"] == ("", "uint64") and maps(text)["@k"] == ("uint64", "int8")


def test_delete_in_all_its_forms() -> None:
    first = calls("@a[1] = 1; delete(@a, 1);")["delete"]
    assert first["map"] == "@a" and first["key"] is not None
    old = calls("@a[1] = 1; @b[2] = 1; delete(@a[1], @b[2]);")["delete"]
    assert [name for name, _ in old["targets"]] == ["@a", "@b"]  # type: ignore[attr-defined]
    scalar = calls("@a = 1; delete(@a);")["delete"]
    assert scalar["key"] is None
    several = calls("@a = 1; @b = 1; delete(@a, @b);")["delete"]
    assert [name for name, _ in several["targets"]] == ["@a", "@b"]  # type: ignore[attr-defined]


def test_find_gives_the_variable_its_type() -> None:
    found = variables("begin { @m[1] = comm; let $v; if (find(@m, 1, $v)) { print($v); } }")
    assert found["$v"] == "string[16]"


def test_print_of_maps_and_entries() -> None:
    whole = calls("@a[1] = count(); print(@a, 5, 2);")["print"]
    assert whole["map"] == "@a" and whole["top"] is not None and whole["div"] is not None
    entry = calls("@a[1] = count(); print(@a[1]);")["print"]
    assert "map" not in entry and "entry" in entry


def test_a_loop_over_a_map() -> None:
    found = variables("begin { @m[comm, 1] = count(); for $kv : @m { $k = $kv.0; $c = $kv.1; } }")
    assert found["$kv"] == "((string[16],int8),uint64)"
    assert (found["$k"], found["$c"]) == ("(string[16],int8)", "uint64")


def test_a_loop_sees_what_comes_later() -> None:
    found = variables("begin { for $kv : @m { $k = $kv.0; } @m[1] = 1; } end { @m[1000] = 1; }")
    assert found["$k"] == "int16"


def test_a_loop_over_a_range() -> None:
    assert variables("begin { for $i : 0..pid { $x = $i; } }")["$x"] == "uint32"
    assert errors('begin { for $i : "a"..10 { } }') == ["Loop range requires an integer for the start value"]


# scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$a = $b;", "Undefined or undeclared variable: $b"),
        ("let $x; let $x;", "Variable $x was already declared. Variable shadowing is not allowed."),
        ("$x = 1; if (pid) { let $x = 2; }", "Variable $x was already declared. Variable shadowing is not allowed."),
        ("$i = 5; for $i : 0..10 { }", "Loop declaration shadows existing variable: $i"),
        ("let $x : sum_t;", "Invalid variable declaration type: sum_t"),
        ("let $x : nosuch;", 'Cannot resolve unknown type "nosuch"'),
        ("let $x; print($x);", "Could not resolve the type of this variable"),
        ("break;", "'break' statement is not allowed in a probe"),
        ("continue;", "'continue' statement is not allowed in a probe"),
        ('return "a";', "Probe return values can only be integers. Found string[2]"),
        ("unroll (101) { }", "unroll maximum value is 100"),
        ("unroll (0) { }", "unroll minimum value is 1"),
        ("unroll (pid) { }", "invalid unroll value"),
    ],
)
def test_scopes_and_jumps(text: str, message: str) -> None:
    assert errors(f"begin {{ {text} }}") == [message]


def test_the_first_declaration_is_shown() -> None:
    (diagnostic,) = diagnostics("$x = 1; let $x;")
    assert [n.message for n in diagnostic.notes] == ["This is the initial assignment."]


def test_blocks_have_variables_of_their_own() -> None:
    probe = typed('begin { if (pid) { let $x = 2; print($x); } else { let $x = "a"; print($x); } }').probes[0]
    assert len({info.ident for info in probe.variables.values()}) == 2


def test_old_scripts_use_variables_outside_of_their_blocks() -> None:
    text = "begin { if (pid) { $x = 1; } else { $x = 1000; } print($x); }"
    assert warnings(text) == ["Variable $x is used outside of the block that assigns it"]
    probe = typed(text).probes[0]
    assert len({info.ident for info in probe.variables.values()}) == 1
    assert variables(text) == {"$x": "int16"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("let $x; $y = $x; $x = 1;", "Variable used before it was assigned: $x"),
        ("let $x;", "Variable $x was never assigned to."),
        ("exit(); print(1);", "Unreachable statement."),
        ("while (pid) { break; }", "While loops are deprecated and may be removed in the future."),
        ("@a[1] = 1; for $kv : @a { print(@a); }",
         "Due to it's asynchronous nature using 'print()' in a loop can lead to unexpected behavior. The map will "
         "likely be updated before the runtime can 'print' it."),
    ],
)  # fmt: skip
def test_warnings(text: str, message: str) -> None:
    assert warnings(f"begin {{ {text} }}") == [message]


def test_a_declared_map_that_nobody_uses() -> None:
    assert warnings("let @a = hash(5); begin { }") == ["Unused map: @a"]


def test_blocks_and_choices_have_values() -> None:
    found = variables("begin { $x = { let $y = 5; $y + nsecs }; $z = if (pid) { 1 } else { 2000 }; }")
    assert (found["$x"], found["$z"]) == ("uint64", "int16")


def test_errors_of_an_early_stage_hide_later_ones() -> None:
    assert errors("begin { $x = count(); $y = nosuch; break; }") == ["count() must be assigned directly to a map"]


def test_a_wrong_probe_is_an_error_at_its_place() -> None:
    (diagnostic,) = diagnostics("tracepoint:sched:nosuch { }")
    assert diagnostic.span is not None and diagnostic.span.column == 1


def test_functions_are_checked_though_nothing_can_call_them() -> None:
    assert errors("fn f($a : uint64) : uint64 { return $a + 1; } begin { }") == []
    assert errors("fn f($a : uint64) : uint64 { return $b; } begin { }") == ["Undefined or undeclared variable: $b"]
    assert errors("fn f() : uint64 { return arg0; } begin { }") == ["Builtin arg0 not supported outside probe"]


WORDS = [
    "$x",
    "$y",
    "@m",
    "@m[1]",
    "@m[$x]",
    "@n[comm,pid]",
    "1",
    "-5",
    "300",
    '"a"',
    '"%d',
    '%s\\n"',
    "true",
    "pid",
    "comm",
    "nsecs",
    "curtask",
    "kstack",
    "args",
    ".",
    "->",
    "pid",
    "mm",
    "count()",
    "hist(",
    "sum(",
    "printf(",
    "print(",
    "str(",
    "delete(",
    "has_key(",
    "len(",
    "find(",
    "(",
    ")",
    ",",
    ";",
    ";",
    ";",
    "=",
    "=",
    "+=",
    "++",
    "==",
    "<",
    "+",
    "-",
    "*",
    "&",
    "&&",
    "!",
    "?",
    ":",
    "~",
    "[",
    "]",
    "{",
    "}",
    "if",
    "else",
    "for",
    "while",
    "unroll(3)",
    "let",
    "(uint64)",
    "(struct",
    "task_struct*)",
    "(1,2)",
    ".0",
    "sizeof(",
    "typeof(",
    "return",
    "break",
    "exit()",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_any_text_is_typed_or_refused(words: list[str]) -> None:
    try:
        typed(f"begin {{ {' '.join(words)} }}")
    except (CompileError, ProbeError):
        pass


STATEMENTS = """$x = 1 | $x = $y | $y = @m | @m = $x | @m = (uint64)5 | @k[$x] = $y | @k[@m] = 1 | $x++ | @m++ | $y = $x + @m |
$s = "abc" | $s = comm | $t = ($x, $s) | $t = (1, "abcdefgh") | @t = $t | $y = $t.0 | $p = curtask | $p = $p->parent |
@k[-1] = 3 | $y = (int32)$x | if ($x) { $y = 300 } | for $kv : @k { $x = $kv.1 } | for $i : 0..5 { $y = $i } | @c = count() |
$x = @c | $y = $x ? $y : 5 | @k[1000] = $x | $u = $t | @u = ($u, 1) | $z = &$x | $x = *$z | let $q = $x | delete(@k, $y)"""


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([s.strip() for s in STATEMENTS.split("|")]), min_size=1, max_size=12))
def test_types_settle(statements: list[str]) -> None:
    """Whatever feeds on what: the search for types ends, and its result is a fixed point."""
    text = "begin { " + "; ".join(statements) + "; }"
    try:
        first = typed(text)
    except CompileError:
        return
    for probe in first.probes:
        for node, info in probe.variables.items():
            assert info.type is not None or node not in probe.type_of

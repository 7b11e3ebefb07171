"""Lowering of statements: predicates, loops in place and by callback, jumps out of them, variables that callbacks share."""

from __future__ import annotations

import pytest
from script_machine import PID, World, lower_script, machine, run_body, run_script

from sonde.errors import FeatureError

LOOPS = [
    ("for ($i : 0..3) { print($i); if ($i == 1) { break } }", "0\n1"),
    ("for ($i : 5..3) { print($i) } print(9)", "9"),
    ("for ($i : -2..1) { printf(\"%d \", $i) }", "-2 -1 0 "),
    ("unroll(3) { printf(\"u\") }", "uuu"),
    ("$i = 0; while ($i < 10) { $i++; if ($i % 2) { continue } if ($i > 6) { break } printf(\"%d \", $i) }", "2 4 6 "),
    ("for ($i : 0..3) { for ($j : 0..3) { if ($j == 2) { break } printf(\"%d%d \", $i, $j) } }", "00 01 10 11 20 21 "),
    ("$n = 4; for ($i : 1..$n) { printf(\"%d\", $i) }", "123"),
    ("$n = 0; for ($i : 2..$n) { print($i) } print(7)", "7"),
    ("$x = 5; $n = 3; for ($i : 0..$n) { $x += $i } print($x)", "8"),
    ("$s = \"ab\"; $n = 2; for ($i : 0..$n) { print(($i, $s)); $s = \"cd\" } print($s)", "(0, ab)\n(1, cd)\ncd"),
    ("$n = 9; for ($i : 0..$n) { if ($i == 2) { continue } if ($i > 3) { break } print($i) }", "0\n1\n3"),
    ("$n = 3; for ($i : 0..$n) { for ($j : 0..$n) { if ($j > $i) { break } printf(\"%d%d \", $i, $j) } }",
     "00 10 11 20 21 22 "),
    ("for ($i : 0..200) { @ = count() } print(@)", "@: 200\n\n\n@: 200"),
    ("@m[1] = 10; @m[2] = 20; $x = 5; for ($kv : @m) { $x += $kv.1; print($kv) } print($x); clear(@m)",
     "(1, 10)\n(2, 20)\n35"),
    ("@m[\"a\", 1] = (2, \"b\"); for ($kv : @m) { print($kv.0.0); print($kv.1.1); print(($kv.0.1, $kv.1.0)) } clear(@m)",
     "a\nb\n(1, 2)"),
    ("@m[1] = 1; @m[2] = 2; for ($kv : @m) { if ($kv.0 == 1) { continue } print($kv.1); delete(@m, $kv.0) } clear(@m)", "2"),
    ("@m[1] = 1; for ($kv : @m) { for ($i : 0..2) { print(($i, $kv.1)) } } clear(@m)", "(0, 1)\n(1, 1)"),
    ("@m[1] = 3; for ($kv : @m) { $n = $kv.1; for ($i : 0..$n) { printf(\"%d\", $i + $kv.0) } } clear(@m)", "123"),
    ("let $y; for ($i : 0..3) { $y = $i * 2 } print($y)", "4"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), LOOPS)
def test_prints(script: str, expected: str) -> None:
    assert run_body(script).rstrip("\n") == expected


def test_leaving_a_program_from_its_loops() -> None:
    assert run_body("$n = 5; for ($i : 0..$n) { print($i); if ($i == 1) { return } } print(99)") == "0\n1\n"
    assert run_body(
        "@m[1] = 1; for ($kv : @m) { for ($i : 0..3) { print($i); exit() } } print(99); clear(@m)"
    ).startswith("0\n")
    assert "99" not in run_body("for ($i : 0..3) { for ($j : 0..90) { if ($j == 1) { return } } } print(99)")


def test_nothing_runs_behind_exit() -> None:
    assert run_body("print(1); exit(); print(2)") == "1\n"
    assert run_body("if (pid) { exit() } print(2)") == "\n"


@pytest.mark.parametrize(
    ("predicate", "runs"),
    [("pid == 4242", True), ("pid != 4242", False), ('comm == "worker" && uid == 1000', True), ('comm == "w"', False),
     ("0", False), ("1", True), ("pid == 1 || tid == 4243", True), ("!pid", False)],
)  # fmt: skip
def test_predicates(predicate: str, runs: bool) -> None:
    assert run_script(f"begin /{predicate}/ {{ print(1) }}") == ("1\n" if runs else "\n")


def test_the_process_is_checked_where_the_kernel_does_not() -> None:
    contexts = {"tracepoint": bytes(64)}
    script = 'tracepoint:syscalls:sys_enter_openat { print("hit") } interval:s:1 { exit() }'
    assert run_script(script, contexts=contexts, pid=PID) == "hit\n"
    assert run_script(script, contexts=contexts, pid=PID + 1) == "\n"


def test_old_scripts_read_variables_behind_their_blocks() -> None:
    assert run_body("if (pid) { $x = 5 } print($x)") == "5\n"
    assert run_body("if (!pid) { $x = 5 } print($x)") == "0\n"
    assert run_body('if (!pid) { $x = "abc" } print(($x, 1))') == "(, 1)\n"


def test_a_declared_variable_begins_anew_in_each_round() -> None:
    assert run_body('for ($i : 0..3) { let $x: int64; $x += 1; printf("%d", $x) }') == "111\n"


def test_long_ranges_call_back_and_short_ones_do_not() -> None:
    assert "loop" in _helpers("for ($i : 0..1000) { @ = 1 }")
    assert "loop" not in _helpers("for ($i : 0..50) { @ = 1 }")
    assert "loop" not in _helpers("for ($i : 0..1000) { @ = 1 }", "helper:loop")


def _helpers(body: str, *without: str) -> set[str]:
    module = lower_script(f"begin {{ {body} }}", machine(*without)).module
    return {i.symbol for f in module.functions.values() for b in f.blocks for i in b.insts if i.op == "call"}


@pytest.mark.parametrize(
    ("body", "missing"),
    [("$n = 5; for ($i : 0..$n) { print($i) }", "loop"), ("@m[1] = 1; for ($kv : @m) { print($kv) }", "for_each_map_elem"),
     ("@m[1] = 1; print(len(@m))", "for_each_map_elem"), ("print(nsecs(tai))", "ktime_get_tai_ns")],
)  # fmt: skip
def test_what_the_kernel_lacks_is_named(body: str, missing: str) -> None:
    with pytest.raises(FeatureError, match=f"bpf_{missing}"):
        lower_script(f"begin {{ {body} }}", machine(f"helper:{missing}"))


def test_old_kernels_have_one_clock() -> None:
    assert run_body("print(nsecs)", target=machine("helper:ktime_get_boot_ns")) == "999999999999\n"


def test_stacks_are_found_by_their_content() -> None:
    world = World()
    text = run_body(
        "@[kstack] = count(); @[kstack] = count(); print(len(kstack)); print(kstack == kstack); @u[ustack(2)] = count()",
        world,
    )
    assert text.startswith("3\ntrue\n")
    assert "]: 2" in text
    world.stack = (0x1111,)
    assert len(world.maps["stacks_127"].entries) == 1 and len(world.maps["stacks_2"].entries) == 1


def test_output_functions() -> None:
    assert (
        run_body('print(1); printf("%s %d %x|%5d|%-5d|%c\\n", "abc", -1, 255, 3, 3, 65)')
        == "1\nabc -1 ff|    3|3    |A\n"
    )
    assert run_body('printf("%s\\n", comm); printf("%p\\n", (int32*)16); printf("%10s|%-10s|\\n", "ab", "cd")') == (
        "worker\n0x10\n        ab|cd        |\n"
    )
    assert run_body("@a = 1; print(@a); print(@a); clear(@a)") == "@a: 1\n@a: 1\n"


def test_helper_errors_are_reported_when_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    body = "print(@x[7]); $p = (uint64*)16; print(*$p); @x[1] = 1"
    assert run_body(body, helper_errors=True) == "0\n0\n\n\n@x[1]: 1\n"
    text = capfd.readouterr().err
    assert "helper: map_lookup_elem, retcode: 0" in text
    assert "helper: probe_read_user, retcode: -14" in text
    assert run_body(body) == "0\n0\n\n\n@x[1]: 1\n"
    assert not capfd.readouterr().err

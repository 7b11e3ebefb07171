"""Lowering of expressions: scripts run by the interpreter. What they print is what bpftrace 0.27 prints, but for signed division."""

from __future__ import annotations

import pytest
from script_machine import World, run_body

NUMBERS = [
    ("print(1 + 2 * 3)", "7"),
    ("$a = (uint8)200; print($a + $a)", "400"),
    ("$a = (uint8)200; print(~$a); print(-$a); print(!$a)", "55\n56\nfalse"),
    ("$a = (int8)-8; print($a >> 1)", "9223372036854775804"),
    ("$a = (uint8)200; print($a << 4); print($a ^ 1); print($a & 0x48); print($a | 3)", "3200\n201\n72\n203"),
    ("$a = -7; $b = (int64)2; print($a / $b); print($a % $b)", "-3\n-1"),
    ("$a = 7; $b = (uint64)2; print($a / $b); print($a % $b)", "3\n1"),
    ("$a = (int32)-1; $b = (uint32)1; print($a < $b)", "true"),
    ("$a = (uint64)-1; print($a > 5); print((int64)$a < 5)", "true\ntrue"),
    ("$a = (int64)0xffffffff; print((int32)$a); print((uint8)$a); print((bool)$a)", "-1\n255\ntrue"),
    ("$a = (int8)127; $a++; print($a); print($a--); print(--$a)", "128\n128\n126"),
    ("$p = (uint64*)1000; print($p + 1); print($p - 1); $p++; print($p)", "0x3f0\n0x3e0\n0x3f0"),
    ("$q = (int32*)8; print($q == (int32*)8); print($q + 2)", "true\n0x10"),
    ("$x = 1; $x <<= 3; $x |= 1; $x ^= 3; $x %= 4; $x -= 10; $x *= 3; print($x)", "-24"),
    ("let $x: uint16 = 65535; $x++; print($x)", "0"),
    ("let $x: int8; print($x)", "0"),
    ("print(bswap((uint32)0x11223344)); print(bswap((uint16)0x1122)); print(bswap((uint8)5))", "1144201745\n8721\n5"),
    ("print((1 == 1) && (2 > 3)); print(1 || 0); print(!0)", "false\ntrue\ntrue"),
]

CONDITIONS = [
    ("$x = 5; print($x > 3 && $x < 10); print($x > 3 ? 1 : 2); print($x ?: 7)", "true\n1\n5"),
    ("$x = 0; print($x ?: 7); print($x || $x); print($x && $x)", "7\nfalse\nfalse"),
    ("$x = 5; if ($x == 4) { print(1) } else if ($x == 5) { print(2) } else { print(3) }", "2"),
    ('$a = 5; $b = if ($a > 3) { "yes" } else { "nope" }; print($b)', "yes"),
    ("$c = { let $z = 3; $z + 1 }; print($c)", "4"),
    ('$a = 1; print($a ? "x" : "yyy")', "x"),
    ("if (@m[1]) { print(1) } else { print(2) } @m[1] = 5; if (@m[1] && @m[1] > 3) { print(3) }", "2\n3\n\n\n@m[1]: 5"),
    ("$x = 3; if (!($x == 3 || $x == 4)) { print(1) } else { print(2) }", "2"),
]

STRINGS = [
    (
        '$s = "abc"; print($s == "abc"); print($s != "abd"); print($s == "abcd"); print($s == "ab")',
        "true\ntrue\nfalse\nfalse",
    ),
    ('$a = "abc"; $b = "abc"; $b = "longer string"; print($a == $b); print($b)', "false\nlonger string"),
    (
        'print(comm == "worker"); print("worker" == comm); print(comm == "workers"); print(comm == "work")',
        "true\ntrue\nfalse\nfalse",
    ),
    ('$s = "abc"; $t = $s; print($s == $t); @s = $s; print(@s == $t)', "true\ntrue\n\n\n@s: abc"),
    ('$a = "0123456789abcdefg"; $b = "0123456789abcdefh"; print($a == $b)', "false"),
    ('print(strncmp(comm, "wor", 3)); print(strncmp(comm, "wox", 3)); print(strncmp(comm, "wox", 2))', "0\n1\n0"),
    ('print(strlen("abc")); $s = comm; print(strlen($s)); print(strcap($s))', "3\n6\n16"),
    (
        '$c = comm; print(strcontains($c, "rk")); print(strcontains($c, "zz")); print(strcontains($c, ""))',
        "true\nfalse\ntrue",
    ),
    ('$c = comm; print(strstr($c, "ker")); print(strstr($c, "zz")); $n = "er"; print(strstr($c, $n))', "3\n-2\n4"),
    ('$c = comm; print(str_concat($c, "cd")); print(str_concat("ab", $c))', "workercd\nabworker"),
    (
        '$c = comm; print(memcmp($c, "wor", 3)); print(memcmp("abd", "abc", 3)); print(memcmp("abc", "abd", 3))',
        "0\n1\n-1",
    ),
    ('$s = "abc"; print($s[1])', "98"),
    ('print(str("abcdef", 3))', "ab"),
    (
        'print(buf("abcd", 4)); printf("%r|%rx|%rh\\n", buf("ab\\x01", 3), buf("ab", 2), buf("ab", 2))',
        "abcd\nab\\x01|\\x61\\x62|61 62",
    ),
]

COMPOSED = [
    ("print((1, (int8)2, \"abc\", (3, 4)))", "(1, 2, abc, (3, 4))"),
    ("$t = (1, \"a\"); print($t == (1, \"a\")); print($t.1); print(($t.0, $t.1))", "true\na\n(1, a)"),
    ("$x = (1, \"ab\"); $x = (2, \"abcdef\"); print($x); print($x == (2, \"abcdeg\"))", "(2, abcdef)\nfalse"),
    ("$t = (1, (uint64)2); $t = ($t.1, $t.0); print($t)", "(2, 1)"),
    ("$s = (a=1, b=\"xy\", c=(2,3)); print($s.b); print($s.c.1); print($s)",
     "xy\n3\n{ .a = 1, .b = xy, .c = (2, 3) }"),
    ("$a = (uint8[4])0x01020304; print($a); print($a[2]); $i = 3; print($a[$i]); print(ntop($a))",
     "[4,3,2,1]\n2\n1\n4.3.2.1"),
    ("$a = (uint8[2])258; $b = (uint8[2])258; print($a == $b); print($a != $b)", "true\nfalse"),
    ("print(ntop(0x0100007f)); print(ntop(pton(\"::1\"))); print(ntop(10, pton(\"::1\")))", "127.0.0.1\n::1\n::1"),
    ("print(macaddr((uint8[8])0x112233445566))", "66:55:44:33:22:11"),
    ("print(strerror(2)); print(signal_name(9)); print(syscall_name(1))", "No such file or directory\nKilled\nwrite"),
    ("print((pid, tid, uid, gid, cpu, ncpus))", "(4242, 4243, 1000, 100, 0, 2)"),
    ("print(nsecs); print(nsecs(monotonic)); print(elapsed > 0); print(rand)",
     "1000000000000\n999999999999\ntrue\n7"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), NUMBERS + CONDITIONS + STRINGS + COMPOSED)
def test_prints(script: str, expected: str) -> None:
    assert run_body(script) == expected + "\n"


def test_a_division_by_zero_gives_one_and_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_body("$z = 0; print(7 / $z); print(7 % $z)") == "1\n1\n"
    assert capfd.readouterr().err.count("Divide or modulo by 0 detected") == 2


def test_printf_evaluates_in_the_order_of_its_arguments() -> None:
    assert run_body('$x = 1; printf("%d %d %d\\n", $x, $x++, $x)') == "1 1 2\n"
    assert run_body('@ = 1; printf("%d %d %d\\n", @, @++, @)').startswith("1 1 2\n")


def test_an_assignment_may_read_what_it_writes() -> None:
    assert run_body('$t = ("ab", "cd"); $t = ($t.1, $t.0); print($t)') == "(cd, ab)\n"
    assert run_body('@t = ("ab", "cd"); @t = (@t.1, @t.0)') == "@t: (cd, ab)\n"


def test_what_stands_behind_a_name_does_not_make_another_key() -> None:
    world = World()
    world.comm = b"ab"
    assert run_body("@[comm] = count(); @[comm] = count()", world) == "@[ab]: 2\n"
    assert run_body('$c = comm; @[$c] = count(); @["ab"] = count()', World()) == "@[ab]: 1\n@[worker]: 1\n"


def test_casts_between_strings_keep_the_text() -> None:
    assert run_body('$s = "abc"; $t = (string[16])$s; print($t); print($t == "abc")') == "abc\ntrue\n"

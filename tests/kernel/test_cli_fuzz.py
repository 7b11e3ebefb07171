"""Debian's tools and scripts of our own, damaged: whatever the text, the command line answers in order, without a traceback."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path

import pytest

from sonde.cli.main import run

pytestmark = pytest.mark.kernel

OWN = (
    'BEGIN { $a = (1, "x", (2, 3)); @m[$a.1, $a.2.0] = count(); print(@m, 3, 2); for ($k : @m) { print($k.0) } }',
    "macro add($a, b) { $a + b } BEGIN { let $x : uint64 = 5; @q[add($x, 3)] = (int8)$x; $s = { .a = 1 }; clear(@q) }",
    "config = { max_strlen = 64 } profile:hz:99 { @[kstack(3), ustack(perf, 4)] = count() } interval:s:1 { exit(3) }",
    "struct x { int a; union { int c; long d; }; } BEGIN { $p = (struct x *)0; print($p->c); unroll(3) { $z = 1 } }",
    "uprobe:libc:malloc /arg0 > 10 || pid == 3/ { @[usym(arg0), func, probe] = sum(arg0); join(arg1) }",
)
PIECES = (
    *"{}()[];,.:?&*-!~%@\\", "->", "...", "..", "++", "<<", "$x", "@a", "1e9", "5s", '"s"', "0xffffffffffffffff", "\0", "é",
    "/*", "//", "if", "for", "while", "count()", "hist(", "str(", "args", "kstack", "(uint8)", "return", "macro", "let",
    "#include <x>", "struct task_struct", "sizeof(", "offsetof(", "$1", "$#", "unroll(", '"%s %d"', "printf(", "config = {",
)  # fmt: skip


def scripts() -> list[str]:
    return [*OWN, *(path.read_text() for path in sorted(Path("/usr/sbin").glob("*.bt")))]


def damaged(rng: random.Random, seeds: list[str]) -> str:
    text = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.randint(1, 12))
        other = rng.choice(seeds)
        start = rng.randrange(len(other))
        inserted = rng.choice(("", rng.choice(PIECES), text[at:end] * 3, other[start : start + 30]))
        text = text[:at] + inserted + text[rng.choice((at, end)) :]
    return text


@pytest.mark.parametrize("words", [("trace", "--explain"), ("bpftrace", "--fmt"), ("bpftrace", "-l")], ids=" ".join)
def test_damaged_scripts(words: tuple[str, ...]) -> None:
    rng, seeds = random.Random(" ".join(words)), scripts()
    for _ in range(60):
        text = damaged(rng, seeds)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run("sonde", [*words, "-e", text])
        assert status in (0, 1, 2), text
        assert status == 0 or "ERROR" in err.getvalue(), text

"""Types and type errors, beside those of a bpftrace of 0.27 or later, where one is installed and may run."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bt_typing import diagnostics, variables

pytestmark = pytest.mark.oracle
PEERS = Path(__file__).resolve().parents[2] / "bench" / "peers.py"


@pytest.fixture(scope="module")
def peer() -> tuple[str, ...]:
    """The command of the reference."""
    if os.geteuid() != 0:
        pytest.skip("bpftrace needs root even to check a program")
    spec = importlib.util.spec_from_file_location("peers", PEERS)
    assert spec is not None and spec.loader is not None
    peers: Any = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["peers"] = peers  # its dataclasses look themselves up
    spec.loader.exec_module(peers)
    for found in reversed(peers.find_peers()):
        if [int(x) for x in found.version.split(".")[:2]] >= [0, 27]:
            command: tuple[str, ...] = found.command
            return command
    pytest.skip("no bpftrace of 0.27 or later: python bench/peers.py --fetch")


def run(peer: tuple[str, ...], program: str) -> tuple[list[str], dict[str, str]]:
    """Return the errors (place and message) and the types of the assigned variables."""
    done = subprocess.run(
        [*peer, "--dry-run", "-d", "types", "-e", program], capture_output=True, text=True, errors="replace", timeout=60
    )
    wrong = re.findall(r"^(stdin:[\d:-]+: ERROR: .*)$", done.stderr, re.MULTILINE)
    types = {}
    for line in done.stdout.splitlines():
        assigned = re.match(r"^\s*(?:let )?(\$\w+)(?: : [^=]*)? = (.*);$", line)
        if assigned and "$$" not in line:
            types[assigned[1]] = re.findall(r"/\* (.*?) \*/", assigned[2])[-1]
    return wrong, types


RIGHT = (
    "$a = 1; $b = 128; $c = -129; $d = 9223372036854775808; $e = 0xff; $f = 1s;",
    "$x = 1; $x = (uint32)5; $y = (uint8)1; $y = -1; $z = (uint64)1; $z = (int64)-1;",
    "$x = nsecs - 5; $y = nsecs * 2; $z = pid << 3; $w = (int16)5 / 2; $v = ~pid; $u = -nsecs;",
    "$x = pid == 5 && uid; $y = pid ? 2 : 1000; $z = pid ?: 5;",
    '$x = ("a", 1); $x = ("abcd", 2000); $y = $x.0; $z = (a=1, b="x").b;',
    "$x = (uint8[])nsecs; $y = $x[0]; $z = (int16[])nsecs;",
    "$x = kstack(3); $y = ustack(perf); $z = kstack(raw, 5); $w = buf(nsecs, 10); $v = str(nsecs, 5);",
    "@a = count(); $x = @a; $y = @a + 1; @b = avg(-5); $z = @b;",
    "$x = 5; $x++; $y = (uint8)5; $y++; $z = (uint64)5; $z -= 1;",
    "let $x : uint64 = nsecs; $x = 5; let $y : string[20] = comm;",
    "$x = (bool)5; $y = true == false; $z = !pid;",
    "$x = bswap((uint16)5); $y = strncmp(comm, \"a\", 1); $z = nsecs(boot); $w = macaddr(comm);",
)  # fmt: skip

WRONG = (
    '$x = 1; $x = "x";',
    "let $x : int8 = 300;",
    '@a = 1; @a = "x";',
    '@a[1] = 1; @a["x"] = 1;',
    "@a[1] = 1; @a = 1;",
    "@a = count(); @a = 5;",
    "@a = count(); @b = @a;",
    "@a = hist(1); $x = (int64)@a;",
    "$a = $b;",
    "let $x; let $x;",
    "break;",
    '$x = (uint8)"a";',
    "$x = (1, 2, 3) == 5;",
    "$x = pid ? 1 : \"a\";",
    "$x = nsecs[1];",
    'printf("%d", comm);',
    'printf("%d %d", 1);',
    "print(@undefined);",
    "@ = lhist(5, 0, 10, 0);",
    "@ = hist(5, 6);",
    "$x = kstack(5000);",
    "$x = nsecs(foo);",
    "$x = count();",
    "unroll (101) { }",
    "nosuch(1);",
    '$x = -9223372036854775809; $y = 1;',
)  # fmt: skip


@pytest.mark.parametrize("text", RIGHT)
def test_types_are_the_same(peer: tuple[str, ...], text: str) -> None:
    program = f"begin {{ {text} }}"
    wrong, types = run(peer, program)
    assert not wrong and types
    ours = variables(program)
    assert {name: ours[name] for name in types} == types


@pytest.mark.parametrize("text", WRONG)
def test_errors_are_the_same(peer: tuple[str, ...], text: str) -> None:
    program = f"begin {{ {text} }}"
    wrong, _ = run(peer, program)
    found = diagnostics(program)
    assert found and wrong
    assert found[0].render().splitlines()[0] == wrong[0]

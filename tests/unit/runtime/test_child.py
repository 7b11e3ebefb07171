"""Starting the command of -c."""

from __future__ import annotations

import os

import pytest

from sonde.errors import TargetError
from sonde.runtime.child import Child, find_program, split_command


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls /", ["ls", "/"]),
        ("  ls   -l\t/tmp ", ["ls", "-l", "/tmp"]),
        ("sh -c 'echo a; echo \"b\"'", ["sh", "-c", 'echo a; echo "b"']),
        ('echo "a b"c', ["echo", "a bc"]),
        ("echo ''", ["echo", ""]),
        (r"echo a\ b", ["echo", "a b"]),
        (r"grep \d+ 'x\y' ", ["grep", r"\d+", r"x\y"]),
        (r'echo "a\"b\n"', ["echo", r'a"b\n']),
        ("", []),
    ],
)
def test_split(command: str, words: list[str]) -> None:
    assert split_command(command) == words


def test_open_quote_is_refused() -> None:
    with pytest.raises(TargetError, match="closing"):
        split_command("echo 'a b")


def test_programs_are_searched_in_path(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    program = f"{tmp_path}/my-program"
    with open(program, "w") as file:
        file.write("#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"/nonexistent:{tmp_path}")
    with pytest.raises(TargetError, match="my-program"):
        find_program("my-program")
    os.chmod(program, 0o755)
    assert find_program("my-program") == program
    assert find_program(program) == program


@pytest.mark.parametrize("command", ["", "no-such-program-here x", "/etc/passwd", "/nonexistent/x", "/"])
def test_commands_that_cannot_start(command: str) -> None:
    with pytest.raises(TargetError):
        Child(command)


def test_program_that_exec_refuses(tmp_path: object) -> None:
    program = f"{tmp_path}/broken"
    with open(program, "wb") as file:
        file.write(b"\x7fELFnonsense")
    os.chmod(program, 0o755)
    child = Child(program)
    with pytest.raises(TargetError, match="broken"):
        child.release()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_nothing_runs_before_release(tmp_path: object) -> None:
    child = Child(f"touch {tmp_path}/mark")
    assert not os.path.exists(f"{tmp_path}/mark")
    child.close()
    child.close()
    assert not os.path.exists(f"{tmp_path}/mark")


def test_child_has_its_signals_back(tmp_path: object) -> None:
    """Programs must not inherit that Python ignores SIGPIPE."""
    out = f"{tmp_path}/status"
    child = Child(f"cp /proc/self/status {out}")
    child.release()
    os.waitpid(child.pid, 0)
    child.close()
    with open(out) as file:
        ignored = next(line for line in file if line.startswith("SigIgn"))
    assert int(ignored.split()[1], 16) & (1 << 12) == 0

"""Commands taken to their first instruction."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import user_targets
from user_targets import KINDS

from sonde.errors import TargetError
from sonde.runtime.child import Child
from sonde.user.follow import read_entry
from sonde.user.spawn import read_exec, run_on_to_entry, run_to_exec
from sonde.user.stopped import StoppedProcess

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls in another process are for x86-64")


def run_to_entry(pid: int, release: Callable[[], object]) -> None:
    """To the first instruction of the process, which is the loader's for most programs, and on to that of its program."""
    run_to_exec(pid, release)
    run_on_to_entry(pid)


def finish(child: Child) -> int:
    """Wait for the end of a child; its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_programs_stop_before_their_first_instruction(kind: str) -> None:
    path = user_targets.build(kind)
    child = Child(f"{path} vfork 0")
    try:
        run_to_entry(child.pid, child.release)
        with StoppedProcess(child.pid, held=[child.pid]) as stopped:
            assert stopped.threads == [child.pid]
            assert stopped.get_pc(child.pid) == read_entry(child.pid)
            libraries = {m.path for m in stopped.maps() if "libc.so" in m.path}
            assert bool(libraries) == ("static" not in kind)
            assert stopped.system_call("getpid") == child.pid
        assert finish(child) == 0
    finally:
        child.close()


@pytest.mark.parametrize("kind", KINDS)
def test_processes_stop_before_their_first_instruction(kind: str) -> None:
    path = str(user_targets.build(kind))
    child = Child(f"{path} vfork 0")
    try:
        run_to_exec(child.pid, child.release)
        with StoppedProcess(child.pid, held=[child.pid]) as stopped:
            assert (stopped.get_pc(child.pid) == read_entry(child.pid)) == ("static" in kind)
            number, name, words, _ = read_exec(child.pid, stopped)
            assert (number, stopped.read(name, len(path) + 1)) == (59, path.encode() + b"\0")
            second = int.from_bytes(stopped.read(words + 8, 8), "little")
            assert stopped.read(second, 6) == b"vfork\0"
            stopped.go_to_entry()
            assert stopped.get_pc(child.pid) == read_entry(child.pid)
            assert stopped.system_call("getpid") == child.pid
        assert finish(child) == 0
    finally:
        child.close()


def test_scripts_stop_in_their_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(stat.S_IRWXU)
    child = Child(str(script))
    try:
        run_to_entry(child.pid, child.release)
        with StoppedProcess(child.pid, held=[child.pid]) as stopped:
            assert os.readlink(f"/proc/{child.pid}/exe") == os.path.realpath("/bin/sh")
            assert stopped.get_pc(child.pid) == read_entry(child.pid)
        assert finish(child) == 7
    finally:
        child.close()


def test_what_cannot_be_run_is_said_as_without_tracing(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(b"\x7fELF and no more")
    path.chmod(stat.S_IRWXU)
    child = Child(str(path))
    with pytest.raises(TargetError, match="Exec format error"):
        run_to_entry(child.pid, child.release)
    child.close()


def test_a_command_that_is_killed_before_it_begins() -> None:
    child = Child("/bin/true")
    with pytest.raises(TargetError, match="ended before its program began"):
        run_to_entry(child.pid, lambda: os.kill(child.pid, 9))
    child.close()

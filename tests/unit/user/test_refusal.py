"""What a process that cannot be traced, or cannot give sonde memory, is told to do about it."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

import pytest
from user_targets import Target

from sonde.errors import KernelError, PrivilegeError, SondeError, TargetError
from sonde.user import memory, refusal
from sonde.user.agent import Agent, find_agents
from sonde.user.stopped import StoppedProcess

PLAIN = {"Name": "prog", "State": "S (sleeping)", "Tgid": "77", "TracerPid": "0", "Uid": "1000 1000 1000 1000",
         "Gid": "1000 1000 1000 1000", "CapPrm": "0", "CapEff": "0", "VmSize": "100 kB", "PPid": "1"}  # fmt: skip


def explained(
    monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str], ours: dict[str, str] | None = None, yama: str = ""
) -> SondeError:
    """The error for a process with the status PLAIN but for `theirs`, seen by a sonde with PLAIN but for `ours`."""
    statuses = {os.getpid(): PLAIN | (ours or {})}
    monkeypatch.setattr(refusal, "read_status", lambda pid: statuses.get(pid, PLAIN | theirs))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 1000)
    monkeypatch.setattr(refusal, "_YAMA", yama)
    return refusal.explain(77777777)


def test_the_reasons_in_their_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = {"CapEff": f"{1 << 19:x}"}
    cases = [
        ({"State": "Z (zombie)"}, None, TargetError, "has ended; its parent, process 1"),
        ({"Kthread": "1"}, None, TargetError, "thread of the kernel"),
        ({"TracerPid": "5", "Uid": "0 0 0 0"}, None, TargetError, "already traced by process 5"),
        ({"Uid": "0 0 0 0"}, None, PrivilegeError, "belongs to user 0, and sonde runs as user 1000"),
        ({"Uid": "1000 0 0 0"}, None, PrivilegeError, "belongs to user 1000/0/0"),
        ({"Gid": "1000 5 5 5"}, None, PrivilegeError, "runs with group 1000/5"),
        ({"CapPrm": "2000"}, None, PrivilegeError, "capabilities that sonde lacks (mask 0x2000)"),
        ({"CapPrm": "2000"}, {"CapPrm": "2001"}, PrivilegeError, "nothing in /proc says why"),
        ({"Uid": "0 0 0 0"}, root, PrivilegeError, "nothing in /proc says why"),
    ]
    for theirs, ours, kind, text in cases:
        found = explained(monkeypatch, theirs, ours)
        assert isinstance(found, kind) and text in found.message, (theirs, found)
    for scope, ours, text in [
        ("1", None, "is 1, which lets a user trace only what was started below"),
        ("2", None, "is 2, which leaves it to administrators"),
        ("3", root, "is 3, which forbids all tracing"),
        ("1", root, "nothing in /proc says why"),
        ("0", None, "nothing in /proc says why"),
    ]:
        (tmp_path / "scope").write_text(scope + "\n")
        found = explained(monkeypatch, {}, ours, str(tmp_path / "scope"))
        assert isinstance(found, PrivilegeError) and text in found.message and found.hint, (scope, found)


def test_no_process_is_said_to_be_none() -> None:
    error = refusal.explain(4194305)  # more than there can be
    assert isinstance(error, TargetError) and "there is no process" in error.message


needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls in another process are for x86-64")


@needs_x86
@pytest.mark.parametrize(
    ("limit", "value", "call"), [("RLIMIT_NOFILE", 3, "memfd_create"), ("RLIMIT_AS", 1 << 20, "mmap")]
)
def test_memory_that_the_process_cannot_make(limit: str, value: int, call: str) -> None:
    with Target("spin", "1") as target:
        number = getattr(resource, limit)
        before = resource.prlimit(target.pid, number)
        maps, files = Path(f"/proc/{target.pid}/maps").read_text(), os.listdir(f"/proc/{target.pid}/fd")
        resource.prlimit(target.pid, number, (value, before[1]))
        with StoppedProcess(target.pid) as stopped:
            place = stopped.get_pc(stopped.threads[0])
            with pytest.raises(KernelError, match=f"its call of {call} failed"):
                Agent.create(stopped, (place, place), 4096)
        resource.prlimit(target.pid, number, before)
        assert Path(f"/proc/{target.pid}/maps").read_text() == maps
        assert os.listdir(f"/proc/{target.pid}/fd") == files


@needs_x86
def test_addresses_that_are_taken_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads run while memory is made: what was free may not be."""
    with Target("spin", "1") as target:
        files = os.listdir(f"/proc/{target.pid}/fd")
        with StoppedProcess(target.pid, all_threads=False) as stopped:
            taken = next(m.start for m in stopped.maps() if m.path == "[heap]")
            answers = [taken, taken]
            find = memory.find_gap
            monkeypatch.setattr(memory, "find_gap", lambda *given: answers.pop() if answers else find(*given))
            agent = Agent.create(stopped, (taken, taken), 4096)
            assert not answers and agent.address != taken
            agent.remove(stopped)
            answers.extend([taken] * 10)
            with pytest.raises(TargetError, match="faster than sonde finds free addresses"):
                Agent.create(stopped, (taken, taken), 4096)
        assert find_agents(target.pid) == []
        assert os.listdir(f"/proc/{target.pid}/fd") == files

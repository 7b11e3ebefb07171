"""A descriptor handed to a process: it maps what that is open for and keeps nothing open, and if sonde is killed on the way, no descriptor of the process's is touched."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running

from sonde.errors import KernelError
from sonde.user.agent import Agent, find_agents
from sonde.user.memory import PAGE, PROT_READ, PROT_WRITE, find_gap, share_at
from sonde.user.passing import SCRATCH_BYTES, map_descriptor
from sonde.user.stopped import StoppedProcess

ANSWERS = "import sys; print('ready', flush=True)\nfor line in sys.stdin: print(int(line) + 1, flush=True)"
SRC = Path(__file__).resolve().parents[3] / "src"
CALLS = 9


@pytest.fixture
def app() -> Iterator[Running]:
    if os.uname().machine != "x86_64":
        pytest.skip("system calls in another process are made on x86-64 only")
    running = Running(sys.executable, "-c", ANSWERS)
    yield running
    running.close()


def descriptors(app: Running) -> dict[str, str]:
    folder = f"/proc/{app.pid}/fd"
    return {name: os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}


@pytest.fixture
def values() -> Iterator[int]:
    fd = os.memfd_create("values", os.MFD_CLOEXEC)
    os.ftruncate(fd, 2 * PAGE)
    os.pwrite(fd, b"from sonde", 100)
    yield fd
    os.close(fd)


def test_both_have_what_the_descriptor_is_open_for(app: Running, values: int) -> None:
    before = descriptors(app)
    with StoppedProcess(app.pid, all_threads=False) as stopped:
        agent = Agent.create(stopped, near=(stopped.maps()[0].start,) * 2, size=PAGE)
        page = agent.borrow(stopped, values, 2 * PAGE)
    try:
        assert app.read(page.address + PAGE + 100, 10) == b"from sonde"
        app.write(page.address + 2 * PAGE + 50, b"from there")
        assert os.pread(values, 10, PAGE + 50) == b"from there"
        assert descriptors(app) == before and app.ask("41") == 42
        assert app.read(page.address + PAGE // 2, SCRATCH_BYTES) == bytes(SCRATCH_BYTES)
        assert (page.address, PAGE) in agent.memories and (page.address + PAGE, 2 * PAGE) in agent.memories
        with StoppedProcess(app.pid, all_threads=False) as stopped:
            agent.remove(stopped)
        assert app.traces() == [] and "values" not in Path(f"/proc/{app.pid}/maps").read_text()
    finally:
        os.close(page.fd)


def test_what_cannot_be_mapped_leaves_nothing(app: Running) -> None:
    before = descriptors(app)
    reading, writing = os.pipe()
    try:
        with StoppedProcess(app.pid, all_threads=False) as stopped:
            agent = Agent.create(stopped, near=(stopped.maps()[0].start,) * 2, size=PAGE)
            with pytest.raises(KernelError, match="could not map"):
                agent.borrow(stopped, reading, PAGE)
            agent.remove(stopped)
    finally:
        os.close(reading)
        os.close(writing)
    assert descriptors(app) == before and app.traces() == [] and app.ask("1") == 2


def hand_over(pid: int, fd: int) -> int:
    with StoppedProcess(pid, all_threads=False) as stopped:
        address = find_gap(stopped.maps(), 2 * PAGE, None)
        page = share_at(stopped, "scratch", address, PAGE, PROT_READ | PROT_WRITE)
        assert page is not None
        with mmap.mmap(page.fd, PAGE) as view:
            result = map_descriptor(stopped, fd, address + PAGE, PAGE, view, address)
        os.close(page.fd)
        return result


def be_killed(pid: int, step: int) -> None:
    """Be killed behind the call number `step`, before anything is done about it."""
    real = StoppedProcess.run

    def run(self: StoppedProcess, calls: list, after: object = None) -> list[int]:  # type: ignore[type-arg]
        steps = dict(after or {})  # type: ignore[call-overload]
        if len(calls) == CALLS:
            steps[step] = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        return real(self, calls, steps)

    StoppedProcess.run = run  # type: ignore[method-assign]
    hand_over(pid, os.memfd_create("values"))


@pytest.mark.parametrize("step", range(CALLS))
def test_sonde_is_killed_on_the_way(app: Running, step: int) -> None:
    before = descriptors(app)
    source = f"from user.test_passing import be_killed; be_killed({app.pid}, {step})"
    folders = (str(SRC), str(Path(__file__).parents[1]), str(Path(__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": ":".join(folders)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    for number in range(5):
        assert app.ask(str(number)) == number + 1
    after = descriptors(app)
    assert {name: after[name] for name in before} == before
    left = sorted(after[name].split(":")[0] for name in after.keys() - before.keys())
    assert left in ([], ["socket"], ["socket", "socket"], ["/memfd"], ["/memfd", "socket"])
    assert not find_agents(app.pid)

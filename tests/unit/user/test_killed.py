"""sonde killed at any moment: the process goes on unharmed, and the next sonde takes out what is left."""

from __future__ import annotations

import os
import platform
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from user_probe import Probe
from user_running import text_of
from user_targets import Target

from sonde.errors import TargetError
from sonde.user.agent import find_agents
from sonde.user.calls import Call
from sonde.user.cleaning import remove_agents
from sonde.user.stopped import StoppedProcess

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")

TIMES = 15


def trace(target: Target) -> None:
    """Do all that a tracer does: clean up behind an earlier one, bring memory, put a probe in and take it out."""
    remove_agents(target.pid)
    probe = Probe(target, "probed")
    probe.put_in()
    probe.take_out()
    probe.put_in()
    time.sleep(0.005)
    probe.take_out()
    probe.remove()


def fork_tracer(target: Target, limit_s: float) -> None:
    """Let a process of its own trace again and again, and kill it after a while."""
    child = os.fork()
    if not child:
        try:
            while True:
                trace(target)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(1)
    time.sleep(limit_s)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert target.process.poll() is None, f"the process ended: {target.process.returncode}"
    assert status == signal.SIGKILL, "the tracer failed before it was killed"


@pytest.mark.parametrize("what", ["spin", "signals", "waits"])
def test_what_a_tracer_has_killed_in_its_system_calls_left_is_taken_away(what: str) -> None:
    """Nothing else is there that would tell of it: no memory, no site."""
    with Target(what, "3") as target:
        clean = text_of(target.pid)
        tracer = os.fork()
        if not tracer:
            with StoppedProcess(target.pid) as stopped:
                stopped.run([Call("getpid", ())] * 3, {1: lambda _: os.kill(os.getpid(), signal.SIGKILL)})
            os._exit(1)
        assert os.waitpid(tracer, 0)[1] == signal.SIGKILL
        assert text_of(target.pid) != clean
        assert remove_agents(target.pid) == []
        assert text_of(target.pid) == clean
        if what == "waits":
            assert target.process.stdin is not None
            target.process.stdin.write("go\n")
        target.finish()


@pytest.mark.parametrize("what", ["spin", "signals", "waits"])
def test_a_tracer_killed_at_random_moments(what: str) -> None:
    times = int(os.environ.get("SONDE_KILLS", TIMES))
    random.seed(os.environ.get("SONDE_KILLS_SEED", what))
    with Target(what, "3") as target:
        clean = text_of(target.pid)
        mapped = Path(f"/proc/{target.pid}/maps").read_text()
        descriptors = os.listdir(f"/proc/{target.pid}/fd")
        sites, begun = 0, time.monotonic()
        trace(target)
        takes = time.monotonic() - begun
        number = 0
        while number < times or (not sites and number < 20 * times):
            number += 1
            fork_tracer(target, random.random() * 1.5 * takes)
            left = find_agents(target.pid)
            assert all(not agent.alive for agent in left)
            sites += sum(len(agent.sites) for agent in left)
        until = time.monotonic() + 5  # a thread may still be in the system calls of the last one: nobody waits for it
        while True:
            for cleaned in remove_agents(target.pid):
                assert (cleaned.foreign, cleaned.reasons) == ((), ())
            found = Path(f"/proc/{target.pid}/maps").read_text(), os.listdir(f"/proc/{target.pid}/fd")
            if found == (mapped, descriptors) or time.monotonic() > until:
                break
            time.sleep(0.01)
        assert found == (mapped, descriptors)
        assert text_of(target.pid) == clean
        assert sites, "no kill came while a probe was in place"
        if what == "waits":
            assert target.process.stdin is not None
            target.process.stdin.write("go\n")
        target.finish()


def test_a_process_killed_at_random_moments_is_an_error_that_says_so() -> None:
    random.seed("target")
    ends = set()
    takes = 0.03
    for _ in range(int(os.environ.get("SONDE_KILLS", TIMES)) * 2):
        target = Target("spin", "3")
        # os.kill, since Popen.kill waits for the process first: in the tracer's own process that would take a stop away from it
        timer = threading.Timer(random.random() * 1.2 * takes, os.kill, (target.pid, signal.SIGKILL))
        begun = time.monotonic()
        timer.start()
        try:
            trace(target)
            takes = max(0.005, time.monotonic() - begun)
            ends.add("done")
        except TargetError as error:
            ends.add("was killed" if "killed" in error.message else "other")
        timer.cancel()
        target.process.kill()
        assert target.process.wait(5) == -signal.SIGKILL  # nothing of it is left unreaped with us
        target.process.communicate()
    assert "was killed" in ends or "other" in ends


def test_a_killed_process_is_left_for_its_parent() -> None:
    """Here its parent is another process than the tracer: what the tracer has not taken note of would keep it a zombie."""
    random.seed("parent")
    for _ in range(8):
        with Target("spin", "3") as target:
            reader, writer = os.pipe()
            tracer = os.fork()
            if not tracer:
                try:
                    while True:
                        trace(target)
                except TargetError:
                    os.write(writer, b"error")
                    time.sleep(60)
                finally:
                    os._exit(1)
            time.sleep(random.random() * 0.03)
            os.kill(target.pid, signal.SIGKILL)
            os.close(writer)
            assert os.read(reader, 5) == b"error"
            assert target.process.wait(5) == -signal.SIGKILL
            os.kill(tracer, signal.SIGKILL)
            os.waitpid(tracer, 0)
            os.close(reader)

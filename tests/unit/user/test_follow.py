"""What becomes of traced processes: other programs, libraries that are loaded, children."""

from __future__ import annotations

import mmap
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from user_probe import Probe
from user_running import Running, total
from user_targets import KINDS, Target

from sonde.user.agent import Agent, find_agents, start_time
from sonde.user.cleaning import clean_children, find_carriers, remove_agents
from sonde.user.follow import Watch, find_loader_hook
from sonde.user.patches import Patch, put_in, remove_when_left, take_out
from sonde.user.sites import Files
from sonde.user.stopped import StoppedProcess

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")


def test_exec_and_the_end_are_seen() -> None:
    with Target("rest", "1") as target, Watch(target.pid) as watch:
        assert not watch.is_gone()
        assert target.ask("x") == "ready"  # the same program once more, at the same pid
        assert watch.is_gone()
        with Watch(target.pid) as second:
            assert not second.is_gone()
            target.finish()
            assert second.is_gone()
    assert watch.is_gone()


def test_exec_takes_probes_away_and_they_can_be_put_in_again() -> None:
    with Target("spin", "1") as target:
        first = Probe(target, "probed")
        first.put_in()
        assert target.ask("x") == "ready"
        assert find_agents(target.pid) == []
        second = Probe(target, "probed")
        second.put_in()
        deadline = time.monotonic() + 20
        while not second.count:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        second.take_out()
        assert second.remove() == []


def test_a_child_keeps_being_traced_and_is_cleaned_too() -> None:
    with Target("rest", "1") as target:
        probe = Probe(target, "probed")
        probe.put_in()
        child = int(target.ask("f"))
        ours = (os.getpid(), start_time(os.getpid()))
        assert sorted(find_carriers(ours)) == sorted([target.pid, child])
        before = probe.count
        deadline = time.monotonic() + 5
        while probe.count < before + 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert probe.count >= before + 3
        probe.take_out()
        (cleaned,) = clean_children(target.pid, [probe.patch])
        assert (cleaned.agent.pid, cleaned.foreign, cleaned.reasons) == (child, (), ())
        assert "/memfd:sonde" not in Path(f"/proc/{child}/maps").read_text()
        assert probe.remove() == []
        assert find_carriers(ours) == []
        assert target.ask(f"w{child}") == "15"  # it ran on until it was told to end, and its function was right


def test_other_processes_of_the_same_sonde_are_not_taken_for_children(tmp_path: Path) -> None:
    """Each is traced by its own object, two of one process and of its child too: what one takes out is its own."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    path = str(tmp_path / "target")
    subprocess.run(["gcc", "-O1", "-g", "-x", "c", "-", "-o", path], input=COUNTING, text=True, check=True)
    first, second = Running(path), Running(path)
    try:
        one = first.attach("uprobe:PATH:work { @ = count(); }")
        two = first.attach("uprobe:PATH:other { @ = count(); }")
        three = second.attach("uprobe:PATH:work { @ = count(); }")
        child = first.ask("fork 0")
        one.close()
        assert (first.ask("work 10"), second.ask("work 10")) == (20, 20)
        assert first.ask("child 7") == 14
        assert (total(two, "percpu"), total(three, "percpu")) == (17, 10)
        three.close()
        assert (first.ask("work 10"), second.ask("work 10")) == (20, 20)
        assert first.ask("child 7") == 14
        two.close()
        assert "sonde" not in Path(f"/proc/{child}/maps").read_text()
        assert first.ask("child 7") == 14
        assert not first.traces() and not second.traces()
    finally:
        first.close()
        second.close()


COUNTING = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#define EXPORT __attribute__((noinline, noclone, used, aligned(64)))
EXPORT long work(void) { __asm__ volatile(""); return 1; }
EXPORT long other(void) { __asm__ volatile(""); return 1; }
static long both(long n) { long sum = 0; for (long i = 0; i < n; i++) sum += work() + other(); return sum; }
int main(void) {
  char what[20];
  long n;
  int ask[2], answer[2];
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("ready\n");
  while (scanf("%19s %ld", what, &n) == 2) {
    long result = 0;
    if (!strcmp(what, "work")) result = both(n);
    if (!strcmp(what, "fork")) {
      if (pipe(ask) || pipe(answer)) return 1;
      result = fork();
      if (!result) {
        close(ask[1]);
        while (read(ask[0], &n, sizeof n) == sizeof n) { n = both(n); if (write(answer[1], &n, sizeof n) != sizeof n) break; }
        _exit(0);
      }
      close(ask[0]);
    }
    if (!strcmp(what, "child") && (write(ask[1], &n, sizeof n) != sizeof n || read(answer[0], &result, sizeof n) != sizeof n)) return 1;
    printf("%ld\n", result);
  }
  return 0;
}
"""


def test_children_of_a_process_whose_sonde_was_killed_are_cleaned_by_their_pids() -> None:
    with Target("rest", "1") as target:
        tracer = os.fork()
        if not tracer:
            try:
                Probe(target, "probed").put_in()
            finally:
                os._exit(0)
        os.waitpid(tracer, 0)
        child = int(target.ask("f"))
        assert {target.pid, child} <= set(find_carriers())
        for pid in (target.pid, child):
            (cleaned,) = remove_agents(pid)
            assert (cleaned.sites, cleaned.foreign, cleaned.reasons) == (1, (), ())
        assert not {target.pid, child} & set(find_carriers())
        assert target.ask(f"w{child}") == "15"


@pytest.mark.parametrize("kind", KINDS)
def test_the_loaders_hook_is_found_in_dynamic_programs(kind: str) -> None:
    with Target("rest", "1", kind=kind) as target, StoppedProcess(target.pid) as stopped:
        files = Files(target.pid)
        hook = find_loader_hook(files)
        files.close()
        assert hook is not None or "static" in kind
        if hook is not None:
            assert bool(hook.changing) == ("musl" not in kind)
            assert not hook.changing or stopped.read(hook.changing, 4) == bytes(4)
            code = stopped.read(hook.address, 5)
            assert code[0] == 0xC3 or code == b"\xf3\x0f\x1e\xfa\xc3"


def test_libraries_that_are_loaded_are_told_by_a_probe_on_the_hook() -> None:
    source = "import sys; print('ready', flush=True); sys.stdin.readline(); import _ctypes; print('loaded', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None and program.stdin is not None
        assert program.stdout.readline() == "ready\n"
        with StoppedProcess(program.pid) as stopped:
            files = Files(program.pid)
            found = find_loader_hook(files)
            files.close()
            assert found is not None
            hook = found.address
            original = stopped.read(hook, 5)
            if original[0] != 0xC3:
                pytest.skip(f"this loader's function begins with other instructions: {original.hex(' ')}")
            agent = Agent.create(stopped, (hook, hook), 4096)
            shared = agent.share(stopped, 4096)
            memory = mmap.mmap(shared.fd, shared.size)
            os.close(shared.fd)
            code = agent.place(b"\x50\x48\xb8" + shared.address.to_bytes(8, "little") + b"\xf0\x48\xff\x00\x58\xc3")
            jump = b"\xe9" + (code - hook - 5).to_bytes(4, "little", signed=True)
            patch = Patch(hook, original, jump, {0: code})
            put_in(stopped, [agent], [patch])
        program.stdin.write("go\n")
        program.stdin.flush()
        assert program.stdout.readline() == "loaded\n"
        assert int.from_bytes(memory[:8], "little") >= 2
        memory.close()
        with StoppedProcess(program.pid) as stopped:
            assert take_out(stopped, [agent], [patch]) == []
        assert remove_when_left(program.pid, [agent]) == []
        program.stdin.close()
        assert program.wait(10) == 0

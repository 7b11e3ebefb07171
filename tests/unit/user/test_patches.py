"""Code replaced in a running program and put back: the program computes what it computed before."""

from __future__ import annotations

import os
import platform
import signal
import struct
import time
from pathlib import Path

import pytest
from user_probe import Probe
from user_targets import KINDS, Target

from sonde.debuginfo.elf import Elf
from sonde.errors import BusyError, TargetError
from sonde.user.agent import find_agents
from sonde.user.patches import Patch, put_in, remove_when_left, take_out
from sonde.user.stopped import StoppedProcess

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def text(target: Target) -> bytes:
    """All code of the program itself."""
    from sonde.debuginfo.procmaps import read_maps

    with open(f"/proc/{target.pid}/mem", "rb", 0) as file:
        parts = [m for m in read_maps(target.pid) if m.executable and m.path == str(target.path)]
        return b"".join(os.pread(file.fileno(), m.end - m.start, m.start) for m in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_counts_and_goes_without_a_trace(kind: str) -> None:
    with Target("spin", "2", kind=kind) as target:
        mapped, code = maps(target.pid), text(target)
        probe = Probe(target, "probed")
        assert "sonde-agent" in maps(target.pid) and text(target) == code
        probe.put_in()
        time.sleep(0.05)
        assert probe.count > 100
        probe.take_out()
        assert text(target) == code
        count = probe.count
        time.sleep(0.01)
        assert probe.count == count
        assert probe.remove() == []
        assert maps(target.pid) == mapped
        assert len(os.listdir(f"/proc/{target.pid}/fd")) == 3


def test_a_go_program() -> None:
    """It has its own stacks and signals, threads that come and go, and preempts itself by signals."""
    with Target(kind="go") as target:
        mapped, code = len(target.threads()), text(target)
        assert mapped > 1
        probe = Probe(target, "main.work")
        if probe.original != bytes.fromhex("488d0440 488d4001"):
            pytest.skip(f"this Go compiles the function to other instructions: {probe.original.hex(' ')}")
        for _ in range(30):
            probe.put_in()
            probe.take_out()
        assert probe.count > 0 and text(target) == code
        assert probe.remove() == []
        assert "/memfd:sonde" not in maps(target.pid)


def test_a_goroutine_that_stands_in_a_site_has_to_run_on_first() -> None:
    with Target(kind="go") as target:
        probe = Probe(target, "main.work")
        with StoppedProcess(target.pid) as stopped:
            with Elf.open(str(target.path)) as elf:
                symbol = elf.get_symbol("runtime.allgs")
            assert symbol is not None
            table, count = struct.unpack("<QQ", stopped.read(symbol.vaddr, 16))
            assert count >= 8
            pointers = struct.unpack(f"<{count}Q", stopped.read(table, 8 * count))
            tops = [int.from_bytes(stopped.read(pointer + 56, 8), "little") for pointer in pointers]
            place = next(top for top in tops if top) + 16
            before = stopped.read(place, 8)
            stopped.write(place, (probe.address + 4).to_bytes(8, "little"))
            with pytest.raises(BusyError, match="a goroutine of process"):
                put_in(stopped, [probe.agent], [probe.patch])
            stopped.write(place, before)
        assert find_agents(target.pid)[0].sites == ()
        probe.put_in()
        probe.take_out()


def test_put_in_and_taken_out_many_times_under_load() -> None:
    with Target("spin", "3") as target:
        probe = Probe(target, "probed")
        moved = 0
        for _ in range(40):
            with StoppedProcess(target.pid) as stopped:
                inside = [tid for tid in stopped.threads if 0 < stopped.get_pc(tid) - probe.address < probe.length]
                put_in(stopped, [probe.agent], [probe.patch])
                moved += len(inside)
                for tid in inside:
                    assert stopped.get_pc(tid) in probe.patch.moves.values()
            probe.take_out()
        assert moved, "no thread was ever within the site"
        assert probe.remove() == []


def interrupt(target: Target, probe: Probe, places: tuple[int, ...]) -> int:
    """Let a signal handler run that has interrupted the worker at one of `places`; return the worker's tid."""
    worker = next(tid for tid in target.threads() if tid != target.pid)
    for _ in range(200):
        libc_tgkill(target.pid, worker, signal.SIGUSR1)
        while target.ask("q").split()[3] != "1":
            time.sleep(0.001)
        if find_saved_counters(probe, worker) in [[place] for place in places]:
            return worker
        assert target.ask("l") == "left"
    raise AssertionError("the worker was never interrupted there")


def test_a_handler_returns_into_the_copy() -> None:
    """A signal interrupts a thread within the site; the probe comes while its handler runs."""
    with Target("slow", "1") as target:
        probe = Probe(target, "slow")
        worker = interrupt(target, probe, (probe.address + 2,))
        probe.put_in()
        assert find_saved_counters(probe, worker) == [probe.copy + 2]
        assert target.ask("l") == "left"
        rounds = int(target.ask("r"))
        while int(target.ask("r")) < rounds + 2:
            time.sleep(0.001)
        assert probe.count > 0
        probe.take_out()
        assert probe.remove() == []


def libc_tgkill(pid: int, tid: int, number: int) -> None:
    import ctypes

    assert ctypes.CDLL(None).syscall(234, pid, tid, int(number)) == 0


def find_saved_counters(probe: Probe, tid: int) -> list[int]:
    from sonde.user.frames import iter_slots

    def near(words: memoryview) -> list[int]:
        spans = ((probe.address, probe.length), (probe.agent.address, probe.agent.size))
        return [i for i, word in enumerate(words) if any(start <= word < start + size for start, size in spans)]

    with StoppedProcess(probe.pid) as stopped:
        return [slot.value for slot in iter_slots(stopped, tid, near) if slot.in_frame]


def test_memory_stays_while_a_handler_will_return_to_it() -> None:
    with Target("slow", "1") as target:
        probe = Probe(target, "slow")
        probe.put_in()
        worker = interrupt(target, probe, (probe.copy + 2,))
        probe.take_out()
        reasons = remove_when_left(target.pid, [probe.agent], limit_s=0.05)
        assert len(reasons) == 1 and f"signal handler of thread {worker} will return to" in reasons[0]
        assert "sonde-agent" in maps(target.pid)
        assert target.ask("l") == "left"
        assert probe.remove() == []
        assert "sonde" not in maps(target.pid)


def test_a_site_that_somebody_else_changed_is_refused_and_nothing_is_done() -> None:
    with Target("rest", "1") as target:
        probe, other = Probe(target, "probed"), Probe(target, "slow")
        with StoppedProcess(target.pid) as stopped:
            stopped.write(probe.address, b"\xcc")
            with pytest.raises(TargetError, match=f"the code at {probe.address:#x} .* is cc f0"):
                put_in(stopped, [probe.agent, other.agent], [probe.patch, other.patch])
            assert stopped.read(other.address, 5) == other.original
        assert all(info.sites == () for info in find_agents(target.pid))
        with StoppedProcess(target.pid) as stopped:
            stopped.write(probe.address, probe.original[:1])


def test_a_site_that_somebody_changed_later_is_left_alone() -> None:
    with Target("rest", "1") as target:
        probe = Probe(target, "probed")
        probe.put_in()
        with StoppedProcess(target.pid) as stopped:
            stopped.write(probe.address, b"\xcc")
            assert take_out(stopped, [probe.agent], [probe.patch]) == [probe.patch]
            assert stopped.read(probe.address, 1) == b"\xcc"
            stopped.write(probe.address, probe.patch.replacement)
        (info,) = find_agents(target.pid)
        assert [site.address for site in info.sites] == [probe.address]
        probe.take_out()


def test_sites_must_not_overlap() -> None:
    with Target("rest", "1") as target:
        probe = Probe(target, "probed")
        second = Patch(probe.address + 6, probe.original[6:], b"\x90" * 3, {})
        with StoppedProcess(target.pid) as stopped, pytest.raises(TargetError, match="two probes"):
            put_in(stopped, [probe.agent], [second, probe.patch])


def test_a_thread_that_stands_where_it_cannot_be_moved_from() -> None:
    with Target("rest", "1") as target:
        probe = Probe(target, "probed")
        with StoppedProcess(target.pid) as stopped:
            tid = stopped.threads[0]
            registers = stopped.registers(tid)
            elsewhere = registers.copy()
            elsewhere.pc, elsewhere["orig_rax"] = probe.address + 2, -1
            stopped.set_registers(tid, elsewhere)
            with pytest.raises(BusyError, match=f"thread {tid} .* stands within"):
                put_in(stopped, [probe.agent], [probe.patch])
            assert stopped.read(probe.address, probe.length) == probe.original
            stopped.set_registers(tid, registers)


def test_the_table_tells_what_was_done_and_who_did_it() -> None:
    with Target("spin", "1") as target:
        assert find_agents(target.pid) == []
        probe = Probe(target, "probed")
        probe.put_in()
        (info,) = find_agents(target.pid)
        assert info.owner_pid == os.getpid() and info.alive
        assert [(s.address, s.original, s.in_place) for s in info.sites] == [
            (probe.address, probe.original, probe.patch.replacement)
        ]
        assert info.code == ((probe.agent.address, probe.agent.size),) and len(info.memories) == 2
        probe.take_out()
        assert find_agents(target.pid)[0].sites == ()
        assert probe.remove() == []
        assert find_agents(target.pid) == []

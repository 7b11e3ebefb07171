"""Processes stopped and let go: nothing that they do may change by it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from user_targets import KINDS, Target

from sonde.errors import PrivilegeError, TargetError
from sonde.user import ptrace
from sonde.user.calls import Call, Result
from sonde.user.stopped import StoppedProcess

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls in another process are for x86-64")


def state(tid: int) -> str:
    """The state of a thread, "X" once it is gone."""
    try:
        return Path(f"/proc/{tid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def thread_states(target: Target) -> set[str]:
    return {state(tid) for tid in target.threads()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_of_any_kind_makes_system_calls(kind: str) -> None:
    with Target("spin", "2", kind=kind) as target:
        before = Path(f"/proc/{target.pid}/maps").read_text()
        for _ in range(20):
            with StoppedProcess(target.pid) as stopped:
                assert len(stopped.threads) == 3 and thread_states(target) == {"t"}
                assert stopped.system_call("getpid") == target.pid
                assert stopped.system_call("gettid") in stopped.threads
                assert stopped.system_call("close", 12345) == -9
        assert Path(f"/proc/{target.pid}/maps").read_text() == before
        assert "t" not in thread_states(target)


def test_a_later_call_takes_the_result_of_an_earlier_one() -> None:
    with Target("spin", "1") as target, StoppedProcess(target.pid) as stopped:
        seen: list[int] = []
        calls = [
            Call("memfd_create", (b"a-name\0", 0)),
            Call("ftruncate", (Result(0), 12345)),
            Call("close", (Result(0),)),
            Call("close", (Result(0),)),
        ]

        def look(results: object) -> None:
            fd = stopped.threads[0]
            names = {os.readlink(f"/proc/{fd}/fd/{n}") for n in os.listdir(f"/proc/{fd}/fd")}
            seen.append(sum(name.startswith("/memfd:a-name") for name in names))

        results = stopped.run(calls, {1: look, 2: look})
        assert results[0] > 2 and results[1:] == [0, 0, -9]
        assert seen == [1, 0]


def test_all_registers_and_flags_are_as_before() -> None:
    with Target("spin", "4") as target:
        for _ in range(50):
            with StoppedProcess(target.pid, all_threads=False) as stopped:
                tid = stopped.threads[0]
                before = ptrace.get_registers(tid, stopped.machine)
                stopped.run([Call("getpid")] * 3)
                assert ptrace.get_registers(tid, stopped.machine) == before


def test_registers_by_name() -> None:
    machine = ptrace.MACHINES["x86_64"]
    registers = ptrace.Registers(machine)
    registers["rax"] = -1
    registers.pc = 4096
    registers.sp += 8
    assert (registers["rax"], registers["rip"], registers["rsp"]) == ((1 << 64) - 1, 4096, 8)
    other = registers.copy()
    assert other == registers
    other["rbx"] = 5
    assert other != registers and registers["rbx"] == 0
    with pytest.raises(KeyError):
        registers["eax"] = 1
    assert len(machine.names) == 27 and len(ptrace.MACHINES["aarch64"].names) == 34


def test_a_hundred_threads() -> None:
    with Target("rest", "100") as target:
        for _ in range(5):
            with StoppedProcess(target.pid) as stopped:
                assert len(stopped.threads) == 101
                assert thread_states(target) == {"t"}


def test_threads_that_come_and_go_are_all_caught() -> None:
    with Target("breed", "3") as target:
        for _ in range(60):
            with StoppedProcess(target.pid) as stopped:
                assert {t for t in target.threads() if state(t) not in "ZX"} == set(stopped.threads)
                assert thread_states(target) <= {"t", "Z", "X"}


def test_no_signal_is_lost() -> None:
    with Target("signals", "2") as target:
        sent = 0
        for number in range(120):
            with StoppedProcess(target.pid, all_threads=number % 2 == 0) as stopped:
                libc = ctypes.CDLL(None)
                if number % 3 == 0:
                    libc.sigqueue(target.pid, int(signal.SIGRTMIN), ctypes.c_void_p(number))
                    sent += number
                assert stopped.system_call("getpid") == target.pid
                libc.sigqueue(target.pid, int(signal.SIGRTMIN), ctypes.c_void_p(1))
                sent += 1
            if number % 5 == 0:
                os.kill(target.pid, signal.SIGUSR1)
        time.sleep(0.05)
        alarms, users, queued, _ = map(int, target.ask("q").split())
        assert queued == sent
        assert alarms > 20 and users > 0


@pytest.mark.parametrize("with_calls", [False, True])
def test_waits_in_the_kernel_go_on_and_end_as_they_should(with_calls: bool) -> None:
    with Target("waits") as target:
        end = time.monotonic() + 1.8  # a wait that began anew after each stop would not end before that
        while time.monotonic() < end:
            with StoppedProcess(target.pid) as stopped:
                assert len(stopped.threads) >= 7
                for tid in list(stopped.threads) if with_calls else ():
                    stopped.threads.remove(tid)
                    stopped.threads.insert(0, tid)
                    assert stopped.system_call("gettid") == tid
            time.sleep(0.02)
        assert target.process.stdin is not None
        target.process.stdin.write("go\n")
        target.finish()


def test_a_stopped_process_stays_stopped() -> None:
    with Target("spin", "2") as target:
        os.kill(target.pid, signal.SIGSTOP)
        while thread_states(target) != {"T"}:
            time.sleep(0.001)
        for _ in range(3):
            with StoppedProcess(target.pid) as stopped:
                assert stopped.system_call("getpid") == target.pid
            deadline = time.monotonic() + 2
            while thread_states(target) != {"T"} and time.monotonic() < deadline:
                time.sleep(0.001)
            assert thread_states(target) == {"T"}
        os.kill(target.pid, signal.SIGCONT)
        before = int(target.ask("r"))
        time.sleep(0.05)
        assert int(target.ask("r")) > before


def test_a_stop_or_continue_that_comes_meanwhile_takes_effect_afterwards() -> None:
    with Target("spin", "2") as target:
        with StoppedProcess(target.pid) as stopped:
            os.kill(target.pid, signal.SIGSTOP)
            assert stopped.system_call("getpid") == target.pid
        deadline = time.monotonic() + 2
        while thread_states(target) != {"T"} and time.monotonic() < deadline:
            time.sleep(0.001)
        assert thread_states(target) == {"T"}
        with StoppedProcess(target.pid):
            os.kill(target.pid, signal.SIGCONT)
        assert int(target.ask("r")) >= 0


def test_a_process_that_is_killed_meanwhile() -> None:
    target = Target("spin", "2")
    with StoppedProcess(target.pid) as stopped:
        target.process.kill()
        with pytest.raises(TargetError, match="was killed"):
            stopped.system_call("getpid")
    assert target.process.wait(5) == -9
    target.process.communicate()
    with pytest.raises(TargetError, match="there is no process"), StoppedProcess(target.pid):
        pass


def test_the_first_thread_may_have_ended() -> None:
    target = Target("leaderless", "2")
    while state(target.pid) != "Z":
        time.sleep(0.001)
    with StoppedProcess(target.pid) as stopped:
        assert len(stopped.threads) == 2 and target.pid not in stopped.threads
        assert stopped.system_call("getpid") == target.pid
        assert stopped.maps()
    target.process.kill()
    target.process.communicate()


def test_a_zombie_is_named_as_one() -> None:
    child = subprocess.Popen(["true"])
    while state(child.pid) != "Z":
        time.sleep(0.001)
    with pytest.raises(TargetError, match="has ended"), StoppedProcess(child.pid):
        pass
    child.wait()


def test_a_thread_that_waits_for_a_child_of_vfork_is_an_error_and_nothing_hangs() -> None:
    with Target("vfork", "1") as target:
        while state(target.pid) != "D":
            time.sleep(0.001)
        with pytest.raises(TargetError, match="did not stop") as error, StoppedProcess(target.pid, limit_s=0.2):
            pass
        assert "vfork" in error.value.hint
        assert state(target.pid) == "D"


def test_a_process_that_is_traced_already_names_its_tracer() -> None:
    source = (
        "import sys, time; from sonde.user.stopped import StoppedProcess\n"
        "with StoppedProcess(int(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with Target("rest", "1") as target:
        command = [sys.executable, "-c", source, str(target.pid)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(TargetError, match=f"already traced by process {other.pid}"), StoppedProcess(target.pid):
            pass
        other.communicate()


def test_kernel_threads_and_oneself_are_refused() -> None:
    with pytest.raises(TargetError, match="trace itself"), StoppedProcess(os.getpid()):
        pass
    if Path("/proc/2/comm").exists() and Path("/proc/2/comm").read_text() == "kthreadd\n":
        with pytest.raises((TargetError, PrivilegeError)), StoppedProcess(2):
            pass


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: to start programs of another user, and to become one")
@pytest.mark.parametrize(
    ("arguments", "user", "text"),
    [(("rest", "1"), 0, "belongs to user 0"), (("undumpable",), 65534, "may not be dumped")],
)
def test_what_forbids_tracing_is_explained(arguments: tuple[str, ...], user: int, text: str) -> None:
    with Target(*arguments, user=user) as target:
        said = as_user(lambda: call_in(target.pid))
        assert text in said and "CAP_SYS_PTRACE" in said and "HINT" in said


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: to start a program of another user")
def test_root_suspends_the_filter_of_a_confined_process() -> None:
    with Target("confined", "1") as target, StoppedProcess(target.pid) as stopped:
        try:
            made = stopped.system_call("memfd_create", b"x\0", 0)
        except PrivilegeError as error:
            pytest.skip(f"this kernel does not suspend seccomp filters: {error.message}")
        assert made > 2 and stopped.system_call("close", made) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: to start a program of another user")
def test_root_traces_another_users_process() -> None:
    with Target("spin", "2", user=65534) as target, StoppedProcess(target.pid) as stopped:
        assert stopped.system_call("getpid") == target.pid


def test_a_confined_process_is_refused_without_the_privilege_to_suspend_its_filter() -> None:
    with Target("confined", "1", user=65534 if os.getuid() == 0 else None) as target:
        said = as_user(lambda: call_in(target.pid))
        assert "confined itself by seccomp" in said and "CAP_SYS_ADMIN" in said


def test_a_process_that_handles_its_own_system_calls_is_refused() -> None:
    with Target("rest", "1") as target:
        with StoppedProcess(target.pid) as stopped:
            assert not ptrace.is_dispatched(stopped.threads[0])
            before = stopped.system_call("prctl", 59, 1, 0, (1 << 63) - 1, 0)
        if before:
            pytest.skip("this kernel has no syscall user dispatch")
        with StoppedProcess(target.pid) as stopped:
            if not ptrace.is_dispatched(stopped.threads[0]):
                pytest.skip("this kernel does not tell about syscall user dispatch (Linux 6.4 does)")
            with pytest.raises(TargetError, match="handles its system calls itself"):
                stopped.system_call("getpid")


def call_in(pid: int) -> str:
    """What comes of a system call in a process."""
    try:
        with StoppedProcess(pid) as stopped:
            return str(stopped.system_call("memfd_create", b"x\0", 0))
    except (PrivilegeError, TargetError) as error:
        return f"{error.render()} {getattr(error, 'capability', '')}"


def as_user(action: Callable[[], str]) -> str:
    """Do something as an ordinary user, in a process of its own; its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setresgid(65534, 65534, 65534)
                os.setgroups([])
                os.setresuid(65534, 65534, 65534)
            os.write(writer, action().encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    said = os.read(reader, 4096).decode()
    os.close(reader)
    return said


def test_a_restartable_sequence_is_begun_again() -> None:
    with Target("rseq", "1") as target:
        place = target.symbol("generation")
        worker = next(tid for tid in target.threads() if tid != target.pid)
        while not int(target.ask("r")):
            time.sleep(0.001)
        for number in range(60):
            with StoppedProcess(target.pid) as stopped:
                stopped.threads.remove(worker)
                stopped.threads.insert(0, worker)
                if not ptrace.get_rseq_address(worker):
                    pytest.skip(
                        "this kernel does not tell where restartable sequences are registered (Linux 5.13 does)"
                    )
                assert stopped.system_call("gettid") == worker
                stopped.write(place, number.to_bytes(8, "little"))
        assert int(target.ask("r")) > 0


def test_any_thread_of_ours_may_stop_a_process() -> None:
    results: list[int] = []
    with Target("spin", "3") as target:

        def stop() -> None:
            with StoppedProcess(target.pid) as stopped:
                results.append(stopped.system_call("getpid") - target.pid)

        for _ in range(10):
            thread = threading.Thread(target=stop)
            thread.start()
            thread.join()
    assert results == [0] * 10


def test_threads_of_the_kernel_in_a_process_are_passed_over() -> None:
    with Target("uring", "1") as target:
        names = {Path(f"/proc/{target.pid}/task/{tid}/comm").read_text().strip() for tid in target.threads()}
        if not any(name.startswith("iou-") for name in names):
            pytest.skip("this kernel's io_uring has no threads that count as the process's")
        with StoppedProcess(target.pid) as stopped:
            assert len(stopped.threads) == 2 and len(target.threads()) == 3
            assert stopped.system_call("getpid") == target.pid


def test_text_can_be_written_by_words() -> None:
    """What is done where Linux is told that /proc/PID/mem must respect protection."""
    with Target("rest", "1") as target, StoppedProcess(target.pid) as stopped:
        place = target.symbol("probed") + 3
        before = stopped.read(place - 16, 48)
        stopped._poke(place, b"0123456789")
        assert stopped.read(place - 16, 48) == before[:16] + b"0123456789" + before[26:]
        stopped._poke(place, before[16:26])


def test_sonde_is_as_nice_as_before_when_others_have_stood_still_for_it() -> None:
    """Meanwhile it need not wait for its turn on a busy machine; only who may do that can."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with Target("spin", "3") as target:
        with StoppedProcess(target.pid):
            assert os.getpriority(os.PRIO_PROCESS, 0) == (-20 if may_hurry() else before)
        assert os.getpriority(os.PRIO_PROCESS, 0) == before
        with pytest.raises(ValueError), StoppedProcess(target.pid):
            raise ValueError
        assert os.getpriority(os.PRIO_PROCESS, 0) == before
        target.finish()


def may_hurry() -> bool:
    """Whether a process like this one may ask for all of the CPU."""
    command = "import os; os.setpriority(os.PRIO_PROCESS, 0, -20)"
    return not subprocess.run([sys.executable, "-c", command], capture_output=True).returncode

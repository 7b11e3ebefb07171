"""Code into which five bytes do not fit, and code that may not be moved: functions of known bytes in a process of our own."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running, at_work, build, total

from sonde.debuginfo.elf import Elf
from sonde.errors import ProbeError
from sonde.user.cleaning import remove_agents

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("gcc"), reason="needs gcc for x86-64"
)

SOURCE = r"""
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#define FUNCTION(name, body) __asm__(".text\n.balign 16\n.globl " #name "\n.type " #name ",@function\n" #name ":\n.cfi_startproc\n" body "\n.cfi_endproc\n.size " #name ",.-" #name "\n.balign 16")
/* A loop begins at the third, at the fifth byte: a jump has to share the bytes from there on. */
FUNCTION(two, "xor %eax,%eax\n 1: add %rdi,%rax\n dec %rdi\n jnz 1b\n ret");
FUNCTION(four, "mov %rdi,%rax\n cld\n 1: dec %rax\n jnz 1b\n lea 7(%rdi),%rax\n ret");
FUNCTION(alike, "mov %rdi,%rax\n cld\n 1: dec %rax\n jnz 1b\n lea 9(%rdi),%rax\n ret");
/* A jump from before `middle` leads behind its first instruction, into what a jump would replace. */
FUNCTION(back, "xor %eax,%eax\n jmp 2f\n.globl middle\nmiddle: lea 1(%rax),%eax\n 2: add $0x60,%rax\n dec %edi\n jnz middle\n ret");
/* What follows the call is a loop's beginning. */
FUNCTION(waits, "mov %rcx,%r10\n mov $230,%eax\n syscall\n 1: test %eax,%eax\n nopl 0(%rax)\n jg 1b\n cltq\n ret");
/* A restartable sequence (rseq(2)): the kernel looks whether a thread is between its first address and its last. */
FUNCTION(critical, "mov (%rdi),%rax\n inc %rax\n mov %rax,(%rdi)\n 1: ret\n.byte 0x0f,0xb9,0x3d\n.long 0x53053053\n 2: jmp critical\n"
  ".pushsection __rseq_cs,\"aw\"\n.balign 32\n.long 0,0\n.quad critical,1b-critical,2b\n.popsection");
long two(long), four(long), alike(long), back(long), critical(long *), waits(long, long, struct timespec *, void *);
int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    char what[20]; long n = 0, result = 0;
    sscanf(line, "%19s %ld", what, &n);
    if (!strcmp(what, "two")) for (long i = 1; i <= n; i++) result += two(i);
    if (!strcmp(what, "four")) for (long i = 1; i <= n; i++) result += four(i);
    if (!strcmp(what, "alike")) for (long i = 1; i <= n; i++) result += alike(i);
    if (!strcmp(what, "back")) result = back(n);
    if (!strcmp(what, "critical")) for (long i = 0; i < n; i++) critical(&result);
    if (!strcmp(what, "fork")) { result = fork(); if (!result) for (int i = 0; i < 60000; i++) { four(n); usleep(1000); } }
    if (!strcmp(what, "waits")) { struct timespec t = {n / 1000, n % 1000 * 1000000}; result = waits(1, 0, &t, 0); }
    printf("%ld\n", result);
  }
}
"""
OPTIONS = ("-pie -fPIE", "-no-pie -fno-pie", "-static")


@pytest.fixture(scope="module", params=OPTIONS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(SOURCE, tmp_path_factory.mktemp("ladder"), "-O1", *request.param.split())


@pytest.fixture
def running(program: str) -> Iterator[Running]:
    yield from at_work(program)


def islands(running: Running) -> list[str]:
    """Memory with code of ours, but for that with trampolines."""
    found = [line for line in running.traces() if "sonde-agent" in line]
    return [line for line in found if running.read(int(line.split("-")[0], 16), 8) != b"SONDEAGT"]


@pytest.mark.parametrize(("name", "size"), [("two", 2), ("four", 4)])
def test_a_jump_of_fewer_bytes(running: Running, name: str, size: int) -> None:
    answer, address = running.ask(f"{name} 50"), running.address(name)
    before, text = running.read(address, 16), running.text()
    with running.attach(
        f"uprobe:PATH:{name} {{ @[arg0] = count(); }} uretprobe:PATH:{name} {{ @r = count(); }}"
    ) as loaded:
        assert not loaded.notes
        now = running.read(address, 16)
        assert now[:size] != before[:size] and now[size:] == before[size:]
        assert len(islands(running)) == 1
        assert running.ask(f"{name} 50") == answer
        assert sorted(struct.unpack("<Q", key)[0] for key, _ in loaded.maps["AT_"].items()) == list(range(1, 51))
        assert total(loaded, "percpu") == 50
    assert running.text() == text and not running.traces()
    assert running.ask(f"{name} 50") == answer


def test_islands_share_a_page(running: Running) -> None:
    with running.attach("uprobe:PATH:four { @f = count(); } uprobe:PATH:alike { @a = count(); }") as loaded:
        assert not loaded.notes and len(islands(running)) == 1
        assert running.ask("four 5") == sum(range(1, 6)) + 35
        assert running.ask("alike 6") == sum(range(1, 7)) + 54
        counts = loaded.maps["percpu"].lookup(bytes(4)) or []
        sums = [sum(int.from_bytes(value[at : at + 8], "little") for value in counts) for at in (0, 8)]
        assert sorted(sums) == [5, 6]
    assert not running.traces()


def test_another_sonde_takes_short_jumps_out(running: Running) -> None:
    text, answer = running.text(), running.ask("four 5")
    loaded = running.attach("uprobe:PATH:four { @ = count(); } uprobe:PATH:two { @t = count(); }")
    assert running.text() != text and islands(running)
    found = remove_agents(running.pid, living=True)
    assert [(each.sites >= 2, each.foreign, each.reasons) for each in found] == [(True, (), ())]
    assert running.text() == text and not running.traces()
    assert running.ask("four 5") == answer
    loaded.close()
    assert running.ask("four 5") == answer


def test_a_child_is_left_clean_too(running: Running) -> None:
    address = running.address("four")
    there = running.read(address, 16)
    with running.attach("uprobe:PATH:four { @[pid] = count(); }") as loaded:
        child = running.ask("fork 5")
        try:
            before = time.monotonic()
            while not total(loaded, "AT_", struct.pack("<I", child)):
                assert time.monotonic() < before + 10
                time.sleep(0.01)
            loaded.close()
            assert "sonde" not in Path(f"/proc/{child}/maps").read_text()
            with open(f"/proc/{child}/mem", "rb") as memory:
                memory.seek(address)
                assert memory.read(16) == there
            time.sleep(0.01)
            assert Path(f"/proc/{child}/stat").read_text().split()[2] != "Z"
        finally:
            os.kill(child, signal.SIGKILL)
    assert not running.traces() and running.ask("four 5") == 50


def test_probes_that_would_share_bytes(running: Running) -> None:
    answer, second = running.ask("four 5"), vaddr(running.path, "four") + 3
    with running.attach(f"uprobe:PATH:four {{ @a = count(); }} uprobe:PATH:{second:#x} {{ @b = count(); }}") as loaded:
        assert len(loaded.notes) == 1 and "another probe displaces some of the same instructions" in loaded.notes[0]
        assert running.ask("four 5") == answer
        counts = loaded.maps["percpu"].lookup(bytes(4)) or []
        sums = [sum(int.from_bytes(value[at : at + 8], "little") for value in counts) for at in (0, 8)]
        assert sorted(sums) == [0, 5]


def vaddr(path: str, name: str) -> int:
    with Elf.open(path) as elf:
        symbol = elf.get_symbol(name)
        assert symbol is not None
        return symbol.vaddr


def test_jumps_are_found_in_stripped_files(running: Running, tmp_path: Path) -> None:
    """The jump stands before the probe, in a function whose bounds only the unwind information tells."""
    where = vaddr(running.path, "middle")
    path = str(tmp_path / "stripped")
    subprocess.run(["strip", "-o", path, running.path], check=True)
    stripped = Running(path)
    try:
        answer = stripped.ask("back 10")
        assert answer == 10 * 0x60 + 9
        with stripped.attach(f"uprobe:PATH:{where:#x} {{ @ = count(); }}") as loaded:
            assert not loaded.notes and len(islands(stripped)) == 1
            assert stripped.ask("back 10") == answer
            assert total(loaded, "percpu") == 9
    finally:
        stripped.close()


@pytest.mark.parametrize("where", [-3, 5])
def test_a_jump_of_anothers_next_to_it(running: Running, where: int) -> None:
    """A jump that begins before reaches into the window; one behind would become part of ours."""
    address = running.address("four") + where
    there = running.read(address, 1)
    running.write(address, bytes([there[0] ^ 1]))
    with pytest.raises(ProbeError, match="other instructions"):
        running.attach("uprobe:PATH:four { @ = count(); }")
    running.write(address, there)
    running.attach("uprobe:PATH:four { @ = count(); }").close()


def test_a_system_call_whose_window_begins_before_it(running: Running) -> None:
    address = running.address("waits")
    before, text = running.read(address, 24), running.text()
    script = "tracepoint:syscalls:sys_enter_clock_nanosleep { @[args.which_clock] = count(); } tracepoint:syscalls:sys_exit_clock_nanosleep { @r = count(); }"
    with running.attach(script) as loaded:
        now = running.read(address, 24)
        assert now[3] == 0xE9 and now[:3] == before[:3] and now[8:] == before[8:]
        for _ in range(3):
            assert running.ask("waits 1") == 0
        assert [total(loaded, "AT_", key) for key, _ in loaded.maps["AT_"].items()] == [3]
        assert total(loaded, "percpu") == 3
    assert running.text() == text and not running.traces()


def test_a_thread_waits_in_such_a_call_while_probes_come_and_go(running: Running) -> None:
    text, begun = running.text(), time.monotonic()
    script = "tracepoint:syscalls:sys_enter_clock_nanosleep { @ = count(); } tracepoint:syscalls:sys_exit_clock_nanosleep { @r = count(); }"
    running.say("waits 1500")
    for _ in range(2):
        time.sleep(0.05)
        with running.attach(script) as loaded:  # the thread is behind a call that will be made again, from the copy
            time.sleep(0.05)
            assert total(loaded, "percpu") == 0
        assert running.text() == text and not running.traces()
    assert running.hear() == 0 and time.monotonic() - begun >= 1.5
    with running.attach(script):
        running.say("waits 800")
        time.sleep(0.2)
    assert not running.traces()
    assert running.hear() == 0


def test_a_restartable_sequence_is_left_where_it_is(running: Running) -> None:
    with pytest.raises(ProbeError, match="compares or looks up the addresses"):
        running.attach("uprobe:PATH:critical { @ = count(); }")
    assert running.ask("critical 5") == 5 and not running.traces()

"""Scripts inside an aarch64 process, in QEMU's user mode: what programs count and keep is what the process knows that it did, and it does what it did without."""

from __future__ import annotations

import os
import shutil
import struct
import time
from contextlib import closing
from pathlib import Path

import pytest
from a64_moved import CODE_AT, NEAR_AT, Moved, page_of, run_all
from a64_process import Process, build_program
from a64_runner import Image, find_qemu

from sonde.bpf.asm import assemble
from sonde.bpf.isa import Insn
from sonde.bpf.jit.a64_encoding import STORE, memory, mov_imm
from sonde.bpf.jit.code import MachineCode
from sonde.bpf.maps.ringbuf import RingMap
from sonde.errors import FeatureError
from sonde.spec.object import MapSpec
from sonde.user import frame
from sonde.user.a64 import machine
from sonde.user.a64.code import RET
from sonde.user.a64.relocate import relocate
from sonde.user.inside import Inside
from sonde.user.runners import Calls
from sonde.user.sending import read_line
from sonde.user.sites import Files


class Runs:
    """Runs the test program with scripts in it."""

    def __init__(self, qemu: str, assembler: str, folder: Path) -> None:
        self.qemu, self.assembler, self.folder = qemu, assembler, folder
        self.program = build_program(folder, assembler)
        self.plain = Process(self.program).run(qemu, folder)

    def __call__(self, script: str, **more: object) -> Process:
        """The process when it has ended; it was as without a script, and nothing is left of a run."""
        process = Process(self.program, script, **more)  # type: ignore[arg-type]
        assert process.run(self.qemu, self.folder) == self.plain
        assert (process.missed(), process.busy()) == (0, 0)
        return process


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    qemu, assembler = find_qemu(), shutil.which("aarch64-linux-gnu-as")
    if qemu is None or assembler is None:
        pytest.skip(
            "needs qemu-aarch64 and an assembler (Debian packages qemu-user-static, binutils-aarch64-linux-gnu)"
        )
    return Runs(qemu, assembler, tmp_path_factory.mktemp("a64"))


def words(found: dict[bytes, int]) -> dict[tuple[int, ...], int]:
    """Keys as 64-bit numbers."""
    return {struct.unpack(f"<{len(key) // 8}q", key): count for key, count in found.items()}


def texts(found: dict[bytes, int]) -> dict[bytes, int]:
    return {key.rstrip(b"\0"): count for key, count in found.items()}


NAME = b"a name that is long enough to cross several words"


def test_the_program_does_what_it_says(runs: Runs) -> None:
    assert runs.plain[:12] == (1_000_000, 654321, 21, 106, 77, 0x100, 4, 43, 1, -9, 7, 50_010_000)


def test_counts_and_sums(runs: Runs) -> None:
    process = runs("uprobe:PATH:work { @[arg0 & 3] = sum(arg0); @n[0] = count(); @h = hist(arg0); @m = max(arg0); }")
    assert process.number("n") == 1001  # a signal handler's, too
    assert words(process.numbers()) == {(0,): 124_500, (1,): 124_750 + 21, (2,): 125_000, (3,): 125_250}


def test_all_arguments(runs: Runs) -> None:
    process = runs("uprobe:PATH:six { @[arg0, arg1, arg2, arg3, arg4, arg5] = count(); }")
    assert words(process.numbers()) == {(1, 20, 300, 4000, 50000, 600000): 1}


def test_strings_and_bad_pointers(runs: Runs) -> None:
    process = runs(
        "uprobe:PATH:work { @[str(arg1)] = count(); } uprobe:PATH:takes { @bad[str(arg1), arg0] = count(); }"
    )
    assert texts(process.numbers()) == {NAME: 1001}
    assert list(process.numbers("bad").values()) == [10]
    assert {key.strip(b"\0") for key in process.numbers("bad")} == {b"\3"}


def test_what_is_the_programs_own_is_read(runs: Runs) -> None:
    process = runs(
        'uprobe:PATH:takes { $sum = 0; for ($i : 0..arg0) { $sum += $i + 1; } $t = "text"; '
        "@[$sum, strlen($t), strlen(str($t, 3))] = count(); @bad[*kptr((uint64 *)arg1)] = count(); }"
    )
    assert words(process.numbers()) == {(6, 4, 2): 10}
    assert words(process.numbers("bad")) == {(0,): 10}


@pytest.mark.parametrize("features", [(), ("lse",)], ids=["exclusive", "lse"])
@pytest.mark.parametrize("rseq", [True, False], ids=["rseq", "without"])
def test_threads_lose_no_count(rseq: bool, features: tuple[str, ...], runs: Runs) -> None:
    script = "uprobe:PATH:shared { @[0] = count(); @s[str(arg1)] = sum(arg0); @a = avg(arg0); }"
    process = runs(script, rseq=rseq, features=features)
    assert (process.number(), texts(process.numbers("s"))) == (20_001, {NAME: 4 * 5000 * 4999 // 2})
    copies = [int.from_bytes(copy, "little") for _, values in process.maps["AT_"].items() for copy in values]
    assert sum(map(bool, copies)) > 1  # not all of them in one place


def test_a_program_that_only_adds_takes_the_number_of_the_cpu(runs: Runs) -> None:
    process = runs("uprobe:PATH:shared { @ = count(); }")
    assert not process.runners[0].exclusive
    ((_, copies),) = process.maps["percpu"].items()
    assert [int.from_bytes(copy[:8], "little") for copy in copies] == [0, 1, 10_000, 10_000, 0, 0, 0, 0]
    process = runs("uprobe:PATH:shared { @c[cpu] = count(); }")
    assert set(words(process.numbers("c"))) == {(1,), (2,), (3,)}


def test_the_cpu_is_asked_for_where_threads_do_not_know_it(runs: Runs) -> None:
    process = runs("uprobe:PATH:shared { @[cpu] = count(); }", rseq=False)
    found = words(process.numbers())
    assert found
    assert all(0 <= cpu < (os.cpu_count() or 1) for (cpu,) in found)


def test_who_shares_a_copy_may_add_to_it_only(runs: Runs) -> None:
    """A new entry is a whole value: it would be written over what others have added."""
    adds, stores = "uprobe:PATH:work { @ = count(); }", "uprobe:PATH:work { @[arg0] = count(); }"
    found = [Process(runs.program, script).runners[0].exclusive for script in (adds, stores)]
    assert found == [False, True]


def test_flags_survive_in_the_middle_of_a_function(runs: Runs) -> None:
    process = runs('uprobe:PATH:flags+4 { @[reg("x0"), reg("x1"), reg("pc"), reg("sp") & 15] = count(); }')
    inside = process.symbols["inside"]
    assert words(process.numbers()) == {(a, b, inside, 0): 1 for a, b in ((1, 2), (2, 1), (3, 3))}


def test_entry_and_return_of_a_deep_recursion(runs: Runs) -> None:
    process = runs("uprobe:PATH:depth { @e[0] = count(); } uretprobe:PATH:depth { @[retval] = count(); }")
    assert process.number("e") == 25
    assert words(process.numbers()) == {(n,): 2 if n <= 4 else 1 for n in range(1, 22)}


def test_returns_of_functions_that_are_jumped_to(runs: Runs) -> None:
    script = "uretprobe:PATH:outer { @o[retval] = count(); } uretprobe:PATH:inner { @i[retval] = count(); }"
    process = runs(
        script + " uretprobe:PATH:pingpong { @p[retval] = count(); } uretprobe:PATH:pongping { @q[retval] = count(); }"
    )
    assert [words(process.numbers(name)) for name in "oipq"] == [{(106,): 1}, {(106,): 1}, {(77,): 4}, {(77,): 3}]


def test_returns_in_threads(runs: Runs) -> None:
    process = runs("uretprobe:PATH:shared { @[0] = sum(retval); }")
    assert process.number() == 50_010_001


def test_functions_that_are_leapt_out_of(runs: Runs) -> None:
    script = "uprobe:PATH:leaper { @e[0] = count(); } uretprobe:PATH:leaper { @r[0] = count(); }"
    process = runs(script + " uretprobe:PATH:depth { @d[0] = count(); }")
    assert (process.number("e"), process.numbers("r"), process.number("d")) == (10, {}, 25)


def test_stacks(runs: Runs) -> None:
    process = runs("uprobe:PATH:depth { @[ustack(4)] = count(); }")
    stacks = [struct.unpack("<5Q", copies[0][:40]) for _, copies in process.maps["stacks_4"].items()]
    depth, start = process.symbols["depth"], process.symbols["_start"]
    deep = (4, depth, depth + 20, depth + 20, depth + 20)
    assert deep in stacks
    assert any(stack[1] == depth and start < stack[2] < start + 200 for stack in stacks)  # its caller is in x30


def test_who(runs: Runs) -> None:
    script = "uprobe:PATH:shared { @[pid == tid] = count(); @c[comm] = count(); @u[uid, gid] = count(); @r[rand & 7] = count(); }"
    process = runs(script)
    assert {key[0] for key in process.numbers()} == {1, 0}  # the first call is the main thread's
    assert process.numbers()[b"\1"] == 1
    assert all(key.startswith(b"qemu-aarch64"[:15]) for key in process.numbers("c"))
    assert list(words(process.numbers("u"))) == [(os.getuid(), os.getgid())]
    assert set(words(process.numbers("r"))) == {(n,) for n in range(8)}


def test_system_calls_by_name(runs: Runs) -> None:
    script = "tracepoint:syscalls:sys_enter_getppid { @e[0] = count(); } tracepoint:syscalls:sys_exit_getppid { @x[args.ret > 0] = count(); }"
    script += " tracepoint:syscalls:sys_enter_close { @c[args.fd] = count(); } tracepoint:syscalls:sys_exit_close { @r[args.ret] = count(); }"
    process = runs(script)
    assert (process.number("e"), process.number("x")) == (10, 10)
    assert (words(process.numbers("c")), words(process.numbers("r"))) == ({(-1,): 5}, {(-9,): 5})


def test_all_system_calls(runs: Runs) -> None:
    script = "tracepoint:raw_syscalls:sys_enter { @e[args.id] = count(); } tracepoint:raw_syscalls:sys_exit { @x[args.id] = count(); }"
    process = runs(script)
    enters, exits = words(process.numbers("e")), words(process.numbers("x"))
    for found in (enters, exits):
        found.pop((124,), None)  # sched_yield, as often as it takes
        found.pop((93,), None)  # threads that end while the memory is written
    common = {(172,): 1, (173,): 10, (178,): 1, (131,): 1, (134,): 1, (57,): 5}
    assert 4 < exits.pop((220,)) <= 8  # clone returns twice; two threads that make an entry may be in each other's way
    assert enters == {**common, (64,): 2, (220,): 4}
    assert exits == {**common, (64,): 1}


def test_the_counter_goes_on(runs: Runs) -> None:
    image = Image(8)
    for _ in range(3):
        image.add(MachineCode(machine.NAME, machine.COUNTER, (), ()), bytes(8))
    counts = [count for count, _ in image.run(runs.qemu, runs.folder)]
    assert 0 < counts[0] < counts[2] and counts == sorted(counts)


def test_time_by_the_counter(runs: Runs) -> None:
    """The counter's line is that of a clock that stands at a moment, so that every time is it."""
    process = Process(runs.program, "uprobe:PATH:shared { @[nsecs] = count(); }")
    line = frame.LINES[0]
    process.state[frame.CLOCK : frame.CLOCK + 8] = line.to_bytes(8, "little")
    for at, value in enumerate((0, 1 << 40, 0, 77)):
        process.state[line + 8 * at : line + 8 * at + 8] = value.to_bytes(8, "little")
    assert process.run(runs.qemu, runs.folder) == runs.plain
    assert words(process.numbers()) == {(1 << 40,): 20_001}


def test_time_goes_on(runs: Runs) -> None:
    process = Process(runs.program, "uprobe:PATH:work { @[arg0] = nsecs; }")
    line = frame.LINES[1]
    process.state[frame.CLOCK : frame.CLOCK + 8] = line.to_bytes(8, "little")
    for at, value in enumerate((0, 5, 3 << 31, 0)):  # 1.5 ns a tick
        process.state[line + 8 * at : line + 8 * at + 8] = value.to_bytes(8, "little")
    assert process.run(runs.qemu, runs.folder) == runs.plain
    times = [time for (which,), time in sorted(words(process.numbers()).items()) if which != 21]
    assert len(times) == 999
    assert times == sorted(times)
    assert all((time - 5) % 3 < 2 for time in times)
    assert times[-1] > times[0] > 5


def test_a_budget_passes_over(runs: Runs) -> None:
    script = "uprobe:PATH:work { @[0] = count(); } uprobe:PATH:flags+4 { @f[0] = count(); }"
    script += " uretprobe:PATH:depth { @r[0] = count(); } tracepoint:syscalls:sys_exit_getppid { @c[0] = count(); }"
    process = runs(script, allowed=4)
    assert [process.gate(n) for n in range(4)] == [(4, 997), (3, 0), (4, 21), (4, 6)]
    assert [process.number(name) for name in ("", "f", "r", "c")] == [4, 3, 4, 4]


def test_functions_are_replaced(runs: Runs) -> None:
    script = "uprobe:PATH:work { override(5); } uretprobe:PATH:work { @[retval] = count(); } uprobe:PATH:depth /arg0 == 2/ { override(40); }"
    process = Process(runs.program, script + " uretprobe:PATH:inner { override(9); }", unsafe=True)
    process.state[frame.OWNER : frame.OWNER + 4] = (1234).to_bytes(4, "little")
    found = process.run(runs.qemu, runs.folder)
    assert found[:5] == (5000, 654321, 40 + 18, 9, 77)
    assert words(process.numbers()) == {(5,): 1001}


def test_nothing_is_replaced_once_sonde_is_gone(runs: Runs) -> None:
    runs("uprobe:PATH:work { override(5); } uretprobe:PATH:inner { override(9); }", unsafe=True)


def test_memory_of_the_process_is_written(runs: Runs) -> None:
    script = 'uprobe:PATH:work { @[write_user(arg1, "A line", 6)] = count(); } uprobe:PATH:shared { @s[str(arg1)] = count(); }'
    script += ' uprobe:PATH:takes { @bad[write_user(arg1, "A line", 6)] = count(); }'
    process = Process(runs.program, script, unsafe=True)
    process.state[frame.OWNER : frame.OWNER + 4] = (1234).to_bytes(4, "little")
    assert process.run(runs.qemu, runs.folder) == runs.plain
    assert [words(process.numbers(name)) for name in ("", "bad")] == [{(0,): 1001}, {(-14,): 10}]
    assert texts(process.numbers("s")) == {b"A line" + NAME[6:]: 20_001}


INSTRUCTIONS = {
    "add": (0x8B020020, {}),
    "adds": (0xAB020020, {}),
    "cbz": (0xB4000405, {5: 0}),  # to 0x80 behind it
    "b.hi": (0x54000408, {}),
    "bl": (0x94000020, {}),
    "ldr": (0x58002009, {}),  # literal
    "getpid": (0xD4000001, {8: 172}),
    "no such call": (0xD4000001, {8: 9999}),
}


def map_in(register: int, number: int) -> Insn:
    return Insn(0x18, register, 1, 0, number)


def test_perf_events_lines_stacks_and_tail_calls(runs: Runs) -> None:
    """The helpers that programs of BCC have besides, of which no script makes use."""
    kinds = (
        ("programs", "array", 4, 8),
        ("events", "ringbuf", 0, 0),
        ("stacks", "stack_trace", 4, 1016),
        ("counts", "array", 4, 8),
    )
    maps = [MapSpec(name, kind, key, value, 512) for name, kind, key, value in kinds]
    process = Process(runs.program, maps=maps)
    process.image.lines = 2
    last = [
        *assemble("*(u32 *)(r10 -4) = 3\nr2 = r10\nr2 += -4"), map_in(1, 4),
        *assemble("call 1\nif r0 == 0x0 goto out\nr1 = 1\nlock *(u64 *)(r0 +0) += r1\nout: r0 = 0\nexit"),
    ]  # fmt: skip
    process.maps["programs"].update(
        (2).to_bytes(4, "little"), process.image.program(last).address.to_bytes(8, "little")
    )
    first = [
        *assemble("r6 = r1\nr7 = *(u64 *)(r1 +0)\n*(u64 *)(r10 -16) = r7\n*(u64 *)(r10 -8) = 77"), map_in(2, 2),
        *assemble(f"r1 = r6\nr3 = {0xFFFFFFFF} ll\nr4 = r10\nr4 += -16\nr5 = 16\ncall 25"),
        *assemble(f"r1 = {int.from_bytes(b'n is %d', 'little')} ll\n*(u64 *)(r10 -24) = r1\nr1 = r10\nr1 += -24\nr2 = 8\nr3 = r7\nr4 = 0\nr5 = 0\ncall 6"),
        map_in(2, 3), *assemble("r1 = r6\nr3 = 1280\ncall 27\nr8 = r0"),
        *assemble("*(u32 *)(r10 -4) = 1\nr2 = r10\nr2 += -4"), map_in(1, 4), *assemble("call 1\nif r0 == 0x0 goto on\n*(u64 *)(r0 +0) = r8\non: r1 = r6"),
        map_in(2, 1), *assemble("r3 = 2\ncall 12\nr0 = 0\nexit"),
    ]  # fmt: skip
    process.probe(process.symbols["depth"], [process.image.program(first)])
    assert process.run(runs.qemu, runs.folder) == runs.plain
    assert (process.missed(), process.busy()) == (0, 0)
    counts, ring, stacks = process.maps["counts"], process.maps["events"], process.maps["stacks"]
    assert counts.lookup((3).to_bytes(4, "little")) == [(25).to_bytes(8, "little")]  # each went on in the other program
    (number,) = counts.lookup((1).to_bytes(4, "little")) or [b""]
    (stack,) = stacks.lookup(number[:4]) or [b""]
    assert struct.unpack("<3Q", stack[:24])[:2] == (process.symbols["depth"], process.symbols["depth"] + 20)
    records: list[bytes] = []
    assert isinstance(ring, RingMap)
    with closing(ring.reader()) as reader:
        reader.drain(lambda data, at, size: records.append(bytes(data[at : at + size])))
    assert len(records) == 50
    arguments = [*range(20, -1, -1), *range(3, -1, -1)]
    for argument, event, line in zip(arguments, records[::2], records[1::2]):
        assert struct.unpack_from("<IQQ", event) == (1, argument, 77)
        told = read_line(line)
        assert (told.format, told.arguments[0], told.cpu) == (b"n is %d", argument, 1)


def clock_function() -> bytes:
    """What the vdso has: as many seconds as the clock's number, and 7 ns. It changes what functions of C may change."""
    code = memory(STORE, 3, 0, 1, 0) + mov_imm(2, 7) + memory(STORE, 3, 2, 1, 8)
    return code + b"".join(mov_imm(n, 0xBAD0 + n) for n in range(1, 18)) + mov_imm(0, 0) + RET


def test_the_functions_of_the_vdso(runs: Runs) -> None:
    script = "uprobe:PATH:takes { @[nsecs(boot), nsecs(monotonic), nsecs(tai)] = count(); }"
    process = runs(script, clock=clock_function())
    assert words(process.numbers()) == {(7 * 10**9 + 7, 10**9 + 7, 11 * 10**9 + 7): 10}


def test_clocks_by_system_calls(runs: Runs) -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    process = runs("uprobe:PATH:six { @[nsecs(boot)] = count(); @t[tid] = count(); }", tid_offset=-48)
    ((found,),) = words(process.numbers())
    assert before < found < time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert not any(next(iter(process.numbers("t"))))  # where the C library would have kept it is a 0 here


def test_a_signal_to_itself(runs: Runs) -> None:
    """The handler is one of the program's own, which calls a probed function."""
    script = (
        "uprobe:PATH:takes { signal(10); } uprobe:PATH:handler { @ = count(); } uprobe:PATH:work { @w[0] = count(); }"
    )
    process = runs(script, unsafe=True)
    assert process.number("w") == 1001 + 10


@pytest.mark.parametrize("rseq", [True, False], ids=["rseq", "without"])
def test_all_registers_are_as_before(rseq: bool, runs: Runs) -> None:
    """Also flags and vector registers; one instruction under three programs, alone and together, and system calls between two."""
    script = "uprobe:PATH:flags+4 { @[0] = count(); } uprobe:PATH:flags+4 { @s[str(arg1), pid, comm] = sum(arg0 + arg5); @n = max(nsecs); }"
    script += ' uprobe:PATH:flags+4 { @u[ustack, reg("pc"), reg("x28"), reg("x30"), reg("sp"), rand] = count(); }'
    script += " tracepoint:raw_syscalls:sys_enter { @e[args.id, args.args[5]] = count(); } tracepoint:syscalls:sys_exit_getpid { @x[args.ret] = avg(args.ret); }"
    process = Process(runs.program, script, rseq=rseq, clock=clock_function())
    *inside, enter, leave = process.runners
    cases = []
    for number, (word, registers) in enumerate(INSTRUCTIONS.values()):
        for runners in ([inside[0]], [inside[1]], [inside[2]], inside):
            old, new = page_of(len(cases)) + CODE_AT, page_of(len(cases)) + NEAR_AT
            start = process.agent.reserve(0)
            own, around = word.to_bytes(4, "little"), process.image.around
            if word == 0xD4000001:
                calls = Calls(((-1, enter),), ((172, leave),))
                code, _ = machine.system_calls(start, calls, around, old, 4)
            else:
                code = machine.entry(start, runners, around, frame.INSIDE, old)
            process.agent.place(code + relocate(own, old, start + len(code)).code)
            exits = [old + 4, old + 0x80]
            cases.append(Moved(own, old, new, machine.jump_to(new, start), exits, bytes(64), number, registers))
    results = run_all(cases, runs.qemu, runs.assembler, runs.folder, process.memory_of_ours())
    assert [r for r in results if r != "same"] == []


def test_processes_are_not_entered_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.uname()
    there = os.uname_result((here.sysname, here.nodename, here.release, here.version, "aarch64"))
    monkeypatch.setattr(os, "uname", lambda: there)
    files = Files(os.getpid())
    with pytest.raises(FeatureError, match="cannot enter processes of aarch64"):
        Inside(files, [], {}, 1)
    files.close()

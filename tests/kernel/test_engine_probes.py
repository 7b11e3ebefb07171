"""Each kind of probe on the running kernel: it fires, by the method that is expected, and is gone after closing."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.by_hand import (
    EVENTS,
    SEQ_WRITE,
    Traced,
    Watch,
    build,
    constant_reporter,
    mov,
    one_program,
    perf_output_spec,
    symbols,
)

from sonde.bpf import isa
from sonde.bpf.isa import Insn
from sonde.errors import AttachError, FeatureError, KernelError, ProbeError, SondeError, TargetError, VerifierError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.features import FeatureTable
from sonde.lang.source import Source
from sonde.spec.object import LineInfo, MapSpec, ObjectSpec, ProbeSpec, ProgramSpec, Reloc

pytestmark = pytest.mark.kernel
HAVE = FeatureTable().have


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(str(tmp_path_factory.mktemp("traced")))


@pytest.fixture
def traced(binary: str) -> Iterator[Traced]:
    process = Traced(binary)
    yield process
    process.close()


def need(feature: str) -> None:
    if not HAVE(feature):
        pytest.skip(f"the running kernel lacks {feature}")


def wait_for(watch: Watch, pid: int | None = None, seconds: float = 10) -> int:
    """Wait until something was reported (by `pid`); return how often."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = watch.read()
        count = sum(n for (who, _), n in found.items() if pid in (None, who))
        if count:
            return count
        time.sleep(0.01)
    return 0


# begin, timers, events ----------------------------------------------------------------------------------------------


def test_begin_runs_at_once_and_returns_its_code() -> None:
    insns, relocs = constant_reporter(5)
    body = isa.encode([*isa.decode(insns)[:-2], mov(0, 42), Insn(isa.EXIT)])
    program = ProgramSpec("b", "raw_tracepoint", body, relocs)
    spec = ObjectSpec((program,), (EVENTS,), (ProbeSpec("begin", "begin", "b"),), ringbuf="events")
    with Watch(spec) as watch:
        assert watch.read_of(os.getpid()) == {}
        assert watch.object.run("b") == 42
        assert watch.object.run("b") == 42
        assert watch.read_of(os.getpid()) == {5: 2}
        assert watch.links[0].how == "run by hand"


def test_interval_and_profile() -> None:
    fast = ProbeSpec("interval:ms:1", "interval", "p", period_ns=1_000_000)
    with Watch(one_program("perf_event", [fast])) as watch:
        assert wait_for(watch) > 0
    often = ProbeSpec("profile:hz:999", "profile", "p", frequency_hz=999)
    with Watch(one_program("perf_event", [often])) as watch:
        assert len(watch.links) == 1
        assert wait_for(watch) > 0


def test_profile_of_one_process(traced: Traced) -> None:
    probe = ProbeSpec("profile:hz:999", "profile", "p", frequency_hz=999, pid=traced.pid)
    with Watch(one_program("perf_event", [probe])) as watch:
        traced.ask("b", 200)
        found = watch.read()
        assert found
        assert {pid for pid, _ in found} == {traced.pid}


def test_software_event(traced: Traced) -> None:
    probe = ProbeSpec("software:cs:1", "software", "p", event="context-switches", count=1, pid=traced.pid)
    with Watch(one_program("perf_event", [probe])) as watch:
        for _ in range(5):
            traced.ask("f", 1)
        assert wait_for(watch, traced.pid) >= 1


def test_unknown_and_missing_events() -> None:
    with pytest.raises(ProbeError, match="'nonsense'"):
        Watch(one_program("perf_event", [ProbeSpec("software:x", "software", "p", event="nonsense", count=1)]))
    if not HAVE("perf:hardware"):
        with pytest.raises(AttachError) as caught:
            Watch(
                one_program(
                    "perf_event", [ProbeSpec("hardware:cycles", "hardware", "p", event="cpu-cycles", count=1000)]
                )
            )
        assert "virtual" in caught.value.hint


# tracepoints --------------------------------------------------------------------------------------------------------


def test_tracepoint_with_cookie() -> None:
    need("cookie:perf_event")
    probe = ProbeSpec("t", "tracepoint", "p", category="syscalls", event="sys_enter_getppid", cookie=9)
    with Watch(one_program("tracepoint", [probe], cookie=True)) as watch:
        for _ in range(7):
            os.getppid()
        assert watch.read_of(os.getpid()) == {9: 7}
        assert watch.links[0].how == "perf_event link"
        watch.links[0].close()
        watch.links[0].close()
        os.getppid()
        assert watch.read_of(os.getpid()) == {}


def test_several_tracepoints_of_one_program() -> None:
    need("cookie:perf_event")
    probes = [
        ProbeSpec(event, "tracepoint", "p", category="syscalls", event=f"sys_enter_{event}", cookie=i + 1)
        for i, event in enumerate(["getppid", "getpgrp"])
    ]
    with Watch(one_program("tracepoint", probes, cookie=True)) as watch:
        os.getppid()
        os.getpgrp()
        os.getppid()
        assert watch.read_of(os.getpid()) == {1: 2, 2: 1}
        assert len(watch.links) == 2


def test_no_such_tracepoint() -> None:
    with pytest.raises(ProbeError, match="sched:nonsense"):
        Watch(one_program("tracepoint", [ProbeSpec("t", "tracepoint", "p", category="sched", event="nonsense")]))


@pytest.mark.parametrize("typed", [False, True], ids=["plain", "with BTF"])
def test_raw_tracepoint(typed: bool) -> None:
    probe = ProbeSpec("rawtracepoint:sys_enter", "rawtracepoint", "p", event="sys_enter")
    if typed:
        spec = one_program("tracing", [probe], attach_type="trace_raw_tp", attach_btf="sys_enter")
    else:
        spec = one_program("raw_tracepoint", [probe])
    with Watch(spec) as watch:
        os.getppid()
        assert wait_for(watch, os.getpid()) >= 1


def test_no_such_raw_tracepoint() -> None:
    probe = ProbeSpec("rawtracepoint:nonsense", "rawtracepoint", "p", event="nonsense")
    with pytest.raises(ProbeError, match="nonsense"):
        Watch(one_program("raw_tracepoint", [probe]))
    with pytest.raises(ProbeError, match="raw tracepoint nonsense"):
        Watch(one_program("tracing", [probe], attach_type="trace_raw_tp", attach_btf="nonsense"))


# user space ---------------------------------------------------------------------------------------------------------

METHODS = pytest.mark.parametrize("without", [(), ("uprobe_multi",)], ids=["multi", "perf"])


def user_probe(traced: Traced, kind: str, symbol: str, **fields: int) -> ProbeSpec:
    offset = symbols(traced.path)[symbol]
    return ProbeSpec(f"{kind}:{symbol}", kind, "p", path=traced.path, offset=offset, symbol=symbol, **fields)  # type: ignore[arg-type]


@METHODS
@pytest.mark.parametrize("kind", ["uprobe", "uretprobe"])
def test_uprobes(traced: Traced, kind: str, without: tuple[str, ...]) -> None:
    need("cookie:perf_event")
    probes = [user_probe(traced, kind, "first", cookie=1), user_probe(traced, kind, "second", cookie=2)]
    with Watch(one_program("kprobe", probes, cookie=True), without) as watch:
        traced.ask("f", 5)
        traced.ask("s", 3)
        assert watch.read_of(traced.pid) == {1: 5, 2: 3}
        multi = HAVE("link:uprobe_multi") and not without
        assert len(watch.links) == (1 if multi else 2)
        assert watch.links[0].how.startswith(
            "uprobe_multi link" if multi else "uprobe perf_event link (refused: uprobe_"
        )


@METHODS
def test_uprobe_of_one_process(binary: str, traced: Traced, without: tuple[str, ...]) -> None:
    other = Traced(binary)
    try:
        with Watch(one_program("kprobe", [user_probe(traced, "uprobe", "first", pid=traced.pid)]), without) as watch:
            other.ask("f", 4)
            traced.ask("f", 3)
            assert watch.read_of(traced.pid) == {1: 3}
            assert watch.read_of(other.pid) == {}
    finally:
        other.close()


@METHODS
def test_usdt_semaphore_is_raised_while_attached(traced: Traced, without: tuple[str, ...]) -> None:
    probe = user_probe(traced, "usdt", "first", semaphore_offset=symbols(traced.path)["semaphore"])
    assert traced.ask("m", 0) == 0
    with Watch(one_program("kprobe", [probe]), without) as watch:
        assert traced.ask("m", 0) == 1
        traced.ask("f", 2)
        assert watch.read_of(traced.pid) == {1: 2}
    assert traced.ask("m", 0) == 0


@METHODS
@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"path": "/nonexistent"}, ProbeError, "does not exist"),
        ({"path": "/tmp"}, ProbeError, "not a regular file"),
        ({"offset": 1 << 40}, AttachError, "no probe can stand"),
        ({"pid": 1 << 22}, TargetError, "no process"),
    ],
)
def test_impossible_uprobes(
    traced: Traced, without: tuple[str, ...], fields: dict[str, object], error: type, words: str
) -> None:
    from sonde.record import replace

    probe = replace(user_probe(traced, "uprobe", "first"), **fields)
    with pytest.raises(error) as caught:
        Watch(one_program("kprobe", [probe]), without)
    assert words in f"{caught.value} {caught.value.hint}"  # type: ignore[attr-defined]


def test_tracefs_entries_come_and_go(traced: Traced) -> None:
    need("tracefs:uprobe_events")
    from sonde.debuginfo.tracefs import find_root
    from sonde.kernel.attach.tracefs_probe import attach_by_tracefs, remove_leftovers

    events = Path(find_root()) / "uprobe_events"
    spec = one_program("kprobe", [])
    with KernelEngine().load(spec) as live:
        link = attach_by_tracefs(live.programs["p"], user_probe(traced, "uprobe", "first"))
        assert f"sonde_{os.getpid()}_" in events.read_text()
        reader = live.reader()
        traced.ask("f", 3)
        assert reader.drain(lambda *_: None) == 3
        link.close()
        assert f"sonde_{os.getpid()}_" not in events.read_text()
    fd = os.open(events, os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"p:sonde/sonde_{1 << 22}_1 {traced.path}:{symbols(traced.path)['first']:#x}\n".encode())
    os.close(fd)
    assert remove_leftovers(str(events)) == 1
    assert "sonde/" not in events.read_text()


def test_watchpoint_in_all_threads(traced: Traced) -> None:
    need("perf:breakpoint")
    probe = ProbeSpec("w", "watchpoint", "p", address=traced.watched_addr, length=8, mode="w", pid=traced.pid)
    with Watch(one_program("perf_event", [probe])) as watch:
        traced.ask("w", 3)
        assert watch.read_of(traced.pid) == {1: 3}
        traced.ask("t", 2)  # each in a thread that did not exist when we attached
        assert watch.read_of(traced.pid) == {1: 2}


def test_impossible_watchpoints(traced: Traced) -> None:
    def watch(**fields: object) -> None:
        probe = ProbeSpec("w", "watchpoint", "p", **fields)  # type: ignore[arg-type]
        Watch(one_program("perf_event", [probe]))

    with pytest.raises(ProbeError, match="mode"):
        watch(address=traced.watched_addr, length=8, mode="q", pid=traced.pid)
    with pytest.raises(TargetError, match="no process"):
        watch(address=traced.watched_addr, length=8, mode="w", pid=1 << 22)
    need("perf:breakpoint")
    with pytest.raises(AttachError) as caught:
        watch(address=traced.watched_addr + 1, length=8, mode="w", pid=traced.pid)
    assert "aligned" in caught.value.hint


# iterators ----------------------------------------------------------------------------------------------------------


def iterator_spec(pin: str = "") -> ObjectSpec:
    """An iterator over tasks that writes 8 bytes for each: "12345678", as far as there is a task."""
    code = [
        Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_DW, 2, 1, 8),  # ctx->task
        Insn(isa.BPF_JMP | isa.BPF_JEQ | isa.BPF_K, 2, off=7),
        Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_DW, 1, 1, 0),  # ctx->meta
        Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_DW, 1, 1, 0),  # meta->seq
        Insn(isa.BPF_ST | isa.BPF_MEM | isa.BPF_DW, 10, off=-8, imm=0x34333231),
        Insn(isa.BPF_ALU64 | isa.BPF_MOV | isa.BPF_X, 2, 10),
        Insn(isa.BPF_ALU64 | isa.BPF_ADD | isa.BPF_K, 2, imm=-8),
        mov(3, 8),
        Insn(isa.CALL, imm=SEQ_WRITE),
        Insn(isa.BPF_ALU64 | isa.BPF_MOV | isa.BPF_K, 0, imm=0),
        Insn(isa.EXIT),
    ]
    program = ProgramSpec("p", "tracing", isa.encode(code), attach_type="trace_iter", attach_btf="task")
    return ObjectSpec((program,), (), (ProbeSpec("iter:task", "iter", "p", event="task", pin=pin),))


def test_iterator_over_tasks() -> None:
    need("program:iter")
    spec = iterator_spec()
    with KernelEngine().load(spec) as live:
        (link,) = live.attach(spec.probes)
        once, twice = b"".join(live.iterate(link)), b"".join(live.iterate(link))
    assert once.startswith(b"1234\0\0\0\0" * 10)
    assert {once[i : i + 8] for i in range(0, len(twice) & -8, 8)} <= {b"1234\0\0\0\0", b""}


def test_pinned_iterator_outlives_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("program:iter")
    done = subprocess.run(["mount", "-t", "bpf", "bpf", str(tmp_path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a BPF file system: {done.stderr.strip()}")
    monkeypatch.setattr("sonde.kernel.pins.BPFFS", str(tmp_path))
    try:
        spec = iterator_spec("tasks")
        with KernelEngine().load(spec) as live:
            live.attach(spec.probes)
            with pytest.raises(KernelError) as caught:
                live.attach(spec.probes)
            assert "remove" in caught.value.hint
        assert (tmp_path / "tasks").read_bytes().startswith(b"1234")
        (tmp_path / "tasks").unlink()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_impossible_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("program:iter")
    monkeypatch.setattr("sonde.kernel.pins.BPFFS", str(tmp_path))  # not a BPF file system
    for name, words in (
        ("../x", "is not below"),
        ("tasks", "pin the iterator"),
        ("no/such/folder", "pin the iterator"),
    ):
        spec = iterator_spec(name)
        with KernelEngine().load(spec) as live, pytest.raises(SondeError, match=words):
            live.attach(spec.probes)


# refusals -----------------------------------------------------------------------------------------------------------


def test_the_verifier_points_at_the_line() -> None:
    load = Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_DW, 0, 1, 8)
    bad = Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_DW, 0, 0, 8)
    source = Source("x.bt", "a\n  foo = 1")
    lines = (LineInfo(0, source.span(0, 1)), LineInfo(1, source.span(4, 7)))
    program = ProgramSpec("bad", "tracepoint", isa.encode([load, bad, Insn(isa.EXIT)]), lines=lines)
    with pytest.raises(VerifierError) as caught:
        KernelEngine().load(ObjectSpec((program,)))
    assert "R0 invalid mem access" in caught.value.summary
    text = caught.value.render()
    assert text.startswith("x.bt:2:3-6: ERROR: ")
    assert "  foo = 1\n  ~~~" in text


def test_fentry_that_the_kernel_refuses_is_explained() -> None:
    if HAVE("program:tracing:fentry"):
        pytest.skip("the running kernel allows fentry")
    probe = ProbeSpec("fentry:vfs_read", "fentry", "p", symbol="vfs_read")
    with pytest.raises((FeatureError, ProbeError)):
        Watch(one_program("tracing", [probe], attach_type="trace_fentry", attach_btf="vfs_read"))


def test_kprobe_without_kprobes_is_explained() -> None:
    if HAVE("pmu:kprobe"):
        pytest.skip("the running kernel has kprobes")
    names = ["vfs_read", "vfs_write"]
    for probes in (names[:1], names):
        specs = [ProbeSpec(f"kprobe:{n}", "kprobe", "p", symbol=n) for n in probes]
        with pytest.raises(FeatureError, match="no kprobe events"):
            Watch(one_program("kprobe", specs))


def test_callbacks_get_their_function_records() -> None:
    """bpf_loop with a function of the same program: the kernel insists on func_info for it."""
    need("helper:loop")
    code = [
        mov(1, 3),
        Insn(isa.LDDW, 2, isa.BPF_PSEUDO_FUNC),
        mov(3, 0),
        mov(4, 0),
        Insn(isa.CALL, imm=181),
        Insn(isa.EXIT),
        mov(0, 0),
        Insn(isa.EXIT),
    ]
    relocs = (Reloc(1, "subprogram", "body", 7),)
    program = ProgramSpec("p", "raw_tracepoint", isa.encode(code), relocs)
    with KernelEngine().load(ObjectSpec((program,))) as live:
        assert live.run("p") == 3


# perf buffers -------------------------------------------------------------------------------------------------------


def test_perf_buffer_goes_round_and_counts_what_it_lost() -> None:
    from sonde.kernel.perfbuf import PerfReader

    spec = perf_output_spec(56)
    payload = b"".join(i.to_bytes(8, "little") for i in range(0, 56, 8))
    with KernelEngine().load(spec) as live:
        reader = PerfReader(live.maps["events"], 4096)
        live.attach(spec.probes)
        seen = 0

        def take(data: memoryview, start: int, size: int) -> None:
            nonlocal seen
            if bytes(data[start : start + 56]) == payload:
                seen += 1

        for _ in range(40):  # twice round the ring
            for _ in range(7):
                os.getppid()
            reader.drain(take)
        assert (seen, reader.lost) == (280, 0)
        select.select([reader], [], [], 0)  # what was read meanwhile may be told of once more
        assert select.select([reader], [], [], 0)[0] == []
        for _ in range(500):
            os.getppid()
        assert select.select([reader], [], [], 0)[0] == [reader]
        reader.drain(take)
        for _ in range(2):  # the count of lost records comes with the next one that finds room
            os.getppid()
            reader.drain(take)
        assert reader.lost > 0
        assert seen + reader.lost == 282 + 500
        reader.close()
        reader.close()


def test_reader_of_an_object_with_a_perf_event_array() -> None:
    spec = perf_output_spec(16)
    with KernelEngine().load(spec) as live:
        reader = live.reader()
        live.attach(spec.probes)
        assert reader.waiting_bytes == 0
        os.getppid()
        assert reader.waiting_bytes >= 16
        assert reader.drain(lambda *_: None) >= 1


def test_detach_stops_all_programs_before_their_links_are_closed() -> None:
    names = ["getppid", "getpgrp", "getuid", "geteuid", "getgid", "getegid"]
    probes = [ProbeSpec(n, "tracepoint", "p", category="syscalls", event=f"sys_enter_{n}") for n in names]
    with Watch(one_program("tracepoint", probes)) as watch:
        os.getppid()
        watch.object.detach()
        os.getppid()
        os.getuid()
        assert watch.read_of(os.getpid()) == {1: 1}
        assert not any(link.closed for link in watch.links)
        watch.object.detach()
        watch.object.close()
        assert all(link.closed for link in watch.links)


def test_the_ring_is_readable_while_records_wait() -> None:
    insns, relocs = constant_reporter(5)
    program = ProgramSpec("b", "raw_tracepoint", insns, relocs)
    with KernelEngine().load(ObjectSpec((program,), (EVENTS,), ringbuf="events")) as live:
        reader = live.reader()
        assert select.select([reader], [], [], 0)[0] == []
        live.run("b")
        assert select.select([reader], [], [], 0)[0] == [reader]
        assert reader.drain(lambda *_: None) == 1
        assert select.select([reader], [], [], 0)[0] == []


def test_a_full_ring_loses_new_records_and_keeps_the_old() -> None:
    """The ring holds what fits; after a drain there is room again."""
    insns, relocs = constant_reporter(5)
    program = ProgramSpec("b", "raw_tracepoint", insns, relocs)
    ring = MapSpec("events", "ringbuf", 0, 0, 4096)
    with KernelEngine().load(ObjectSpec((program,), (ring,), ringbuf="events")) as live:
        reader = live.reader()
        for _ in range(1000):
            live.run("b")
        assert reader.drain(lambda *_: None) == 4096 // 24  # header and 16 bytes
        live.run("b")
        assert reader.drain(lambda *_: None) == 1


# the running machine as a target ------------------------------------------------------------------------------------


def test_live_target() -> None:
    from sonde.kernel.target import live_target

    target = live_target()
    assert (target.arch, target.release) == (os.uname().machine, os.uname().release)
    assert target.page_bytes == os.sysconf("SC_PAGESIZE")
    assert target.btf().get_struct("task_struct") is not None
    assert target.tracepoint("sched", "sched_switch") is target.tracepoint("sched", "sched_switch")
    assert target.ksym("vfs_read") > 1 << 63
    assert target.ksym("sonde_no_such_symbol") == 0
    assert target.features.have("map:hash")
    with pytest.raises(ProbeError):
        target.tracepoint("sched", "nonsense")


# what other processes see -------------------------------------------------------------------------------------------

TESTS = str(Path(__file__).resolve().parents[1])


def start(source: str, *args: str) -> subprocess.Popen[str]:
    """Run Python source in a process of its own."""
    paths = [TESTS, str(Path(TESTS).parent / "src")]
    head = f"import sys; sys.path[:0] = {paths!r}\n"
    return subprocess.Popen([sys.executable, "-c", head + source, *args], stdout=subprocess.PIPE, text=True)


def test_nothing_stays_behind_a_kill(traced: Traced) -> None:
    """The semaphore is raised by a process that is then killed: the kernel lowers it again."""
    offsets = symbols(traced.path)
    source = """
import time
from kernel.by_hand import Watch, one_program
from sonde.spec.object import ProbeSpec
probe = ProbeSpec("usdt", "usdt", "p", path=sys.argv[1], offset=int(sys.argv[2]), semaphore_offset=int(sys.argv[3]))
watch = Watch(one_program("kprobe", [probe]))
print("attached", flush=True)
time.sleep(60)
"""
    process = start(source, traced.path, str(offsets["first"]), str(offsets["semaphore"]))
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "attached\n"
        assert traced.ask("m", 0) == 1
        process.kill()
    assert traced.ask("m", 0) == 0


def test_more_probes_than_open_files_are_allowed() -> None:
    source = """
import os, resource
from kernel.by_hand import Watch, one_program
from sonde.debuginfo.tracefs import find_root
from sonde.spec.object import ProbeSpec
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
events = [name for name in os.listdir(find_root() + "/events/syscalls") if name.startswith("sys_enter_")][:20]
probes = [ProbeSpec(name, "tracepoint", "p", category="syscalls", event=name) for name in events]
with Watch(one_program("tracepoint", probes)) as watch:
    print(len(watch.links))
"""
    with start(source) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "20\n"

"""Each system call refused with each errno in turn: always one of our errors, and nothing left open."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.kernel.fake_kernel import FakeKernel, open_descriptors

from sonde.errors import FeatureError, PrivilegeError, SondeError, VerifierError
from sonde.kernel import cpus, descriptor, perf_event, syscall
from sonde.kernel.attach import kprobe, timer, uprobe
from sonde.kernel.engine import KernelEngine
from sonde.spec.object import MapSpec, ObjectSpec, ProbeSpec, ProgramSpec, Reloc

RETURN = bytes.fromhex("b700000000000000 9500000000000000")
LDDW_MAP = bytes.fromhex("1801000000000000 0000000000000000")
LDDW_FUNC = bytes.fromhex("1842000003000000 0000000000000000")
ERRNOS = [*sorted(errno.errorcode), 524]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeKernel]:
    fake = FakeKernel()
    event = tmp_path / "events" / "sched" / "sched_switch"
    event.mkdir(parents=True)
    (event / "id").write_text("300\n")
    monkeypatch.setattr(syscall, "enter", fake.enter)
    monkeypatch.setattr("sonde.debuginfo.tracefs.find_root", lambda: str(tmp_path))
    monkeypatch.setattr(uprobe, "read_pmu_type", lambda folder: 8)
    monkeypatch.setattr(kprobe, "read_pmu_type", lambda folder: 9)
    monkeypatch.setattr(descriptor, "raise_memlock", lambda: False)
    monkeypatch.setattr(descriptor, "raise_open_files", lambda: False)
    monkeypatch.setattr(cpus, "online_cpus", lambda: [0, 1])
    monkeypatch.setattr(timer, "online_cpus", lambda: [0, 1])
    monkeypatch.setattr(perf_event, "_links_refused", "")
    yield fake


PROBES = (
    ProbeSpec("begin", "begin", "begin"),
    ProbeSpec("tracepoint:sched:sched_switch", "tracepoint", "tp", category="sched", event="sched_switch"),
    ProbeSpec("interval:s:1", "interval", "timer", period_ns=10**9),
    ProbeSpec("profile:hz:99", "profile", "timer", frequency_hz=99),
    ProbeSpec("software:cs:1", "software", "timer", event="context-switches", count=1),
    ProbeSpec("uprobe:/bin/sh:a", "uprobe", "u", path="/bin/sh", offset=8),
    ProbeSpec("uprobe:/bin/sh:b", "uprobe", "u", path="/bin/sh", offset=16),
    ProbeSpec("kprobe:a", "kprobe", "k", symbol="a"),
    ProbeSpec("kprobe:b", "kprobe", "k", symbol="b"),
    ProbeSpec("rawtracepoint:x", "rawtracepoint", "begin", event="x"),
    ProbeSpec("watchpoint:0x1000:8:w", "watchpoint", "timer", address=0x1000, length=8, mode="w"),
)
SPEC = ObjectSpec(
    programs=(
        ProgramSpec("begin", "raw_tracepoint", LDDW_MAP + RETURN, (Reloc(0, "map", "events"),)),
        ProgramSpec("tp", "tracepoint", LDDW_FUNC + RETURN + RETURN),
        ProgramSpec("timer", "perf_event", RETURN),
        ProgramSpec("u", "kprobe", RETURN),
        ProgramSpec("k", "kprobe", RETURN),
    ),
    maps=(
        MapSpec("events", "hash", 4, 4, 16),
        MapSpec("globals", "array", 4, 8, 1, initial=b"12345678", frozen=True),
        MapSpec("outer", "array_of_maps", 4, 4, 1, inner=MapSpec("inner", "array", 4, 4, 1)),
        MapSpec("percpu", "percpu_array", 4, 8, 1, initial=b"12345678"),
    ),
    probes=PROBES,
)


def run_all() -> None:
    """Load, attach, run, use and close the object."""
    with KernelEngine().load(SPEC) as live:
        by_program: dict[str, list[ProbeSpec]] = {}
        for probe in PROBES:
            by_program.setdefault(probe.program, []).append(probe)
        for probes in by_program.values():
            live.attach(probes)
        live.run("begin")
        for table in live.maps.values():
            assert table.lookup(bytes(4)) is None
            table.update(bytes(4), bytes(table.spec.value_size))
            table.delete(bytes(4))
            list(table.items())


def test_all_goes_well(kernel: FakeKernel) -> None:
    before = open_descriptors()
    run_all()
    assert open_descriptors() == before
    assert len(kernel.calls) > 40


@pytest.mark.parametrize("number", ERRNOS, ids=lambda n: errno.errorcode.get(n, str(n)))
def test_each_call_refused(kernel: FakeKernel, number: int) -> None:
    run_all()
    count = len(kernel.calls)
    before = open_descriptors()
    for ordinal in range(count):
        perf_event._links_refused = ""
        kernel.calls.clear()
        kernel.refuse = {ordinal: number}
        try:
            run_all()
        except SondeError as error:
            assert error.message
        assert open_descriptors() == before, (ordinal, number)


@pytest.mark.parametrize("command", ["bpf 0", "bpf 5", "bpf 28", "perf", "bpf 10", "bpf 18"])
@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOMEM, errno.EAGAIN, errno.ENOSYS])
def test_a_call_refused_for_good(kernel: FakeKernel, command: str, number: int) -> None:
    before = open_descriptors()
    kernel.refuse_always = {command: number}
    if (command, number) == ("bpf 28", errno.EINVAL):
        run_all()  # no links at all: everything goes by ioctl
        assert "ioctl" in kernel.calls
    else:
        with pytest.raises(SondeError):
            run_all()
    assert open_descriptors() == before


def test_a_refused_program_shows_its_log(kernel: FakeKernel) -> None:
    kernel.log = b"0: (b7) r0 = 0\nR0 is no good\nprocessed 1 insns\n"
    kernel.refuse_always = {"bpf 5": errno.EACCES}
    with pytest.raises(VerifierError) as caught:
        run_all()
    assert caught.value.summary == "R0 is no good"
    assert "R0 is no good" in caught.value.render()


def test_a_program_type_that_is_forbidden(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPERM without a log: a missing capability if there is one, otherwise the kernel's own policy."""
    kernel.refuse_always = {"bpf 5": errno.EPERM}
    monkeypatch.setattr("sonde.kernel.programs.missing_capability", lambda *names: "")
    with pytest.raises(FeatureError, match="no capability is missing"):
        run_all()
    monkeypatch.setattr("sonde.kernel.programs.missing_capability", lambda *names: "CAP_BPF")
    monkeypatch.setattr("sonde.kernel.refusal.missing_capability", lambda *names: "CAP_BPF")
    with pytest.raises(PrivilegeError) as caught:
        run_all()
    assert caught.value.capability == "CAP_BPF"


def test_attach_is_all_or_nothing(kernel: FakeKernel) -> None:
    with KernelEngine(("uprobe_multi",)).load(SPEC) as live:
        before = open_descriptors()
        kernel.refuse = {len(kernel.calls) + 2: errno.ENOSPC}  # the second perf event
        with pytest.raises(SondeError):
            live.attach([p for p in PROBES if p.type == "uprobe"])
        after = open_descriptors()
    assert after - before == set()


def test_methods_and_what_was_refused(kernel: FakeKernel) -> None:
    kernel.refuse_always = {"bpf 28": errno.EINVAL}
    with KernelEngine().load(SPEC) as live:
        links = live.attach([p for p in PROBES if p.program == "u"])
        assert len(links) == 2
        assert links[0].how == (
            "uprobe perf_event ioctl (refused: uprobe_multi: EINVAL (Invalid argument); "
            "perf_event link: EINVAL (Invalid argument))"
        )
        kernel.refuse_always = {}
        perf_event._links_refused = ""
        multi = live.attach([p for p in PROBES if p.program == "k"])
        assert [link.how for link in multi] == ["kprobe_multi link"]


def test_a_multi_link_keeps_what_ftrace_knows(kernel: FakeKernel, tmp_path: Path) -> None:
    """One function that ftrace cannot trace makes the kernel refuse all: then it goes alone."""
    (tmp_path / "available_filter_functions").write_text("a\nb [module]\nz\n")
    names = ["a", "c", "b"]
    probes = [ProbeSpec(f"kprobe:{n}", "kprobe", "k", symbol=n) for n in names]
    with KernelEngine().load(SPEC) as live:
        kernel.refuse = {len(kernel.calls): errno.EINVAL}
        links = live.attach(probes)
        assert [([p.symbol for p in link.probes], link.method) for link in links] == [
            (["a", "b"], "kprobe_multi link"),
            (["c"], "kprobe perf_event link"),
        ]
        (tmp_path / "available_filter_functions").unlink()
        kernel.refuse = {len(kernel.calls): errno.EINVAL}
        assert [link.method for link in live.attach(probes)] == ["kprobe perf_event link"] * 3


def test_everything_warns_when_forgotten(kernel: FakeKernel) -> None:
    with pytest.warns(ResourceWarning, match="never closed"):
        live = KernelEngine().load(SPEC)
        del live


@pytest.mark.parametrize(("number", "name"), [(errno.EPERM, "raise_memlock"), (errno.EMFILE, "raise_open_files")])
def test_limits_are_raised_when_they_are_in_the_way(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    asked: list[bool] = []

    def raise_it() -> bool:
        asked.append(True)
        return True

    monkeypatch.setattr(descriptor, name, raise_it)
    kernel.refuse = {0: number}
    run_all()
    assert asked == [True]


def test_a_limit_is_raised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    limits = {resource.RLIMIT_NOFILE: (64, 4096), resource.RLIMIT_MEMLOCK: (64, 64)}
    monkeypatch.setattr(descriptor, "_raised", set())
    monkeypatch.setattr(resource, "getrlimit", lambda number: limits[number])

    def refuse_more(number: int, limit: tuple[int, int]) -> None:
        if limit[1] > limits[number][1] or limit[1] == resource.RLIM_INFINITY:
            raise ValueError("not allowed to raise maximum limit")
        limits[number] = limit

    monkeypatch.setattr(resource, "setrlimit", refuse_more)
    assert descriptor.raise_open_files()
    assert limits[resource.RLIMIT_NOFILE] == (4096, 4096)
    assert not descriptor.raise_open_files()
    assert not descriptor.raise_memlock()

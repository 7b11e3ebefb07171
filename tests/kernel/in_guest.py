"""Checks of the kernel engine that need kprobes, fentry or an old kernel: each is a function, run inside of a guest.

Started with the name of a check and the path of a built `by_hand.PROGRAM`. Prints what it found; "SKIP: …" when
the kernel lacks what the check is about; a failed assertion ends the process with a traceback.
"""

from __future__ import annotations

import os
import sys

from kernel.by_hand import EVENTS, Traced, Watch, one_program, symbols

from sonde.errors import FeatureError, ProbeError, SondeError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.features import FeatureTable
from sonde.spec.object import MapSpec, ObjectSpec, ProbeSpec

HAVE = FeatureTable().have
GETPPID, GETPGRP = "__x64_sys_getppid", "__x64_sys_getpgrp"


class Skip(Exception):
    """The kernel lacks what the check is about."""


def need(feature: str) -> None:
    if not HAVE(feature):
        raise Skip(feature)


def calls(first: int, second: int) -> None:
    """Make so many calls of the two functions."""
    for _ in range(first):
        os.getppid()
    for _ in range(second):
        os.getpgrp()


def kernel_probe(kind: str, symbol: str, **fields: object) -> ProbeSpec:
    return ProbeSpec(f"{kind}:{symbol}", kind, "p", symbol=symbol, **fields)  # type: ignore[arg-type]


def expect(watch: Watch, wanted: dict[int, int]) -> None:
    found = watch.read_of(os.getpid())
    print([link.how for link in watch.links], found)
    assert found == wanted, (found, wanted)


def has_cookies() -> bool:
    return HAVE("cookie:perf_event")


# kprobes ------------------------------------------------------------------------------------------------------------


def kprobe(path: str) -> None:
    for kind in ("kprobe", "kretprobe"):
        with Watch(one_program("kprobe", [kernel_probe(kind, GETPPID)])) as watch:
            calls(3, 2)
            expect(watch, {1: 3})
            method = "link" if HAVE("link:perf_event") else "ioctl"
            assert watch.links[0].how.startswith(f"kprobe perf_event {method}")
            watch.links[0].close()
            calls(1, 1)
            expect(watch, {})


def kprobe_cookie(path: str) -> None:
    if not has_cookies():
        try:
            Watch(one_program("kprobe", [kernel_probe("kprobe", GETPPID, cookie=5)]))
        except FeatureError as error:
            print(error.message)
            return
        raise AssertionError("a cookie was taken by a kernel without them")
    with Watch(one_program("kprobe", [kernel_probe("kprobe", GETPPID, cookie=5)], cookie=True)) as watch:
        calls(3, 2)
        expect(watch, {5: 3})


def kprobes_of_one_program(path: str) -> None:
    cookies = (5, 6) if has_cookies() else (0, 0)
    for kind in ("kprobe", "kretprobe"):
        probes = [kernel_probe(kind, GETPPID, cookie=cookies[0]), kernel_probe(kind, GETPGRP, cookie=cookies[1])]
        for without in ((), ("kprobe_multi",)):
            with Watch(one_program("kprobe", probes, cookie=has_cookies()), without) as watch:
                calls(3, 2)
                expect(watch, {5: 3, 6: 2} if has_cookies() else {1: 5})
                multi = HAVE("link:kprobe_multi") and not without
                assert watch.links[0].how.startswith("kprobe_multi link" if multi else "kprobe perf_event"), watch.links
                assert len(watch.links) == (1 if multi else 2)


def kprobe_by_address_and_offset(path: str) -> None:
    from sonde.debuginfo.kallsyms import Kallsyms

    symbols_ = Kallsyms()
    where = symbols_.address(GETPPID)
    symbols_.close()
    assert where
    with Watch(one_program("kprobe", [ProbeSpec("kprobe:addr", "kprobe", "p", address=where)])) as watch:
        calls(3, 2)
        expect(watch, {1: 3})
    taken = 0
    for offset in range(1, 16):
        try:
            with Watch(one_program("kprobe", [kernel_probe("kprobe", GETPPID, offset=offset)])) as watch:
                calls(3, 0)
                found = watch.read_of(os.getpid())
                taken += found == {1: 3}
        except SondeError as error:
            print(offset, error.message, "|", error.hint)
    assert taken >= 1


def kprobe_in_a_module(path: str) -> None:
    """overlay is loaded in every guest, as a module or built in."""
    with open("/proc/modules") as file:
        modules = {line.split()[0] for line in file}
    if "overlay" not in modules:
        raise Skip("overlay is not a module here")
    probes = [kernel_probe("kprobe", name, module="overlay") for name in ("ovl_lookup", "ovl_getattr")]
    for chosen in (probes[:1], probes):
        with Watch(one_program("kprobe", chosen)) as watch:
            for i in range(3):
                try:
                    os.stat(f"/sonde_missing_{os.getpid()}_{len(chosen)}_{i}")
                except OSError:
                    pass
            found = watch.read_of(os.getpid())
            print([link.how for link in watch.links], found)
            assert found.get(1, 0) >= 3


def impossible_kprobes(path: str) -> None:
    for symbol, words in (("sonde_no_such_function", "no function"), ("kprobe_int3_handler", "")):
        alone, together = [kernel_probe("kprobe", symbol)], [kernel_probe("kprobe", s) for s in (GETPPID, symbol)]
        for probes in (alone, together) if words else (alone,):  # a multi link takes what kprobes refuse
            try:
                Watch(one_program("kprobe", probes))
            except SondeError as error:
                print(error.render())
                assert error.hint
                assert words in error.message
                assert not words or isinstance(error, ProbeError)
            else:
                raise AssertionError(f"{symbol} was probed")


def kprobe_by_tracefs(path: str) -> None:
    from sonde.debuginfo.tracefs import find_root
    from sonde.kernel.attach.tracefs_probe import attach_by_tracefs

    events = find_root() + "/kprobe_events"
    with KernelEngine().load(one_program("kprobe", [])) as live:
        reader = live.reader()
        for kind in ("kprobe", "kretprobe"):
            link = attach_by_tracefs(live.programs["p"], kernel_probe(kind, GETPPID))
            calls(3, 2)
            assert reader.drain(lambda *_: None) == 3
            with open(events) as file:
                assert f"sonde_{os.getpid()}_" in file.read()
            link.close()
            with open(events) as file:
                assert "sonde_" not in file.read()
            print(link)


# tracing programs ---------------------------------------------------------------------------------------------------


def reads(count: int) -> None:
    """Make so many calls of vfs_read: BTF knows it on every kernel, system calls themselves it does not."""
    fd = os.open("/dev/zero", os.O_RDONLY)
    for _ in range(count):
        os.read(fd, 1)
    os.close(fd)


def fentry(path: str) -> None:
    need("program:tracing:fentry")
    for kind in ("fentry", "fexit"):
        spec = one_program(
            "tracing", [kernel_probe(kind, "vfs_read")], attach_type=f"trace_{kind}", attach_btf="vfs_read"
        )
        with Watch(spec) as watch:
            reads(3)
            expect(watch, {1: 3})


def fentry_cookie(path: str) -> None:
    need("program:tracing:fentry")
    need("cookie:tracing")
    probe = kernel_probe("fentry", "vfs_read", cookie=8)
    spec = one_program("tracing", [probe], cookie=True, attach_type="trace_fentry", attach_btf="vfs_read")
    with Watch(spec) as watch:
        reads(3)
        expect(watch, {8: 3})


def fentry_in_a_module(path: str) -> None:
    need("program:tracing:fentry")
    if not os.path.exists("/sys/kernel/btf/overlay"):
        raise Skip("no BTF of module overlay")
    probe = kernel_probe("fentry", "ovl_getattr", module="overlay")
    spec = one_program("tracing", [probe], attach_type="trace_fentry", attach_btf="ovl_getattr")
    with Watch(spec) as watch:
        os.stat("/etc")
        os.stat("/etc/passwd")
        found = watch.read_of(os.getpid())
        print(found)
        assert found.get(1, 0) >= 2


def impossible_fentry(path: str) -> None:
    probe = kernel_probe("fentry", "sonde_no_such_function")
    try:
        spec = one_program("tracing", [probe], attach_type="trace_fentry", attach_btf="sonde_no_such_function")
        Watch(spec)
    except ProbeError as error:
        print(error.message)
    else:
        raise AssertionError


def raw_tracepoints(path: str) -> None:
    probe = ProbeSpec("rawtracepoint:sys_enter", "rawtracepoint", "p", event="sys_enter")
    plain = one_program("raw_tracepoint", [probe])
    typed = one_program("tracing", [probe], attach_type="trace_raw_tp", attach_btf="sys_enter")
    for spec in (plain, typed):
        with Watch(spec) as watch:
            calls(3, 2)
            found = watch.read_of(os.getpid())
            print([link.how for link in watch.links], found)
            assert found[1] >= 5


# what old kernels do differently ------------------------------------------------------------------------------------


def tracepoint_and_timers(path: str) -> None:
    probe = ProbeSpec("t", "tracepoint", "p", category="syscalls", event="sys_enter_getppid")
    with Watch(one_program("tracepoint", [probe])) as watch:
        calls(3, 2)
        expect(watch, {1: 3})
        assert ("link" in watch.links[0].method) == HAVE("link:perf_event")
    for probe in (
        ProbeSpec("interval:ms:1", "interval", "p", period_ns=1_000_000),
        ProbeSpec("profile:hz:999", "profile", "p", frequency_hz=999),
    ):
        with Watch(one_program("perf_event", [probe])) as watch:
            for _ in range(200_000):
                pass
            found = sum(watch.read().values())
            print(probe.name, watch.links[0].how, found)
            assert found


def uprobes(path: str) -> None:
    offsets = symbols(path)
    traced = Traced(path)
    try:
        probes = [
            ProbeSpec(
                f"{kind}:{name}", kind, "p", path=path, offset=offsets[name], symbol=name, semaphore_offset=semaphore
            )
            for kind, name, semaphore in (
                ("uprobe", "second", 0),
                ("uretprobe", "second", 0),
                ("usdt", "first", offsets["semaphore"]),
            )
        ]
        for without in ((), ("uprobe_multi",)):
            with Watch(one_program("kprobe", probes), without) as watch:
                assert traced.ask("m", 0) == 1
                traced.ask("f", 3)
                traced.ask("s", 2)
                found = watch.read_of(traced.pid)
                print([link.how for link in watch.links], found)
                assert found == {1: 3 + 2 + 2}
            assert traced.ask("m", 0) == 0
    finally:
        traced.close()


def watchpoints(path: str) -> None:
    need("perf:breakpoint")
    traced = Traced(path)
    try:
        probe = ProbeSpec("w", "watchpoint", "p", address=traced.watched_addr, length=8, mode="w", pid=traced.pid)
        with Watch(one_program("perf_event", [probe])) as watch:
            traced.ask("w", 3)
            traced.ask("t", 2)
            found = watch.read_of(traced.pid)
            print(found)
            assert found == {1: 5}
    finally:
        traced.close()


def large_maps_under_memlock(path: str) -> None:
    """Linux 5.10 counts maps against RLIMIT_MEMLOCK (64 KiB); nobody should notice."""
    big = ObjectSpec((), (EVENTS, MapSpec("m", "hash", 8, 64, 100_000), MapSpec("p", "percpu_hash", 8, 64, 10_000)))
    with KernelEngine().load(big) as live:
        live.maps["m"].update(bytes(8), bytes(64))
        live.maps["p"].update(bytes(8), bytes(64))
        print([len(list(m.items())) for m in live.maps.values() if m.name != "events"])


def iterate_maps(path: str) -> None:
    for kind in ("hash", "percpu_hash", "array", "percpu_array", "lru_hash"):
        with KernelEngine().load(ObjectSpec((), (MapSpec("m", kind, 4, 8, 500),))) as live:
            table = live.maps["m"]
            for i in range(500):
                table.update(i.to_bytes(4, "little"), i.to_bytes(8, "little"))
            count = len(list(table.items()))
            print(kind, table.batched, count)
            assert count > 400 if kind == "lru_hash" else count == 500


def perf_buffer(path: str) -> None:
    from kernel.by_hand import perf_output_spec

    from sonde.kernel.perfbuf import PerfReader

    spec = perf_output_spec(56)
    with KernelEngine().load(spec) as live:
        reader = PerfReader(live.maps["events"], 4096)
        live.attach(spec.probes)
        seen = 0
        for _ in range(20):
            calls(7, 0)
            seen += reader.drain(lambda *_: None)
        print(seen, reader.lost)
        assert (seen, reader.lost) == (140, 0)
        reader.close()


def features(path: str) -> None:
    """The table answers every question without an error, and agrees with what is certain."""
    from sonde.kernel.features import iter_features

    rows = list(iter_features())
    for name, have, note in rows:
        if not name.startswith("helper:"):
            print(f"{name:30} {'yes' if have else 'no':4} {note}")
    table = {name: have for name, have, _ in rows}
    for certain in (
        "btf:vmlinux", "program:kprobe", "program:tracepoint", "program:raw_tracepoint", "program:perf_event",
        "program:tracing:fentry", "program:iter", "prog_test_run:raw_tracepoint", "pmu:kprobe", "pmu:uprobe",
        "map:hash", "map:ringbuf", "map:stack_trace", "isa:v3", "isa:bounded_loops", "helper:ktime_get_ns",
        "helper:probe_read_kernel_str", "helper:ringbuf_reserve", "helper:get_stackid", "helper:seq_write",
    ):  # fmt: skip
        assert table[certain], certain
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    for name, since in (
        ("link:perf_event", (5, 15)), ("helper:loop", (5, 17)), ("helper:get_attach_cookie", (5, 15)),
        ("map:bloom_filter", (5, 16)), ("isa:v4", (6, 6)), ("link:uprobe_multi", (6, 6)), ("isa:atomics", (5, 12)),
        ("isa:may_goto", (6, 9)), ("map:arena", (6, 9)), ("program:syscall", (5, 14)),
    ):  # fmt: skip
        assert table[name] == (release >= since), (name, table[name])


CHECKS = [
    name
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__code__", None) and value.__code__.co_varnames[:1] == ("path",)
]


def main() -> int:
    """Run one check."""
    name, path = sys.argv[1:3]
    try:
        globals()[name](path)
    except Skip as reason:
        print(f"SKIP: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

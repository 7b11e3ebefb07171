"""Compiled scripts in the interpreter, on maps in memory: they run, and leave the same bytes in maps and ring as in the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from corpus_cases import load_cases
from object_machine import ObjectMachine

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.bpf.maps import SharedMap
from sonde.bpf.maps.ringbuf import RingMap
from sonde.bpf.runtime import World
from sonde.errors import SondeError
from sonde.kernel.engine import KernelEngine, KernelObject
from sonde.kernel.maps import KernelMap
from sonde.record import replace
from sonde.spec.object import ObjectSpec

pytestmark = pytest.mark.kernel
STEP = int(os.environ.get("SONDE_CORPUS_STEP", "4"))  # every so many cases of the corpus

# What answers differently each time, or knows what only the kernel does.
LIVE = frozenset(
    [
        "get_current_task_btf",
        "get_current_task",
        "get_current_cgroup_id",
        "get_stack",
        "get_stackid",
        "get_prandom_u32",
        "get_smp_processor_id",
        "get_numa_node_id",
    ]
)


class ThisProcess(World):
    """Programs that are run for a test run in its main thread."""

    def pid_tgid(self) -> int:
        return os.getpid() << 32 | os.getpid()


def compiled() -> Iterator[tuple[str, ObjectSpec]]:
    target = live_target()
    for case in load_cases()[::STEP]:
        words = case.words
        if "-e" not in words[:-1]:
            continue
        try:
            yield (
                case.name,
                compile(words[words.index("-e") + 1], target, TraceOptions(unsafe=True), environ={}),
            )
        except SondeError:
            continue


def test_every_program_of_the_corpus_runs() -> None:
    """On contexts of zeros: nothing is read or written outside its memory, and no helper is missing."""
    count = 0
    for name, spec in compiled():
        with ObjectMachine(spec, ThisProcess(), zeros=True) as machine:
            for program in spec.programs:
                try:
                    machine.run(program)
                except SondeError as error:
                    pytest.fail(f"{name}: {program.name}: {error.render()}")
                count += 1
    assert count > 600 / STEP


def only_begin(spec: ObjectSpec) -> ObjectSpec:
    names = {probe.program for probe in spec.probes if probe.type == "begin"}
    programs = tuple(p for p in spec.programs if p.name in names and not is_live(p.helpers))
    return replace(spec, programs=programs, probes=tuple(p for p in spec.probes if p.program in names))


def is_live(helpers: tuple[str, ...]) -> bool:
    return any(name in LIVE or name.startswith("ktime") for name in helpers)


def drain(reader) -> list[bytes]:  # type: ignore[no-untyped-def]
    found: list[bytes] = []
    reader.drain(lambda data, start, size: found.append(bytes(data[start : start + size])))
    return found


def test_what_begin_programs_leave_behind() -> None:
    same = 0
    for name, whole in compiled():
        spec = only_begin(whole)
        if not spec.programs or not spec.ringbuf:
            continue
        with (
            KernelEngine().load(spec) as loaded,
            ObjectMachine(spec, ThisProcess()) as interpreted,
            ObjectMachine(spec, ThisProcess()) as native,
        ):
            results = [[loaded.run(p.name) for p in spec.programs]]
            results.append([interpreted.run(p) & 0xFFFFFFFF for p in spec.programs])
            results.append([native.run_native(p) & 0xFFFFFFFF for p in spec.programs])
            assert results[0] == results[1] == results[2], name
            compare(name, spec, loaded, interpreted)
            compare(name, spec, native, interpreted)
            same += 1
    assert same > 400 / STEP


def compare(name: str, spec: ObjectSpec, one: KernelObject | ObjectMachine, other: ObjectMachine) -> None:
    """Hold the maps and the ring of two against each other. Records are read, but not taken out of the other's ring."""
    assert records_of(other, spec) == records_of(one, spec), name
    for key, table in one.maps.items():
        if key == spec.ringbuf or spec_type(table) in ("stack_trace", "perf_event_array"):
            continue
        # A program ran on one CPU, whichever it was.
        expected = sorted((k, sorted(values)) for k, values in table.items())
        assert sorted((k, sorted(values)) for k, values in other.maps[key].items()) == expected, f"{name}: {key}"


def records_of(which: KernelObject | ObjectMachine, spec: ObjectSpec) -> list[bytes]:
    if isinstance(which, KernelObject):
        return drain(which.reader())
    if not which.records:
        ring = which.maps[spec.ringbuf]
        assert isinstance(ring, RingMap)
        reader = ring.reader()
        which.records += drain(reader)
        reader.close()
    return which.records


def spec_type(table: KernelMap | SharedMap) -> str:
    return table.spec.type if isinstance(table, KernelMap) else table.shape.kind

"""The helpers of maps in the interpreter against the kernel's: the same program on the same map returns the same, call by call."""

from __future__ import annotations

import os

import pytest
from map_programs import IO, MapProgram
from object_machine import ObjectMachine

from sonde.bpf.interp import Program
from sonde.kernel.cpus import possible_cpus
from sonde.kernel.engine import KernelEngine
from sonde.spec.object import MapSpec, ObjectSpec

pytestmark = pytest.mark.kernel
COUNT = int(os.environ.get("SONDE_FUZZ_PROGRAMS", "40"))

MAPS = [
    MapSpec("m", "hash", 4, 8, 5),
    MapSpec("m", "hash", 20, 60, 3),
    MapSpec("m", "percpu_hash", 8, 4, 4),
    MapSpec("m", "array", 4, 3, 3),
    MapSpec("m", "percpu_array", 4, 8, 3),
    MapSpec("m", "lpm_trie", 8, 8, 6, flags=1),
    MapSpec("m", "queue", 0, 5, 3),
    MapSpec("m", "stack", 0, 8, 3),
    MapSpec("m", "bloom_filter", 0, 8, 50),
]


@pytest.mark.parametrize("spec", MAPS, ids=lambda spec: f"{spec.type}-{spec.value_size}")
def test_helpers(spec: MapSpec) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        for seed in range(COUNT):
            compare(spec, seed, min(before))
    finally:
        os.sched_setaffinity(0, before)


def compare(spec: MapSpec, seed: int, cpu: int) -> None:
    made = MapProgram(spec, seed)
    described = ObjectSpec((made.program(),), (IO, spec))
    with KernelEngine().load(described) as loaded, ObjectMachine(described, cpus=possible_cpus()) as machine:
        machine.machine.world.cpu = cpu
        for _ in range(2):
            loaded.run("maps")
            machine.machine.run(Program(made.insns))
            assert machine.maps["io"].lookup(bytes(4)) == loaded.maps["io"].lookup(bytes(4)), f"seed {seed}"
        if spec.key_size:
            assert sorted(machine.maps["m"].items()) == sorted(loaded.maps["m"].items()), f"seed {seed}"

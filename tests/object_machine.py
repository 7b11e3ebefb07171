"""Compiled objects without a kernel: the programs of an ObjectSpec in the interpreter, on maps in memory and with the helpers of `bpf.runtime`."""

from __future__ import annotations

import ctypes
import os

from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import decode
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed, cpu_features
from sonde.bpf.jit.maps import make_plan
from sonde.bpf.maps import MapShape, SharedMap, create
from sonde.bpf.memory import Memory
from sonde.bpf.runtime import World, helper_table
from sonde.bpf.runtime.native import NativeMachine
from sonde.kernel.maps import entries_of
from sonde.spec.object import MapSpec, ObjectSpec, ProgramSpec
from sonde.spec.relocation import relocate

CPUS = 2
CONTEXT_BYTES = 4096
TASK_BYTES = 1 << 16


def shape_of(spec: MapSpec, cpus: int = CPUS) -> MapShape:
    """Return what the kernel engine would make of a map."""
    entries = entries_of(spec)
    return MapShape(
        spec.type, spec.key_size, spec.value_size, entries, spec.flags, spec.name, cpus=cpus, read_only=spec.frozen
    )


class ObjectMachine:
    """All programs of an object, and one machine to run them on. Contexts and the task are zeros.

    `zeros`: what is not there reads as zeros, as the kernel has it behind pointers that BTF describes. A context manager.
    """

    def __init__(self, spec: ObjectSpec, world: World | None = None, *, zeros: bool = False, cpus: int = CPUS) -> None:
        self.spec = spec
        self.maps: dict[str, SharedMap] = {}
        for each in spec.maps:
            table = self.maps[each.name] = create(shape_of(each, cpus))
            if each.initial:
                table.update(bytes(4), each.initial.ljust(each.value_size, b"\0"))
        numbered = {number: self.maps[each.name] for number, each in enumerate(spec.maps, 1)}
        self.machine = Machine(helper_table(), maps=numbered, memory=Memory(zeros=zeros), world=world)
        self.context = bytearray(CONTEXT_BYTES)
        self.records: list[bytes] = []  # what tests read from the ring
        self._context_address = self.machine.memory.add(self.context)
        self.machine.world.task = self.machine.memory.add(bytearray(TASK_BYTES))

    def code_of(self, program: ProgramSpec) -> list:  # type: ignore[type-arg]
        """Return the instructions with the numbers of the maps filled in."""
        numbers = {each.name: number for number, each in enumerate(self.spec.maps, 1)}
        return decode(bytes(relocate(program, numbers)))

    def run(self, program: ProgramSpec) -> int:
        """Run a program once; return what it returns. Raises RunError."""
        return self.machine.run(Program(self.code_of(program), program.name), self._context_address)

    def run_native(self, program: ProgramSpec) -> int:
        """Run a program as machine code of this CPU, look-ups planned; it must have been verified. Raises RunError."""
        numbered = {number: self.maps[each.name] for number, each in enumerate(self.spec.maps, 1)}
        native = NativeMachine(numbered, self.machine.world)
        features = cpu_features()
        code = translate(self.code_of(program), os.uname().machine, features=features, plan=make_plan(numbered))
        cpu, owner = ctypes.c_uint32(self.machine.world.cpu), ctypes.c_uint32(os.getpid())
        words = {"cpu": ctypes.addressof(cpu), "owner": ctypes.addressof(owner)}
        with Placed(code, helpers=native.helpers(), maps=native.maps(), values=native.values(), **words) as placed:
            return placed.run(native.lend(bytes(self.context)))

    def __enter__(self) -> ObjectMachine:
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.memory.regions.clear()
        self.machine._places.clear()
        for table in self.maps.values():
            table.close()

"""Programs that sonde runs itself: `begin`, `end` and `interval` probes, on the maps that the traced process has too.

As machine code when they were verified; else in the interpreter, which checks every access itself.
"""

from __future__ import annotations

import ctypes
import os

from ..bpf.jit import translate
from ..bpf.jit.here import Placed, cpu_features
from ..bpf.jit.maps import make_plan
from ..bpf.runtime import World
from ..bpf.runtime.native import NativeMachine
from .sampled import SampledWorld, context_of
from .whereabouts import find_cgroup_id, find_node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..bpf.interp import Machine, Program
    from ..bpf.isa import Insn
    from ..bpf.maps import SharedMap
    from ..spec.engine import Sample

_GET_SMP_PROCESSOR_ID, _GET_NUMA_NODE_ID, _GET_CURRENT_CGROUP_ID = 8, 42, 80
_CONTEXT_BYTES = 512
# What only a kernel knows; the runtime's answers stand for "nothing", which a script would take for the truth.
_KERNELS = frozenset([
    "get_current_task", "get_current_task_btf", "get_current_ancestor_cgroup_id", "get_stack", "get_stackid", "probe_write_user",
    "override_return", "perf_event_read", "perf_event_read_value",
])  # fmt: skip


def local_helpers(*, sampled: bool = False) -> frozenset[str]:
    """The names of the helpers that programs run by sonde itself may call; `sampled`: on samples, which have a stack."""
    from ..bpf.runtime import named_helpers

    found = frozenset(named_helpers()) - _KERNELS
    if find_cgroup_id(os.getpid()) is None:
        found -= {"get_current_cgroup_id"}
    return found | {"get_stack", "get_stackid"} if sampled else found


class LocalPrograms:
    """Programs as machine code in this process. `slot` is the copy of per-CPU values that is theirs. A context manager."""

    def __init__(self, tables: Mapping[int, SharedMap], slot: int, world: SampledWorld | None = None) -> None:
        """With a `world`, programs run on samples, which it answers for."""
        self.world = world or World()
        self._samples = world
        self.world.cpu = slot
        self._slot = ctypes.c_uint32(slot)
        self._owner = ctypes.c_uint32(slot + 1)
        self._tables = tables
        self._machine: Machine | None = None
        self._place = 0
        self._interpreted: dict[str, Program] = {}
        self._native = NativeMachine(tables, self.world)
        self._helpers = {**self._native.helpers(), **self._own_helpers()}
        self._plan = make_plan(tables)
        self._placed: dict[str, Placed] = {}
        self._context = self._native.lend(bytes(_CONTEXT_BYTES))

    def interpret(self, name: str, insns: Sequence[Insn]) -> None:
        """Take a program that was not verified."""
        from ..bpf.interp import Machine, Program
        from ..bpf.runtime import helper_table

        if self._machine is None:
            table = {**helper_table(), **self._own_helpers()}
            self._machine = Machine(table, maps=dict(self._tables), world=self.world)
            self._room = bytearray(_CONTEXT_BYTES)
            self._place = self._machine.memory.add(self._room)
        self._interpreted[name] = Program(list(insns), name)

    def add(self, name: str, insns: Sequence[Insn]) -> None:
        """Translate a verified program. Raises RunError where this process may not have executable memory."""
        code = translate(insns, os.uname().machine, features=cpu_features(), plan=self._plan)
        self._placed[name] = Placed(
            code,
            helpers=self._helpers,
            maps=self._native.maps(),
            values=self._native.values(),
            cpu=ctypes.addressof(self._slot),
            owner=ctypes.addressof(self._owner),
        )

    def __contains__(self, name: str) -> bool:
        return name in self._placed or name in self._interpreted

    def run(self, name: str) -> int:
        """Run a program once; return what it returns. Raises RunError."""
        if name in self._interpreted:
            assert self._machine is not None
            return self._machine.run(self._interpreted[name], self._place)
        self._native.begin()
        return self._placed[name].run(self._context)

    def run_on(self, name: str, sample: Sample) -> int:
        """Run a program on a sample; return what it returns. Raises RunError."""
        assert self._samples is not None
        self._samples.sample = sample
        context = context_of(sample)
        if name in self._interpreted:
            self._room[: len(context)] = context
        else:
            self._native.memory.view(self._context, len(context), write=True)[:] = context
        return self.run(name)

    def _own_helpers(self) -> dict[int, Callable[..., int]]:
        """What is asked of the machine, and not of the world of a program: that has CPUs of its own, the copies of per-CPU values."""
        return {
            _GET_SMP_PROCESSOR_ID: lambda *_: self._current_cpu(),
            _GET_NUMA_NODE_ID: lambda *_: find_node(self._current_cpu()),
            _GET_CURRENT_CGROUP_ID: lambda *_: find_cgroup_id(self.world.pid_tgid() >> 32) or 0,
        }

    def _current_cpu(self) -> int:
        if self._samples is not None and self._samples.sample is not None:
            return self._samples.sample.cpu
        return int(ctypes.CDLL(None).sched_getcpu())

    def close(self) -> None:
        """Free the code. Twice is harmless."""
        if self._samples is not None:
            self._samples.close()
        for placed in self._placed.values():
            placed.close()
        self._placed.clear()

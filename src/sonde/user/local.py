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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..bpf.interp import Machine, Program
    from ..bpf.isa import Insn
    from ..bpf.maps import SharedMap

_GET_SMP_PROCESSOR_ID = 8
# What only a kernel knows; the runtime's answers stand for "nothing", which a script would take for the truth.
_KERNELS = frozenset([
    "get_current_task", "get_current_task_btf", "get_current_cgroup_id", "get_current_ancestor_cgroup_id", "get_stack", "get_stackid", "probe_write_user",
    "override_return", "perf_event_read", "perf_event_read_value", "get_numa_node_id",
])  # fmt: skip


def local_helpers() -> frozenset[str]:
    """The names of the helpers that programs run by sonde itself may call."""
    from ..bpf.runtime import named_helpers

    return frozenset(named_helpers()) - _KERNELS


class LocalPrograms:
    """Programs as machine code in this process. `slot` is the copy of per-CPU values that is theirs. A context manager."""

    def __init__(self, tables: Mapping[int, SharedMap], slot: int) -> None:
        self.world = World()
        self.world.cpu = slot
        self._slot = ctypes.c_uint32(slot)
        self._owner = ctypes.c_uint32(slot + 1)
        self._tables = tables
        self._machine: Machine | None = None
        self._place = 0
        self._interpreted: dict[str, Program] = {}
        self._native = NativeMachine(tables, self.world)
        self._plan = make_plan(tables)
        self._placed: dict[str, Placed] = {}
        self._context = self._native.lend(bytes(256))

    def interpret(self, name: str, insns: Sequence[Insn]) -> None:
        """Take a program that was not verified."""
        from ..bpf.interp import Machine, Program
        from ..bpf.runtime import helper_table

        if self._machine is None:
            self._machine = Machine(
                {**helper_table(), _GET_SMP_PROCESSOR_ID: _current_cpu}, maps=dict(self._tables), world=self.world
            )
            self._place = self._machine.memory.add(bytearray(256))
        self._interpreted[name] = Program(list(insns), name)

    def add(self, name: str, insns: Sequence[Insn]) -> None:
        """Translate a verified program. Raises RunError where this process may not have executable memory."""
        code = translate(insns, os.uname().machine, features=cpu_features(), plan=self._plan)
        helpers = {**self._native.helpers(), _GET_SMP_PROCESSOR_ID: _current_cpu}
        self._placed[name] = Placed(
            code,
            helpers=helpers,
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

    def close(self) -> None:
        """Free the code. Twice is harmless."""
        for placed in self._placed.values():
            placed.close()
        self._placed.clear()


def _current_cpu(*_: object) -> int:
    return int(ctypes.CDLL(None).sched_getcpu())

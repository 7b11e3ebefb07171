"""Programs that sonde runs itself: `begin`, `end` and `interval` probes, on the maps that the traced process has too."""

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

    from ..bpf.isa import Insn
    from ..bpf.maps import SharedMap

_GET_SMP_PROCESSOR_ID = 8


class LocalPrograms:
    """Programs as machine code in this process. `slot` is the copy of per-CPU values that is theirs. A context manager."""

    def __init__(self, tables: Mapping[int, SharedMap], slot: int) -> None:
        self.world = World()
        self.world.cpu = slot
        self._slot = ctypes.c_uint32(slot)
        self._native = NativeMachine(tables, self.world)
        self._plan = make_plan(tables)
        self._placed: dict[str, Placed] = {}
        self._context = self._native.lend(bytes(256))

    def add(self, name: str, insns: Sequence[Insn]) -> None:
        """Translate a verified program. Raises RunError where this process may not have executable memory."""
        code = translate(insns, os.uname().machine, features=cpu_features(), plan=self._plan)
        helpers = {**self._native.helpers(), _GET_SMP_PROCESSOR_ID: _current_cpu}
        place = ctypes.addressof(self._slot)
        self._placed[name] = Placed(
            code, helpers=helpers, maps=self._native.maps(), values=self._native.values(), cpu=place
        )

    def __contains__(self, name: str) -> bool:
        return name in self._placed

    def run(self, name: str) -> int:
        """Run a program once; return what it returns. Raises RunError."""
        self._native.begin()
        return self._placed[name].run(self._context)

    def close(self) -> None:
        """Free the code. Twice is harmless."""
        for placed in self._placed.values():
            placed.close()
        self._placed.clear()


def _current_cpu(*_: int) -> int:
    return int(ctypes.CDLL(None).sched_getcpu())

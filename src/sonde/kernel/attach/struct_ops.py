"""Sets of programs in place of a struct of the kernel's functions: registered as a whole, through their map."""

from __future__ import annotations

from ...errors import ProbeError
from ..links import KernelLink, attach_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.object import ProbeSpec
    from ..programs import Program


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Register the maps that the probes name. Raises AttachError, FeatureError, ProbeError."""
    return attach_each(program, probes, _register)


def _register(program: Program, probe: ProbeSpec) -> KernelLink:
    from ..structops import StructOpsMap

    live = program.find_map(probe.symbol)
    if not isinstance(live, StructOpsMap):
        raise ProbeError(f"{probe.name}: the object has no such set of programs")
    return live.register(probe)

"""begin, end and self probes: nothing to attach to. `KernelObject.run` runs their programs by BPF_PROG_TEST_RUN."""

from __future__ import annotations

from ..links import KernelLink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.object import ProbeSpec
    from ..programs import Program


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Return links that hold nothing."""
    return [KernelLink([probe], "run by hand") for probe in probes]

"""fentry, fexit, fmod_ret and LSM hooks: the program was verified against one function and attaches to that, by a trampoline.

BPF_RAW_TRACEPOINT_OPEN does it on every kernel that has them (5.5); BPF_LINK_CREATE (5.19) is for a cookie.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOENT, EOPNOTSUPP

from ...errors import FeatureError, ProbeError
from .. import abi
from ..abi import ENOTSUPP
from ..links import KernelLink, attach_each, create_link
from ..refusal import attach_refusal
from .raw_tracepoint import open_by_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.object import ProbeSpec
    from ..programs import Program


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Attach to the one function that the program was loaded for."""
    for probe in probes:
        if probe.symbol and probe.symbol != program.spec.attach_btf:
            raise ProbeError(f"{probe.name}: its program was compiled for {program.spec.attach_btf}")
    return attach_each(program, probes, _attach_one)


def _attach_one(program: Program, probe: ProbeSpec) -> KernelLink:
    if probe.cookie:
        rest = abi.LINK_TRACING.pack(0, probe.cookie)
        fd = create_link(program.fd_as(), 0, program.spec.attach_type, rest)
    else:
        fd = open_by_name(program.fd_as(), "")
    if fd >= 0:
        return KernelLink([probe], "tracing link", [fd])
    raise _explain(probe, -fd)


def _explain(probe: ProbeSpec, errno: int) -> Exception:
    name = f"{probe.module}:{probe.symbol}" if probe.module else probe.symbol
    if errno == EINVAL and probe.cookie:
        return FeatureError(f"attach {probe.name}: this kernel has no cookies here", feature="cookie:tracing")
    if errno in (ENOTSUPP, EOPNOTSUPP):
        return FeatureError(
            f"attach {probe.name}: this kernel cannot attach tracing programs to functions",
            feature="program:tracing:fentry",
            hint=f"kprobe:{name} may serve instead",
        )
    hint = ""
    if errno in (EBUSY, ENOENT, EINVAL):
        hint = f"the entry of {name} cannot be traced, or something else holds it: kprobe:{name} may serve instead"
    return attach_refusal(probe.name, errno, hint=hint)

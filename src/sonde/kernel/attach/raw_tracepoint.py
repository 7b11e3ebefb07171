"""Raw tracepoints: BPF_RAW_TRACEPOINT_OPEN, by name, or by what the program was verified against when it has BTF types."""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT

from ...errors import ProbeError
from .. import abi, syscall
from ..descriptor import new_descriptor
from ..links import KernelLink, attach_each
from ..refusal import attach_refusal
from ..syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.object import ProbeSpec
    from ..programs import Program


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Attach to each raw tracepoint. Raises ProbeError for one that does not exist."""
    return attach_each(program, probes, _attach_one)


def _attach_one(program: Program, probe: ProbeSpec) -> KernelLink:
    typed = program.spec.type == "tracing"
    fd = open_by_name(program.fd_as(), "" if typed else probe.event, probe.cookie)
    if fd >= 0:
        return KernelLink([probe], "raw_tracepoint link" + (" with BTF" if typed else ""), [fd])
    if fd == -ENOENT:
        where = f" in module {probe.module}" if probe.module else ""
        raise ProbeError(f"there is no raw tracepoint {probe.event}{where} on this kernel")
    hint = ""
    if fd == -EINVAL:
        hint = f"the program reads more arguments than {probe.event} has on this kernel"
        if probe.cookie:
            hint = "this kernel has no cookies for raw tracepoints"
    elif fd == -EEXIST:
        hint = "the same program is attached there already"
    raise attach_refusal(probe.name, -fd, hint=hint)


def open_by_name(program_fd: int, name: str, cookie: int = 0) -> int:
    """BPF_RAW_TRACEPOINT_OPEN: a link's descriptor or a negative errno. "" is for programs that know their place."""
    text = name.encode() + b"\0" if name else b""
    attr = bytearray(abi.RAW_TRACEPOINT_OPEN_OLD.pack(address(text), program_fd))
    if cookie:  # Linux 6.9
        attr = bytearray(abi.RAW_TRACEPOINT_OPEN.pack(address(text), program_fd, cookie))
    return new_descriptor(lambda: syscall.bpf(abi.BPF_RAW_TRACEPOINT_OPEN, attr))

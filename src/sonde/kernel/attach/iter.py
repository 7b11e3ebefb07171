"""Iterators: a link for the kind of object, then a descriptor for each pass, whose bytes are what the program wrote.

A pinned link stays in the BPF file system after sonde has gone: whoever reads that file runs the iterator.
"""

from __future__ import annotations

import os
from errno import EINVAL

from ...errors import KernelError
from .. import abi, syscall
from ..links import KernelLink, attach_each, create_link
from ..pins import pin, pin_path
from ..refusal import attach_refusal, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...spec.object import ProbeSpec
    from ..programs import Program

_READ_BYTES = 1 << 16


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Make the iterator's link, and pin it where the probe says so."""
    return attach_each(program, probes, _attach_one)


def _attach_one(program: Program, probe: ProbeSpec) -> KernelLink:
    fd = create_link(program.fd_as(), 0, "trace_iter", bytes(16))
    if fd < 0:
        hint = ""
        if fd == -EINVAL:
            hint = f"iter:{probe.event} may need a map or another object to walk over, which cannot be given here"
        raise attach_refusal(probe.name, -fd, hint=hint)
    link = KernelLink([probe], "iter link", [fd])
    try:
        if probe.pin:
            pin(fd, pin_path(probe.pin), "the iterator")
    except BaseException:
        link.close()
        raise
    return link


def read_iterator(link: KernelLink) -> Iterator[bytes]:
    """Yield what one pass over all objects writes, piece by piece, until its end. Raises KernelError."""
    fd = syscall.bpf(abi.BPF_ITER_CREATE, bytearray(abi.ITER_CREATE.pack(link.fd & 0xFFFFFFFF, 0)))
    if fd < 0:
        raise refusal(f"run {link.probes[0].name}", -fd, needs=("CAP_BPF", "CAP_PERFMON"))
    try:
        while True:
            piece = os.read(fd, _READ_BYTES)
            if not piece:
                return
            yield piece
    except OSError as error:
        raise KernelError(f"read {link.probes[0].name}", error.errno or EINVAL) from None
    finally:
        os.close(fd)

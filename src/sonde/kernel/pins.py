"""Pins: names in the BPF file system that keep a map or a link alive, and by which other processes find it."""

from __future__ import annotations

import os
from errno import EEXIST, EINVAL, ENOENT

from ..errors import FeatureError, KernelError, ProbeError
from . import abi, syscall
from .descriptor import bpf_new
from .maps import KernelMap, create_map
from .refusal import refusal
from .syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.object import MapSpec
    from .engine import KernelObject
    from .links import KernelLink

BPFFS = "/sys/fs/bpf"


def pin_path(name: str) -> str:
    """Return the full path of a pin: `name` is relative to the BPF file system. Raises ProbeError for one that is not below it."""
    path = os.path.normpath(os.path.join(BPFFS, name))
    if not path.startswith(BPFFS + "/"):
        raise ProbeError(f"the pin {name!r} is not below {BPFFS}")
    return path


def pin(fd: int, path: str, what: str) -> None:
    """Pin `what` ("the iterator", "map counts") at `path`. Raises KernelError where that is taken or no BPF file system."""
    text = os.fsencode(path) + b"\0"
    result = syscall.bpf(abi.BPF_OBJ_PIN, bytearray(abi.OBJ_PIN.pack(address(text), fd, 0)))
    if result < 0:
        hint = f"mount -t bpf bpf {BPFFS}" if -result in (EINVAL, ENOENT) else ""
        if result == -EEXIST:
            hint = f"remove {path} first"
        raise refusal(f"pin {what} at {path}", -result, hint=hint or "is that a BPF file system?")


def get_pinned(path: str) -> int:
    """Return a descriptor of what is pinned at `path`, or a negative errno."""
    text = os.fsencode(path) + b"\0"
    return bpf_new(abi.BPF_OBJ_GET, lambda: bytearray(abi.OBJ_PIN.pack(address(text), 0, 0)))


def open_pinned(spec: MapSpec) -> KernelMap:
    """Open the map that is pinned where `spec.pinning` says ("by_name": under its name), or create and pin it.

    Raises KernelError when what is there does not fit the spec.
    """
    path = os.path.join(BPFFS, spec.name if spec.pinning == "by_name" else spec.pinning)
    fd = get_pinned(path)
    if fd >= 0:
        live = KernelMap(fd, spec)
        from .mapops import check_shape

        other = check_shape(fd, live)
        if other:
            live.close()
            raise KernelError(f"open the pinned map {spec.name} at {path}", EINVAL, hint=other)
        return live
    if fd != -ENOENT:
        raise refusal(f"open the pinned map {spec.name} at {path}", -fd)
    live = create_map(spec)
    try:
        pin(live.fd, path, f"map {spec.name}")
    except BaseException:
        live.close()
        raise
    return live


def pin_object(live: KernelObject, links: Sequence[KernelLink], folder: str, pins: list[str]) -> None:
    """Pin maps, programs and links of a loaded object below `folder` of the BPF file system; the paths go to `pins` as they come to be.

    The folders are made where they are missing. Maps that are pinned elsewhere already stay there alone. Raises KernelError, ProbeError.
    """
    root = pin_path(folder)
    for name, each in live.maps.items():
        if not each.spec.pinning:
            _pin_at(each.fd, f"{root}/maps/{_file_name(name)}", f"map {name}", pins)
    for name, program in live.programs.items():
        _pin_at(program.fd_as(), f"{root}/programs/{_file_name(name)}", f"program {name}", pins)
    for number, link in enumerate(links):
        if not link.bpf_links:
            what = f"{link.probes[0].name} is attached by {link.method}, which cannot be pinned"
            raise FeatureError(
                what, feature="link:perf_event", hint="its program and its maps can: load without attaching"
            )
        for fd in link.bpf_links:
            name = f"{link.probes[0].program}_{number}" if number else link.probes[0].program
            _pin_at(fd, f"{root}/links/{_file_name(name)}", f"the link of {link.probes[0].name}", pins)


def _file_name(name: str) -> str:
    """The BPF file system takes no dots in names."""
    return name.replace(".", "_").replace("/", "_").strip("_") or "unnamed"


def _pin_at(fd: int, path: str, what: str, pins: list[str]) -> None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    except OSError as error:
        raise refusal(f"make the folder {os.path.dirname(path)}", error.errno or EINVAL) from None
    pin(fd, path, what)
    pins.append(path)


def unpin(path: str) -> None:
    """Take a pin away, and the folder that it leaves empty; nothing where there is none."""
    try:
        os.unlink(path)
        folder = os.path.dirname(path)
        while folder != BPFFS and folder.startswith(BPFFS):
            os.rmdir(folder)
            folder = os.path.dirname(folder)
    except OSError:
        pass

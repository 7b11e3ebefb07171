"""Stands in for BCC's `libbcc.lib`: the few functions of its C library that scripts call past class BPF."""

from __future__ import annotations

from ...errors import FeatureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Library:
    """`lib`. Functions that are not here raise FeatureError, with what to call in their place."""

    @staticmethod
    def bpf_module_rw_engine_enabled() -> bool:
        """Whether key_sprintf() and its like work: always."""
        return True

    @staticmethod
    def bcc_free_memory() -> int:
        """Return 0: there is nothing to free."""
        return 0

    @staticmethod
    def bpf_has_kernel_btf() -> bool:
        """Whether the kernel has BTF."""
        from os.path import exists

        return exists("/sys/kernel/btf/vmlinux")

    @staticmethod
    def kernel_struct_has_field(struct_name: bytes, field_name: bytes) -> int:
        """See BPF.kernel_struct_has_field."""
        from .trampolines import Trampolines

        return Trampolines.kernel_struct_has_field(struct_name, field_name)

    @staticmethod
    def bcc_procutils_which_so(libname: bytes, pid: int) -> bytes | None:
        """Return the path of a library; see BPF.find_library."""
        import os

        from .binaries import find_library

        found = find_library(os.fsdecode(libname), pid)
        return os.fsencode(found) if found else None

    @staticmethod
    def bpf_attach_xdp(dev: bytes, fd: int, flags: int) -> int:
        """Take the XDP program off a device (`fd` -1); to put one on, use BPF.attach_xdp."""
        if fd >= 0:
            raise FeatureError(
                "lib.bpf_attach_xdp() only removes programs here", hint="use BPF.attach_xdp(dev, fn, flags)"
            )
        from .network import Network

        Network.remove_xdp(dev, flags)
        return 0

    def __getattr__(self, name: str) -> Any:
        raise FeatureError(
            f"libbcc's function {name} does not exist here: there is no libbcc",
            feature="libbcc",
            hint="use the methods of class BPF and of its tables",
        )


lib = Library()

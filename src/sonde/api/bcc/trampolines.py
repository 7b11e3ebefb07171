"""Trampolines of a BPF object: KFUNC_PROBE, KRETFUNC_PROBE, KMOD_RET and LSM_PROBE functions; and what the kernel can do.

A trampoline that the kernel refuses, or whose function BTF does not know, falls back to a kprobe, and that to a system call's tracepoints.
"""

from __future__ import annotations

from ...errors import AttachError, CompileError, FeatureError, ProbeError, SondeError, UsageError, VerifierError
from ...lang.c.options import Entry
from ...record import replace
from ...spec.object import ProbeSpec
from . import functions
from .kprobes import KPROBE, Kprobes, function_probe, no_kprobes
from .programs import TRACING, have, split_module
from .utils import to_bytes, to_str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...kernel.links import KernelLink

_PROBE_TYPES = {
    "trace_fentry": "fentry",
    "trace_fexit": "fexit",
    "modify_return": "fmod_ret",
    "lsm_mac": "lsm",
    "trace_iter": "iter",
}


class Trampolines(Kprobes):
    """Attaching to functions of the kernel with the types of their arguments."""

    def _init_trampolines(self) -> None:
        self.kfunc_entry_fds: dict[bytes, KernelLink] = {}
        self.kfunc_exit_fds: dict[bytes, KernelLink] = {}
        self.fmod_ret_fds: dict[bytes, KernelLink] = {}
        self.lsm_fds: dict[bytes, KernelLink] = {}

    @staticmethod
    def add_prefix(prefix: bytes, name: bytes) -> bytes:
        """Return `name` with `prefix` before it, unless it is there."""
        return name if name.startswith(prefix) else prefix + name

    def attach_kfunc(self, fn_name: str | bytes = b"") -> Any:
        """Attach a KFUNC_PROBE function: at the entry of the function in its name. Raises SondeError."""
        return self._attach_trampoline(self.kfunc_entry_fds, b"kfunc__", fn_name, "kprobe")

    def attach_kretfunc(self, fn_name: str | bytes = b"") -> Any:
        """Attach a KRETFUNC_PROBE function: at the return of the function in its name. Raises SondeError."""
        return self._attach_trampoline(self.kfunc_exit_fds, b"kretfunc__", fn_name, "kretprobe")

    def attach_fmod_ret(self, fn_name: str | bytes = b"") -> Any:
        """Attach a KMOD_RET function, which decides what the function in its name returns. Raises SondeError."""
        return self._attach_trampoline(self.fmod_ret_fds, b"kmod_ret__", fn_name)

    def attach_lsm(self, fn_name: str | bytes = b"") -> Any:
        """Attach an LSM_PROBE function to the security hook in its name. Raises SondeError."""
        return self._attach_trampoline(self.lsm_fds, b"lsm__", fn_name)

    def detach_kfunc(self, fn_name: str | bytes = b"") -> None:
        """Detach a KFUNC_PROBE function. Raises UsageError when it is not attached."""
        self.detach_from(self.kfunc_entry_fds, self.add_prefix(b"kfunc__", to_bytes(fn_name)), "Kernel entry func")

    def detach_kretfunc(self, fn_name: str | bytes = b"") -> None:
        """Detach a KRETFUNC_PROBE function. Raises UsageError when it is not attached."""
        self.detach_from(self.kfunc_exit_fds, self.add_prefix(b"kretfunc__", to_bytes(fn_name)), "Kernel exit func")

    def detach_fmod_ret(self, fn_name: str | bytes = b"") -> None:
        """Detach a KMOD_RET function. Raises UsageError when it is not attached."""
        self.detach_from(self.fmod_ret_fds, self.add_prefix(b"kmod_ret__", to_bytes(fn_name)), "Fmod_ret func")

    def detach_lsm(self, fn_name: str | bytes = b"") -> None:
        """Detach an LSM_PROBE function. Raises UsageError when it is not attached."""
        self.detach_from(self.lsm_fds, self.add_prefix(b"lsm__", to_bytes(fn_name)), "LSM")

    def _attach_trampoline(
        self, links: dict[bytes, KernelLink], prefix: bytes, fn_name: str | bytes, instead: str = ""
    ) -> Any:
        name = self.add_prefix(prefix, to_bytes(fn_name))
        if name in links:
            raise UsageError(f"{to_str(name)} has been attached")
        type_, attach_type = TRACING[prefix]
        function, module = split_module(name[len(prefix) :].decode())
        kind = _PROBE_TYPES[attach_type]
        full = f"{module}:{function}" if module else function
        probe = ProbeSpec(f"{kind}:{full}", kind, "", module=module, symbol=function)
        try:
            links[name] = self.attach_probe(name, Entry(type_, attach_type, function), probe)
        except (AttachError, ProbeError, FeatureError) as refused:
            if not instead:
                raise
            links[name] = self._attach_kprobe_instead(name, instead, full, refused)
        return self

    def _attach_kprobe_instead(self, name: bytes, kind: str, function: str, refused: SondeError) -> KernelLink:
        """Attach a function that was written for a trampoline as kprobe. Raises what was said of the trampoline if it cannot be.

        Where the kernel's BTF has no such function, that of the kprobe is raised: it tells whether the kernel has it.
        """
        self.say(f"{to_str(name)}: {refused}; a {kind} is tried instead")
        event = function.encode()
        try:
            try:
                if not functions.have_kprobes():
                    raise no_kprobes(function_probe(kind, event, 0))
                return self.attach_probe(
                    name, replace(KPROBE, returns=kind == "kretprobe"), function_probe(kind, event, 0)
                )
            except (AttachError, ProbeError, FeatureError) as error:
                return self.attach_syscall(kind, event, 0, name, error)
        except (VerifierError, CompileError):
            raise
        except SondeError as error:
            self.say(f"{to_str(name)}: {error}")
            if isinstance(refused, ProbeError) and functions.have_kprobes():
                raise
            raise refused from None

    # what the kernel can do ---------------------------------------------------------------------------------

    @staticmethod
    def support_kfunc() -> bool:
        """Whether trampolines work here, found by trying."""
        return have("program:tracing:fentry")

    @staticmethod
    def support_fmod_ret() -> bool:
        """Whether programs may decide what functions return here, found by trying."""
        return have("program:tracing:fmod_ret")

    @staticmethod
    def support_lsm() -> bool:
        """Whether programs may be attached to security hooks here, found by trying."""
        return have("program:lsm")

    @staticmethod
    def kernel_struct_has_field(struct_name: str | bytes, field_name: str | bytes) -> int:
        """Return 1 when a struct of this kernel has a member, 0 when it has not, -1 when there is no such struct."""
        from ...kernel.btf import kernel_btf

        try:
            struct = kernel_btf().get_struct(to_str(struct_name))
        except SondeError:
            return -1
        if struct is None:
            return -1
        return int(struct.get_member(to_str(field_name)) is not None)

    @staticmethod
    def kernel_enum_has_val(enum_name: str | bytes, val_name: str | bytes) -> int:
        """Return 1 when an enumeration of this kernel has a constant, 0 when it has not, -1 without BTF."""
        from ...kernel.btf import kernel_btf

        try:
            found = kernel_btf().get_enumerator(to_str(val_name))
        except SondeError:
            return -1
        return int(found is not None and found[1].name in ("", to_str(enum_name)))

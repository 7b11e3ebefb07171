"""Kernel probes of a BPF object: kprobes, tracepoints, raw tracepoints, trampolines.

A kprobe that the kernel refuses on a system call's function falls back to the call's tracepoint: the function is compiled once more,
for that context. A trampoline that is refused falls back to a kprobe. With `verbose`, each attachment says how it was done.
"""

from __future__ import annotations

import os

from ...errors import AttachError, CompileError, FeatureError, ProbeError, SondeError, UsageError, VerifierError
from ...lang.c.options import Entry
from ...spec.object import ProbeSpec
from . import functions, quota
from .programs import TRACING, Programs, split_module
from .utils import to_bytes, to_str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...kernel.links import KernelLink

_KPROBE = Entry("kprobe")


class KernelProbes(Programs):
    """Attaching to functions and tracepoints of the kernel."""

    def _init_kernel_probes(self) -> None:
        self.kprobe_fds: dict[bytes, dict[bytes, KernelLink]] = {}
        self.tracepoint_fds: dict[bytes, KernelLink] = {}
        self.raw_tracepoint_fds: dict[bytes, KernelLink] = {}
        self.kfunc_entry_fds: dict[bytes, KernelLink] = {}
        self.kfunc_exit_fds: dict[bytes, KernelLink] = {}
        self.fmod_ret_fds: dict[bytes, KernelLink] = {}
        self.lsm_fds: dict[bytes, KernelLink] = {}

    # kprobes --------------------------------------------------------------------------------------------------

    def attach_kprobe(
        self,
        event: str | bytes = b"",
        event_off: int = 0,
        fn_name: str | bytes = b"",
        event_re: str | bytes = b"",
    ) -> Any:
        """Run `fn_name` at the entry of the function `event` (or `event_off` bytes into it), or of all that match `event_re`.

        Raises SondeError; with `event_re` only when it could not be attached to any.
        """
        return self._attach_functions("kprobe", event, event_off, to_bytes(fn_name), to_bytes(event_re))

    def attach_kretprobe(
        self,
        event: str | bytes = b"",
        fn_name: str | bytes = b"",
        event_re: str | bytes = b"",
        maxactive: int = 0,
    ) -> Any:
        """Run `fn_name` when the function `event` returns, or any that matches `event_re`; see `attach_kprobe`.

        The kernel knows by itself how many calls may be open at a time: `maxactive` is not needed any more.
        """
        return self._attach_functions("kretprobe", event, 0, to_bytes(fn_name), to_bytes(event_re))

    def _attach_functions(self, kind: str, event: Any, offset: int, fn_name: bytes, event_re: bytes) -> Any:
        if not event_re:
            quota.check(1)
            self._attach_function(kind, to_bytes(event), offset, fn_name)
            return self
        matches = sorted(functions.find_functions(event_re))
        quota.check(len(matches))
        if len(matches) > 1 and self._attach_together(kind, matches, fn_name):
            return self
        failed: list[SondeError] = []
        for match in matches:
            try:
                self._attach_function(kind, match, 0, fn_name)
            except (VerifierError, CompileError):
                raise
            except SondeError as error:
                failed.append(error)
        if failed and len(failed) == len(matches):
            raise failed[0]
        return self

    def _attach_together(self, kind: str, matches: list[bytes], fn_name: bytes) -> bool:
        """Attach to many functions by one link; False where that cannot be done for all of them."""
        if not functions.have_kprobes():
            return False
        probes = [_function_probe(kind, match, 0) for match in matches]
        try:
            links = self.attach_probes(fn_name, _KPROBE, probes)
        except (VerifierError, CompileError):
            raise
        except SondeError:
            return False
        owners = {probe.name: link for link in links for probe in link.probes}
        for match, probe in zip(matches, probes):
            self._add_kprobe(_event_name(kind, match), fn_name, owners[probe.name])
        return True

    def _attach_function(self, kind: str, event: bytes, offset: int, fn_name: bytes) -> None:
        probe = _function_probe(kind, event, offset)
        try:
            if not functions.have_kprobes():
                raise _no_kprobes(probe)
            link = self.attach_probe(fn_name, _KPROBE, probe)
        except (AttachError, ProbeError, FeatureError) as refused:
            link = self._attach_syscall(kind, event, offset, fn_name, refused)
        self._add_kprobe(_event_name(kind, event), fn_name, link)

    def _attach_syscall(self, kind: str, event: bytes, offset: int, fn_name: bytes, refused: SondeError) -> KernelLink:
        """Attach to the tracepoint of the system call that `event` implements. Raises what was said of the kprobe if it is none."""
        call = functions.syscall_tracepoint(event)
        if not call and not offset and functions.is_unreachable(event):
            from ...kernel.links import KernelLink

            self.say(f"{kind}:{event.decode()}: {refused}; nothing is lost: no system call of this machine leads to it")
            return KernelLink([_function_probe(kind, event, 0)], "not needed: no system call leads there")
        if not call or offset:
            raise refused
        context = "sys_enter" if kind == "kprobe" else "sys_exit"
        name = f"{context}_{call}"
        self.say(f"{kind}:{event.decode()}: {refused}; tracepoint:syscalls:{name} serves instead")
        probe = ProbeSpec(f"tracepoint:syscalls:{name}", "tracepoint", "", category="syscalls", event=name)
        return self.attach_probe(fn_name, Entry("tracepoint", context=context, event=call), probe)

    def _add_kprobe(self, ev_name: bytes, fn_name: bytes, link: KernelLink) -> None:
        self.kprobe_fds.setdefault(ev_name, {})[fn_name] = link
        quota.add(1)

    def detach_kprobe_event(self, ev_name: str | bytes) -> None:
        """Detach all functions from an event by its name ("p_vfs_read", "r_vfs_read"). Raises UsageError."""
        event = to_bytes(ev_name)
        for fn_name in list(self.kprobe_fds.get(event) or [b""]):
            self.detach_kprobe_event_by_fn(event, fn_name)

    def detach_kprobe_event_by_fn(self, ev_name: str | bytes, fn_name: str | bytes) -> None:
        """Detach one function from an event by its name. Raises UsageError when it is not attached there."""
        event, function = to_bytes(ev_name), to_bytes(fn_name)
        link = self.kprobe_fds.get(event, {}).pop(function, None)
        if link is None:
            raise UsageError(
                f"Kprobe {event.decode()} is not attached" + (f" to {to_str(function)}" if function else "")
            )
        quota.add(-1)
        if not self.kprobe_fds[event]:
            del self.kprobe_fds[event]
        if not any(link is other for links in self.kprobe_fds.values() for other in links.values()):
            self.object.drop(link)

    def detach_kprobe(self, event: str | bytes, fn_name: str | bytes | None = None) -> None:
        """Detach one function, or all, from the entry of a function. Raises UsageError when there is none."""
        self._detach_function("kprobe", event, fn_name)

    def detach_kretprobe(self, event: str | bytes, fn_name: str | bytes | None = None) -> None:
        """Detach one function, or all, from the return of a function. Raises UsageError when there is none."""
        self._detach_function("kretprobe", event, fn_name)

    def _detach_function(self, kind: str, event: str | bytes, fn_name: str | bytes | None) -> None:
        ev_name = _event_name(kind, to_bytes(event))
        if fn_name:
            self.detach_kprobe_event_by_fn(ev_name, fn_name)
        else:
            self.detach_kprobe_event(ev_name)

    @staticmethod
    def get_kprobe_functions(event_re: str | bytes) -> set[bytes]:
        """Return the functions that kprobes can go to and that match a regular expression from their start."""
        return functions.find_functions(to_bytes(event_re))

    @staticmethod
    def get_probe_limit() -> int:
        """Return how many probes may be open at a time (BCC_PROBE_LIMIT)."""
        return quota.get_probe_limit()

    def num_open_kprobes(self) -> int:
        """Return the number of functions' entries and returns that something is attached to."""
        return len(self.kprobe_fds)

    # system calls ---------------------------------------------------------------------------------------------

    def get_syscall_prefix(self) -> bytes:
        """Return what the kernel's functions for system calls begin with (b"__x64_sys_")."""
        for prefix in functions.SYSCALL_PREFIXES:
            if self.ksymname(prefix + b"bpf") != -1:
                return prefix
        return functions.native_prefix()

    @staticmethod
    def ksymname(name: str | bytes) -> int:
        """Return the address of a kernel symbol, -1 when there is none."""
        from .symbols import kernel_address

        return kernel_address(to_str(name))

    def get_syscall_fnname(self, name: str | bytes) -> bytes:
        """Return the kernel's function for a system call ("clone": b"__x64_sys_clone")."""
        return self.get_syscall_prefix() + bytes(to_bytes(name))

    def fix_syscall_fnname(self, name: str | bytes) -> bytes:
        """Return a function's name with this machine's prefix, if it has that of any system call."""
        text: bytes = to_bytes(name)
        for prefix in functions.SYSCALL_PREFIXES:
            if text.startswith(prefix):
                return self.get_syscall_fnname(text[len(prefix) :])
        return text

    # tracepoints ----------------------------------------------------------------------------------------------

    def attach_tracepoint(self, tp: str | bytes = b"", tp_re: str | bytes = b"", fn_name: str | bytes = b"") -> Any:
        """Run `fn_name` at the tracepoint "category:event", or at all that match `tp_re`. Raises SondeError."""
        if tp_re:
            for found in functions.find_tracepoints(to_bytes(tp_re)):
                self.attach_tracepoint(tp=found, fn_name=fn_name)
            return self
        name = to_bytes(tp)
        category, colon, event = name.decode().partition(":")
        if not colon:
            raise UsageError(f"{category!r} is no tracepoint", hint="a tracepoint is written category:event")
        probe = ProbeSpec(f"tracepoint:{category}:{event}", "tracepoint", "", category=category, event=event)
        self.tracepoint_fds[name] = self.attach_probe(to_bytes(fn_name), Entry("tracepoint"), probe)
        return self

    def detach_tracepoint(self, tp: str | bytes = b"") -> None:
        """Detach from a tracepoint. Raises UsageError when nothing is attached there."""
        self._detach(self.tracepoint_fds, to_bytes(tp), "Tracepoint")

    def attach_raw_tracepoint(self, tp: str | bytes = b"", fn_name: str | bytes = b"") -> Any:
        """Run `fn_name` at the raw tracepoint `tp` ("sched_switch"). Raises SondeError."""
        name = to_bytes(tp)
        if name in self.raw_tracepoint_fds:
            raise UsageError(f"Raw tracepoint {to_str(name)} has been attached")
        event = name.decode()
        probe = ProbeSpec(f"rawtracepoint:{event}", "rawtracepoint", "", event=event)
        self.raw_tracepoint_fds[name] = self.attach_probe(to_bytes(fn_name), Entry("raw_tracepoint"), probe)
        return self

    def detach_raw_tracepoint(self, tp: str | bytes = b"") -> None:
        """Detach from a raw tracepoint. Raises UsageError when nothing is attached there."""
        self._detach(self.raw_tracepoint_fds, to_bytes(tp), "Raw tracepoint")

    def _detach(self, links: dict[bytes, KernelLink], name: bytes, what: str) -> None:
        link = links.pop(name, None)
        if link is None:
            raise UsageError(f"{what} {to_str(name)} is not attached")
        self.object.drop(link)

    @staticmethod
    def get_tracepoints(tp_re: str | bytes) -> list[str]:
        """Return the tracepoints that match a regular expression from their start, as "category:event"."""
        return functions.find_tracepoints(to_bytes(tp_re))

    @staticmethod
    def tracepoint_exists(category: str | bytes, event: str | bytes) -> bool:
        """Whether there is such a tracepoint here."""
        return functions.tracepoint_exists(to_str(category), to_str(event))

    def num_open_tracepoints(self) -> int:
        """Return the number of tracepoints that something is attached to."""
        return len(self.tracepoint_fds)

    # trampolines ----------------------------------------------------------------------------------------------

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
        self._detach(self.kfunc_entry_fds, self.add_prefix(b"kfunc__", to_bytes(fn_name)), "Kernel entry func")

    def detach_kretfunc(self, fn_name: str | bytes = b"") -> None:
        """Detach a KRETFUNC_PROBE function. Raises UsageError when it is not attached."""
        self._detach(self.kfunc_exit_fds, self.add_prefix(b"kretfunc__", to_bytes(fn_name)), "Kernel exit func")

    def detach_fmod_ret(self, fn_name: str | bytes = b"") -> None:
        """Detach a KMOD_RET function. Raises UsageError when it is not attached."""
        self._detach(self.fmod_ret_fds, self.add_prefix(b"kmod_ret__", to_bytes(fn_name)), "Fmod_ret func")

    def detach_lsm(self, fn_name: str | bytes = b"") -> None:
        """Detach an LSM_PROBE function. Raises UsageError when it is not attached."""
        self._detach(self.lsm_fds, self.add_prefix(b"lsm__", to_bytes(fn_name)), "LSM")

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
        """Attach a function that was written for a trampoline as kprobe. Raises what was said of the trampoline if it cannot be."""
        self.say(f"{to_str(name)}: {refused}; a {kind} is tried instead")
        try:
            return self.attach_probe(name, _KPROBE, _function_probe(kind, function.encode(), 0))
        except SondeError as error:
            self.say(f"{to_str(name)}: {error}")
            raise refused from None

    # what the kernel can do -----------------------------------------------------------------------------------

    @staticmethod
    def support_kfunc() -> bool:
        """Whether trampolines work here, found by trying."""
        return _have("program:tracing:fentry")

    @staticmethod
    def support_fmod_ret() -> bool:
        """Whether programs may decide what functions return here, found by trying."""
        return _have("program:tracing:fmod_ret")

    @staticmethod
    def support_lsm() -> bool:
        """Whether programs may be attached to security hooks here, found by trying."""
        return _have("program:lsm")

    @staticmethod
    def support_raw_tracepoint() -> bool:
        """Whether there are raw tracepoints here, found by trying."""
        return _have("program:raw_tracepoint")

    @staticmethod
    def support_raw_tracepoint_in_module() -> bool:
        """Whether raw tracepoints of kernel modules can be had (Linux 5.0: every kernel that there is support for)."""
        return _have("program:raw_tracepoint")

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


_PROBE_TYPES = {
    "trace_fentry": "fentry",
    "trace_fexit": "fexit",
    "modify_return": "fmod_ret",
    "lsm_mac": "lsm",
    "trace_iter": "iter",
}


def _have(feature: str) -> bool:
    from ...kernel.features import ask

    try:
        return ask(feature)
    except SondeError:
        return False


def _no_kprobes(probe: ProbeSpec) -> FeatureError:
    return FeatureError(
        f"attach {probe.name}: this kernel has no kprobes",
        feature="pmu:kprobe",
        hint="it was built without CONFIG_KPROBES: only system calls can be had instead, through their tracepoints",
    )


def _event_name(kind: str, event: bytes) -> bytes:
    """BCC's name of an event, by which it is detached."""
    return (b"p_" if kind == "kprobe" else b"r_") + event.replace(b"+", b"_").replace(b".", b"_")


def _function_probe(kind: str, event: bytes, offset: int) -> ProbeSpec:
    module, colon, symbol = os.fsdecode(event).partition(":")
    if not colon:
        module, symbol = "", module
    name, plus, number = symbol.partition("+")
    if plus:
        offset += int(number, 0)
    return ProbeSpec(f"{kind}:{os.fsdecode(event)}", kind, "", module=module, symbol=name, offset=offset)

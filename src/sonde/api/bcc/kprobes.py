"""Kprobes of a BPF object, and the system calls that are reached by them.

A kprobe that the kernel refuses on a system call's function falls back to the call's tracepoint, or to the raw tracepoint of all system calls:
the function is compiled once more, for that context. With `verbose`, each attachment says how it was done.
"""

from __future__ import annotations

import os

from ...debuginfo.syscalls import syscall_number
from ...errors import AttachError, CompileError, FeatureError, ProbeError, SondeError, UsageError, VerifierError
from ...lang.c.options import Entry
from ...spec.object import ProbeSpec
from . import functions, quota
from .programs import Programs
from .utils import to_bytes, to_str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...kernel.links import KernelLink

KPROBE = Entry("kprobe")


class Kprobes(Programs):
    """Attaching to functions of the kernel."""

    def _init_kprobes(self) -> None:
        self.kprobe_fds: dict[bytes, dict[bytes, KernelLink]] = {}

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
        # Without kprobes only system calls can be had. A pattern that means other functions is refused as one of them would be.
        matches = sorted(functions.find_functions(event_re)) or sorted(functions.find_any(event_re))[:1]
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
        probes = [function_probe(kind, match, 0) for match in matches]
        try:
            links = self.attach_probes(fn_name, KPROBE, probes)
        except (VerifierError, CompileError):
            raise
        except SondeError:
            return False
        owners = {probe.name: link for link in links for probe in link.probes}
        for match, probe in zip(matches, probes):
            self._add_kprobe(event_name(kind, match), fn_name, owners[probe.name])
        return True

    def _attach_function(self, kind: str, event: bytes, offset: int, fn_name: bytes) -> None:
        probe = function_probe(kind, event, offset)
        try:
            if not functions.have_kprobes():
                raise no_kprobes(probe, self.in_process)
            link = self.attach_probe(fn_name, KPROBE, probe)
        except (AttachError, ProbeError, FeatureError) as refused:
            link = self.attach_syscall(kind, event, offset, fn_name, refused)
        self._add_kprobe(event_name(kind, event), fn_name, link)

    def attach_syscall(self, kind: str, event: bytes, offset: int, fn_name: bytes, refused: SondeError) -> KernelLink:
        """Attach to the tracepoint of the system call that `event` implements, or to that of all. Raises what was said of the kprobe if it is none."""
        if not offset and functions.is_unreachable(event):
            from ...kernel.links import KernelLink

            self.say(f"{kind}:{event.decode()}: {refused}; nothing is lost: no system call of this machine leads to it")
            return KernelLink([function_probe(kind, event, 0)], "not needed: no system call leads there")
        call = functions.native_syscall(event)
        if not call or offset:
            raise refused
        for instead, probe in syscall_places(kind, call, self.in_process):
            self.say(f"{kind}:{event.decode()}: {refused}; {probe.name} is tried instead")
            try:
                return self.attach_probe(fn_name, instead, probe)
            except (VerifierError, CompileError):
                raise
            except SondeError as error:
                self.say(f"{probe.name}: {error}")
        raise refused

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
        ev_name = event_name(kind, to_bytes(event))
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

    # system calls -------------------------------------------------------------------------------------------

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


def syscall_places(kind: str, call: str, in_process: bool = False) -> Iterator[tuple[Entry, ProbeSpec]]:
    """Yield where else a kprobe or kretprobe on a system call's function can go: the call's tracepoint, then the raw one of all calls.

    In a process there are tracepoints for all of them, and nothing else.
    """
    context = "sys_enter" if kind == "kprobe" else "sys_exit"
    name = f"{context}_{call}"
    if functions.tracepoint_exists("syscalls", name):
        probe = ProbeSpec(f"tracepoint:syscalls:{name}", "tracepoint", "", category="syscalls", event=name)
        yield Entry("tracepoint", context=context, event=call), probe
    number = syscall_number(call, os.uname().machine)
    if number >= 0 and not in_process:
        raw = Entry("raw_tracepoint", context=context.replace("sys", "raw"), event=call, number=number)
        yield raw, ProbeSpec(f"rawtracepoint:{context}", "rawtracepoint", "", event=context)


def no_kprobes(probe: ProbeSpec, in_process: bool = False) -> FeatureError:
    """Return what to say of a kprobe on a kernel without any, or in a process."""
    if in_process:
        return FeatureError(
            f"attach {probe.name}: programs that run in a process see its own functions and system calls, no functions of the kernel",
            feature="pmu:kprobe",
            hint="with CAP_BPF and CAP_PERFMON it runs in the kernel",
        )
    return FeatureError(
        f"attach {probe.name}: this kernel has no kprobes",
        feature="pmu:kprobe",
        hint="it was built without CONFIG_KPROBES: only system calls can be had instead, through their tracepoints",
    )


def event_name(kind: str, event: bytes) -> bytes:
    """BCC's name of an event, by which it is detached."""
    return (b"p_" if kind == "kprobe" else b"r_") + event.replace(b"+", b"_").replace(b".", b"_")


def function_probe(kind: str, event: bytes, offset: int) -> ProbeSpec:
    """Describe a place in the kernel: "function", "function+0x10", "module:function"."""
    module, colon, symbol = os.fsdecode(event).partition(":")
    if not colon:
        module, symbol = "", module
    name, plus, number = symbol.partition("+")
    if plus:
        offset += int(number, 0)
    return ProbeSpec(f"{kind}:{os.fsdecode(event)}", kind, "", module=module, symbol=name, offset=offset)

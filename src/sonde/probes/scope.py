"""Scope: what the expansion of a probe depends on besides its text.

`Machine` reads the lists that the running kernel offers, each at most once. An object compiled for another machine gets
`Machine.offline()`: then everything comes from the target's BTF.
"""

from __future__ import annotations

import os

from ..errors import SondeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..debuginfo.btf import Btf
    from ..debuginfo.elf import Elf
    from ..spec.target import Target


class Machine:
    """The running system's lists. Paths are parameters so that tests, and containers, can have their own.

    `traceable` is a file in place of available_filter_functions: then it alone says which functions may be traced.
    """

    def __init__(
        self, *, tracefs: str = "", sys: str = "/sys", proc: str = "/proc", live: bool = True, traceable: str = ""
    ) -> None:
        self.live = live
        self.sys = sys
        self.proc = proc
        self.traceable = traceable
        self._tracefs = tracefs
        self._events: list[tuple[str, str]] | None = None
        self.refusal: SondeError | None = None  # why `events` has those of system calls only
        self._functions: list[tuple[str, str]] | None = None
        self._elfs: dict[str, Elf] = {}
        self._modules: dict[str, Btf] = {}

    @classmethod
    def offline(cls) -> Machine:
        """Return a machine without any list."""
        return cls(live=False)

    @property
    def tracefs(self) -> str:
        """The directory of tracefs. Raises FeatureError or PrivilegeError."""
        if not self._tracefs:
            from ..debuginfo.tracefs import find_root

            self._tracefs = find_root()
        return self._tracefs

    def events(self) -> list[tuple[str, str]]:
        """Return (category, event) of all tracepoints, in the kernel's order; empty where they cannot be listed."""
        if self._events is None:
            self._events = self._read_events() if self.live else []
        return self._events

    def _read_events(self) -> list[tuple[str, str]]:
        """All events; those of system calls, which another engine sees too, where tracefs may not be read."""
        from ..debuginfo.tracefs import iter_events
        from ..errors import PrivilegeError

        try:
            return list(iter_events(self.tracefs))
        except PrivilegeError as refusal:
            from ..debuginfo.syscallargs import syscall_events

            self.refusal = refusal
            return syscall_events()

    def events_of(self, category: str) -> list[str]:
        """Return the sorted events of one category without reading the whole list."""
        if not self.live:
            return []
        from ..errors import PrivilegeError

        try:
            names = os.listdir(f"{self.tracefs}/events/{category}")
        except PrivilegeError:
            return sorted(event for each, event in self.events() if each == category)
        except OSError:
            return []
        return sorted(n for n in names if n not in ("enable", "filter"))

    def functions(self) -> list[tuple[str, str]]:
        """Return (function, module) of all kernel functions that may be traced; the module of the kernel is "".

        From available_filter_functions, or else from kallsyms without what the kernel is known to refuse. Empty where
        neither can be read: ask BTF then.
        """
        if self._functions is None:
            self._functions = self._read_functions() if self.live else []
        return self._functions

    def have_kprobes(self) -> bool:
        """Tell whether the kernel offers kprobes: through perf, or through tracefs."""
        if not self.live or self.traceable:
            return True
        try:
            return os.path.exists(f"{self.sys}/bus/event_source/devices/kprobe") or os.path.exists(
                self.tracefs + "/kprobe_events"
            )
        except SondeError:
            return False

    def _read_functions(self) -> list[tuple[str, str]]:
        if self.traceable:  # what its author left in is wanted
            return [_split_module(line) for line in _read_lines(self.traceable) if line]
        try:
            lines = _read_lines(self.tracefs + "/available_filter_functions")
        except SondeError:
            lines = []
        if not lines:
            lines = self._read_kallsyms()
        blacklist = _read_lines(f"{self.sys}/kernel/debug/kprobes/blacklist")  # "0xstart-0xend\tname"
        refused = _UNSAFE_IN_BULK | {line.rpartition("\t")[2] for line in blacklist}
        pairs = [_split_module(line) if "[" in line else (line, "") for line in lines]
        return [pair for pair in pairs if pair[0] not in refused and not pair[0].startswith(_UNSAFE_PREFIXES)]

    def _read_kallsyms(self) -> list[str]:
        """Lines "name" or "name\t[module]" of the code in kallsyms, but for what is no entry of a function."""
        found = []
        for line in _read_lines(f"{self.proc}/kallsyms"):
            _, kind, name = line.split(" ", 2)
            if kind in "tTwW" and not name.startswith(("__pfx_", "__cfi_")) and ".cold" not in name:
                found.append(name)
        return found

    def module_names(self) -> list[str]:
        """Return the modules that have BTF, sorted, without vmlinux."""
        if not self.live:
            return []
        try:
            return sorted(set(os.listdir(f"{self.sys}/kernel/btf")) - {"vmlinux"})
        except OSError:
            return []

    def module_btf(self, module: str, base: Btf) -> Btf:
        """Open the BTF of a module. Raises OSError or FormatError."""
        if module not in self._modules:
            from ..debuginfo.btf import Btf as Reader

            self._modules[module] = Reader.open(f"{self.sys}/kernel/btf/{module}", base=base)
        return self._modules[module]

    def open_elf(self, path: str) -> Elf:
        """Open an ELF file, once for all probes in it. Raises OSError or FormatError."""
        if path not in self._elfs:
            from ..debuginfo.elf import Elf as Reader

            self._elfs[path] = Reader.open(path)
        return self._elfs[path]


class Scope:
    """The target, the running machine, and the options of the command line that matter to probes."""

    __slots__ = ("command_path", "machine", "pid", "target", "unsafe")

    def __init__(
        self,
        target: Target | None,
        machine: Machine | None = None,
        *,
        pid: int = 0,
        command_path: str = "",
        unsafe: bool = False,
    ) -> None:
        self.target = target
        self.machine = machine or Machine()
        self.pid = pid
        self.command_path = command_path
        self.unsafe = unsafe

    @property
    def arch(self) -> str:
        """The architecture of the target, of this machine where there is none."""
        return self.target.arch if self.target else os.uname().machine

    def have_feature(self, name: str) -> bool:
        """Tell whether the target has a feature; yes where nobody can tell (an unknown name, no privilege to ask)."""
        if self.target is None or self.target.features is None:
            return True
        try:
            return self.target.features.have(name)
        except (KeyError, SondeError):
            return True

    def btf(self) -> Btf | None:
        """Return the target's BTF, or None where it has none."""
        from ..errors import FeatureError

        try:
            return self.target.btf() if self.target else None
        except FeatureError:
            return None


# Traced together with thousands of others, these make the kernel recurse or stall, as its own self-tests know
# (tools/testing/selftests/bpf/trace_helpers.c); the last are no functions. Each can still be probed by its name.
_UNSAFE_IN_BULK = frozenset(["arch_cpu_idle", "default_idle"])
_UNSAFE_PREFIXES = ("rcu_", "bpf_dispatcher_xdp_func", "__ftrace_invalid_address__")


def _read_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _split_module(text: str) -> tuple[str, str]:
    """Split "name [module]" or "name\\t[module]"."""
    name, bracket, module = text.partition("[")
    return name.rstrip(), module.rstrip("]") if bracket else ""


def unique(names: Iterable[str]) -> list[str]:
    """Return the names sorted, each once."""
    return sorted(set(names))

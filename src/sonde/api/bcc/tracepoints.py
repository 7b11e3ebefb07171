"""Tracepoints and raw tracepoints of a BPF object."""

from __future__ import annotations

from ...errors import UsageError
from ...lang.c.options import Entry
from ...spec.object import ProbeSpec
from . import functions
from .programs import Programs, have
from .utils import to_bytes, to_str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...kernel.links import KernelLink


class Tracepoints(Programs):
    """Attaching to tracepoints of the kernel."""

    def _init_tracepoints(self) -> None:
        self.tracepoint_fds: dict[bytes, KernelLink] = {}
        self.raw_tracepoint_fds: dict[bytes, KernelLink] = {}

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
        self.detach_from(self.tracepoint_fds, to_bytes(tp), "Tracepoint")

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
        self.detach_from(self.raw_tracepoint_fds, to_bytes(tp), "Raw tracepoint")

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

    @staticmethod
    def support_raw_tracepoint() -> bool:
        """Whether there are raw tracepoints here, found by trying."""
        return have("program:raw_tracepoint")

    @staticmethod
    def support_raw_tracepoint_in_module() -> bool:
        """Whether raw tracepoints of kernel modules can be had (Linux 5.0: every kernel that there is support for)."""
        return have("program:raw_tracepoint")

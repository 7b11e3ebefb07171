"""Perf events of a BPF object: a function runs each time that a counter overflows."""

from __future__ import annotations

import ctypes as ct

from ...errors import FeatureError, UsageError
from ...lang.c.options import Entry
from .programs import Programs
from .utils import get_online_cpus, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...kernel.links import KernelLink


class PerfEvents(Programs):
    """Attaching to perf events."""

    def _init_perf_events(self) -> None:
        self.open_perf_events: dict[tuple[int, int], list[KernelLink]] = {}

    def attach_perf_event(
        self,
        ev_type: int = -1,
        ev_config: int = -1,
        fn_name: str | bytes = b"",
        sample_period: int = 0,
        sample_freq: int = 0,
        pid: int = -1,
        cpu: int = -1,
        group_fd: int = -1,
    ) -> None:
        """Run `fn_name` at each `sample_period`-th event, or `sample_freq` times a second, of PerfType `ev_type` and its `ev_config`.

        On `cpu`, or on each online CPU; for process `pid`, or for all. Raises SondeError.
        """
        from ...kernel.attach.attr import sampling_attr

        if ev_type < 0 or ev_config < 0:
            raise UsageError("attach_perf_event needs ev_type and ev_config")
        attr = sampling_attr(ev_type, ev_config, sample_period, sample_freq)
        self._attach_attr((ev_type, ev_config), attr, fn_name, pid, cpu, group_fd)

    def attach_perf_event_raw(
        self, attr: Any = -1, fn_name: str | bytes = b"", pid: int = -1, cpu: int = -1, group_fd: int = -1
    ) -> None:
        """Run `fn_name` at what a Perf.perf_event_attr describes; see `attach_perf_event`."""
        if not isinstance(attr, ct.Structure):
            raise UsageError("attach_perf_event_raw needs a perf_event_attr")
        which: Any = attr
        self._attach_attr((which.type, which.config), bytearray(bytes(attr)), fn_name, pid, cpu, group_fd)

    def _attach_attr(
        self, key: tuple[int, int], attr: bytearray, fn_name: str | bytes, pid: int, cpu: int, group_fd: int
    ) -> None:
        from ...kernel.attach.attr import attach_attr

        if self.in_process:
            raise FeatureError(
                f"attach perf event {key[0]}:{key[1]}: programs that run in a process see its own functions and system calls",
                feature="program:perf_event",
                hint="with CAP_BPF and CAP_PERFMON it runs in the kernel",
            )
        function = self.load_entry(to_bytes(fn_name), Entry("perf_event"))
        cpus = [cpu] if cpu >= 0 else get_online_cpus()
        link = attach_attr(function.program, attr, pid=pid, cpus=cpus, group_fd=group_fd)
        self.object.own(link)
        self.open_perf_events.setdefault(key, []).append(link)
        self.say(f"{function.name.decode()}: perf event {key[0]}:{key[1]}: {link.how}")

    def detach_perf_event(self, ev_type: int = -1, ev_config: int = -1) -> None:
        """Detach all functions from an event. Raises UsageError when there is none."""
        links = self.open_perf_events.pop((ev_type, ev_config), None)
        if links is None:
            raise UsageError(f"Perf event type {ev_type} config {ev_config} not attached")
        for link in links:
            self.object.drop(link)

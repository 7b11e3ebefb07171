"""Perf events of a BPF object: a function runs each time that a counter overflows."""

from __future__ import annotations

import ctypes as ct

from ...errors import FeatureError, UsageError
from ...lang.c.options import Entry
from ...spec.object import ProbeSpec
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
        if self.in_process:
            self._attach_samples(ev_type, ev_config, fn_name, sample_period, sample_freq, pid)
            return
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
            raise _no_event(key)
        function = self.load_entry(to_bytes(fn_name), Entry("perf_event"))
        cpus = [cpu] if cpu >= 0 else get_online_cpus()
        link = attach_attr(function.program, attr, pid=pid, cpus=cpus, group_fd=group_fd)
        self.object.own(link)
        self.open_perf_events.setdefault(key, []).append(link)
        self.say(f"{function.name.decode()}: perf event {key[0]}:{key[1]}: {link.how}")

    def _attach_samples(
        self, ev_type: int, ev_config: int, fn_name: str | bytes, period: int, frequency: int, pid: int
    ) -> None:
        """Run a function on samples that are taken of the process, by sonde itself: by time, or by an event that has a name."""
        from ...kernel.attach.counter import EVENTS, TYPES

        kind = next((kind for kind, number in TYPES.items() if number == ev_type), "")
        event = next((name for name, config in EVENTS.get(kind, {}).items() if config == ev_config), "")
        if not event:
            raise _no_event((ev_type, ev_config))
        probe = ProbeSpec(f"{kind}:{event}:{period}", kind, "", event=event, count=period, pid=max(pid, 0))
        if frequency and event == "cpu-clock":
            probe = ProbeSpec(f"profile:hz:{frequency}", "profile", "", frequency_hz=frequency, pid=max(pid, 0))
        elif frequency:
            raise _no_event((ev_type, ev_config))
        link = self.attach_probe(to_bytes(fn_name), Entry("perf_event"), probe)
        self.open_perf_events.setdefault((ev_type, ev_config), []).append(link)

    def detach_perf_event(self, ev_type: int = -1, ev_config: int = -1) -> None:
        """Detach all functions from an event. Raises UsageError when there is none."""
        links = self.open_perf_events.pop((ev_type, ev_config), None)
        if links is None:
            raise UsageError(f"Perf event type {ev_type} config {ev_config} not attached")
        for link in links:
            self.object.drop(link)


def _no_event(key: tuple[int, int]) -> FeatureError:
    return FeatureError(
        f"attach perf event {key[0]}:{key[1]}: where programs run in a process, samples are taken by time (cpu-clock), or by the period of an event with a name",
        feature="program:perf_event",
        hint="with CAP_BPF and CAP_PERFMON it runs in the kernel",
    )

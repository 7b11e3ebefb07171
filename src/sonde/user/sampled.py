"""The world as programs see it that run in sonde on a sample of the traced process (`kernel.sampling`): its thread, time, stack and memory."""

from __future__ import annotations

import os

from ..bpf.runtime import World

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.engine import Sample
    from .unwindtables import Unwinder


class SampledWorld(World):
    """Answers for the sample at hand. `cpu` stays what the maps want it to be; the CPU of the sample is `sample.cpu`."""

    apart = True

    def __init__(self, pid: int, unwinder: Unwinder | None = None) -> None:
        """With an `unwinder`, stacks are those that it makes of the samples' registers and memory."""
        super().__init__()
        self._unwinder = unwinder
        self.sample: Sample | None = None
        self._pid = pid
        self._memory = -1

    def _now(self) -> Sample:
        assert self.sample is not None, "programs run on samples only"
        return self.sample

    def now_ns(self, clock: str) -> int:
        if clock == "monotonic":
            return self._now().time_ns
        return super().now_ns(clock) - super().now_ns("monotonic") + self._now().time_ns

    def pid_tgid(self) -> int:
        return self._now().pid << 32 | self._now().tid

    def uid_gid(self) -> int:
        try:
            status = os.stat(f"/proc/{self._pid}")
        except OSError:
            return 0
        return status.st_gid << 32 | status.st_uid

    def comm(self) -> bytes:
        try:
            with open(f"/proc/{self._now().pid}/task/{self._now().tid}/comm", "rb") as file:
                return file.read().rstrip(b"\n")[:15]
        except OSError:
            return b""

    def stack(self, context: int, user: bool) -> Sequence[int] | None:
        if not user:
            return None
        return self._unwinder.walk(self._now()) if self._unwinder is not None else list(self._now().chain)

    def read(self, address: int, size: int, user: bool) -> bytes | None:
        if self._memory < 0:
            try:
                self._memory = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return None
        try:
            data = os.pread(self._memory, size, address)
        except (OSError, OverflowError):
            return None
        return data if len(data) == size else None

    def close(self) -> None:
        """Close the memory of the process. Twice is harmless."""
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1


def context_of(sample: Sample) -> bytes:
    """struct bpf_perf_event_data: registers, period, address."""
    return sample.registers + sample.period.to_bytes(8, "little") + sample.addr.to_bytes(8, "little")

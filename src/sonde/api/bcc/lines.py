"""The lines of bpf_trace_printk where programs run in a process: records become text as the kernel's trace_pipe has it, in a pipe that a thread of ours fills.

So whatever reads trace_pipe reads this: line by line, without blocking, by a descriptor that is waited for.
"""

from __future__ import annotations

import os
import threading

from ...errors import RunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from ...user.growing import GrowingObject
    from ...user.sending import Line

_TURN_MS = 100


class LinePipe:
    """A context of its own: `open` starts the thread, `close` ends it."""

    def __init__(self, grown: GrowingObject) -> None:
        from ...user.growing import LINES

        grown.have_lines()
        self._reader = grown.ring(LINES)
        self._ending = threading.Event()
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._write, False)
        self._waiting = b""
        self._thread = threading.Thread(target=self._pump, name="sonde lines", daemon=True)

    def open(self, nonblocking: bool) -> BinaryIO:
        """Return the end to read from, which the caller closes."""
        os.set_blocking(self._read, not nonblocking)
        file = open(self._read, "rb")  # noqa: SIM115 - the caller's
        self._thread.start()
        return file

    def _pump(self) -> None:
        import select

        while not self._ending.is_set():
            poller = select.poll()
            poller.register(
                self._write if self._waiting else self._reader.fileno(),
                select.POLLOUT if self._waiting else select.POLLIN,
            )
            poller.poll(_TURN_MS)
            if self._ending.is_set():
                return
            if not self._waiting:
                self._reader.drain(self._take)
            if not self._pass_on():
                return

    def _take(self, buffer: memoryview, start: int, size: int) -> None:
        from ...user.sending import read_line

        self._waiting += format_line(read_line(bytes(buffer[start : start + size])))

    def _pass_on(self) -> bool:
        """Write what the pipe takes; False when nobody reads any more."""
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._write, self._waiting) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End the thread. Twice is harmless."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.close()
        if self._write >= 0:
            os.close(self._write)
            self._write = -1


class _Strings:
    """The memory that a format is rendered from: the strings that its arguments point to."""

    def __init__(self, line: Line) -> None:
        self._texts = dict(zip(line.arguments, line.strings))

    def read(self, address: int, size: int) -> bytes:
        for base, text in self._texts.items():
            if base <= address <= base + len(text):
                return text[address - base :][:size].ljust(size, b"\0")
        raise RunError("nothing was kept of this address", address=address)


class _Host:
    """What `render` wants of a machine."""

    def __init__(self, line: Line) -> None:
        from ...bpf.runtime import World

        self.memory = _Strings(line)
        self.world = World()


def format_line(line: Line) -> bytes:
    """Return a line as trace_pipe has it: task, number, CPU, flags, time, where it comes from, text."""
    from ...bpf.runtime.text import render

    host: Any = _Host(line)
    try:
        text = render(host, line.format, list(line.arguments))
    except Exception as refusal:  # a format that the kernel would not take either
        text = b"%s: %s" % (line.format, type(refusal).__name__.encode())
    seconds, nanoseconds = divmod(line.time_ns, 1_000_000_000)
    head = b"%16s-%-7d [%03d] ..... " % (line.comm, line.pid_tgid & 0xFFFFFFFF, line.cpu)
    return head + b"%5d.%06d: bpf_trace_printk: " % (seconds, nanoseconds // 1000) + text.rstrip(b"\n") + b"\n"

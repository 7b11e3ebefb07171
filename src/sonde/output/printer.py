"""What the printers have in common: the sink for data, stderr for messages, formatters by event, the count of losses."""

from __future__ import annotations

from ..errors import Diagnostic
from .colour import paint
from .file import NOTICE, Sink, open_sink, tell
from .printf import compile_segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.engine import Row
    from .printf import Formatter


class StreamPrinter:
    """Base of the printers that write bytes to a Sink (stdout when None).

    `quiet` leaves out the message that all probes are attached; `notify` puts bpftrace's notice of that among the data.
    """

    def __init__(
        self, sink: Sink | None = None, *, quiet: bool = False, notify: bool = False, error_fd: int = 2
    ) -> None:
        self.sink = sink or open_sink()
        self.quiet = quiet
        self.notify = notify
        self.lost_events = 0
        self.passed_over: dict[str, int] = {}  # hits that no program has seen, by probes
        self.write = self.sink.write
        self._error_fd = error_fd
        self._formats: dict[int, Formatter] = {}

    def format(self, row: Row) -> bytes:
        """Return the text of a row that has a format string."""
        event = row.event
        formatter = self._formats.get(event.ident)
        if formatter is None:
            formatter = compile_segments(event.get_param("segments", ()), [f.layout for f in event.fields])
            self._formats[event.ident] = formatter
        return formatter(row.values)

    def say(self, text: str) -> None:
        """Write a line to stderr, after the data that came before it."""
        self.sink.flush()
        tell(self._error_fd, paint(text, self._error_fd))

    def message(self, severity: str, text: str) -> None:
        """Print a warning or an error of the session."""
        self.say(f"{severity}: {text}")

    def attached(self, count: int) -> None:
        """All probes are in place."""
        if self.notify:
            self.write(NOTICE)
            self.sink.sync()

    def lost(self, count: int) -> None:
        """Take note of events that found no room."""
        self.lost_events += count

    def ending(self) -> None:
        """All probes are out and their rows printed; the maps come next."""

    def flush(self) -> None:
        """Write what waits, as the buffering wants it."""
        self.sink.flush()

    def close(self) -> None:
        """Write what waits, close the file, and repeat how much was lost."""
        self.sink.close()
        if self.lost_events:
            self.say(f"WARNING: Total lost event count: {self.lost_events}")
            self.lost_events = 0
        for names, count in self.passed_over.items():
            self.say(f"WARNING: {names}: {count:,} hits in all were not looked at")
        self.passed_over.clear()

    def count_passed_over(self, row: Row) -> None:
        """Take note of hits of a probe that were over its budget."""
        self.passed_over[", ".join(row.event.get_param("probes"))] = row.values[2]

    # What both show in the same way, or need in another form --------------------------------------------------------

    def cat(self, row: Row) -> bytes | None:
        """Return the contents of the file that a cat() row names; None, and a message, when it cannot be read."""
        from .effects import read_file

        path = self.format(row)
        data, failure = read_file(path, row.event.get_param("max_bytes", 0))
        if not failure:
            return data
        self.say(f"ERROR: failed to open file '{path.decode('utf-8', 'surrogateescape')}' ({failure})")
        return None

    def run_system(self, row: Row) -> tuple[bytes, int]:
        """Run the command of a system() row, after all that was printed before it; return its output and exit code."""
        from .effects import run_command

        self.sink.sync()
        return run_command(self.format(row))

    def append_packet(self, row: Row) -> None:
        """Append the packet of a skboutput() row to its file."""
        from .pcap import append_packet

        append_packet(row)


def joined(row: Row) -> str:
    """Return the parts of a join() row with its separator between them; empty parts at the end are left out."""
    *parts, separator = row.values
    while parts and not parts[-1]:
        parts.pop()
    return str(separator).join(parts)


def diagnostic_text(row: Row, severity: str, message: str) -> str:
    """Return a message with the row's place in the script, and the line of the script where the event has it."""
    return Diagnostic(severity, message, row.event.span, row.event.get_param("excerpt", "")).render()


def reason_of(code: int) -> str:
    """Return the meaning of a helper's return code: the text of the errno that it negates."""
    import os

    return os.strerror(-code) if -4096 < code <= 0 else str(code)

"""The text output: rows and maps as bpftrace 0.27 prints them. Data goes to the sink, everything else to stderr."""

from __future__ import annotations

from .file import Sink, open_sink
from .printf import compile_segments, encode, line_format
from .values import value_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..spec.engine import LineFormat, Row, Snapshot
    from ..spec.object import EventSpec


class TextPrinter:
    """Follows spec.engine.Printer. `quiet` leaves out the message that all probes are attached."""

    def __init__(self, sink: Sink | None = None, *, quiet: bool = False, error_fd: int = 2) -> None:
        self.sink = sink or open_sink()
        self.quiet = quiet
        self._errors = Sink(error_fd, "the standard error", "none")
        self._write = self.sink.write
        self._formats: dict[int, Callable[[Sequence[Any]], bytes]] = {}

    def line_format(self, event: EventSpec) -> LineFormat | None:
        """Return how to print a printf row in one step, or None (see LineFormat)."""
        return line_format(event, self._write) if event.kind == "printf" else None

    def attached(self, count: int) -> None:
        """All probes are in place."""
        if not self.quiet:
            self._say(f"Attached {count} probe{'' if count == 1 else 's'}")

    def row(self, row: Row) -> None:
        """Print one event."""
        event = row.event
        if event.kind == "print":
            self._write(encode(value_text(row.values[0], event.fields[0].layout)) + b"\n")
            return
        if event.kind == "time":
            import time

            self._write(encode(time.strftime(event.get_param("format", "%H:%M:%S\n"))))
            return
        formatter = self._formats.get(event.ident)
        if formatter is None:
            formatter = compile_segments(event.get_param("segments", ()), [f.layout for f in event.fields])
            self._formats[event.ident] = formatter
        self._write(formatter(row.values))

    def snapshot(self, snapshot: Snapshot) -> None:
        """Print a map."""
        view = snapshot.view
        for entry in sorted(snapshot.entries, key=lambda e: e.value):
            key = f"[{key_text(entry.key)}]" if view.key is not None else ""
            self._write(encode(f"{view.name}{key}: {value_text(entry.value, view.value)}\n"))

    def lost(self, count: int) -> None:
        """Tell that events found no room."""
        self._say(f"Lost {count} events")

    def message(self, severity: str, text: str) -> None:
        """Print a warning or an error of the session."""
        self._say(f"{severity}: {text}")

    def _say(self, text: str) -> None:
        self.sink.flush()
        self._errors.write(encode(text) + b"\n")

    def flush(self) -> None:
        """Write what waits, as the buffering wants it."""
        self.sink.flush()

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.sink.close()


def key_text(key: Any) -> str:
    return ", ".join(map(value_text, key)) if isinstance(key, tuple) else value_text(key)

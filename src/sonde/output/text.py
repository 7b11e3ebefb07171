"""The text output: rows and maps as bpftrace 0.27 prints them. Data goes to the sink, everything else to stderr."""

from __future__ import annotations

from .file import NOTICE, Sink, open_sink, tell
from .printf import compile_segments, encode, line_format
from .timetext import format_now
from .values import key_text, value_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..spec.engine import Entry, LineFormat, Row, Snapshot
    from ..spec.layout import Layout
    from ..spec.object import EventSpec, ViewSpec
    from .printf import Formatter


class TextPrinter:
    """Follows spec.engine.Printer.

    `quiet` leaves out the message that all probes are attached; `notify` puts bpftrace's notice of that among the data.
    """

    def __init__(
        self, sink: Sink | None = None, *, quiet: bool = False, notify: bool = False, error_fd: int = 2
    ) -> None:
        self.sink = sink or open_sink()
        self.quiet = quiet
        self.lost_events = 0
        self._notify = notify
        self._error_fd = error_fd
        self._write = self.sink.write
        self._formats: dict[int, Formatter] = {}

    def line_format(self, event: EventSpec) -> LineFormat | None:
        """Return how to print a printf row in one step, or None (see LineFormat)."""
        return line_format(event, self._write) if event.kind == "printf" else None

    def attached(self, count: int) -> None:
        """All probes are in place."""
        if not self.quiet:
            self._say(f"Attached {count} probe{'' if count == 1 else 's'}")
        if self._notify:
            self._write(NOTICE)
            self.sink.sync()

    def row(self, row: Row) -> None:
        """Print one event."""
        write = _ROWS.get(row.event.kind)
        if write is not None:
            write(self, row)
        else:
            self._write(self.format(row))

    def format(self, row: Row) -> bytes:
        """Return the text of a row that has a format string."""
        event = row.event
        formatter = self._formats.get(event.ident)
        if formatter is None:
            formatter = compile_segments(event.get_param("segments", ()), [f.layout for f in event.fields])
            self._formats[event.ident] = formatter
        return formatter(row.values)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Print a map, or the value of one entry."""
        from .order import ordered

        view = snapshot.view
        graph = _graph(view.value.kind)
        for entry in ordered(snapshot):
            if snapshot.single:
                self._write(encode(_entry_text(entry, view.value)) + b"\n")
            elif graph is not None:
                self._write(encode(f"{_title(view, entry)}:\n{graph(entry.value)}\n"))
            else:
                self._write(encode(f"{_title(view, entry)}: {value_text(entry.value, view.value)}\n"))

    def lost(self, count: int) -> None:
        """Tell that events found no room."""
        self.lost_events += count
        self._say(f"Lost {count} events")

    def ending(self) -> None:
        """All probes are out; set the maps apart."""
        self._write(b"\n\n")

    def message(self, severity: str, text: str) -> None:
        """Print a warning or an error of the session."""
        self._say(f"{severity}: {text}")

    def flush(self) -> None:
        """Write what waits, as the buffering wants it."""
        self.sink.flush()

    def close(self) -> None:
        """Write what waits, close the file, and repeat how much was lost."""
        self.sink.close()
        if self.lost_events:
            self._say(f"WARNING: Total lost event count: {self.lost_events}")
            self.lost_events = 0

    def _say(self, text: str) -> None:
        self.sink.flush()
        tell(self._error_fd, text)

    # One method for each kind of row that is not plain text -------------------------------------------------------

    def _print_value(self, row: Row) -> None:
        self._write(encode(value_text(row.values[0], row.event.fields[0].layout)) + b"\n")

    def _print_time(self, row: Row) -> None:
        self._write(encode(format_now(row.event.get_param("format", ""))))

    def _print_join(self, row: Row) -> None:
        self._write(encode(joined(row)) + b"\n")

    def _print_cat(self, row: Row) -> None:
        from .effects import read_file

        path = self.format(row)
        data, failure = read_file(path, row.event.get_param("max_bytes", 0))
        self._write(data)
        if failure:
            self._say(cat_failure(path, failure))

    def _print_system(self, row: Row) -> None:
        from .effects import run_command

        self.sink.sync()
        data, code = run_command(self.format(row))
        self._write(data + b"\n")
        if code:
            self._say(f"ERROR: command exited with code {code}")

    def _print_report(self, row: Row) -> None:
        self._say(report_text(row, self.format(row)))

    def _print_helper_error(self, row: Row) -> None:
        self._say(helper_error_text(row))

    def _print_runtime_error(self, row: Row) -> None:
        self._say(runtime_error_text(row))

    def _print_packet(self, row: Row) -> None:
        from .pcap import append_packet

        append_packet(row)


def _title(view: ViewSpec, entry: Entry) -> str:
    return view.name if view.key is None else f"{view.name}[{key_text(entry.key, view.key)}]"


def _graph(kind: str) -> Callable[[Any], str] | None:
    """Return what draws values of a kind, None for those that are a text."""
    if kind in ("hist", "lhist"):
        from .histogram import histogram_text

        return histogram_text
    if kind == "tseries":
        from .series import series_text

        return series_text
    return None


def _entry_text(entry: Entry, layout: Layout) -> str:
    graph = _graph(layout.kind)
    return value_text(entry.value, layout) if graph is None else graph(entry.value)


def joined(row: Row) -> str:
    """Return the parts of a join() row with its separator between them; empty parts at the end are left out."""
    *parts, separator = row.values
    while parts and not parts[-1]:
        parts.pop()
    return str(separator).join(parts)


def cat_failure(path: bytes, reason: str) -> str:
    """Return the message for a file that cat() cannot read."""
    return f"ERROR: failed to open file '{path.decode('utf-8', 'surrogateescape')}' ({reason})"


def report_text(row: Row, text: bytes) -> str:
    """Return a row of errorf() or warnf() with its place in the script."""
    from ..errors import Diagnostic

    severity = _SEVERITIES[row.event.kind]
    message = text.decode("utf-8", "surrogateescape")
    return Diagnostic(severity, message.removesuffix("\n"), row.event.span).render()


def helper_error_text(row: Row) -> str:
    """Return a failed helper call with the line of the script that made it."""
    from ..errors import Diagnostic

    get = row.event.get_param
    code = row.values[0]
    message = get("message", "") or reason_of(code)
    text = f"{message}\nAdditional Info - helper: {get('helper', '')}, retcode: {code}"
    return Diagnostic("WARNING", text, row.event.span, get("excerpt", "")).render()


def runtime_error_text(row: Row) -> str:
    """Return a mishap that the program went on from, with the line of the script."""
    from ..errors import Diagnostic

    get = row.event.get_param
    return Diagnostic("WARNING", get("message", ""), row.event.span, get("excerpt", "")).render()


def reason_of(code: int) -> str:
    """Return the meaning of a helper's return code: the text of the errno that it negates."""
    import os

    return os.strerror(-code) if -4096 < code <= 0 else str(code)


_SEVERITIES = {"errorf": "ERROR", "warnf": "WARNING", "debugf": "DEBUG"}
_ROWS: dict[str, Callable[[TextPrinter, Row], None]] = {
    "print": TextPrinter._print_value,
    "time": TextPrinter._print_time,
    "join": TextPrinter._print_join,
    "cat": TextPrinter._print_cat,
    "system": TextPrinter._print_system,
    "errorf": TextPrinter._print_report,
    "warnf": TextPrinter._print_report,
    "debugf": TextPrinter._print_report,
    "helper_error": TextPrinter._print_helper_error,
    "runtime_error": TextPrinter._print_runtime_error,
    "skboutput": TextPrinter._print_packet,
}

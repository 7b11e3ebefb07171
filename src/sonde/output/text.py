"""The text output: rows and maps as bpftrace 0.27 prints them. Data goes to the sink, everything else to stderr."""

from __future__ import annotations

from .printer import StreamPrinter, diagnostic_text, joined, reason_of
from .printf import encode, line_format
from .timetext import format_now
from .values import key_text, value_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..spec.engine import Entry, LineFormat, Row, Snapshot
    from ..spec.layout import Layout
    from ..spec.object import EventSpec, ViewSpec


class TextPrinter(StreamPrinter):
    """Follows spec.engine.Printer."""

    def line_format(self, event: EventSpec) -> LineFormat | None:
        """Return how to print a printf row in one step, or None (see LineFormat)."""
        return line_format(event, self.write) if event.kind == "printf" else None

    def attached(self, count: int) -> None:
        """All probes are in place."""
        if not self.quiet:
            self.say(f"Attached {count} probe{'' if count == 1 else 's'}")
        super().attached(count)

    def row(self, row: Row) -> None:
        """Print one event."""
        write = _ROWS.get(row.event.kind)
        if write is not None:
            write(self, row)
        else:
            self.write(self.format(row))

    def snapshot(self, snapshot: Snapshot) -> None:
        """Print a map, or the value of one entry."""
        from .order import ordered

        view = snapshot.view
        graph = _graph(view.value.kind)
        for entry in ordered(snapshot):
            if snapshot.single:
                self.write(encode(_entry_text(entry, view.value)) + b"\n")
            elif graph is not None:
                self.write(encode(f"{_title(view, entry)}:\n{graph(entry.value)}\n"))
            else:
                self.write(encode(f"{_title(view, entry)}: {value_text(entry.value, view.value)}\n"))

    def lost(self, count: int) -> None:
        """Tell that events found no room."""
        super().lost(count)
        self.say(f"Lost {count} events")

    def ending(self) -> None:
        """Set the maps apart from what came before."""
        self.write(b"\n\n")

    # One method for each kind of row that is not plain text -------------------------------------------------------

    def _print_value(self, row: Row) -> None:
        self.write(encode(value_text(row.values[0], row.event.fields[0].layout)) + b"\n")

    def _print_record(self, row: Row) -> None:
        field = row.event.fields[0]
        self.write(encode(f"{field.name}: {value_text(row.values[0], field.layout)}\n"))

    def _print_time(self, row: Row) -> None:
        self.write(encode(format_now(row.event.get_param("format", ""))))

    def _print_join(self, row: Row) -> None:
        self.write(encode(joined(row)) + b"\n")

    def _print_cat(self, row: Row) -> None:
        self.write(self.cat(row) or b"")

    def _print_system(self, row: Row) -> None:
        data, code = self.run_system(row)
        self.write(data + b"\n")
        if code:
            self.say(f"ERROR: command exited with code {code}")

    def _print_report(self, row: Row) -> None:
        message = self.format(row).decode("utf-8", "surrogateescape")
        self.say(diagnostic_text(row, _SEVERITIES[row.event.kind], message.removesuffix("\n")))

    def _print_helper_error(self, row: Row) -> None:
        get, code = row.event.get_param, row.values[0]
        message = get("message", "") or reason_of(code)
        detail = f"Additional Info - helper: {get('helper', '')}, retcode: {code}"
        self.say(diagnostic_text(row, "WARNING", f"{message}\n{detail}"))

    def _print_runtime_error(self, row: Row) -> None:
        self.say(diagnostic_text(row, "WARNING", row.event.get_param("message", "")))

    def _print_thinned(self, row: Row) -> None:
        self.count_passed_over(row)
        get, (seen, passed, _, seconds) = row.event.get_param, row.values
        rate, share = round((seen + passed) / max(seconds, 1e-9)), round((seen + passed) / max(seen, 1))
        text = f"{', '.join(get('probes'))} fired {rate:,} times a second, over the budget of {get('limit'):,}: "
        end = ", and it is switched off" if get("off") else ""
        self.say(f"WARNING: {text}1 hit in {share:,} was looked at, {passed:,} were not{end}")


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


_SEVERITIES = {"errorf": "ERROR", "warnf": "WARNING", "debugf": "DEBUG"}
_ROWS: dict[str, Callable[[TextPrinter, Row], None]] = {
    "print": TextPrinter._print_value,
    "record": TextPrinter._print_record,
    "time": TextPrinter._print_time,
    "join": TextPrinter._print_join,
    "cat": TextPrinter._print_cat,
    "system": TextPrinter._print_system,
    "errorf": TextPrinter._print_report,
    "warnf": TextPrinter._print_report,
    "debugf": TextPrinter._print_report,
    "helper_error": TextPrinter._print_helper_error,
    "runtime_error": TextPrinter._print_runtime_error,
    "skboutput": TextPrinter.append_packet,
    "thinned": TextPrinter._print_thinned,
}

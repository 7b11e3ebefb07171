"""The JSON output: one object a line, as bpftrace 0.27 writes them with `-f json`.

Written by hand: the standard `json` costs start-up time, and the spacing is part of what users compare.
"""

from __future__ import annotations

from .printer import StreamPrinter, joined, reason_of
from .printf import encode, line_format
from .timetext import format_now
from .values import divide, key_text, value_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..spec.engine import Entry, LineFormat, Row, Snapshot
    from ..spec.layout import Layout
    from ..spec.object import EventSpec


class JsonPrinter(StreamPrinter):
    """Follows spec.engine.Printer."""

    def line_format(self, event: EventSpec) -> LineFormat | None:
        """Return how to print a printf row in one step, or None (see LineFormat)."""
        return line_format(event, self._emit_line) if event.kind == "printf" else None

    def _emit_line(self, text: bytes) -> None:
        self._emit_text("printf", text)

    def attached(self, count: int) -> None:
        """All probes are in place."""
        if not self.quiet:
            self._emit("attached_probes", f'"count": {count}, "data": {{"probes": {count}}}')
        super().attached(count)

    def row(self, row: Row) -> None:
        """Write one event."""
        _ROWS[row.event.kind](self, row)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Write a map, or the value of one entry."""
        from .order import ordered

        view, entries = snapshot.view, ordered(snapshot)
        kind, layout = _MAP_TYPES.get(view.value.kind, "map"), view.value
        if snapshot.single:
            for entry in entries:
                self._emit("value", f'"data": {json_value(entry.value, layout)}')
        elif view.key is None:
            for entry in entries:
                self._emit(kind, f'"data": {{{quote(view.name)}: {json_value(entry.value, layout)}}}')
        elif entries or kind == "stats":
            items = ", ".join([f"{json_key(e, view.key)}: {json_value(e.value, layout)}" for e in entries])
            self._emit(kind, f'"data": {{{quote(view.name)}: {{{items}}}}}')

    def lost(self, count: int) -> None:
        """Tell that events found no room."""
        super().lost(count)
        self._emit("lost_events", f'"count": {count}, "data": {{"events": {count}}}')

    def _emit(self, kind: str, members: str) -> None:
        self.write(encode(f'{{"type": "{kind}", {members}}}\n'))

    def _emit_text(self, kind: str, text: bytes) -> None:
        self._emit(kind, f'"data": {quote(text.decode("utf-8", "surrogateescape"))}')

    # One method for each kind of row ------------------------------------------------------------------------------

    def _printf(self, row: Row) -> None:
        self._emit_text("printf", self.format(row))

    def _print_value(self, row: Row) -> None:
        self._emit("value", f'"data": {json_value(row.values[0], row.event.fields[0].layout)}')

    def _print_record(self, row: Row) -> None:
        field = row.event.fields[0]
        self._emit("record", f'"data": {{{quote(field.name)}: {json_value(row.values[0], field.layout)}}}')

    def _print_time(self, row: Row) -> None:
        self._emit("time", f'"data": {quote(format_now(row.event.get_param("format", "")))}')

    def _print_join(self, row: Row) -> None:
        self._emit("join", f'"data": {quote(joined(row))}')

    def _print_cat(self, row: Row) -> None:
        data = self.cat(row)
        if data is not None:
            self._emit_text("cat", data)

    def _print_system(self, row: Row) -> None:
        data, code = self.run_system(row)
        self._emit_text("syscall", data)
        if code:
            self.say(f"ERROR: command exited with code {code}")

    def _print_report(self, row: Row) -> None:
        message = self.format(row).decode("utf-8", "surrogateescape")
        self._emit(row.event.kind, f'"msg": {quote(message)}{_place(row)}')

    def _print_helper_error(self, row: Row) -> None:
        code = row.values[0]
        helper = quote(row.event.get_param("helper", ""))
        members = f'"msg": {quote(reason_of(code))}, "helper": {helper}, "retcode": {code}'
        self._emit("helper_error", members + _place(row))

    def _print_runtime_error(self, row: Row) -> None:
        self._emit("runtime_error", f'"msg": {quote(row.event.get_param("message", ""))}{_place(row)}')

    def _print_thinned(self, row: Row) -> None:
        self.count_passed_over(row)
        get, (seen, passed, total, seconds) = row.event.get_param, row.values
        names = ", ".join(map(quote, get("probes")))
        members = f'"budget": {get("limit")}, "seconds": {seconds:.3f}, "seen": {seen}, "not_seen": {passed}, '
        members += f'"not_seen_in_all": {total}, "off": {"true" if get("off") else "false"}'
        self._emit("thinned", f'"data": {{"probes": [{names}], {members}}}')


def _place(row: Row) -> str:
    span = row.event.span
    if span is None:
        return ""
    return f', "filename": {quote(span.file)}, "line": {span.line}, "col": {span.column}'


def quote(text: str) -> str:
    """Return a JSON string. Bytes that are no UTF-8 become the escapes of lone surrogates, as Python writes them."""
    escaped = text.translate(_ESCAPES)
    if not escaped.isascii():
        escaped = "".join([f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in escaped])
    return f'"{escaped}"'


_ESCAPES = {code: f"\\u{code:04x}" for code in range(32)} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    ord("\b"): "\\b",
    ord("\f"): "\\f",
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


def json_key(entry: Entry, layout: Layout) -> str:
    """Return a map key as a JSON string: its text with no blank behind commas, stacks without indentation."""
    return quote(_compact(entry.key, layout, outermost=True))


def _compact(value: Any, layout: Layout, outermost: bool = False) -> str:
    if layout.kind == "tuple":
        text = ",".join([_compact(v, f.layout) for v, f in zip(value, layout.fields)])
        return text if outermost else f"({text})"
    if layout.kind in ("record", "struct"):
        pairs = zip(value.names, value.values, layout.fields)
        return "{" + ",".join([f".{name}={_compact(v, f.layout)}" for name, v, f in pairs]) + "}"
    if layout.kind in ("kstack", "ustack"):
        from .symboltext import stack_text

        return stack_text(value, indent="")
    return key_text(value, layout)


def json_number(number: int) -> str:
    """Return a number, in quotes when a reader that uses doubles would see another one."""
    return str(number) if abs(number) <= 1 << 53 or int(float(number)) == number else f'"{number}"'


def json_value(value: Any, layout: Layout) -> str:
    """Return the JSON of a decoded value."""
    kind = layout.kind
    if kind in ("int", "pointer", "count", "sum", "min", "max"):
        return json_number(value)
    if kind == "bool":
        return "true" if value else "false"
    if kind == "enum":
        return json_number(value.number)
    if kind in ("buffer", "raw", "dump"):
        return f"[{','.join(map(str, value))}]"
    if kind == "none":
        return "null"
    write = _COMPOSITES.get(kind)
    return write(value, layout) if write is not None else quote(value_text(value, layout))


def _array(value: Any, layout: Layout) -> str:
    element = layout.element
    assert element is not None
    return f"[{','.join([json_value(item, element) for item in value])}]"


def _tuple(value: Any, layout: Layout) -> str:
    return f"[{','.join([json_value(v, f.layout) for v, f in zip(value, layout.fields)])}]"


def _record(value: Any, layout: Layout) -> str:
    pairs = zip(value.names, value.values, layout.fields)
    return "{" + ", ".join([f"{quote(name)}: {json_value(v, f.layout)}" for name, v, f in pairs]) + "}"


def _average(value: Any, layout: Layout) -> str:
    return json_number(divide(value.total, value.count))


def _stats(value: Any, layout: Layout) -> str:
    average = json_number(divide(value.total, value.count))
    return f'{{"count": {json_number(value.count)}, "average": {average}, "total": {json_number(value.total)}}}'


def _histogram(value: Any, layout: Layout) -> str:
    """Ranges with both ends included; an open end is left out."""
    from .histogram import rows

    items = []
    for row in rows(value):
        low = "" if row.low is None else f'"min": {json_number(row.low)}, '
        high = "" if row.high is None else f'"max": {json_number(row.high - 1)}, '
        items.append(f'{{{low}{high}"count": {json_number(row.count)}}}')
    return f"[{','.join(items)}]"


def _series(value: Any, layout: Layout) -> str:
    from .series import intervals, start_text

    points = [(start, number) for start, number in intervals(value) if number is not None]
    items = [f'{{"interval_start":"{start_text(start)}","value":{json_number(number)}}}' for start, number in points]
    return f"[{','.join(items)}]"


_MAP_TYPES = {"hist": "hist", "lhist": "hist", "avg": "stats", "stats": "stats", "tseries": "tseries"}
_COMPOSITES: dict[str, Callable[[Any, Layout], str]] = {
    "array": _array,
    "tuple": _tuple,
    "record": _record,
    "struct": _record,
    "avg": _average,
    "stats": _stats,
    "hist": _histogram,
    "lhist": _histogram,
    "tseries": _series,
}
_ROWS: dict[str, Callable[[JsonPrinter, Row], None]] = {
    "printf": JsonPrinter._printf,
    "print": JsonPrinter._print_value,
    "record": JsonPrinter._print_record,
    "time": JsonPrinter._print_time,
    "join": JsonPrinter._print_join,
    "cat": JsonPrinter._print_cat,
    "system": JsonPrinter._print_system,
    "errorf": JsonPrinter._print_report,
    "warnf": JsonPrinter._print_report,
    "debugf": JsonPrinter._print_report,
    "helper_error": JsonPrinter._print_helper_error,
    "thinned": JsonPrinter._print_thinned,
    "runtime_error": JsonPrinter._print_runtime_error,
    "skboutput": JsonPrinter.append_packet,
}

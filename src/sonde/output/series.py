"""Time series as rows of (start, value), and as a graph that runs down the page."""

from __future__ import annotations

from .timetext import format_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.layout import TimeSeries

GRAPH_WIDTH = 53
_SECOND, _MILLI, _MICRO = 1_000_000_000, 1_000_000, 1_000


def intervals(series: TimeSeries) -> list[tuple[int, int | None]]:
    """Return (start in ns since 1970, value or None) for each interval from the first to the last with a value."""
    points = dict(series.points)
    if not points:
        return []
    last = max(points)
    first = max(min(points), last - series.buckets + 1)
    step, origin = series.interval_ns, series.origin_ns
    return [(origin + epoch * step, points.get(epoch)) for epoch in range(first, last + 1)]


def series_text(series: TimeSeries) -> str:
    """Return the graph: scale, one line for each interval with a star at its value, scale."""
    table = intervals(series)
    values = [value for _, value in table if value is not None]
    if not values:
        return ""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    unit, digits = _resolution(series.interval_ns, len(table))
    left = len(format_time("%H:%M:%S", 0)) + (digits + 1 if digits else 0) + 1
    scale = " " * left + f"{low}{high:>{GRAPH_WIDTH - len(str(low))}}\n"
    rule = "_" * (GRAPH_WIDTH - 2)
    head = f"hh:mm:ss{'.' + unit if unit else ''}"
    pad = " " * (left - len(head.encode()))  # bpftrace counts the bytes of μ
    lines = [scale, f"{head}{pad}|{rule}|\n"]
    for start_ns, value in table:
        lines.append(f"{_time_text(start_ns, digits)} {_line(value, low, high)}\n")
    lines += [" " * left + f"v{rule}v\n", scale]
    return "".join(lines)


def _resolution(interval_ns: int, rows: int) -> tuple[str, int]:
    """Return the name of the finest unit shown and its digits behind the second."""
    if rows > 1:
        if interval_ns >= _SECOND:
            return "", 0
        if interval_ns >= _MILLI:
            return "ms", 3
        if interval_ns >= _MICRO:
            return "μs", 6
    return "ns", 9


def _time_text(start_ns: int, digits: int) -> str:
    text = format_time("%H:%M:%S", start_ns)
    return f"{text}.{start_ns % _SECOND:09d}"[: len(text) + 1 + digits] if digits else text


def _line(value: int | None, low: int, high: int) -> str:
    """One line of the graph: bars at both sides, a star in place of what it covers."""
    cells = ["|", *" " * (GRAPH_WIDTH - 2), "|"]
    if value is not None:
        cells[(value - low) * (GRAPH_WIDTH - 1) // (high - low)] = "*"
    return f"{''.join(cells)} {'-' if value is None else value}"


def start_text(start_ns: int) -> str:
    """Return the start of an interval in full, as JSON has it."""
    return format_time("%Y-%m-%d %H:%M:%S", start_ns) + f".{start_ns % _SECOND:09d}"

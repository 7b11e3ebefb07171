"""Rows, snapshots and captured printers for the tests of the output."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from sonde.output.file import Sink
from sonde.output.jsonlines import JsonPrinter
from sonde.output.text import TextPrinter
from sonde.spec.engine import Entry, Row, Snapshot
from sonde.spec.layout import Layout, LayoutField
from sonde.spec.object import EventSpec, Segment, ViewSpec

S8, S16, S32, S64 = (Layout("int", size, True) for size in (1, 2, 4, 8))
U8, U16, U32, U64 = (Layout("int", size) for size in (1, 2, 4, 8))
BOOL = Layout("bool", 1)
POINTER = Layout("pointer", 8)
STR = Layout("string", 64)
BUF = Layout("buffer", 64)
ENUM = Layout("enum", 4, name="E", params=(("names", ((1, "AA"), (2, "BB"))),))


def tuple_of(*layouts: Layout, names: Sequence[str] = (), kind: str = "tuple") -> Layout:
    """A tuple (or record) of fields one behind the other."""
    offset, fields = 0, []
    for number, layout in enumerate(layouts):
        fields.append(LayoutField(names[number] if names else str(number), offset, layout))
        offset += layout.size
    return Layout(kind, offset, fields=tuple(fields))


def record_of(**layouts: Layout) -> Layout:
    """A record with these fields."""
    return tuple_of(*layouts.values(), names=tuple(layouts), kind="record")


def event(kind: str, *layouts: Layout, **params: Any) -> EventSpec:
    """An event with fields of these layouts."""
    fields = tuple_of(*layouts).fields
    placed = tuple(LayoutField(f.name, f.offset + 8, f.layout) for f in fields)
    return EventSpec(1, kind, 8 + sum(layout.size for layout in layouts), placed, tuple(params.items()))


def segments(text: str) -> tuple[Segment, ...]:
    """Parse a format string the simple way: enough for tests."""
    import re

    parts: list[Segment] = []
    at = 0
    pattern = re.compile(r"%([-+ #0]*)(\d*)(?:\.(\d+))?(hh|ll|[hlLjzt])?(rx|rh|gr|[diuoxXcspr])|%%")
    for match in pattern.finditer(text):
        if match.start() > at:
            parts.append(Segment(text[at : match.start()]))
        at = match.end()
        if match[0] == "%%":
            parts.append(Segment("%"))
            continue
        flags, width, precision, length, conversion = match.groups()
        parts.append(Segment("", conversion, flags, int(width or 0), int(precision) if precision else -1, length or ""))
    if at < len(text):
        parts.append(Segment(text[at:]))
    return tuple(parts)


def capture(make: Callable[[Sink, int], Any], use: Callable[[Any], object]) -> tuple[str, str]:
    """Return what a printer writes to its sink and to stderr while `use` runs."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        printer = make(Sink(out.fileno(), "out"), err.fileno())
        use(printer)
        printer.close()
        texts = []
        for file in (out, err):
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            texts.append(file.read().decode("utf-8", "surrogateescape"))
    return texts[0], texts[1]


def text(use: Callable[[TextPrinter], object], **options: Any) -> tuple[str, str]:
    """What the text printer writes (stdout, stderr)."""
    return capture(lambda sink, err: TextPrinter(sink, error_fd=err, **options), use)


def json(use: Callable[[JsonPrinter], object], **options: Any) -> tuple[str, str]:
    """What the JSON printer writes (stdout, stderr)."""
    return capture(lambda sink, err: JsonPrinter(sink, error_fd=err, **options), use)


def printed(value: Any, layout: Layout) -> tuple[str, str]:
    """What print(value) writes as text and as JSON, without the newline."""
    row = Row(event("print", layout), (value,))
    return text(lambda p: p.row(row))[0].removesuffix("\n"), json(lambda p: p.row(row))[0].removesuffix("\n")


def formatted(form: str, *arguments: tuple[Any, Layout]) -> str:
    """What printf(form, …) writes."""
    spec = event("printf", *(layout for _, layout in arguments), segments=segments(form))
    return text(lambda p: p.row(Row(spec, tuple(value for value, _ in arguments))))[0]


def view(name: str, key: Layout | None, value: Layout) -> ViewSpec:
    """A view for snapshots."""
    return ViewSpec(name, "map", key, value)


def snapshot(spec: ViewSpec, items: dict[Any, Any], **options: Any) -> Snapshot:
    """A snapshot of these entries (the key None for a scalar)."""
    return Snapshot(spec, tuple(Entry(key, value) for key, value in items.items()), **options)

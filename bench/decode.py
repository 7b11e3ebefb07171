"""From record bytes to text: events per second through a session's handlers, for formats of one to four fields.

`python bench/decode.py` prints one line a format. No kernel: the records come from memory, the text goes to /dev/null.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from sonde.output.file import Sink
from sonde.output.jsonlines import JsonPrinter
from sonde.output.text import TextPrinter
from sonde.runtime.fake import FakeEngine, FakeObject
from sonde.runtime.session import Session, SessionOptions
from sonde.spec.layout import Layout, LayoutField
from sonde.spec.object import EventSpec, MapSpec, ObjectSpec, ProbeSpec, Segment

EVENTS = 200_000
U32, U64, COMM = Layout("int", 4), Layout("int", 8), Layout("string", 16)
PATH = Layout("string", 256, params=(("trailer", ".."),))
NEWLINE = Segment("\n")


def conversion(letter: str, **options: object) -> Segment:
    return Segment("", letter, **options)


CASES = {
    "%d": ((U32,), (conversion("d"), NEWLINE), struct.pack("<I4x", 1234)),
    "%d %d": ((U32, U64), (conversion("d"), Segment(" "), conversion("d"), NEWLINE), struct.pack("<IQ4x", 1234, 110)),
    "%-6d %-16s %s": (
        (U32, COMM, PATH),
        (
            conversion("d", flags="-", width=6),
            Segment(" "),
            conversion("s", flags="-", width=16),
            conversion("s"),
            NEWLINE,
        ),
        struct.pack("<I16s256s4x", 1234, b"systemd-journal", b"/proc/self/status"),
    ),
    "%+d %s (general formatter)": (
        (U32, COMM),
        (conversion("d", flags="+"), Segment(" "), conversion("s"), NEWLINE),
        struct.pack("<I16s4x", 1234, b"cat"),
    ),
}


def rate(layouts: tuple[Layout, ...], segments: tuple[Segment, ...], body: bytes, form: str) -> float:
    """Return events per second."""
    offset, fields = 8, []
    for number, layout in enumerate(layouts):
        fields.append(LayoutField(str(number), offset, layout))
        offset += layout.size
    event = EventSpec(1, "printf", 8 + len(body), tuple(fields), (("segments", segments),))
    spec = ObjectSpec(
        (), (MapSpec("events", "ringbuf", 0, 0, 4096),), (ProbeSpec("b", "begin", "b"),), (event,), ringbuf="events"
    )
    record = struct.pack("<Q", 1) + body

    def emit(loaded: FakeObject) -> None:
        for _ in range(EVENTS):
            loaded.ring.feed(record)

    spent: list[float] = []  # when all records wait, and when all are printed
    with open(os.devnull, "wb") as null:
        printer = (TextPrinter if form == "text" else JsonPrinter)(Sink(null.fileno()), quiet=True)
        attached = printer.attached
        printer.attached = lambda count: (spent.append(time.perf_counter()), attached(count))  # type: ignore
        Session(FakeEngine({"b": emit}), spec, printer, SessionOptions(signals=False)).run()
        spent.append(time.perf_counter())
    return EVENTS / (spent[1] - spent[0])


if __name__ == "__main__":
    for name, case in CASES.items():
        for form in ("text", "json"):
            print(f"{name:<28} {form}  {max(rate(*case, form) for _ in range(5)):>12,.0f} events/s")

"""Records of a program's own buffers: which layout is taken for which size, and what is shown where there is none."""

from __future__ import annotations

import pytest

from sonde.runtime.fake import FakeEngine, FakeObject
from sonde.runtime.session import Session, SessionOptions
from sonde.runtime.streams import fit
from sonde.spec.layout import Layout, LayoutField, layout_int
from sonde.spec.object import MapSpec, ObjectSpec, ProbeSpec, StreamSpec

from .test_session import Journal

U32 = layout_int(4, False)


def struct(name: str, *layouts: Layout, size: int = 0) -> Layout:
    """A struct whose members a, b, … follow each other."""
    fields, at = [], 0
    for letter, layout in zip("abcdef", layouts):
        fields.append(LayoutField(letter, at, layout))
        at += layout.size
    return Layout("struct", size or at, fields=tuple(fields), name=name)


def shown(*records: bytes, layouts: tuple[Layout, ...], kind: str = "ringbuf") -> tuple[list[object], Journal]:
    """What rows a session makes of records in a buffer called `ring`."""
    spec = ObjectSpec(
        (),
        (MapSpec("ring", kind, 0, 0, 4096),),
        (ProbeSpec("begin", "begin", "begin"),),
        streams=(StreamSpec("ring", layouts),),
    )

    def begin(loaded: FakeObject) -> None:
        for record in records:
            loaded.reader("ring").feed(record)

    journal = Journal()
    Session(FakeEngine({"begin": begin}), spec, journal, SessionOptions(signals=False)).run()
    return [call[1] for call in journal.of("record")], journal


def plain(value: object) -> object:
    return dict(zip(value.names, value.values)) if hasattr(value, "names") else value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("layout", "record", "value"),
    [
        (struct("s", U32, U32), bytes((1, 0, 0, 0, 2, 0, 0, 0)), {"a": 1, "b": 2}),
        (struct("s", U32, U32), bytes((1, 0, 0, 0)), {"a": 1}),
        (struct("s", U32, U32), bytes((1, 0, 0, 0, 2, 0)), {"a": 1}),
        (struct("s", U32, Layout("string", 8)), b"\1\0\0\0abc", {"a": 1, "b": "abc"}),
        (struct("s", U32, Layout("string", 0)), b"\1\0\0\0abcdefghijkl", {"a": 1, "b": "abcdefghijkl"}),
        (struct("s", U32, Layout("array", 0, element=U32)), b"\1\0\0\0\2\0\0\0\3\0\0\0\4", {"a": 1, "b": (2, 3)}),
        (struct("s", U32, Layout("array", 8, element=U32, count=2)), b"\1\0\0\0\2\0\0\0", {"a": 1, "b": (2,)}),
        (Layout("string", 1), b"text\0rest", "text"),
        (U32, bytes((1, 0, 0, 0, 2, 0, 0, 0)), (1, 2)),
    ],
)
def test_records_of_other_sizes_than_their_type(layout: Layout, record: bytes, value: object) -> None:
    (row,), _ = shown(record, layouts=(layout,))
    assert plain(row) == value


def test_records_that_are_larger_than_any_type_are_bytes() -> None:
    rows, journal = shown(bytes(12), bytes(12), layouts=(struct("s", U32),))
    assert rows == [bytes(12)] * 2 and len(journal.of("message")) == 1
    assert fit(struct("s", U32), 3) is None


def test_perf_buffers_pad_their_records() -> None:
    """A record and the 4 bytes of its size take a multiple of 8."""
    small, large = struct("small", U32, U32), struct("large", U32, U32, U32, U32)
    rows, _ = shown(
        b"\7\0\0\0".ljust(12, b"\0"), b"\6\0\0\0".ljust(20, b"\0"), layouts=(small, large), kind="perf_event_array"
    )
    assert [plain(row) for row in rows] == [{"a": 7, "b": 0}, {"a": 6, "b": 0, "c": 0, "d": 0}]

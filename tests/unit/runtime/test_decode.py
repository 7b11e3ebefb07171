"""Decoders: each kind of layout, truncation, corrupt records, the fused line writer."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.errors import FormatError
from sonde.runtime.clocks import Clocks
from sonde.runtime.decode import Surroundings, event_decoder, fields_decoder, layout_decoder, line_writer, run_writer
from sonde.spec.engine import RUN, LineFormat, run_stride
from sonde.spec.layout import (
    Average,
    EnumValue,
    Histogram,
    Inet,
    Layout,
    LayoutField,
    RecordValue,
    Stack,
    Stats,
    Symbol,
    Timestamp,
    Username,
)
from sonde.spec.object import EventSpec

AROUND = Surroundings(("begin", "kprobe:vfs_read"))
U64 = Layout("int", 8)
S32 = Layout("int", 4, True)
COMM = Layout("string", 16)


def decode(layout: Layout, data: bytes) -> object:
    return layout_decoder(layout, AROUND)(data)


@pytest.mark.parametrize(
    ("layout", "data", "value"),
    [
        (U64, struct.pack("<Q", 2**64 - 1), 2**64 - 1),
        (Layout("int", 8, True), struct.pack("<q", -5), -5),
        (Layout("int", 1, True), b"\xff", -1),
        (Layout("int", 2), b"\xff\xfe", 0xFEFF),
        (Layout("bool", 1), b"\x01", True),
        (Layout("bool", 1), b"\x00", False),
        (Layout("pointer", 8), struct.pack("<Q", 0xFFFF888000000000), 0xFFFF888000000000),
        (COMM, b"bash\0garbage....", "bash"),
        (COMM, b"exactly-16-chars", "exactly-16-chars"),
        (COMM, b"\xff\xfe\0".ljust(16, b"x"), "\udcff\udcfe"),
        (Layout("string", 4, params=(("trailer", ".."),)), b"abcd", "abcd.."),
        (Layout("string", 4, params=(("trailer", ".."),)), b"abc\0", "abc"),
        (Layout("buffer", 12), struct.pack("<I8s", 3, b"abcdefgh"), b"abc"),
        (Layout("buffer", 12), struct.pack("<I8s", 99, b"abcdefgh"), b"abcdefgh"),
        (Layout("inet", 20), struct.pack("<I16s", 2, bytes((127, 0, 0, 1))), Inet(bytes((127, 0, 0, 1)))),
        (Layout("inet", 20), struct.pack("<I16s", 10, bytes(15) + b"\1"), Inet(bytes(15) + b"\1")),
        (Layout("mac", 6), bytes(range(6)), bytes(range(6))),
        (Layout("username", 8), struct.pack("<Q", 0), Username(0)),
        (Layout("probe", 4), struct.pack("<I", 1), "kprobe:vfs_read"),
        (Layout("text", 4), struct.pack("<I", 7), "?7"),
        (Layout("none", 0), b"", None),
        (Layout("raw", 3), b"abc", b"abc"),
        (Layout("strerror", 4), struct.pack("<i", 2), "No such file or directory"),
        (Layout("signal_name", 4), struct.pack("<i", 9), "Killed"),
        (Layout("array", 8, element=Layout("int", 2), count=4), struct.pack("<4H", 1, 2, 3, 4), (1, 2, 3, 4)),
        (Layout("array", 0, element=U64, count=0), b"", ()),
        (Layout("array", 2, element=Layout("bool", 1), count=2), b"\0\1", (False, True)),
        (Layout("avg", 16, True), struct.pack("<qQ", -7, 2), Average(-7, 2)),
        (Layout("stats", 16), struct.pack("<QQ", 7, 2), Stats(7, 2)),
        (
            Layout("hist", 24, count=3, params=(("bits", 0),)),
            struct.pack("<3Q", 1, 0, 2),
            Histogram(0, ((0, 1), (2, 2))),
        ),
    ],
)
def test_kinds(layout: Layout, data: bytes, value: object) -> None:
    assert decode(layout, data) == value


def test_enum_takes_the_first_name_of_a_number() -> None:
    layout = Layout("enum", 4, name="E", params=(("names", ((1, "ONE"), (1, "UNO"), (2, "TWO"))),))
    assert decode(layout, struct.pack("<I", 1)) == EnumValue(1, "ONE")
    assert decode(layout, struct.pack("<I", 9)) == EnumValue(9, "")


def test_composites_nest() -> None:
    pair = Layout("tuple", 24, fields=(LayoutField("0", 0, S32), LayoutField("1", 8, COMM)))
    record = Layout("record", 32, fields=(LayoutField("a", 0, U64), LayoutField("b", 8, pair)))
    data = struct.pack("<Qi4x16s", 5, -3, b"sh")
    assert decode(record, data) == RecordValue(("a", "b"), (5, (-3, "sh")))


def test_bit_fields_that_end_behind_their_unit() -> None:
    """A packed struct: `unsigned a:3, b:32; signed long c:61;` and, in another, `unsigned __int128 d:100` behind five bits."""
    int32, int64 = Layout("int", 4, False), Layout("int", 8, True)
    layout = Layout(
        "struct",
        12,
        fields=(
            LayoutField("a", 0, int32, 0, 3),
            LayoutField("b", 0, int32, 3, 32),
            LayoutField("c", 4, int64, 3, 61),
        ),
    )
    number = 5 | 0xDEADBEEF << 3 | ((-7) & (1 << 61) - 1) << 35
    decode = layout_decoder(layout, Surroundings())
    assert decode(number.to_bytes(12, "little")).values == (5, 0xDEADBEEF, -7)
    data = ((1 << 99 | 77) << 5).to_bytes(16, "little")
    for kind, size in (("raw", 14), ("int", 16)):
        wide = Layout("struct", size, fields=(LayoutField("d", 0, Layout(kind, 16), 5, 100),))
        assert layout_decoder(wide, Surroundings())(data[:size]).values == (1 << 99 | 77,)


def test_bit_fields_and_unions_overlap() -> None:
    fields = (
        LayoutField("low", 0, Layout("int", 2), 0, 4),
        LayoutField("high", 0, Layout("int", 2, True), 4, 12),
        LayoutField("whole", 0, Layout("int", 2)),
        LayoutField("bytes", 0, Layout("array", 2, element=Layout("int", 1), count=2)),
    )
    value = decode(Layout("struct", 2, fields=fields, name="s"), struct.pack("<H", 0xFFF5))
    assert value == RecordValue(("low", "high", "whole", "bytes"), (5, -1, 0xFFF5, (0xF5, 0xFF)))


def test_addresses_keep_space_and_process() -> None:
    symbol = decode(Layout("usym", 16), struct.pack("<QII", 0x1234, 77, 0))
    assert isinstance(symbol, Symbol)
    assert (symbol.space, symbol.addr, symbol.pid) == ("user", 0x1234, 77)
    kernel = decode(Layout("ksym", 8), struct.pack("<Q", 0xFFFF))
    assert isinstance(kernel, Symbol)
    assert (kernel.space, kernel.addr) == ("kernel", 0xFFFF)


def test_failed_stack_has_its_errno() -> None:
    stack = decode(Layout("kstack", 8), struct.pack("<q", -14))
    assert isinstance(stack, Stack)
    assert (stack.error, stack.pcs) == (14, ())


def test_timestamps_become_wall_clock() -> None:
    layout = Layout("timestamp", 8, params=(("clock", "boot"), ("format", "%Y")))
    clocks = Clocks()
    value = layout_decoder(layout, Surroundings(clocks=clocks))(struct.pack("<Q", 1000))
    assert value == Timestamp(1000 + clocks.offset_ns("boot"), "real", "%Y")
    assert decode(layout, struct.pack("<Q", 1000)) == Timestamp(1000, "boot", "%Y")


def test_event_fields_in_any_order_with_gaps() -> None:
    event = EventSpec(
        3, "printf", 48, (LayoutField("0", 24, COMM), LayoutField("1", 8, U64), LayoutField("2", 40, S32))
    )
    record = struct.pack("<QQ8x16si4x", 3, 77, b"cat", -1)
    assert event_decoder(event, AROUND)(b"xx" + record, 2, len(record)) == ("cat", 77, -1)


def test_more_bytes_than_the_layout_are_fine() -> None:
    event = EventSpec(1, "print", 16, (LayoutField("0", 8, U64),))
    assert event_decoder(event, AROUND)(struct.pack("<QQQ", 1, 2, 3), 0, 24) == (2,)


@pytest.mark.parametrize("size", [0, 7, 8, 15])
def test_short_record_is_a_format_error(size: int) -> None:
    event = EventSpec(1, "print", 16, (LayoutField("0", 8, U64),))
    with pytest.raises(FormatError, match="shorter"):
        event_decoder(event, AROUND)(bytes(64), 8, size)


@pytest.mark.parametrize(
    "layout",
    [
        Layout("int", 3),
        Layout("int", 12),
        Layout("no such kind", 8),
        Layout("array", 4, element=U64, count=2),
        Layout("tuple", 8, fields=(LayoutField("0", 4, U64),)),
        Layout("struct", 8, fields=(LayoutField("a", 0, U64), LayoutField("b", 4, U64))),
    ],
)
def test_impossible_layout_is_a_format_error(layout: Layout) -> None:
    with pytest.raises(FormatError):
        decode(layout, bytes(64))


def write_lines(event: EventSpec, line: tuple[bytes, tuple[str, ...]], *records: bytes) -> list[bytes]:
    out: list[bytes] = []
    write = line_writer(event, LineFormat(*line, out.append))
    for record in records:
        write(record, 0, len(record))
    return out


def test_line_writer_formats_raw_bytes() -> None:
    cut = Layout("string", 4, params=(("trailer", ".."),))
    event = EventSpec(
        1, "printf", 44, (LayoutField("0", 8, U64), LayoutField("1", 16, COMM), LayoutField("2", 32, cut))
    )
    pattern = (b"%d %-6s|%s 100%%\n", ("i", "s", "s"))
    records = [
        struct.pack("<QQ16s4s8x", 1, 2**32 - 1, b"cat\0junk", b"abcd"),
        struct.pack("<QQ16s4s8x", 1, 5, b"\xff", b"a\0\0\0"),
    ]
    assert write_lines(event, pattern, *records) == [b"-1 cat   |abcd.. 100%\n", b"5 \xff     |a 100%\n"]


def test_line_writer_without_arguments() -> None:
    assert write_lines(EventSpec(1, "printf", 8), (b"50%%\n", ()), bytes(8)) == [b"50%\n"]


def test_line_writer_refuses_short_records() -> None:
    event = EventSpec(1, "printf", 16, (LayoutField("0", 8, U64),))
    with pytest.raises(FormatError):
        write_lines(event, (b"%d", ("Q",)), bytes(15))


def test_run_writer_prints_what_the_line_writer_prints() -> None:
    event = EventSpec(3, "printf", 24, (LayoutField("0", 8, S32), LayoutField("1", 16, U64)))
    line = (b"%d %x 100%%\n", ("i", "I"))
    bodies = [struct.pack("<Qi4xQ", 3, -index, 2**40 + index) for index in range(RUN)]
    out: list[bytes] = []
    write = run_writer(event, LineFormat(*line, out.append))
    assert write is not None
    stride = run_stride(24)
    data = memoryview(b"\xaa" * 8 + b"".join(body.ljust(stride, b"\xaa") for body in bodies))
    assert write(data, 8)
    assert b"".join(out) == b"".join(write_lines(event, line, *bodies))
    other = bytearray(data)
    other[8 + 5 * stride] = 4  # another event of the same size in between
    assert not write(memoryview(other), 8)
    assert len(out) == 1


@pytest.mark.parametrize(
    ("fields", "takes"),
    [
        ((LayoutField("0", 8, U64), LayoutField("1", 16, COMM)), ("Q", "s")),
        ((LayoutField("0", 16, U64), LayoutField("1", 8, U64)), ("Q", "Q")),
        ((LayoutField("0", 8, U64), LayoutField("1", 8, U64)), ("Q", "Q")),
    ],
    ids=["string", "other order", "same bytes twice"],
)
def test_run_writer_leaves_hard_formats_to_the_line_writer(
    fields: tuple[LayoutField, ...], takes: tuple[str, ...]
) -> None:
    event = EventSpec(1, "printf", 32, fields)
    assert run_writer(event, LineFormat(b"%d %d", takes, lambda text: None)) is None


LEAVES = st.sampled_from(
    [
        U64,
        S32,
        COMM,
        Layout("bool", 1),
        Layout("buffer", 20),
        Layout("inet", 20),
        Layout("mac", 6),
        Layout("usym", 16),
        Layout("kstack", 8),
        Layout("ustack", 16),
        Layout("probe", 4),
        Layout("timestamp", 8, params=(("format", "%H"),)),
        Layout("strerror", 4),
        Layout("signal_name", 4),
        Layout("syscall_name", 4),
        Layout("stats", 16),
        Layout("sum", 16, True),
        Layout("tseries", 48, params=(("buckets", 2), ("interval_ns", 10))),
        Layout("string", 5, params=(("trailer", ".."),)),
    ]
)


def composite(children: st.SearchStrategy[Layout]) -> st.SearchStrategy[Layout]:
    def record(kind: str, parts: list[Layout]) -> Layout:
        offset, fields = 0, []
        for number, part in enumerate(parts):
            fields.append(LayoutField(str(number), offset, part))
            offset += part.size
        return Layout(kind, offset, fields=tuple(fields))

    many = st.lists(children, max_size=4)
    return st.builds(record, st.sampled_from(["tuple", "record", "struct"]), many) | st.builds(
        lambda element, count: Layout("array", element.size * count, element=element, count=count),
        children,
        st.integers(0, 3),
    )


LAYOUTS = st.recursive(LEAVES, composite, max_leaves=6)


@given(LAYOUTS, st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(layout: Layout, data: bytes) -> None:
    """Corrupt records: a value or FormatError, whatever the bytes are."""
    run = fields_decoder((LayoutField("0", 0, layout),), layout.size, AROUND, "test")
    try:
        (value,) = run(data, 0, len(data))
    except FormatError:
        assert len(data) < layout.size
    else:
        repr(value)

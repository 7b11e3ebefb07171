"""printf conversions: the expected texts were printed by bpftrace 0.27.1, unless a test says otherwise."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.output.printers import (
    BOOL,
    BUF,
    ENUM,
    POINTER,
    S8,
    S16,
    S32,
    S64,
    STR,
    U8,
    U16,
    U32,
    U64,
    event,
    formatted,
    record_of,
    segments,
    tuple_of,
)

from sonde.output.printf import compile_segments, encode, line_format
from sonde.runtime.decode import Surroundings, event_decoder, line_writer
from sonde.spec.layout import EnumValue, Inet, Layout, RecordValue, Timestamp, Username

BIG = 5_000_000_000


@pytest.mark.parametrize(
    ("form", "value", "layout", "text"),
    [
        # without a length modifier the low 32 bits, as in C
        ("%d", BIG, S64, "705032704"),
        ("%u", BIG, S64, "705032704"),
        ("%x", BIG, S64, "2a05f200"),
        ("%s", BIG, S64, "5000000000"),
        ("%lld", BIG, S64, "5000000000"),
        ("%ld", BIG, S64, "5000000000"),
        ("%d", 2**64 - 1, U64, "-1"),
        ("%u", 2**64 - 1, U64, "4294967295"),
        ("%d", 2**32 - 1, U32, "-1"),
        ("%u", -1, S64, "4294967295"),
        ("%u", -1, S8, "4294967295"),
        ("%x", -1, S16, "ffffffff"),
        ("%lx", -1, S16, "ffffffffffffffff"),
        ("%lu", -1, S16, "18446744073709551615"),
        ("%o", -1, S64, "37777777777"),
        ("%X", -1, S64, "FFFFFFFF"),
        ("%d", 255, U8, "255"),
        ("%lx", 255, U8, "ff"),
        ("%s", 2**64 - 1, U64, "18446744073709551615"),
        ("%hd", 70000, S32, "4464"),
        ("%hhd", 300, S16, "44"),
        ("%hx", 70000, S32, "1170"),
        ("%hhx", 300, S16, "2c"),
        ("%hu", -1, S8, "65535"),
        ("%zu", -1, S8, "18446744073709551615"),
        ("%jd", -1, S8, "-1"),
        ("%td", -1, S8, "-1"),
        # flags, widths, precision
        ("%-10d|", 5, S8, "5         |"),
        ("%+d", 5, S8, "+5"),
        ("% d", 5, S8, "5"),
        ("%05d", 5, S8, "00005"),
        ("%05d", -5, S8, "000-5"),
        ("%-05d", 5, S8, "50000"),
        ("%+05d", 5, S8, "000+5"),
        ("%5.3d", 5, S8, "    5"),
        ("%.3x", 5, S8, "5"),
        ("%05x", 10, S8, "0000a"),
        ("%#05x", 10, S8, "000xa"),
        ("%#10x|", 10, S8, "       0xa|"),
        ("%-#10x|", 10, S8, "0xa       |"),
        ("%+x", 10, S8, "a"),
        ("%+u", 10, S8, "10"),
        ("%#o", 0, S8, "0"),
        ("%#x", 0, S8, "0"),
        ("%#o", 8, S8, "010"),
        ("%#X", 255, S16, "0XFF"),
        ("%#08x", 10, S8, "000000xa"),
        ("%#s", 10, S8, "10"),
        ("%+s", 5, S8, "+5"),
        ("%5d", -3, S8, "   -3"),
        # characters
        ("%c", 65, S8, "A"),
        ("%5c|", 66, S8, "    B|"),
        ("%-5c|", 67, S8, "C    |"),
        ("%05c", 65, S8, "0000A"),
        ("%c", 300, S16, ","),
        # pointers
        ("%p", 255, U8, "0xff"),
        ("%10p|", 255, U8, "      0xff|"),
        ("%-10p|", 255, U8, "0xff      |"),
        ("%p", 0, POINTER, "0"),
        ("%s", 0, POINTER, "0x0"),
        ("%20p", 0, POINTER, "                   0"),
        ("%d", 255, POINTER, "255"),
        ("%x", 255, POINTER, "ff"),
        ("%#x", 255, POINTER, "0xff"),
        ("%20s", 255, POINTER, "                0xff"),
        # bool and enum
        ("%s", True, BOOL, "true"),
        ("%d", True, BOOL, "1"),
        ("%x", True, BOOL, "1"),
        ("%10s", False, BOOL, "     false"),
        ("%-5d|", True, BOOL, "1    |"),
        ("%s", EnumValue(2, "BB"), ENUM, "BB"),
        ("%d", EnumValue(2, "BB"), ENUM, "2"),
        ("%10s|", EnumValue(2, "BB"), ENUM, "        BB|"),
        ("%-10d|", EnumValue(2, "BB"), ENUM, "2         |"),
        ("%s", EnumValue(7, ""), ENUM, "7"),
        # strings: precision does nothing, zeros fill
        ("%5s|", "ab", STR, "   ab|"),
        ("%-5s|", "ab", STR, "ab   |"),
        ("%05s", "ab", STR, "000ab"),
        ("%.1s", "abc", STR, "abc"),
        ("%3s", "long enough", STR, "long enough"),
        # buffers
        ("%r", b'a\nb"\\c', BUF, 'a\\x0ab"\\c'),
        ("%r", b'a"\\\n\t\x7f\x80 ~%\0', BUF, 'a"\\\\x0a\\x09\\x7f\\x80 ~%\\x00'),
        ("%10r|", b"ab\x01", BUF, "    ab\\x01|"),
        ("%rx", b"ab\x01", BUF, "\\x61\\x62\\x01"),
        ("%rh", b"ab\x01", BUF, "61 62 01"),
        ("%-20rx|", b"ab", BUF, "\\x61\\x62            |"),
        ("%rx", b"", BUF, ""),
        # GFP flags
        ("%gr", 0xCC0, S32, "GFP_KERNEL"),
        ("%gr", 0x400DC0, S32, "GFP_KERNEL_ACCOUNT|__GFP_ZERO"),
        ("%gr", 0xCC2, S32, "GFP_KERNEL|__GFP_HIGHMEM"),
        ("%gr", 0x820, S32, "GFP_ATOMIC"),
        ("%gr", 0x102CCA, S32, "GFP_HIGHUSER|__GFP_NOWARN|0x8"),
        ("%gr", 0x21C2CCA, S32, "GFP_TRANSHUGE|__GFP_KSWAPD_RECLAIM"),
        ("%gr", 0, S32, "0"),
        ("%20gr|", 0xCC0, S32, "          GFP_KERNEL|"),
        # other values
        ("%15s|", Inet(bytes((127, 0, 0, 1))), Layout("inet", 20), "      127.0.0.1|"),
        ("%05s|", bytes(6), Layout("mac", 6), "00:00:00:00:00:00|"),
        ("%10s", Username(0), Layout("username", 8), "      root"),
        ("%s", Timestamp(0, "real", "%S"), Layout("timestamp", 8), "00"),
    ],
)
def test_conversions(form: str, value: object, layout: Layout, text: str) -> None:
    assert formatted(form, (value, layout)) == text


def test_width_pads_the_first_piece_of_composites() -> None:
    pair = ((1, 2), tuple_of(S8, S8))
    record = (RecordValue(("a", "b"), (1, 2)), record_of(a=S8, b=S8))
    assert formatted("%15s|%-15s|", pair, pair) == "              (1, 2)|(              1, 2)|"
    assert formatted("%10s|", record) == "        { .a = 1, .b = 2 }|"


def test_percent_signs_and_literals() -> None:
    assert formatted("100%% of %d\n", (5, S8)) == "100% of 5\n"
    assert formatted("no arguments %%") == "no arguments %"


def test_widths_count_bytes() -> None:
    assert formatted("%5s|", ("é", STR)) == "   é|"


def test_bytes_that_are_no_text_pass_through() -> None:
    assert formatted("%s", ("a\udcff", STR)) == "a\udcff"


INTEGERS = {("i", size): code for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))} | {
    ("u", size): code for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))
}


@given(
    sign=st.sampled_from("iu"),
    size=st.sampled_from([1, 2, 4, 8]),
    data=st.binary(min_size=8, max_size=8),
    flags=st.sampled_from(["", "-", "0", "#", "+"]),
    width=st.integers(0, 12),
    length=st.sampled_from(["", "hh", "h", "l", "ll", "z"]),
    conversion=st.sampled_from("diuxXoscp"),
)
def test_the_fast_way_prints_the_same(
    sign: str, size: int, data: bytes, flags: str, width: int, length: str, conversion: str
) -> None:
    """What is fused into one `%` operation must not differ from the general formatter."""
    spec = event(
        "printf",
        Layout("int", size, sign == "i"),
        STR,
        segments=segments(f"<%{flags}{width or ''}{length}{conversion} %s>"),
    )
    record = struct.pack("<Q", 1) + data[:size] + b"t\xff\0rest".ljust(64, b"x")
    out: list[bytes] = []
    line = line_format(spec, out.append)
    values = event_decoder(spec, Surroundings())(record, 0, len(record))
    slow = compile_segments(spec.get_param("segments"), [f.layout for f in spec.fields])(values)
    if line is not None:
        line_writer(spec, line)(record, 0, len(record))
        assert out == [slow]
    else:
        assert flags or conversion == "p" or (sign == "i" and conversion in "uxXo")


def test_common_formats_take_the_fast_way() -> None:
    cut = Layout("string", 64, params=(("trailer", ".."),))
    for form, layouts in (("%-6d %-16s %s\n", (U32, STR, cut)), ("%lld %llu %x %c", (S64, U64, U32, U8)), ("x\n", ())):
        assert line_format(event("printf", *layouts, segments=segments(form)), lambda text: None) is not None


def test_encode_round_trips() -> None:
    assert encode("ä\udcff") == "ä".encode() + b"\xff"


@given(st.lists(st.tuples(st.sampled_from("diuoxXcsp"), st.integers(-(2**63), 2**64 - 1)), max_size=5))
def test_no_integer_breaks_a_format(parts: list[tuple[str, int]]) -> None:
    text = formatted(" ".join(f"%{c}" for c, _ in parts), *((value, S64) for _, value in parts))
    assert text.count(" ") >= len(parts) - 1


def test_several_arguments() -> None:
    assert formatted("%u %u", (2**16 - 1, U16), (2**8 - 1, U8)) == "65535 255"

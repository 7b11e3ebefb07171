"""print() of values, as text and as JSON: what bpftrace 0.27.1 printed for the same values."""

from __future__ import annotations

import json as standard_json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.output.printers import BOOL, BUF, ENUM, POINTER, S8, S32, S64, STR, U64, printed, record_of, tuple_of

from sonde.output.jsonlines import quote
from sonde.spec.layout import (
    EnumValue,
    Frame,
    Inet,
    Layout,
    RecordValue,
    Stack,
    Symbol,
    Timestamp,
    Username,
)


class Names:
    """A symbolizer that knows two addresses."""

    def resolve(self, space: str, pid: int, addr: int) -> Frame:
        known = {0x1000: ("schedule", 3, ""), 0x7F00: ("malloc", 25, "/lib/libc.so.6")}
        return Frame(addr, *known.get(addr, ("", 0, "")))


def stack(space: str, *pcs: int, mode: str = "bpftrace") -> Stack:
    return Stack(space, (1, 0), pcs, 0, mode, 0, Names())


KSTACK, USTACK = Layout("kstack", 8), Layout("ustack", 16)
PAIR = tuple_of(S8, STR)


@pytest.mark.parametrize(
    ("value", "layout", "text", "json"),
    [
        (-5, S8, "-5", "-5"),
        (9007199254740992, S64, "9007199254740992", "9007199254740992"),
        (9007199254740993, S64, "9007199254740993", '"9007199254740993"'),
        (9007199254740994, S64, "9007199254740994", "9007199254740994"),
        (-9007199254740993, S64, "-9007199254740993", '"-9007199254740993"'),
        (2**64 - 1, U64, "18446744073709551615", '"18446744073709551615"'),
        (18446744073709549568, U64, "18446744073709549568", "18446744073709549568"),
        (True, BOOL, "true", "true"),
        (255, POINTER, "0xff", "255"),
        (0, POINTER, "0x0", "0"),
        (0x20000000000001, POINTER, "0x20000000000001", '"9007199254740993"'),
        (EnumValue(2, "BB"), ENUM, "BB", "2"),
        (EnumValue(9, ""), ENUM, "9", "9"),
        ("x", STR, "x", '"x"'),
        ('a\tb\n"\\\x01\x7f/', STR, 'a\tb\n"\\\x01\x7f/', '"a\\tb\\n\\"\\\\\\u0001\x7f/"'),
        (b"ab\0", BUF, "ab\\x00", "[97,98,0]"),
        (Inet(bytes((127, 0, 0, 1))), Layout("inet", 20), "127.0.0.1", '"127.0.0.1"'),
        (Inet(bytes(15) + b"\1"), Layout("inet", 20), "::1", '"::1"'),
        (b"\x18\xc0\x4d\x08\x2e\xbb", Layout("mac", 6), "18:C0:4D:08:2E:BB", '"18:C0:4D:08:2E:BB"'),
        (Username(0), Layout("username", 8), "root", '"root"'),
        (Username(4294000000), Layout("username", 8), "", '""'),
        ((1, "a"), PAIR, "(1, a)", '[1,"a"]'),
        ((1,), tuple_of(S8), "(1)", "[1]"),
        (
            (1, -1, "a", True, (2, 3)),
            tuple_of(S8, S8, STR, BOOL, tuple_of(S8, S8)),
            "(1, -1, a, true, (2, 3))",
            '[1,-1,"a",true,[2,3]]',
        ),
        ((1, 9007199254740993), tuple_of(S8, S64), "(1, 9007199254740993)", '[1,"9007199254740993"]'),
        (
            RecordValue(("a", "b", "c"), (1, "x", (1, 2))),
            record_of(a=S8, b=STR, c=tuple_of(S8, S8)),
            "{ .a = 1, .b = x, .c = (1, 2) }",
            '{"a": 1, "b": "x", "c": [1,2]}',
        ),
        ((57, 48, 0, 0), Layout("array", 4, element=S8, count=4), "[57,48,0,0]", "[57,48,0,0]"),
        ((), Layout("array", 0, element=S8), "[]", "[]"),
        (
            RecordValue(("x", "c", "p", "in"), (0, "", 0, RecordValue(("q",), (0,)))),
            record_of(x=S32, c=STR, p=POINTER, **{"in": record_of(q=S32)}),
            "{ .x = 0, .c = , .p = 0x0, .in = { .q = 0 } }",
            '{"x": 0, "c": "", "p": 0, "in": {"q": 0}}',
        ),
        (Symbol("kernel", 0x1000, 0, Names()), Layout("ksym", 8), "schedule", '"schedule"'),
        (Symbol("kernel", 0, 0, Names()), Layout("ksym", 8), "0", '"0"'),
        (Symbol("user", 0x55, 7, Names()), Layout("usym", 16), "0x55", '"0x55"'),
        (Timestamp(0, "real", "%S.%f"), Layout("timestamp", 8), "00.000000", '"00.000000"'),
        (
            stack("kernel", 0x1000, 0x2000),
            KSTACK,
            "\n        schedule+3\n        0x2000\n",
            '"\\n        schedule+3\\n        0x2000\\n"',
        ),
        (
            stack("user", 0x7F00, 0x55, mode="perf"),
            USTACK,
            "\n\t7f00 malloc+25 (/lib/libc.so.6)\n\t55 0x55 ([unknown])\n",
            '"\\n\\t7f00 malloc+25 (/lib/libc.so.6)\\n\\t55 0x55 ([unknown])\\n"',
        ),
        (stack("kernel", 0x1000, mode="perf"), KSTACK, "\n\t1000 schedule+3\n", '"\\n\\t1000 schedule+3\\n"'),
        (stack("user", 0x7F00, 0x55, mode="raw"), USTACK, "\n7f00\n55\n", '"\\n7f00\\n55\\n"'),
        (stack("kernel"), KSTACK, "\n", '"\\n"'),
    ],
)
def test_print(value: object, layout: Layout, text: str, json: str) -> None:
    assert printed(value, layout) == (text, f'{{"type": "value", "data": {json}}}')


@given(st.text())
def test_quoted_text_is_json(text: str) -> None:
    assert standard_json.loads(quote(text)) == text


def test_bytes_that_are_no_utf8_survive_json() -> None:
    text = b"a\xff\xc3\xa9".decode("utf-8", "surrogateescape")
    assert quote(text).encode("utf-8") == b'"a\\udcff\xc3\xa9"'
    assert standard_json.loads(quote(text)).encode("utf-8", "surrogateescape") == b"a\xff\xc3\xa9"

"""A C header of all types of a BTF: everything stands before it is used, and each name once."""

from __future__ import annotations

from btf_builder import BtfBuilder

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.btfheader import iter_header


def header(builder: BtfBuilder) -> list[str]:
    return list(iter_header(Btf.from_bytes(builder.build())))


def test_what_lies_in_a_type_comes_before_it() -> None:
    made = BtfBuilder()
    number = made.int("int", 4, True)
    made.add(
        "struct", "outer", 24, made.string("in"), 4, 0, made.string("p"), 5, 64, made.string("next"), 6, 128, vlen=3
    )
    made.add("struct", "inner", 4, made.string("x"), number, 0, vlen=1)
    made.add("typedef", "inner_t", 3)
    made.ptr(7)
    made.ptr(2)
    made.add("struct", "far", 4, made.string("y"), number, 0, vlen=1)
    text = header(made)
    assert [line.split(" {")[0] for line in text] == [
        "struct inner;", "typedef struct inner inner_t;", "struct inner", "struct far;", "struct outer;",
        "struct outer", "struct far",
    ]  # fmt: skip


def test_names_are_made_unique() -> None:
    made = BtfBuilder()
    number = made.int("int", 4, True)
    made.add("struct", "x", 4, made.string("a"), number, 0, vlen=1)
    made.add("union", "x", 4, made.string("b"), number, 0, vlen=1)
    made.add("enum", "", 4, made.string("ON"), 1, vlen=1)
    made.add("enum", "e", 4, made.string("ON"), 2, vlen=1)
    made.add("typedef", "x", 3)
    text = header(made)
    assert "enum {\n\tON = 1,\n};" in text and "enum e {\n\tON___2 = 2,\n};" in text
    assert any(line.startswith("union x___2 {") for line in text)
    assert "typedef union x___2 x;" in text


def test_an_enumeration_within_a_type_stands_there_only() -> None:
    made = BtfBuilder()
    made.add("enum", "", 4, made.string("OFF"), 0, vlen=1)
    made.add("struct", "s", 4, made.string("state"), 1, 0, vlen=1)
    (text,) = header(made)
    assert text.count("OFF") == 1 and text.startswith("struct s {")


def test_typedefs_of_functions_and_of_pointers_to_themselves() -> None:
    made = BtfBuilder()
    number = made.int("int", 4, True)
    made.add("typedef", "call", 3)
    made.add("func_proto", "", number, made.string("s"), 4, vlen=1)
    made.ptr(5)
    made.add("struct", "s", 8, made.string("f"), 6, 0, vlen=1)
    made.ptr(2)
    text = header(made)
    assert text[0] == "struct s;" and text[1].startswith("typedef int call(struct s *s)")
    assert text[2].startswith("struct s {\n\tcall *f;")


def test_circles_end() -> None:
    made = BtfBuilder()
    made.add("typedef", "a", 2)
    made.add("typedef", "b", 1)
    made.add("struct", "c", 8, made.string("d"), 4, 0, vlen=1)
    made.add("struct", "d", 8, made.string("c"), 3, 0, vlen=1)
    assert len(header(made)) == 4

"""Definitions as C text: the notation of libbpf's dumper, as bpftrace and bpftool print it."""

from __future__ import annotations

import pytest
from btf_builder import BtfBuilder

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.btfdump import definition


def define(builder: BtfBuilder, name: str) -> str:
    ctype = Btf.from_bytes(builder.build()).get_type(name)
    assert ctype is not None
    return definition(ctype)


def test_members_bit_fields_and_padding() -> None:
    b = BtfBuilder()
    int_, char, long_ = b.int("int", 4, signed=True), b.int("char", 1, signed=True), b.int("long int", 8, signed=True)
    b.struct("s", 64, [("a", int_, 0, 0), ("b", char, 128, 0), ("x", int_, 136, 3), ("y", int_, 141, 2), ("z", int_, 160, 4),
                       ("c", long_, 192, 0), ("name", b.array(char, 4), 256, 0)], flag=True)  # fmt: skip
    assert define(b, "struct s").splitlines() == [
        "struct s {", "\tint a;", "\tlong: 64;", "\tchar b;", "\tint x: 3;", "\tchar: 2;", "\tint y: 2;", "\tint: 17;",
        "\tint z: 4;", "\tlong int c;", "\tchar name[4];", "\tlong: 64;", "\tlong: 64;", "\tlong: 64;", "};"]  # fmt: skip


@pytest.mark.parametrize(
    ("declaration", "expected"),
    [
        ("const_pointer", "const char * const v"),
        ("pointer_to_const", "const char *v"),
        ("pointer_to_pointer", "char **v"),
        ("array_of_pointers", "char *v[3]"),
        ("pointer_to_array", "char (*v)[3]"),
        ("matrix", "char v[2][3]"),
        ("function_pointer", "int (*v)(const char *, ...)"),
        ("no_parameters", "void (*v)(void)"),
        ("returns_pointer", "char * (*v)(int a)"),
        ("user_pointer", 'char __attribute__((btf_type_tag("user"))) *v'),
        ("anonymous", "struct {\n\t\tint x;\n\t} v"),
        ("anonymous_array", "union {\n\t\tint x;\n\t} v[3]"),
        ("anonymous_enum", "enum {\n\t\tONE = 1,\n\t} v"),
        ("forward", "struct hidden *v"),
    ],
)
def test_declarators(declaration: str, expected: str) -> None:
    b = BtfBuilder()
    int_, char = b.int("int", 4, signed=True), b.int("char", 1, signed=True)
    makers = {
        "const_pointer": lambda: b.qualified("const", b.ptr(b.qualified("const", char))),
        "pointer_to_const": lambda: b.ptr(b.qualified("const", char)),
        "pointer_to_pointer": lambda: b.ptr(b.ptr(char)),
        "array_of_pointers": lambda: b.array(b.ptr(char), 3),
        "pointer_to_array": lambda: b.ptr(b.array(char, 3)),
        "matrix": lambda: b.array(b.array(char, 3), 2),
        "function_pointer": lambda: b.ptr(b.func_proto(int_, [("", b.ptr(b.qualified("const", char)))], variadic=True)),
        "no_parameters": lambda: b.ptr(b.func_proto(0, [])),
        "returns_pointer": lambda: b.ptr(b.func_proto(b.ptr(char), [("a", int_)])),
        "user_pointer": lambda: b.ptr(b.type_tag("user", char)),
        "anonymous": lambda: b.struct("", 4, [("x", int_, 0)]),
        "anonymous_array": lambda: b.array(b.struct("", 4, [("x", int_, 0)], union=True), 3),
        "anonymous_enum": lambda: b.enum("", {"ONE": 1}),
        "forward": lambda: b.ptr(b.fwd("hidden")),
    }
    b.struct("s", 0, [("v", makers[declaration](), 0)], union=True)
    assert define(b, "union s") == f"union s {{\n\t{expected};\n}};"


def test_packed_structs_say_so() -> None:
    b = BtfBuilder()
    int_, char = b.int("int", 4, signed=True), b.int("char", 1, signed=True)
    packed = b.struct("p", 5, [("c", char, 0), ("i", int_, 8)])
    b.struct("holds", 8, [("c", char, 0), ("p", packed, 8)])
    assert define(b, "struct p") == "struct p {\n\tchar c;\n\tint i;\n} __attribute__((packed));"
    assert define(b, "struct holds") == "struct holds {\n\tchar c;\n\tstruct p p;\n\tlong: 0;\n};"


def test_enums_of_all_sizes() -> None:
    b = BtfBuilder()
    b.enum("small", {"A": 0}, size=1)
    b.enum("minus", {"M": -1}, signed=True)
    b.enum64("wide", {"W": 1 << 40})
    b.enum64("wide_minus", {"N": -1}, signed=True)
    assert define(b, "enum small") == "enum small {\n\tA = 0,\n} __attribute__((mode(byte)));"
    assert define(b, "enum minus") == "enum minus {\n\tM = -1,\n};"
    assert define(b, "enum wide") == "enum wide {\n\tW = 1099511627776ULL,\n};"
    assert define(b, "enum wide_minus") == "enum wide_minus {\n\tN = -1LL,\n};"


def test_empty_struct_stays_on_one_line() -> None:
    b = BtfBuilder()
    b.struct("empty", 0, [])
    assert define(b, "struct empty") == "struct empty {};"


def test_typedefs_and_base_types() -> None:
    b = BtfBuilder()
    int_ = b.int("int", 4, signed=True)
    b.typedef("handler_t", b.ptr(b.func_proto(0, [("", int_)])))
    assert define(b, "handler_t") == "typedef void (*handler_t)(int);"
    assert define(b, "int") == "int;"

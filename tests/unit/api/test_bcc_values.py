"""C types as ctypes classes: every member lies where gcc puts it."""

from __future__ import annotations

import ctypes as ct
import shutil
import subprocess
from pathlib import Path

import pytest

from sonde.api.bcc.tables.wording import from_text, to_text
from sonde.api.bcc.values import ValueClasses, to_bytes, visible_fields
from sonde.debuginfo.btf import Btf
from sonde.debuginfo.ctype import (
    BOOL,
    CHAR,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    VOID,
    Array,
    CType,
    Enum,
    Int,
    Member,
    Pointer,
    Struct,
    Typedef,
)
from sonde.debuginfo.elf import Elf
from sonde.errors import UsageError


def struct(name: str, *members: tuple[str, CType, int], size: int, kind: str = "struct") -> Struct:
    """A struct whose members lie at byte offsets."""
    return Struct(kind, name, size, tuple(Member(n, t, offset * 8) for n, t, offset in members))


def find(ctype: CType):  # type: ignore[no-untyped-def]
    return ValueClasses().find(ctype)


@pytest.mark.parametrize(
    ("ctype", "expected"),
    [
        (UINT64, ct.c_ulonglong),
        (INT32, ct.c_int),
        (Typedef("pid_t", INT32), ct.c_int),
        (BOOL, ct.c_bool),
        (CHAR, ct.c_char),
        (UINT8, ct.c_ubyte),
        (Pointer(VOID), ct.c_ulonglong),
        (Enum("e", 4, False, {"A": 1}), ct.c_uint),
        (Array(CHAR, 16), ct.c_char * 16),
        (Array(Array(UINT32, 2), 3), ct.c_uint * 2 * 3),
        (Int("__int128", 16, True), ct.c_int64 * 2),
        (Int("unsigned __int128", 16, False), ct.c_uint64 * 2),
    ],
)
def test_plain_types(ctype: CType, expected: object) -> None:
    assert find(ctype) == expected


def test_struct_with_padding_keeps_ctypes_own_layout() -> None:
    found = find(struct("key_t", ("slot", UINT8, 0), ("pid", UINT32, 4), ("when", UINT64, 8), size=16))
    assert [f[0] for f in found._fields_] == ["slot", "pid", "when"]
    value = found.from_buffer_copy(bytes(range(16)))
    assert (value.slot, value.pid, value.when) == (0, 0x07060504, 0x0F0E0D0C0B0A0908)


def test_packed_struct_is_declared_byte_by_byte() -> None:
    found = find(struct("p", ("a", UINT8, 0), ("b", UINT32, 1), ("c", UINT16, 7), size=10))
    assert ct.sizeof(found) == 10
    value = found.from_buffer_copy(bytes(range(10)))
    assert (value.a, value.b, value.c) == (0, 0x04030201, 0x0807)
    assert visible_fields(found) == ["a", "b", "c"]


def test_over_aligned_members_and_tail() -> None:
    inner = struct("inner", ("x", UINT8, 0), size=16)
    found = find(struct("outer", ("a", UINT8, 0), ("b", inner, 16), size=64))
    value = found.from_buffer_copy(bytes(range(64)))
    assert (ct.sizeof(found), value.b.x) == (64, 16)


def test_anonymous_members_are_reached_by_their_names() -> None:
    union = struct("", ("v4", UINT32, 0), ("v6", Array(UINT8, 16), 0), size=16, kind="union")
    found = find(struct("addr", ("family", UINT16, 0), ("", union, 4), size=20))
    value = found.from_buffer_copy(bytes(range(20)))
    assert value.v4 == 0x07060504
    assert bytes(value.v6) == bytes(range(4, 20))
    assert found._fields_[1][0] == "__anon0"


def test_bit_fields_signed_and_unsigned() -> None:
    members = (
        Member("a", UINT64, 0, 36),
        Member("b", UINT64, 36, 28),
        Member("c", INT32, 64, 3),
        Member("d", UINT32, 67, 29),
    )
    found = find(Struct("struct", "bits", 16, members))
    value = found()
    value.a, value.b, value.c, value.d = (1 << 36) - 1, 5, -2, 7
    raw = int.from_bytes(bytes(value), "little")
    assert raw & (1 << 36) - 1 == (1 << 36) - 1
    assert (raw >> 36 & (1 << 28) - 1, raw >> 64 & 7, raw >> 67 & 0xFF) == (5, 6, 7)
    assert (value.c, value.d) == (-2, 7)


def test_bit_fields_where_ctypes_disagrees() -> None:
    members = (Member("head", UINT8, 0), Member("a", UINT32, 8, 12), Member("b", INT32, 20, 4), Member("t", UINT16, 24))
    found = find(Struct("struct", "packed_bits", 5, members))
    value = found.from_buffer_copy(b"\x11\xbc\xfa\x34\x12")
    assert (value.head, value.a, value.b, value.t) == (0x11, 0xABC, -1, 0x1234)
    value.a = 0x123
    assert bytes(value) == b"\x11\x23\xf1\x34\x12"


def test_the_same_type_is_the_same_class_also_when_it_points_to_itself() -> None:
    node = Struct("struct", "node", 16, lambda: (Member("next", Pointer(node), 0), Member("value", INT64, 64)))
    classes = ValueClasses()
    assert classes.find(node) is classes.find(node)


def test_types_without_values_are_refused() -> None:
    with pytest.raises(UsageError, match="void"):
        find(VOID)


@pytest.mark.parametrize("kind", [ct.c_int, ct.c_ulonglong])
def test_numbers_become_keys_of_any_size(kind: type) -> None:
    assert to_bytes(5, kind, ct.sizeof(kind), "a key") == (5).to_bytes(ct.sizeof(kind), "little")
    assert to_bytes(ct.c_short(5), kind, ct.sizeof(kind), "a key") == (5).to_bytes(ct.sizeof(kind), "little")


def test_texts_and_tuples_become_keys() -> None:
    pair = find(struct("pair", ("a", UINT32, 0), ("b", UINT32, 4), size=8))
    assert to_bytes((1, 2), pair, 8, "a key") == b"\1\0\0\0\2\0\0\0"
    assert to_bytes(b"bash", ct.c_char * 8, 8, "a key") == b"bash\0\0\0\0"


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(TypeError, match="a key of t takes 4 bytes, not the 8 of a c_"):
        to_bytes((ct.c_uint * 2)(), ct.c_uint, 4, "a key of t")
    with pytest.raises(TypeError, match="not 'x'"):
        to_bytes("x", ct.c_uint, 4, "a key of t")


def test_text_of_values_and_back() -> None:
    inner = struct("s", ("a", UINT32, 0), ("b", UINT32, 4), size=8)
    outer = find(struct("o", ("n", Array(UINT32, 3), 0), ("s", inner, 12), ("name", Array(CHAR, 8), 20), size=28))
    value = outer((ct.c_uint * 3)(1, 2, 3), (5, 6), b'ab"c')
    text = to_text(value)
    assert text == '{ [ 0x1 0x2 0x3 ] { 0x5 0x6 } "ab\\x22c" }'
    assert bytes(from_text(text, outer)) == bytes(value)
    assert to_text(ct.c_int(-1)) == "0xffffffff"
    assert from_text("12", ct.c_int).value == 12


@pytest.mark.parametrize("text", ["", "{ 0x1", "{ 0x1 0x2 } 0x3", "[ 0x1 0x2 ]", "{ 0x1 zwei }"])
def test_text_that_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"too (early|much)|is due|invalid literal"):
        from_text(text, find(struct("s", ("a", UINT32, 0), ("b", UINT32, 4), size=8)))


LAYOUTS = """
struct a { char c; short s; signed char d; long l; int i:3; unsigned j:9; };
struct b { unsigned char x:3; unsigned short y:11; int z:20; unsigned char t; } __attribute__((packed));
struct c { unsigned char n[5]; union { int u; unsigned char w[7]; } v; _Bool f:1; unsigned g:31; };
struct d { int q __attribute__((aligned(32))); unsigned char r; };
struct e { long long m:33; int :0; short k; signed char h:2; };
struct f { unsigned char p; struct { int in; } __attribute__((packed)) o; unsigned long long z; };
"""
SETTINGS = {
    "a": {"s": -2, "d": -3, "l": 1 << 40, "i": -4, "j": 300},
    "b": {"x": 5, "y": 1500, "z": -77, "t": 9},
    "c": {"v.u": -5, "f": 1, "g": 1 << 30},
    "d": {"q": 1234567, "r": 8},
    "e": {"m": -(1 << 32), "k": -300, "h": 1},
    "f": {"p": 1, "o.in": -1000000, "z": 1 << 63},
}


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_values_that_c_wrote_are_read(tmp_path: Path) -> None:
    """gcc fills the structs and writes their types as BTF; the classes made from those types read the same values."""
    lines = ["#include <stdio.h>", "#include <string.h>", LAYOUTS, "int main(void) { unsigned i; unsigned char *p;"]
    for name, members in SETTINGS.items():
        lines.append(f"struct {name} v{name}; memset(&v{name}, 0xff, sizeof v{name});")
        lines += [f"v{name}.{member} = {value}ULL;" for member, value in members.items()]
        lines.append(f'p = (void *)&v{name}; for (i = 0; i < sizeof v{name}; i++) printf("%02x", p[i]); puts("");')
    (tmp_path / "layout.c").write_text("\n".join([*lines, "}"]))
    program = tmp_path / "layout"
    subprocess.run(["gcc", "-w", "-gbtf", "-o", program, tmp_path / "layout.c"], check=True)
    out = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    with Elf.open(str(program)) as elf:
        section = elf.get_section(".BTF")
        assert section
        types = Btf.from_bytes(elf.read_section(section))
    for (name, members), dump in zip(SETTINGS.items(), out):
        ctype = types.get_struct(name)
        assert ctype
        value = find(ctype).from_buffer_copy(bytes.fromhex(dump))
        for member, expected in members.items():
            found = value
            for part in member.split("."):
                found = getattr(found, part)
            assert found == expected, f"struct {name}: {member}"

"""Objects that go to other kernels: compiled with the types of one, run with memory laid out as on another, by the same scripts."""

from __future__ import annotations

import struct

import pytest
from btf_builder import BtfBuilder
from script_machine import Fault, World, lower_script, machine, run_body

from sonde.debuginfo.btf import Btf
from sonde.record import replace
from sonde.spec.target import Target


def own_types() -> Btf:
    """What the script is compiled with."""
    b = BtfBuilder()
    int_, uint, long_ = b.int("int", 4, True), b.int("unsigned int", 4), b.int("long int", 8, True)
    ulong, char = b.int("long unsigned int", 8), b.int("char", 1, True)
    point = b.struct("point", 8, [("x", int_, 0), ("y", int_, 32)])
    kind = b.enum("kind", {"SMALL": 1, "LARGE": 2})
    nameless = b.struct("", 8, [("near", int_, 0), ("far", int_, 32)])
    hidden = b.struct("", 4, [("deep", int_, 0)])
    task = hidden + 7
    members: list[tuple[str, int, int, int]] = [
        ("pid", int_, 0, 0),
        ("a", uint, 32, 3),
        ("b", int_, 35, 5),
        ("c", uint, 40, 12),
        ("count", ulong, 64, 0),
        ("state", long_, 128, 0),
        ("parent", b.ptr(task), 192, 0),
        ("points", b.array(point, 3), 256, 0),
        ("", hidden, 448, 0),
        ("pair", nameless, 480, 0),
        ("kind", kind, 544, 0),
        ("comm", b.array(char, 16), 576, 0),
        ("grid", b.array(b.array(int_, 3), 2), 704, 0),
        ("first", b.ptr(point), 896, 0),
    ]
    assert b.struct("task_struct", 128, members, flag=True) == task
    return Btf.from_bytes(b.build())


def other_types() -> Btf:
    """Everything is somewhere else; numbers have other sizes and signs; bit-fields have become members, and a member one."""
    b = BtfBuilder()
    int_, uint, short = b.int("int", 4, True), b.int("unsigned int", 4), b.int("short int", 2, True)
    char, byte = b.int("char", 1, True), b.int("unsigned char", 1)
    point = b.struct("point", 24, [("y", int_, 64), ("x", short, 128)])
    kind = b.enum("kind", {"NONE": 0, "LARGE": 5, "SMALL": 6})
    nameless = b.struct("", 12, [("far", int_, 64), ("near", int_, 32)])
    hidden = b.struct("", 8, [("deep", int_, 32)])
    outer = b.struct("", 8, [("", hidden, 0)], union=True)
    task = outer + 7
    members: list[tuple[str, int, int, int]] = [
        ("parent", b.ptr(task), 0, 0),
        ("a", byte, 64, 0),
        ("b", int_, 75, 5),
        ("c", uint, 86, 12),
        ("pid", int_, 98, 20),
        ("state", uint, 128, 0),
        ("count", uint, 160, 0),
        ("points", b.array(point, 3), 192, 0),
        ("", outer, 768, 0),
        ("pair", nameless, 832, 0),
        ("kind", kind, 928, 0),
        ("comm", b.array(char, 16), 960, 0),
        ("grid", b.array(b.array(int_, 3), 2), 1088, 0),
        ("first", b.ptr(point), 1280, 0),
    ]
    assert b.struct("task_struct", 168, members, flag=True) == task
    return Btf.from_bytes(b.build())


OWN, OTHER = own_types(), other_types()


def target(*features: str) -> Target:
    return replace(machine(), btf=lambda: OWN)


def points(*pairs: tuple[int, int]) -> bytes:
    return b"".join(b"\xdd" * 8 + struct.pack("<i4shh4s", y, b"\xdd" * 4, x, -1, b"\xdd" * 4) for x, y in pairs)


def task(world: World, parent: int = 0) -> int:
    """A task as the other kernel has it; what belongs to no member is not zero."""
    data = bytearray(b"\xdd" * 168)
    data[0:8] = parent.to_bytes(8, "little")
    bits = 5 << 64 | (-3 & 31) << 75 | 0xABC << 86 | (-77 & 0xFFFFF) << 98
    data[8:16] = (bits >> 64).to_bytes(8, "little")
    data[16:24] = struct.pack("<II", 0x80000001, 0xFFFFFFFF)
    data[24:96] = points((1, 2), (-3, 4), (5, 6))
    data[100:104] = struct.pack("<i", -9)
    data[108:116] = struct.pack("<ii", 31, 32)
    data[116:120] = struct.pack("<i", 5)
    data[120:136] = b"worker".ljust(16, b"\0")
    data[136:160] = struct.pack("<6i", *range(10, 16))
    data[160:168] = world.memory.add(points((21, 22), (23, 24))).to_bytes(8, "little")
    return world.memory.add(data)


BODIES = [
    ("print($t->pid)", "-77"),
    ("print(($t->a, $t->b, $t->c))", "(5, -3, 2748)"),
    ("print($t->count); print($t->count + 1)", "4294967295\n4294967296"),
    ("print($t->state); print($t->state > 0)", "2147483649\ntrue"),  # a long that has become an unsigned int
    ("print($t->parent->parent == 0); print($t->parent->c)", "true\n2748"),
    ("print($t->points[1].x); print($t->points[2].y)", "-3\n6"),
    ("$i = 2; print($t->points[$i].x); print($t->points[$i - 1].y)", "5\n4"),
    ("print($t->deep)", "-9"),
    ("print($t->pair.near); print($t->pair.far)", "31\n32"),  # a struct without a name, in a member with one
    ("print($t->comm); @[$t->comm] = count()", "worker\n\n\n@[worker]: 1"),
    ("print($t->grid[1][2]); $i = 1; print($t->grid[$i][0]); print($t->grid[0][$i])", "15\n13\n11"),
    ("print($t->first->y); print($t->first[1].x); $p = $t->first + 1; print($p->y)", "22\n23\n24"),
    ("$i = 1; print($t->first[$i].y)", "24"),
    ("print($t->kind == LARGE); print($t->kind == SMALL); print(SMALL + $t->a)", "true\nfalse\n11"),
    ("print(sizeof(struct point)); print(offsetof(struct point, y)); print(sizeof(struct task_struct))", "24\n8\n168"),
    ("@m[$t->pid] = sum($t->b)", "@m[-77]: -3"),
    ("if ($t->a == 5 && $t->pid < 0) { print(\"yes\") }", "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), BODIES)
def test_scripts_on_another_kernel(body: str, expected: str) -> None:
    world = World()
    world.types = OTHER
    world.task = task(world, task(world))
    assert run_body(f"$t = curtask; {body};", world, target(), relocatable=True) == expected + "\n"


def test_at_home_the_answers_are_those_of_the_compiler() -> None:
    data = bytearray(128)
    data[0:8] = struct.pack("<iI", -77, 5 | (-3 & 31) << 3 | 0xABC << 8)
    data[16:24] = (-5).to_bytes(8, "little", signed=True)
    data[32:56] = struct.pack("<6i", 1, 2, -3, 4, 5, 6)
    data[60:68] = struct.pack("<ii", 31, 32)
    body = (
        "$t = curtask; print(($t->pid, $t->a, $t->b, $t->c, $t->state)); $i = 2; "
        "print(($t->points[1].x, $t->points[$i].y, $t->pair.far, sizeof(struct point)));"
    )
    expected = "(-77, 5, -3, 2748, -5)\n(-3, 6, 32, 8)\n"
    for relocatable in (False, True):
        world = World()
        world.task = world.memory.add(data)
        assert run_body(body, world, target(), relocatable=relocatable) == expected


def test_what_the_other_kernel_lacks_is_found_missing() -> None:
    world = World()
    b = BtfBuilder()
    b.struct("task_struct", 8, [("tgid", b.int("int", 4, True), 0)])
    world.types = Btf.from_bytes(b.build())
    world.task = world.memory.add(bytes(128))
    with pytest.raises(Fault, match="has no answer"):
        run_body("print(curtask.pid);", world, target(), relocatable=True)


def questions(script: str) -> list[tuple[str, tuple[str | int, ...], int]]:
    functions = lower_script(script, target(), relocatable=True).module.functions.values()
    insts = [i for f in functions for block in f.blocks for i in block.insts]
    return [(i.core.kind, i.core.path, i.core.value) for i in insts if i.core is not None]


def test_paths_start_at_the_outermost_struct_with_a_name() -> None:
    asked = questions("begin { print(curtask.pair.far); print(curtask.points[1].x) }")
    assert ("field_byte_offset", ("pair", "far"), 64) in asked
    assert ("field_byte_size", ("pair", "far"), 4) in asked
    assert ("field_byte_offset", ("points", 1, "x"), 40) in asked
    assert questions("begin { print(1) }") == []


@pytest.mark.parametrize(
    ("body", "fixed"),
    [
        ("print(1)", ""),
        ("print(curtask)", ""),
        ("print(curtask.pid)", "struct task_struct.pid"),
        ("print(curtask.pair.far)", "struct task_struct.pair"),
        ("print(sizeof(struct point))", "the layout of struct point"),
        ("print(SMALL)", "SMALL"),
        ("enum mine { LITTLE = 3 }; print(LITTLE)", ""),
        ("$p = curtask.first + 1; print($p)", "struct task_struct.first"),
        ("$p = (struct point *)1; $q = $p + 1; print($q)", "the size of struct point"),
        ("$p = (struct point *)1; print(*$p)", "the whole of struct point"),
        ('print(kaddr("vfs_read"))', "the address of vfs_read"),
        ("struct point2 { int x; }; $p = (struct point2 *)1; print($p->x)", ""),
    ],
)
def test_what_stays_here_says_what_it_has_from_this_kernel(body: str, fixed: str) -> None:
    head, _, rest = body.rpartition("};")
    script = f"{head}{'};' if head else ''} begin {{ {rest} }}"
    assert lower_script(script, target()).fixed == fixed


def test_some_things_cannot_travel() -> None:
    assert lower_script("begin { print(curtask.points[1].x) }", target(), relocatable=True).fixed == ""
    whole = lower_script("begin { $p = (struct point *)1; print(*$p) }", target(), relocatable=True)
    assert whole.fixed == "the whole of struct point"
    folded = lower_script("begin { print((uint64)SMALL) }", target(), relocatable=True)
    assert folded.fixed == "SMALL"

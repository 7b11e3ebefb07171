"""Lowering of what lies in memory: contexts, structs of the traced program and of the kernel, strings, stacks' neighbours."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bt_typing import TARGET
from elfmaker import VADDR, Symbols, make_elf
from script_machine import World, lower_script, machine, run_body, run_script

from sonde.record import replace

STRUCTS = """
struct in { int a; char name[8]; };
struct st { int x; unsigned bf:3; unsigned bg:5; struct in in; int arr[4]; char *s; struct st *next; long big; };
"""
EXIT = " interval:s:1 { exit() }"


def record(world: World) -> int:
    """Two structs of the traced process, the first of which leads to the second; return where the first is."""
    second = world.memory.add(struct.pack("<iI i8s 4i 4x QQq", 9, 0, 4, b"nnnn", 0, 0, 0, 0, 0, 0, 0), user=True)
    bits = 5 | 17 << 3
    return world.memory.add(
        struct.pack("<iI i8s 4i 4x QQq", 5, bits, 3, b"inner\0xx", 1, 2, 3, -4, world.string("pointed"), second, -5),
        user=True,
    )


def uprobe(body: str, world: World, *arguments: int) -> str:
    """Run the body of a probe on a function that was called with these arguments."""
    offsets = (112, 104, 96, 88, 72, 64)  # di si dx cx r8 r9
    registers = bytearray(168)
    for offset, number in zip(offsets, arguments):
        registers[offset : offset + 8] = (number & (1 << 64) - 1).to_bytes(8, "little")
    with program() as path:
        script = STRUCTS + f"uprobe:{path}:main {{ {body} exit() }}"
        return run_script(script, world, contexts={"uprobe": bytes(registers)})


@contextmanager
def program() -> Iterator[str]:
    """An executable file with a function main."""
    symbols = Symbols()
    symbols.add("main", VADDR + 0x1000, 32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        path.write_bytes(make_elf(symtab=symbols))
        path.chmod(0o755)
        yield str(path)


FIELDS = [
    ("print($p->x); print($p->bf); print($p->bg); print($p->big)", "5\n5\n17\n-5"),
    ("print($p->in.a); print($p->in.name); print($p->in.name == \"inner\")", "3\ninner\ntrue"),
    ("print($p->arr); print($p->arr[3]); $i = 2; print($p->arr[$i]); print($p->arr[1] + 1)", "[1,2,3,-4]\n-4\n3\n3"),
    ("print(str($p->s)); print($p->next->x); print($p->next->in.name); print($p->next->next == 0)", "pointed\n9\nnnnn\ntrue"),
    ("print($p->in); $c = *$p; print($c.x); print($c.in.name)", "{ .a = 3, .name = inner }\n5\ninner"),
    ("@[$p->in.name] = count(); @[\"inner\"] = count(); print(@[\"inner\"])", "2\n\n\n@[inner]: 2"),
    ("@x[$p->arr[1], $p->x] = sum($p->big)", "@x[2, 5]: -5"),
    ("@p = $p; print(@p->x); print((*@p).big); clear(@p)", "5\n-5"),
    ("$q = (int32*)arg0; print(*$q); print($q[0]); print(*(int64*)(arg0 + 56)); print(*(uint8*)arg0)", "5\n5\n-5\n5"),
    ("$t = ($p, 1); print($t.0->x)", "5"),
    ("@c = *$p; print(@c.in.name); print(@c.arr[3]); clear(@c)", "inner\n-4"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), FIELDS)
def test_structs_of_the_traced_program(body: str, expected: str) -> None:
    world = World()
    assert uprobe(f"$p = (struct st *)arg0; {body};", world, record(world)) == expected + "\n"


def test_only_the_bytes_of_a_field_are_read() -> None:
    world = World()
    where = world.memory.add(struct.pack("<iI", 7, 5), user=True)  # nothing behind the first two members
    assert uprobe("$p = (struct st *)arg0; print($p->x); print($p->bf);", world, where) == "7\n5\n"


def test_what_cannot_be_read_is_zero() -> None:
    body = "$p = (struct st *)arg0; print($p->x); print(($p->in.name, str(arg0), 1));"
    assert uprobe(body, World(), 0x99) == "0\n(, , 1)\n"


STRINGS = [
    ("print(str(arg0)); $s = str(arg0); print($s); print((1, $s))", "hello world\nhello world\n(1, hello world)"),
    ("print(str(arg0, 5)); $n = 4; print(str(arg0, $n)); print(str(arg0, 0)); print(str(arg0, 100))",
     "hell\nhel\n\nhello world"),
    ("if (str(arg0) == \"hello world\") { print(1) } if (str(arg0) == \"hello\") { print(2) } print(str(arg0) != \"x\")",
     "1\ntrue"),
    ("print(strlen(str(arg0))); print(strcontains(str(arg0), \"wor\"))", "11\ntrue"),
    ("print(strncmp(str(arg0), \"hello there\", 6)); print(strncmp(str(arg0), \"hello there\", 7))", "0\n1"),
    ("print(buf(arg0, 5)); $n = 3; print(buf(arg0, $n)); @b[buf(arg0, 2)] = 1", "hello\nhel\n\n\n@b[he]: 1"),
    ("@a[str(arg0)] = count(); @a[\"hello world\"] = count(); print(@a[str(arg0)])", "2\n\n\n@a[hello world]: 2"),
    ("@s = str(arg0); print(@s == str(arg0)); clear(@s)", "true"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), STRINGS)
def test_strings_of_the_traced_program(body: str, expected: str) -> None:
    world = World()
    assert uprobe(body + ";", world, world.string("hello world")) == expected + "\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("/abc", "/abc"), ("/abcdef", "/abcdef"), ("/abcdefg", "/abcdefg.."), ("/abcdefghij", "/abcdefg..")],
)
def test_strings_that_were_cut_show_it(text: str, shown: str) -> None:
    world = World()
    world.string("x")
    context = bytes(24) + world.string(text).to_bytes(8, "little")
    script = (
        "config = { max_strlen = 8 } tracepoint:syscalls:sys_enter_openat "
        '{ $s = str(args.filename); @[$s] = count(); @v = $s; print((1, $s)); printf("%s|%s\\n", str(args.filename), $s); }'
    )
    expected = f"(1, {shown})\n{shown}|{shown}\n\n\n@[{shown}]: 1\n@v: {shown}\n"
    assert run_script(script + EXIT, world, contexts={"tracepoint": context}) == expected


def test_fields_of_a_tracepoint() -> None:
    context = bytes(8) + b"swapper/0\0zzzzzz" + struct.pack("<iIQ", 17, 0, 0xFFFF888000001234)
    script = (
        'tracepoint:sched:sched_switch { printf("%s %d %p\\n", args.prev_comm, args.prev_pid, args.skaddr); '
        '@[args.prev_comm] = count(); @["swapper/0"] = count(); if (args.prev_comm == "swapper/0") { print("idle") } }'
    )
    expected = "swapper/0 17 0xffff888000001234\nidle\n\n\n@[swapper/0]: 2\n"
    assert run_script(script + EXIT, contexts={"tracepoint": context}) == expected


def test_data_behind_the_record_of_a_tracepoint() -> None:
    context = bytes(8) + struct.pack("<Ii", 16 | 7 << 16, 5) + b"/bin/x\0"
    script = "tracepoint:sched:sched_process_exec { print(str(args.filename)); @[str(args.filename), args.pid] = 1 }"
    assert run_script(script + EXIT, contexts={"tracepoint": context}) == "/bin/x\n\n\n@[/bin/x, 5]: 1\n"


def test_join_ends_at_the_first_null() -> None:
    world = World()
    pointers = [world.string(text) for text in ("one", "two", "three")]
    where = world.memory.add(struct.pack("<4Q", *pointers, 0), user=True)
    assert uprobe('join(arg0); join(arg0, ",");', world, where) == "one two three\none,two,three\n"


def task(world: World, pid: int, comm: bytes, parent: int = 0) -> int:
    """A task_struct as `bt_typing` lays it out."""
    data = bytearray(96)
    data[0:4] = pid.to_bytes(4, "little")
    data[8:24] = comm.ljust(16, b"\0")
    data[32:40] = data[40:48] = data[48:56] = parent.to_bytes(8, "little")
    data[72:88] = struct.pack("<4i", 1, -2, 3, 4)
    data[88] = 1
    return world.memory.add(bytes(data))


def test_kernel_structs_are_followed() -> None:
    world = World()
    world.task = task(world, 12, b"child", task(world, 11, b"parent"))
    body = (
        "$t = curtask; print($t.pid); print($t.comm); print($t.parent.comm); print($t.real_parent->pid); print($t.numbers); "
        'print($t.kind); @[$t.comm] = count(); print($t.comm == "child"); print(ppid); print(pcomm)'
    )
    expected = "12\nchild\nparent\n11\n[1,-2,3,4]\nPIDTYPE_TGID\ntrue\n11\nparent\n\n\n@[child]: 1\n"
    assert run_body(body, world) == expected


def test_the_task_is_read_directly_where_the_verifier_trusts_it() -> None:
    target = replace(machine(), features=TARGET.features)
    helpers = {
        i.symbol for i in _instructions(lower_script("begin { print(curtask.pid) }", machine())) if i.op == "call"
    }
    assert "probe_read_kernel" in helpers
    trusted = replace(target, features=Trusting())
    helpers = {i.symbol for i in _instructions(lower_script("begin { print(curtask.pid) }", trusted)) if i.op == "call"}
    assert "get_current_task_btf" in helpers and "probe_read_kernel" not in helpers


class Trusting:
    """A kernel with everything."""

    def have(self, name: str) -> bool:
        return True


def _instructions(lowered):  # type: ignore[no-untyped-def]
    return [i for f in lowered.module.functions.values() for b in f.blocks for i in b.insts]


@pytest.mark.parametrize(
    ("operand", "expected"),
    [(("const", 8, True, -3), "-3"), (("reg", 4, True, 0, 112), "-2"), (("reg", 1, False, 0, 113), "255"),
     (("mem", 4, False, 8, 104), "77"), (("mem", 8, True, 0, 104, 96, 4), "-9"), (("none", 8, False), "0")],
)  # fmt: skip
def test_arguments_of_static_probes(operand: tuple, expected: str) -> None:  # type: ignore[type-arg]
    from sonde.debuginfo.usdt import UsdtArg
    from sonde.lang.bpftrace import lower_builtins

    kind, size, signed, *rest = operand
    value, base, index, scale = (*rest, *(0, -1, -1, 1)[len(rest) :])
    arg = UsdtArg(size, signed, kind, value, base, index, scale)
    world = World()
    where = world.memory.add(struct.pack("<QIIq", 0, 77, 0, -9), user=True)
    registers = bytearray(168)
    registers[112:120] = (0xFFFF_FFFE).to_bytes(8, "little")
    registers[104:112] = where.to_bytes(8, "little")
    registers[96:104] = (4).to_bytes(8, "little")

    def argument(f, node, info):  # type: ignore[no-untyped-def]
        return lower_builtins._as(f, node, lower_builtins.usdt_argument(f.b, f.ctx, arg))

    original = lower_builtins.CALLS["arg"]
    lower_builtins.CALLS["arg"] = argument
    try:
        with program() as path:
            script = f"uprobe:{path}:main {{ print((int64)arg0); exit() }}"
            text = run_script(script, world, contexts={"uprobe": bytes(registers)})
    finally:
        lower_builtins.CALLS["arg"] = original
    assert text == expected + "\n"


def test_override_hands_over_the_context_and_the_result() -> None:
    world = World()
    script = "kprobe:vfs_read { override(-5); $x = (uint8)7; override($x) }" + EXIT
    run_script(script, world, contexts={"kprobe": bytes(168)})
    contexts, results = zip(*world.overrides)
    assert results == (-5, 7)
    assert len(set(contexts)) == 1 and world.memory.find(contexts[0], 168)


def test_write_user() -> None:
    """From a string, from a number, from memory of the process; a bad address is told by the result."""
    world = World()
    target, source = bytearray(b"................"), bytearray(b"from-there")
    to, there = world.memory.add(target, user=True), world.memory.add(source, user=True)
    body = (
        'print(write_user(arg0, "new", 4)); $n = (uint32)0x44434241; print(write_user(arg0 + 4, &$n, 4)); '
        "print(write_user(arg0 + 8, (int8 *)arg1, 4)); print(write_user(9, arg1, 4));"
    )
    assert uprobe(body, world, to, there) == "0\n0\n0\n-14\n"
    assert bytes(target) == b"new\0ABCDfrom...."

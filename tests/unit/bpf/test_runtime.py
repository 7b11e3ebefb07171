"""Helpers without a kernel: each kind once by a program in the interpreter, with what the kernel answers in the odd cases."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sonde.bpf.asm import assemble
from sonde.bpf.helpers import HELPERS
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import LDDW, Insn
from sonde.bpf.maps import MapShape, SharedMap, create
from sonde.bpf.maps.array import TableMap
from sonde.bpf.maps.hash import HashTableMap
from sonde.bpf.maps.ringbuf import RingMap
from sonde.bpf.maps.stacks import StackMap
from sonde.bpf.memory import Memory
from sonde.bpf.runtime import World, helper_table, named_helpers
from sonde.errors import RunError

M = (1 << 64) - 1
EINVAL, EFAULT, E2BIG, ENOENT = -22, -14, -7, -2


class Fixed(World):
    cpu = 1

    def now_ns(self, clock: str) -> int:
        return {"monotonic": 8_000_000_000, "boot": 2, "tai": 3, "coarse": 4}[clock]

    def pid_tgid(self) -> int:
        return 70 << 32 | 71

    def comm(self) -> bytes:
        return b"a-thread"

    def stack(self, context: int, user: bool) -> Sequence[int] | None:
        return [0x10, 0x20, 0x30] if not user else None

    def read(self, address: int, size: int, user: bool) -> bytes | None:
        text = b"kernel text\0"
        at = address - 0xFFFF_8880_0000_0000
        return text[at : at + size] if at >= 0 and at + size <= len(text) else None


class Bench:
    """A machine and its maps; `call` calls one helper with Python numbers as arguments."""

    def __init__(self, *maps: SharedMap) -> None:
        self.world = Fixed()
        self.machine = Machine(helper_table(), maps=dict(enumerate(maps, 1)), world=self.world)
        self.buffer = bytearray(256)
        self.address = self.machine.memory.add(self.buffer)
        self.helpers = named_helpers()

    def map(self, number: int = 1) -> int:
        return self.machine.wide(1, number, 0)

    def call(self, name: str, *args: int) -> int:
        """Call a helper; a negative errno comes back as such."""
        r1, r2, r3, r4, r5 = ([a & M for a in args] + [0] * 5)[:5]
        result = self.helpers[name](self.machine, r1, r2, r3, r4, r5) & M
        return result - (1 << 64) if result >> 63 else result

    def put(self, data: bytes, at: int = 0) -> int:
        self.buffer[at : at + len(data)] = data
        return self.address + at


def test_names_are_those_of_the_table() -> None:
    assert all(HELPERS[name].name == name for name in named_helpers())


def test_reading_memory() -> None:
    bench = Bench()
    bench.put(b"abc\0def", 100)
    assert bench.call("probe_read_kernel", bench.address, 4, bench.address + 100) == 0
    assert bench.buffer[:5] == b"abc\0\0"
    assert bench.call("probe_read_kernel_str", bench.address, 3, bench.address + 100) == 3
    assert bench.buffer[:4] == b"ab\0\0"
    assert bench.call("probe_read_user_str", bench.address, 64, bench.address + 100) == 4
    assert bench.call("probe_read_user_str", bench.address, 0, bench.address + 100) == 0
    kernel = 0xFFFF_8880_0000_0000
    assert bench.call("probe_read_kernel_str", bench.address, 64, kernel) == 12
    assert bench.buffer[:12] == b"kernel text\0"
    assert bench.call("probe_read_kernel", bench.address, 6, kernel + 7) == EFAULT
    assert bench.buffer[:6] == bytes(6)
    bench.put(b"\xff" * 8)
    assert bench.call("probe_read_str", bench.address, 8, 0x1234) == EFAULT
    assert bench.buffer[:8] == bytes(8)


@pytest.mark.parametrize("name", ["probe_read", "probe_read_user"])
def test_user_memory_that_is_apart(name: str) -> None:
    """An address of the traced process may be one of the program's own regions, too: it is the process's."""
    bench = Bench()
    bench.put(b"own text\0", 100)
    process = {bench.address + 100: b"its text\0"}
    bench.world.read = lambda address, size, user: process.get(address, b"")[:size] if user else None  # type: ignore[method-assign]
    bench.world.apart = True
    assert bench.call(name, bench.address, 9, bench.address + 100) == 0
    assert bench.buffer[:9] == b"its text\0"
    assert bench.call(f"{name}_str", bench.address, 9, bench.address + 100) == 9
    assert bench.buffer[:9] == b"its text\0"
    assert bench.call("probe_read_kernel", bench.address, 9, bench.address + 100) == 0
    assert bench.buffer[:9] == b"own text\0"


def test_facts() -> None:
    bench = Bench()
    assert [bench.call(f"ktime_get_{clock}ns") for clock in ("", "boot_", "tai_", "coarse_")] == [
        8_000_000_000,
        2,
        3,
        4,
    ]
    assert bench.call("jiffies64") == 2000
    assert bench.call("get_smp_processor_id") == 1
    assert bench.call("get_current_pid_tgid") == 70 << 32 | 71
    bench.put(b"\xff" * 16)
    assert bench.call("get_current_comm", bench.address, 16) == 0
    assert bench.buffer[:16] == b"a-thread".ljust(16, b"\0")
    assert bench.call("get_current_comm", bench.address, 4) == 0
    assert bench.buffer[:4] == b"a-t\0"


def test_stacks() -> None:
    with create(MapShape("stack_trace", 4, 16, 8)) as table:
        assert isinstance(table, StackMap)
        bench = Bench(table)
        number = bench.call("get_stackid", 0, bench.map(), 1)
        assert table.lookup(number.to_bytes(4, "little")) == [bytes([0x20, *bytes(7), 0x30, *bytes(7)])]
        assert bench.call("get_stackid", 0, bench.map(), 1 << 8) == EFAULT
        assert bench.call("get_stackid", 0, bench.map(), 1 << 12) == EINVAL
        bench.put(b"\xff" * 64)
        assert bench.call("get_stack", 0, bench.address, 32, 1) == 16
        assert bench.buffer[:40] == bytes([0x20, *bytes(7), 0x30, *bytes(7)]) + bytes(16) + b"\xff" * 8
        assert bench.call("get_stack", 0, bench.address, 30, 0) == EINVAL


@pytest.mark.parametrize(
    ("form", "arguments", "text"),
    [
        (b"%d|%5u|%-6lx|%%\0", (-1 & M, 7, 0xAB), b"-1|    7|ab    |%"),
        (b"%llu %ld %i\0", (1 << 40, -5 & M, 1 << 32 | 3), b"1099511627776 -5 3"),
        (b"%c%c\0", (65, 0x142), b"AB"),
        (b"%px %p\0", (0x1F, 2), b"000000000000001f 0000000000000002"),
        (b"plain\0", (), b"plain"),
    ],
)
def test_formats(form: bytes, arguments: tuple[int, ...], text: bytes) -> None:
    bench = Bench()
    given = bench.put(b"".join(a.to_bytes(8, "little") for a in arguments), 64)
    where = bench.put(form, 128)
    assert bench.call("snprintf", bench.address, 60, where, given, 8 * len(arguments)) == len(text) + 1
    assert bench.buffer[: len(text) + 1] == text + b"\0"
    assert bench.call("snprintf", bench.address, 4, where, given, 8 * len(arguments)) == len(text) + 1
    short = text[:3] + b"\0"
    assert bench.buffer[: len(short)] == short
    assert bench.call("trace_vprintk", where, len(form), given, 8 * len(arguments)) == len(text)
    assert bench.world.printed == [text.decode()]


def test_formats_with_addresses() -> None:
    bench = Bench()
    text = bench.put(b"some text\0", 32)
    quad = bench.put(bytes([10, 1, 2, 255]), 48)
    form = bench.put(b"%s %.4s %pI4 %pks\0", 128)
    arguments = bench.put(b"".join(a.to_bytes(8, "little") for a in (text, text, quad, text)), 64)
    assert bench.call("snprintf", bench.address, 60, form, arguments, 32) == 36
    assert bench.buffer[:36] == b"some text some 10.1.2.255 some text\0"


@pytest.mark.parametrize("form", [b"%d %d\0", b"%n\0", b"%", b"%y\0", b"%pI9\0"])
def test_formats_that_are_refused(form: bytes) -> None:
    bench = Bench()
    where = bench.put(form, 128)
    assert bench.call("snprintf", bench.address, 60, where, bench.address, 8) == EINVAL


def test_trace_printk_needs_an_end() -> None:
    bench = Bench()
    assert bench.call("trace_printk", bench.put(b"x%d"), 3, 1) == EINVAL
    assert bench.call("trace_printk", bench.put(b"x%d\0"), 4, 5) == 2
    assert bench.world.printed == ["x5"]


def test_comparing_and_parsing() -> None:
    bench = Bench()
    first, second = bench.put(b"abcd"), bench.put(b"abce\0", 32)
    assert [bench.call("strncmp", first, n, second) for n in (3, 4)] == [0, -1]
    cases: list[tuple[bytes, int, str, int, int]] = [
        (b" -12x\0", 10, "strtol", 4, -12 & M),
        (b"0x1f", 0, "strtol", 4, 31),
        (b"017", 0, "strtoul", 3, 15),
        (b"-5", 10, "strtoul", EINVAL, 0),
        (b"99999999999999999999", 10, "strtol", -34, 0),
        (b"zz", 16, "strtol", EINVAL, 0),
        (b"12", 7, "strtol", EINVAL, 0),
    ]
    for text, base, name, result, number in cases:
        bench.buffer[200:208] = bytes(8)
        assert bench.call(name, bench.put(text), len(text), base, bench.address + 200) == result, text
        assert bench.buffer[200:208] == number.to_bytes(8, "little")


# Maps -------------------------------------------------------------------------------------------------------------


def run(text: str, maps: dict[int, SharedMap], world: World | None = None, context: int = 0) -> int:
    return Machine(helper_table(), maps=maps, world=world or Fixed()).run(Program(with_maps(text)), context)


def with_maps(text: str) -> list[Insn]:
    """Assemble; `N ll` loads map N."""
    return [Insn(LDDW, i.dst, 1, 0, i.imm) if i.opcode == LDDW and i.src == 0 else i for i in assemble(text)]


def test_a_program_stays_inside_the_value() -> None:
    text = "*(u32 *)(r10 -4) = 1\nr1 = 1 ll\nr2 = r10\nr2 += -4\ncall 1\nr0 = *(u8 *)(r0 {at:+d})\nexit"
    with create(MapShape("array", 4, 5, 3)) as table:
        table.update((1).to_bytes(4, "little"), b"abcde")
        assert run(text.format(at=4), {1: table}) == ord("e")
        for at in (5, 8, -1):
            with pytest.raises(RunError, match="outside its region"):
                run(text.format(at=at), {1: table})


def test_read_only_values() -> None:
    text = "*(u32 *)(r10 -4) = 0\nr1 = 1 ll\nr2 = r10\nr2 += -4\ncall 1\n*(u8 *)(r0 +0) = 1\nexit"
    with (
        create(MapShape("array", 4, 8, 1, read_only=True)) as table,
        pytest.raises(RunError, match="may not be written"),
    ):
        run(text, {1: table})


def test_callbacks_over_a_map() -> None:
    text = """
        *(u64 *)(r10 -8) = 0
        r1 = 1 ll
        r2 = subprog[each]
        r3 = r10
        r3 += -8
        r4 = 0
        call 164
        r1 = *(u64 *)(r10 -8)
        r0 <<= 32
        r0 |= r1
        exit
        each:
        r5 = *(u32 *)(r2 +0)
        r0 = *(u64 *)(r3 +0)
        r5 += r0
        r0 = *(u64 *)(r4 +0)
        r0 += r5
        *(u64 *)(r4 +0) = r0
        r0 = 0
        exit
    """
    for kind in ("hash", "array", "percpu_hash"):
        with create(MapShape(kind, 4, 8, 3, cpus=2)) as table:
            for number in range(3):
                table.update(number.to_bytes(4, "little"), (10 * number).to_bytes(8, "little"))
            assert run(text, {1: table}) == 3 << 32 | 33


def test_loop() -> None:
    text = "r1 = {count}\nr2 = subprog[body]\nr3 = 0\nr4 = {flags}\ncall 181\nexit\nbody: r0 = 0\nif r1 != 0x4 goto +1\nr0 = 1\nexit"
    assert [run(text.format(count=n, flags=0), {}) for n in (0, 3, 9)] == [0, 3, 5]
    assert run(text.format(count=9, flags=1), {}) == EINVAL & M
    assert run(text.format(count=(8 << 20) + 1, flags=0), {}) == E2BIG & M


def test_maps_in_maps() -> None:
    text = "*(u32 *)(r10 -4) = {key}\nr1 = 1 ll\nr2 = r10\nr2 += -4\ncall 1\nif r0 == 0x0 goto out\n" + (
        "*(u32 *)(r10 -4) = 0\nr1 = r0\nr2 = r10\nr2 += -4\ncall 1\nr0 = *(u64 *)(r0 +0)\nout: exit"
    )
    with create(MapShape("array", 4, 8, 1)) as inner:
        inner.update(bytes(4), (77).to_bytes(8, "little"))
        for kind in ("array_of_maps", "hash_of_maps"):
            with create(MapShape(kind, 4, 4, 4)) as outer:
                if isinstance(outer, TableMap):
                    outer.set(2, inner)
                else:
                    assert isinstance(outer, HashTableMap)
                    outer.set((2).to_bytes(4, "little"), inner)
                assert [run(text.format(key=key), {1: outer}) for key in (2, 1)] == [77, 0]


def test_tail_calls_through_a_map() -> None:
    text = "r2 = 1 ll\nr3 = {index}\ncall 12\nr0 = 5\nexit"
    with create(MapShape("prog_array", 4, 4, 2)) as table:
        assert isinstance(table, TableMap)
        table.set(1, Program(assemble("r0 = 9\nexit")))
        assert [run(text.format(index=i), {1: table}) for i in (0, 1, 7)] == [5, 9, 5]


def test_ring_buffer_records() -> None:
    text = "r1 = 1 ll\nr2 = 16\nr3 = 0\ncall 131\nif r0 == 0x0 goto out\n*(u64 *)(r0 +8) = 3\n{wild}\nr1 = r0\nr2 = 0\ncall {end}\nr0 = 1\nout: exit"
    with create(MapShape("ringbuf", 0, 0, 4096)) as ring:
        assert isinstance(ring, RingMap)
        reader = ring.reader()
        assert run(text.format(wild="", end=132), {1: ring}) == 1
        assert run(text.format(wild="", end=133), {1: ring}) == 1
        found: list[bytes] = []
        reader.drain(lambda data, start, size: found.append(bytes(data[start : start + size])))
        assert found == [bytes(8) + b"\x03".ljust(8, b"\0")]
        with pytest.raises(RunError, match="outside its region"):
            run(text.format(wild="*(u8 *)(r0 +16) = 1", end=132), {1: ring})
        with pytest.raises(RunError, match="no reserved record"):
            run(text.format(wild="r0 += 8", end=132), {1: ring})
        reader.close()


def test_perf_event_output() -> None:
    class Sink:
        got: list[tuple[int, bytes]] = []

        def output(self, cpu: int, data: bytes) -> int:
            self.got.append((cpu, data))
            return 0

    with create(MapShape("perf_event_array", 4, 4, 2)) as table:
        assert isinstance(table, TableMap)
        table.set(1, Sink())
        bench = Bench(table)
        data = bench.put(b"abcdef")
        assert bench.call("perf_event_output", 0, bench.map(), 0xFFFFFFFF, data, 6) == 0
        assert bench.call("perf_event_output", 0, bench.map(), 0, data, 6) == ENOENT
        assert bench.call("perf_event_output", 0, bench.map(), 9, data, 6) == E2BIG
        assert bench.call("perf_event_output", 0, bench.map(), 1 << 40, data, 6) == EINVAL
        assert Sink.got == [(1, b"abcdef")]


def test_what_is_not_there_may_read_as_zeros() -> None:
    program = Program(assemble("r1 = 0xdead0000beef ll\nr0 = *(u64 *)(r1 +8)\nexit"))
    assert Machine(memory=Memory(zeros=True)).run(program) == 0
    with pytest.raises(RunError, match="nothing is mapped"):
        Machine().run(program)
    writes = Program(assemble("r1 = 0xdead0000beef ll\n*(u64 *)(r1 +8) = 1\nr0 = 0\nexit"))
    with pytest.raises(RunError, match="may not be written"):
        Machine(memory=Memory(zeros=True)).run(writes)


def test_a_helper_that_is_not_there() -> None:
    with pytest.raises(RunError, match="bpf_skb_store_bytes is not there"):
        run("call 9\nexit", {})

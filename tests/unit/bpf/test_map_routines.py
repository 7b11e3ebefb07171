"""The helpers of hash maps as eBPF: beside the Python side on the same memory, in the interpreter and as machine code, and against each other in threads."""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Callable
from random import Random

import pytest
from map_sequences import plant, separate

from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import iter_pcs
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed
from sonde.bpf.maps import MapShape, SharedMap, create
from sonde.bpf.maps.hash import HashMap
from sonde.bpf.maps.layout import layout_of
from sonde.bpf.maps.machine import STACK_PUT, make_routine
from sonde.bpf.maps.routines import SEED
from sonde.bpf.maps.stacks import StackMap

M = (1 << 64) - 1
NUMBERS = {"lookup": 1, "update": 2, "delete": 3}
ENGINES = ["interpreter", "machine code"]
CALL = ctypes.CFUNCTYPE(*[ctypes.c_uint64] * 6)
SHAPES = [
    MapShape("hash", 4, 8, 30),
    MapShape("hash", 7, 3, 5),
    MapShape("hash", 24, 200, 12),
    MapShape("hash", 8, 8, 1),
    MapShape("percpu_hash", 5, 12, 9, cpus=3),
    MapShape("lru_hash", 4, 8, 7),
    MapShape("hash", 300, 8, 7),
    MapShape("lru_hash", 12, 40, 40, cpus=2),
    MapShape("lru_percpu_hash", 8, 20, 10, cpus=3),
]


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


class Routines:
    """The three routines on a table. Keys and values are bytes; `lookup` returns an offset in the table's memory."""

    def __init__(self, table: SharedMap, engine: str, cpu: int = 0, thread: int = 1) -> None:
        layout = layout_of(table)
        assert layout is not None
        self.table, self.who = table, cpu << 32 | thread
        code = {name: make_routine(layout, number).insns for name, number in NUMBERS.items()}
        self.placed: dict[str, Placed] = {}
        self.call: Callable[..., int] = self._interpret
        if engine == "interpreter":
            self.machine = Machine()
            self.programs = {n: Program(insns) for n, insns in code.items()}
            self.base = self.machine.memory.add(table.region.data)
        else:
            self.placed = {n: Placed(translate(insns, platform.machine())) for n, insns in code.items()}
            self.entries = {n: CALL(placed.address) for n, placed in self.placed.items()}
            self.base, self.call = table.region.address, self._run

    def _interpret(self, name: str, key: bytes, value: bytes, flags: int) -> int:
        memory = self.machine.memory
        places = [memory.add(bytearray(data)) for data in (key, value)]
        self.machine.left, program = 100_000, self.programs[name]
        self.machine._program = program
        found = self.machine.enter(0, self.base, *places, flags, self.who)
        for place in places:
            memory.remove(place)
        return found

    def _run(self, name: str, key: bytes, value: bytes, flags: int) -> int:
        keep = [ctypes.create_string_buffer(data, max(len(data), 1)) for data in (key, value)]
        found: int = self.entries[name](self.base, *(ctypes.addressof(b) for b in keep), flags, self.who)
        return found

    def lookup(self, key: bytes) -> int:
        found = self.call("lookup", key, b"", 0)
        return found - self.base if found else 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        return signed(self.call("update", key, value, flags))

    def delete(self, key: bytes) -> int:
        return signed(self.call("delete", key, b"", 0))

    def close(self) -> None:
        for placed in self.placed.values():
            placed.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.kind}-{s.key_size}-{s.value_size}")
def test_both_sides_on_one_map(shape: MapShape, engine: str) -> None:
    """Each operation is done on a second map by Python alone, and on the first by either side: the same results, the same contents."""
    random = Random(shape.key_size)
    with create(shape) as table, create(shape) as model:
        model.seed = model.region.words[SEED >> 3] = table.seed
        routines = Routines(table, engine, cpu=shape.cpus - 1)
        cpu = shape.cpus - 1
        for _ in range(700):
            number = random.randrange(shape.max_entries * 3 // 2 + 2)
            key = number.to_bytes(4, "little").ljust(shape.key_size, b"k")[: shape.key_size]
            value, flags = random.randbytes(shape.value_size), random.choice((0, 0, 0, 1, 2, 3, 4, 1 << 40))
            ours = random.random() < 0.3
            choice = random.random()
            if choice < 0.5:
                found = table.update_at(key, value, flags, cpu) if ours else routines.update(key, value, flags)
                assert found == model.update_at(key, value, flags, cpu)
            elif choice < 0.75:
                assert (table.delete_at(key) if ours else routines.delete(key)) == model.delete_at(key)
            else:
                assert routines.lookup(key) == table.find_at(key, cpu)
                assert table.lookup(key) == model.lookup(key)
                model.find_at(key, cpu)  # counts as a use
        assert dict(table.items()) == dict(model.items())
        assert bytes(table.region.data) == bytes(model.region.data), "the same bytes, spare ones included"
        check_words(table)
        routines.close()


def check_words(table: SharedMap) -> None:
    """Every claim was given back, every entry is in one slot or free, and the count is right."""
    assert isinstance(table, HashMap)
    words, first = table.region.words, table.cells >> 3
    homes = [words[first + 2 * cell] for cell in range(table.mask + 1)]
    slots = [words[first + 2 * cell + 1] for cell in range(table.mask + 1)]
    assert not any(home >> 32 for home in homes)
    used = [slot & 0xFFFFFFFF for slot in slots if slot]
    free, at = [], table.region.load(192) & 0xFFFFFFFF
    while at:
        free.append(at)
        at = table.region.load(table._entry(at)) >> 32
    assert sorted(used + free) == list(range(1, table.region.load(256) + 1))
    assert len(used) == len(table)


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_threads(engine: str) -> None:
    """Machine code in several threads, and Python beside it, on the same keys of one map."""
    shape = MapShape("hash", 8, 32, 24, cpus=4)
    with create(shape, shared=True) as table:
        wrong: list[str] = []

        def work(seed: int) -> None:
            random, routines = Random(seed), Routines(table, engine, thread=seed + 1)
            for _ in range(4000):
                key = random.randrange(30).to_bytes(8, "little")
                if random.random() < 0.55:
                    if routines.update(key, key * 4) not in (0, -7, -16):
                        wrong.append("update")
                elif routines.delete(key) not in (0, -2, -16):
                    wrong.append("delete")
                values = table.lookup(key) if seed == 0 else None
                if values is not None and values != [key * 4]:
                    wrong.append(f"{key!r} has {values}")
            routines.close()

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        check_words(table)
        assert all(values == [key * 4] for key, values in table.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_claimed_cell(engine: str) -> None:
    with create(MapShape("hash", 4, 4, 4)) as table:
        assert isinstance(table, HashMap)
        routines, key = Routines(table, engine), b"key."
        table.update(key, b"1234")
        reach = table._claim(table.hash(key))
        assert routines.update(key, b"5678") == routines.delete(key) == -16
        assert routines.lookup(key) == table.find_at(key, 0)
        table._release(table.hash(key), reach)
        assert routines.update(key, b"5678") == 0
        routines.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_with_the_same_hash_are_told_apart(engine: str) -> None:
    for at in range(13):
        with create(MapShape("hash", 13, 8, 4)) as table:
            key = bytes(range(1, 14))
            other = key[:at] + b"\xff" + key[at + 1 :]
            separate(table, key, other)
            routines = Routines(table, engine)
            assert routines.update(key, bytes(8)) == 0
            entry = plant(table, key, other)
            assert routines.lookup(other) == routines.delete(other) + 2 == 0
            assert routines.lookup(key) == table.find_at(key, 0) != 0
            table.region.words[entry >> 3] |= 1
            assert routines.lookup(key) == 0
            routines.close()


@pytest.mark.parametrize("side", ["routine", "Python"])
def test_an_entry_that_went_to_another_key(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the looks at slot and entry the key gets a new entry, and its old one goes to another key: the key is found all the same."""
    with create(MapShape("hash", 8, 8, 4)) as table:
        assert isinstance(table, HashMap)
        layout = layout_of(table)
        assert layout is not None
        key, other = b"the key.", b"another."
        table.update(key, b"old one.")
        old = table.find_at(key, 0)
        done: list[int] = []

        def change() -> None:
            if not done:
                done.append(1)
                table.update(key, b"new one.")
                table.update(other, b"another.")
                assert table.find_at(other, 0) == old

        if side == "Python":
            look = table._seq

            def seq(entry: int) -> int:
                change()
                return look(entry)

            monkeypatch.setattr(table, "_seq", seq)
            found = table.find_at(key, 0)
        else:
            insns = make_routine(layout, NUMBERS["lookup"]).insns
            machine = Machine()
            base, where = machine.memory.add(table.region.data), machine.memory.add(bytearray(key))
            looks = [
                pc for pc, insn in iter_pcs(insns) if (insn.opcode, insn.dst, insn.src, insn.imm) == (0xDB, 3, 0, 0x100)
            ]
            machine.left, machine.trace, machine._program = (
                100_000,
                lambda pc, _: change() if pc in looks else None,
                Program(insns),
            )
            found = machine.enter(0, base, where, 0, 0, 1) - base
        assert done and bytes(table.region.data[found : found + 8]) == b"new one."


def test_what_changes_while_it_is_compared_is_not_taken() -> None:
    """The entry gets another key just after the key was found to be the same: the second look at seq must see it."""
    with create(MapShape("hash", 8, 8, 4)) as table:
        layout = layout_of(table)
        assert layout is not None
        key = b"the key."
        table.update(key, bytes(8))
        seq = (table.find_at(key, 0) - layout.value_offset) >> 3
        insns = make_routine(layout, NUMBERS["lookup"]).insns
        machine = Machine()
        base, where = machine.memory.add(table.region.data), machine.memory.add(bytearray(key))
        compared = [pc for pc, insn in iter_pcs(insns) if insn.opcode == 0x5D and (insn.dst, insn.src) == (4, 1)]

        def change(pc: int, registers: tuple[int, ...]) -> None:
            if pc == compared[-1] + 1:
                table.delete(key)

        machine.left, machine.trace, machine._program = 100_000, change, Program(insns)
        assert table.region.words[seq] & 1 == 0
        assert machine.enter(0, base, where, 0, 0, 1) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_stack_traces(engine: str) -> None:
    """Traces that are alike, that share a bucket, too long ones and all flags: each is put into one map by the routine, and into another by Python."""
    shape = MapShape("stack_trace", 4, 40, 4)
    with create(shape) as table, create(shape) as model:
        model.seed = model.region.words[SEED >> 3] = table.seed
        layout = layout_of(table)
        assert isinstance(model, StackMap) and layout is not None
        insns, random, seen = make_routine(layout, STACK_PUT).insns, Random(3), set()
        machine, program = Machine(), Program(insns)
        base = machine.memory.add(table.region.data)
        with Placed(translate(insns, platform.machine())) as placed:
            call = CALL(placed.address)
            for _ in range(600):
                frames = [random.randrange(1, 3) << 40] * random.randrange(9)
                flags = random.choice((0, 0, 0x100, 0x200, 0x400, 0x700, 5, 0x800, 1 << 40))
                data = b"".join(pc.to_bytes(8, "little") for pc in frames)
                if engine == "interpreter":
                    machine.left, machine._program = 100_000, program
                    got = machine.enter(0, base, machine.memory.add(bytearray(data)), len(frames), flags)
                else:
                    buffer = ctypes.create_string_buffer(data, max(len(data), 1))
                    got = call(table.region.address, ctypes.addressof(buffer), len(frames), flags, 0)
                assert signed(got) == model.put(frames, flags)
                seen.add(signed(got))
        assert bytes(table.region.data) == bytes(model.region.data)
        assert {-17, -22} < seen and len(seen) > 4

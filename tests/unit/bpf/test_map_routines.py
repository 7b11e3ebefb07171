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
    MapShape("percpu_hash", 67, 8, 9, cpus=2),
    MapShape("lru_hash", 64, 8, 5),
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
    assert len(used) == table.region.load(128)
    awake = [number for number in used if not table.region.load(table._entry(number)) & 1]
    assert len(awake) == len(table)


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
@pytest.mark.parametrize("kind", ["hash", "percpu_hash"])
def test_an_entry_rests_until_its_cell_has_a_new_key(kind: str, engine: str) -> None:
    with create(MapShape(kind, 4, 8, 8, cpus=2)) as table:
        assert isinstance(table, HashMap)
        routines, key = Routines(table, engine), b"key."
        words, shown = table.region.words, [b"value..."] + [bytes(8)] * (kind != "hash")
        for _ in range(5):
            assert routines.update(key, b"value...") == 0
            assert table.lookup(key) == shown and len(table) == 1
            taken, head, count = words[256 >> 3], words[192 >> 3], words[128 >> 3]
            assert routines.delete(key) == 0
            assert routines.lookup(key) == 0 and table.lookup(key) is None and not dict(table.items())
            assert len(table) == 0 and routines.delete(key) == -2
            assert (taken, head, count) == (1, 0, 1), "nothing was taken or given back: the entry is the same"
        for flags, result in ((2, -2), (1, 0), (1, -17)):  # only where there is one, only where there is none
            assert routines.update(key, b"value...", flags) == result
        check_words(table)
        routines.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("last", ["routine", "Python"])
def test_entries_that_rest_make_room_when_the_map_is_full(last: str, engine: str) -> None:
    random = Random(5)
    for _ in range(30):
        with create(MapShape("hash", 8, 8, 16, cpus=2)) as table:
            assert isinstance(table, HashMap)
            routines = Routines(table, engine)
            gone = [random.randbytes(8) for _ in range(10)]
            for key in gone:
                assert routines.update(key, key) == 0
            for key in gone:
                assert routines.delete(key) == 0
            rests = table.region.load(128)
            kept = [random.randbytes(8) for _ in range(16)]
            for key in kept:
                assert (routines.update(key, key) if last == "routine" else table.update_at(key, key, 0, 0)) == 0
            assert rests > 3 and dict(table.items()) == {key: [key] for key in kept}
            assert routines.update(b"one more", bytes(8)) == table.update_at(b"one more", bytes(8), 0, 0) == -7
            check_words(table)
            routines.close()


@pytest.mark.parametrize("side", [*ENGINES, "Python"])
def test_an_entry_on_its_way_out_of_another_cell_is_not_taken(side: str) -> None:
    """It is odd as one that rests is, and its slot may have been read just before it was emptied."""
    with create(MapShape("hash", 4, 8, 8)) as table:
        assert isinstance(table, HashMap)
        keys = [number.to_bytes(4, "little") for number in range(400)]
        cells = {key: table.hash(key) & table.mask for key in keys}
        first, second = [key for key in keys if cells[key] == cells[keys[0]]][:2]
        key = next(key for key in keys if cells[key] == (cells[first] + 1) & table.mask)
        for each in (first, second):
            table.update(each, bytes(8))
        _, entry = table._find(second, table.hash(second))
        assert table.region.load(table._slot(cells[key])) & 0xFFFFFFFF == (entry - table.entries) // table.stride + 1
        table.region.words[entry >> 3] |= 1
        if side == "Python":
            table.update(key, b"for key.")
        else:
            routines = Routines(table, side)
            assert routines.update(key, b"for key.") == 0
            routines.close()
        assert table.lookup(key) == [b"for key."] and table._find(key, table.hash(key))[1] != entry


def test_an_entry_that_has_a_key_again_is_not_given_back() -> None:
    """The map is full, an entry rests; just before its cell is claimed for giving it back it gets a key."""
    with create(MapShape("hash", 4, 8, 4)) as table:
        assert isinstance(table, HashMap)
        layout = layout_of(table)
        assert layout is not None
        keys = {table.hash(key) & table.mask: key for key in (n.to_bytes(4, "little") for n in range(200))}
        back, *others, late = list(keys.values())[:5]
        table.update(back, bytes(8))
        table.delete(back)
        for key in others:
            table.update(key, bytes(8))
        insns = make_routine(layout, NUMBERS["update"]).insns
        claims = [pc for pc, insn in iter_pcs(insns) if (insn.opcode, insn.dst, insn.imm) == (0xDB, 8, 0xF1)]
        machine = Machine()
        base, *where = [machine.memory.add(data) for data in (table.region.data, bytearray(late), bytearray(8))]
        changed: list[int] = []

        def change(pc: int, registers: tuple[int, ...]) -> None:
            if pc == claims[-1]:
                changed.append(pc)
                table.update(back, b"is back.")

        machine.left, machine.trace, machine._program = 100_000, change, Program(insns)
        assert signed(machine.enter(0, base, *where, 0, 1)) == -7 and changed
        assert table.lookup(back) == [b"is back."] and len(table) == 4
        check_words(table)


@pytest.mark.parametrize("most", [64, 21])
def test_threads_whose_keys_come_and_go(most: int) -> None:
    """Each has keys of its own, in cells that they share: a key is there from when it was put in until it was deleted.

    There is room for all of them; in the small map only where entries that rest are given back, which finds none when their cells are claimed.
    """
    full = [-7] * (most < 64)
    with create(MapShape("hash", 8, 8, most, cpus=4), shared=True) as table:
        wrong: list[str] = []

        def work(thread: int) -> None:
            random, routines = Random(thread), Routines(table, ENGINES[1], thread=thread + 1)
            for turn in range(4000):
                keys = [(random.randrange(1 << 30) << 2 | thread).to_bytes(8, "little") for _ in range(5)]
                results = {key: routines.update(key, key) for key in keys}
                for key, result in results.items():
                    if result not in (0, -16, *full):
                        wrong.append(f"update {turn}: {result}")
                    at = routines.lookup(key)
                    if (at == 0) == (result == 0):
                        wrong.append(f"{turn}: {at} where update returned {result}")
                    if at and bytes(table.region.data[at : at + 8]) != key:
                        wrong.append(f"{turn}: another value")
                    while (found := routines.delete(key)) == -16:
                        pass
                    if found != (0 if result == 0 else -2):
                        wrong.append(f"delete {turn}: {found}")
                    if routines.lookup(key):
                        wrong.append(f"{turn}: still there")
            routines.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert len(table) == 0
        check_words(table)


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

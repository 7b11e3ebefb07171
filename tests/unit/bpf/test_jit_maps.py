"""Look-ups in machine code: the same place as the Python side finds, whole programs against the interpreter, under writers, in damaged memory."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from map_programs import IO, IO_NUMBER, MAP_NUMBER, MAPS, VISITED, MapProgram, visiting
from map_sequences import plant, separate
from object_machine import shape_of

from sonde.bpf.asm import assemble
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import Insn
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed, find_rseq
from sonde.bpf.jit.maps import BY_RSEQ, find_calls, make_plan
from sonde.bpf.maps import MapShape, SharedMap, create
from sonde.bpf.maps.layout import layout_of
from sonde.bpf.maps.machine import make_routine
from sonde.bpf.maps.routines import SEED
from sonde.bpf.runtime import World, helper_table
from sonde.bpf.runtime.native import NativeMachine
from sonde.spec.object import MapSpec

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs x86-64 machine code")

LOOKUP = assemble("r2 = r1\nr1 = map[fd:1]\ncall 1\nexit")
KINDS = ("array", "percpu_array", "hash", "percpu_hash", "lru_hash", "lru_percpu_hash")


class Finder:
    """The program LOOKUP on a table; `find` returns what it returns, as an offset in the table's memory."""

    def __init__(self, table: SharedMap, cpu: int) -> None:
        self.table = table
        self.cpu = ctypes.c_uint32(cpu)
        code = translate(LOOKUP, "x86_64", plan=make_plan({1: table}))
        assert not any(reloc.kind == "helper" for reloc in code.relocs)
        self.placed = Placed(code, maps={1: table.region.address}, cpu=ctypes.addressof(self.cpu))

    def find(self, key: bytes) -> int:
        buffer = ctypes.create_string_buffer(key, len(key) + 1)
        found = self.placed.run(ctypes.addressof(buffer))
        return found - self.table.region.address if found else 0


@contextmanager
def finder(shape: MapShape, cpu: int = 0, shared: bool = False) -> Iterator[Finder]:
    table = create(shape, shared=shared)
    found = Finder(table, cpu)
    yield found
    found.placed.close()
    table.close()


@pytest.mark.parametrize("key_size", [*range(1, 18), 23, 32, 63, 64, 65, 71, 200, 477, 512])
def test_every_size_of_key(key_size: int) -> None:
    random = Random(key_size)
    with finder(MapShape("hash", key_size, 8, 60)) as jit:
        table = jit.table
        keys = [random.randbytes(key_size) for _ in range(40)]
        keys += [bytes([key[0] ^ 1]) + key[1:] for key in keys[:10]] + [key[:-1] + b"\0" for key in keys[:10]]
        for _ in range(400):
            key = random.choice(keys)
            if random.random() < 0.5:
                table.update(key, bytes(8))
            else:
                table.delete(key)
            for each in random.sample(keys, 5):
                assert jit.find(each) == table.find_at(each, 0)


@pytest.mark.parametrize("key_size", [1, 2, 3, 4, 5, 7, 8, 13, 16])
def test_keys_with_the_same_hash_are_told_apart(key_size: int) -> None:
    """By any byte of the key; and an entry that is being changed is not looked at."""
    for at in range(key_size):
        with finder(MapShape("hash", key_size, 8, 4)) as jit:
            key = bytes(range(1, key_size + 1))
            other = key[:at] + b"\xff" + key[at + 1 :]
            separate(jit.table, key, other)
            jit.table.update(key, bytes(8))
            plant(jit.table, key, other)
            assert jit.find(other) == jit.table.find_at(other, 0) == 0
            jit.table.update(key, bytes(8))
            assert jit.find(key) == jit.table.find_at(key, 0) != 0
            entry = jit.table.find_at(key, 0) - jit.table.layout.value_offset
            jit.table.region.words[entry >> 3] |= 1
            assert jit.find(key) == jit.table.find_at(key, 0) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_type(kind: str) -> None:
    random = Random(kind)
    with finder(MapShape(kind, 4, 12, 50, cpus=3), cpu=2) as jit:
        table = jit.table
        for _ in range(1500):
            key = random.randrange(60).to_bytes(4, "little")
            choice = random.random()
            if choice < 0.4:
                table.update_at(key, random.randbytes(12), 0, 2)
            elif choice < 0.6:
                table.delete_at(key)
            assert jit.find(key) == table.find_at(key, 2)


def test_an_lru_entry_counts_as_used() -> None:
    with finder(MapShape("lru_hash", 4, 4, 32)) as jit:
        table = jit.table
        kept = (7).to_bytes(4, "little")
        table.update(kept, bytes(4))
        for number in range(100, 600):
            assert jit.find(kept)
            table.update(number.to_bytes(4, "little"), bytes(4))
        assert jit.find(kept)


def test_a_large_index_or_table() -> None:
    with finder(MapShape("array", 4, 40, 70_000)) as jit:
        for index in (0, 1, 127, 128, 69_999, 70_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            key = index.to_bytes(4, "little")
            assert jit.find(key) == jit.table.find_at(key, 0)
    with finder(MapShape("hash", 8, 8, 50_000)) as jit:
        for number in range(0, 50_000, 50):
            jit.table.update(number.to_bytes(8, "little"), number.to_bytes(8, "little"))
        for number in range(0, 50_000, 25):
            key = number.to_bytes(8, "little")
            assert jit.find(key) == jit.table.find_at(key, 0)
            assert bool(jit.find(key)) == (number % 50 == 0)


def test_lookups_beside_writers() -> None:
    """A key that only ever gets new values is found at any time, and the entry is its own."""
    with finder(MapShape("hash", 8, 8, 64, cpus=4), shared=True) as jit:
        table = jit.table
        stays = [n.to_bytes(8, "little") for n in range(4)]
        for key in stays:
            table.update(key, key)
        stop = threading.Event()
        failed: list[BaseException] = []

        def write(seed: int) -> None:
            random = Random(seed)
            try:
                while not stop.is_set():
                    key = random.randrange(40).to_bytes(8, "little")
                    if key in stays or random.random() < 0.5:
                        table.update_at(key, key, 0, -1)
                    else:
                        table.delete_at(key)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3000):
                for key in stays:
                    assert jit.find(key), "a key that is always there was not found"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failed


def test_damaged_memory_does_not_lead_out_of_it() -> None:
    random = Random(5)
    for _ in range(300):
        with finder(MapShape("hash", 4, 8, 4)) as jit:
            table = jit.table
            for number in range(3):
                table.update(number.to_bytes(4, "little"), bytes(8))
            word = random.choice((random.getrandbits(64), random.getrandbits(33), (1 << 64) - 1))
            table.region.words[random.randrange(64, table.layout.size // 8)] = word
            for number in range(5):
                assert 0 <= jit.find(number.to_bytes(4, "little")) <= table.layout.size - 8


@pytest.mark.parametrize("spec", MAPS, ids=lambda spec: f"{spec.type}-{spec.key_size}-{spec.value_size}")
def test_programs_agree_with_the_interpreter(spec: MapSpec) -> None:
    for seed in range(12):
        insns = MapProgram(spec, seed).insns
        expected = run_interpreted(spec, insns)
        assert run_placed(spec, insns, planned=False) == expected, seed
        assert run_placed(spec, insns, planned=True) == expected, seed


@pytest.mark.parametrize("spec", VISITED, ids=lambda spec: f"{spec.type}-{spec.key_size}-{spec.value_size}")
def test_callbacks_agree_with_the_interpreter(spec: MapSpec) -> None:
    for stop_at in (1, 2, 100):
        insns = visiting(spec, stop_at)
        assert run_placed(spec, insns, planned=True) == run_interpreted(spec, insns)


def tables(spec: MapSpec) -> dict[int, SharedMap]:
    """The maps, alike each time: filled where there are keys."""
    made = {IO_NUMBER: create(shape_of(IO)), MAP_NUMBER: create(shape_of(spec))}
    table = made[MAP_NUMBER]
    table.seed = table.region.words[SEED >> 3] = 0x1234567
    for number in range(3 if spec.key_size and spec.type != "lpm_trie" else 0):
        table.update(number.to_bytes(spec.key_size, "little"), bytes([number + 5]) * spec.value_size)
    return made


def outcome(made: dict[int, SharedMap]) -> tuple[object, object]:
    table = made[MAP_NUMBER]
    left = sorted(table.items()) if table.key_size else []
    return made[IO_NUMBER].lookup(bytes(4)), left


def run_interpreted(spec: MapSpec, insns: list[Insn]) -> object:
    made, world = tables(spec), World()
    world.cpu = 1
    Machine(helper_table(), maps=made, world=world).run(Program(insns))
    return outcome(made)


def run_placed(spec: MapSpec, insns: list[Insn], planned: bool) -> object:
    """Run machine code; return the outcome. With a plan it needs no helper at all."""
    made, world = tables(spec), World()
    world.cpu = 1
    native = NativeMachine(made, world)
    code = translate(insns, "x86_64", plan=make_plan(made) if planned else None)
    assert not planned or "helper" not in {reloc.kind for reloc in code.relocs}
    cpu, owner = ctypes.c_uint32(1), ctypes.c_uint32(7)
    with Placed(
        code, helpers=native.helpers(), maps=native.maps(), values=native.values(),
        cpu=ctypes.addressof(cpu), owner=ctypes.addressof(owner),
    ) as placed:  # fmt: skip
        placed.run()
    return outcome(made)


def test_the_cpu_by_rseq() -> None:
    """Copies of per-CPU maps, and the helper for the number, by the area that the C library registered; the fallback where it did not."""
    table = create(MapShape("percpu_array", 4, 8, 2, cpus=os.cpu_count() or 1))
    plan = make_plan({1: table}, cpu=BY_RSEQ, cpu_fallback=0)
    code = translate(LOOKUP, "x86_64", plan=plan)
    number = translate(assemble("call get_smp_processor_id\nexit"), "x86_64", plan=plan)
    assert {reloc.kind for reloc in code.relocs} == {"map", "rseq"} and {reloc.kind for reloc in number.relocs} == {
        "rseq"
    }
    offset = find_rseq()
    if offset is None:
        pytest.skip("needs a C library that registers rseq (glibc 2.35)")
    key = ctypes.create_string_buffer((1).to_bytes(4, "little"))
    before = os.sched_getaffinity(0)
    try:
        with (
            Placed(code, maps={1: table.region.address}, rseq=offset) as placed,
            Placed(number, rseq=offset) as numbered,
        ):
            for cpu in sorted(before):
                os.sched_setaffinity(0, {cpu})
                assert numbered.run() == cpu
                assert placed.run(ctypes.addressof(key)) - table.region.address == table.find_at(
                    bytes([1, 0, 0, 0]), cpu
                )
    finally:
        os.sched_setaffinity(0, before)


def test_a_cpu_that_the_map_has_no_copy_for() -> None:
    """Whatever stands where the number is read: nothing outside the map is touched."""
    for kind in ("percpu_array", "percpu_hash"):
        with create(MapShape(kind, 4, 8, 2, cpus=3)) as table:
            key = (1).to_bytes(4, "little")
            table.update(key, bytes(8))
            code = translate(LOOKUP, "x86_64", plan=make_plan({1: table}, cpu_fallback=2))
            buffer = ctypes.create_string_buffer(key)
            for number, taken in ((0, 0), (2, 2), (3, 2), (0xFFFFFFFF, 2), (0xFFFFFFFE, 2), (0x80000000, 2)):
                cpu = ctypes.c_uint32(number)
                with Placed(code, maps={1: table.region.address}, cpu=ctypes.addressof(cpu)) as placed:
                    assert placed.run(ctypes.addressof(buffer)) - table.region.address == table.find_at(key, taken)


@pytest.mark.parametrize("size", [5, 64, 65, 129, 260])
def test_long_keys_stay_in_their_frame(size: int) -> None:
    """Routines that have a key on their stack, on a stack that ends right below them: for tries masked, for callbacks copied."""
    for kind, helpers in (("lpm_trie", (1, 2, 3)), ("hash", (1, 2, 3, 164))):
        with create(MapShape(kind, size, 8, 4, flags=int(kind == "lpm_trie"))) as table:
            layout = layout_of(table)
            assert layout is not None
            for helper in helpers:
                routine = make_routine(layout, helper)
                lowest = min(
                    (insn.off for insn in routine.insns if 10 in (insn.dst, insn.src) and insn.opcode & 7 in (1, 2, 3)),
                    default=0,
                )
                moved = [
                    insn.imm
                    for before, insn in zip(routine.insns, routine.insns[1:])
                    if before.opcode == 0xBF and before.src == 10 and insn.opcode == 0x07
                ]
                assert routine.stack_bytes >= -min([lowest, *moved])


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("r1 = map[fd:1]\ncall 1\nexit", {2: 1}),
        ("r6 = map[fd:1]\nr1 = r6\ncall 1\nr1 = r6\ncall 1\nexit", {3: 1, 5: 1}),
        ("r1 = map[fd:1]\ncall 1\ncall 1\nexit", {2: 1}),
        ("r1 = map[fd:1]\nr1 += 8\ncall 1\nexit", {}),
        ("r1 = map[fd:7]\ncall 1\nexit", {}),
        ("r1 = map[fd:1]\ncall 2\nexit", {2: 1}),
        ("r1 = map[fd:1]\ncall 5\nexit", {}),
        ("r1 = map[fd:1]\nif r2 == 0x0 goto +0\ncall 1\nexit", {}),
        ("r1 = map[fd:1]\n*(u64 *)(r10 -8) = r1\nr1 = *(u64 *)(r10 -8)\ncall 1\nexit", {}),
        ("r1 = map[fd:1]\nr1 = atomic64_xchg((u64 *)(r10 -8), r1)\ncall 1\nexit", {}),
    ],
)
def test_where_the_map_is_known(text: str, known: dict[int, int]) -> None:
    from sonde.bpf.flow import split_blocks
    from sonde.bpf.isa import iter_pcs

    body = list(iter_pcs(assemble(text)))
    with create(MapShape("hash", 4, 4, 4)) as table:
        plan = make_plan({1: table})
        assert find_calls(body, frozenset(split_blocks(body)), plan) == known

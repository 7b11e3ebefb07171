"""Machine code for aarch64, run in QEMU's user mode, against the interpreter; and its encodings against a disassembler."""

from __future__ import annotations

import shutil
import subprocess
from mmap import PAGESIZE
from pathlib import Path

import pytest
from a64_runner import Image, find_qemu
from bpf_programs import VALUE_BYTES, ArrayOfOne, ProgramGenerator, random_input
from hypothesis import given, settings
from hypothesis import strategies as st
from insn_strategy import instructions
from machine_programs import make_programs
from map_programs import IO, IO_NUMBER, MAP_NUMBER, MAPS, VISITED, MapProgram, visiting
from object_machine import shape_of

from sonde.bpf.asm import assemble
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import Insn
from sonde.bpf.jit import translate
from sonde.bpf.jit.a64_encoding import STORE, bit_pattern, memory, mov_imm, pop, push
from sonde.bpf.jit.code import CodeReloc, MachineCode
from sonde.bpf.jit.maps import BY_RSEQ, make_plan
from sonde.bpf.maps import MapShape, create
from sonde.bpf.maps.layout import layout_of
from sonde.bpf.maps.machine import make_routine
from sonde.bpf.maps.ringbuf import RingMap
from sonde.bpf.maps.routines import SEED
from sonde.bpf.runtime import World, helper_table
from sonde.errors import FeatureError, FormatError
from sonde.spec.object import MapSpec

M = (1 << 64) - 1
FEATURES = [frozenset[str](), frozenset(["lse"])]


@pytest.fixture(scope="module")
def qemu() -> str:
    found = find_qemu()
    if found is None:
        pytest.skip("needs qemu-aarch64 (Debian package qemu-user-static)")
    return found


def results(qemu: str, folder: Path, *texts: str) -> list[int]:
    image = Image(0)
    for text in texts:
        image.add(translate(assemble(text), "aarch64"), b"")
    return [value for value, _ in image.run(qemu, folder)]


@pytest.mark.parametrize("features", FEATURES, ids=["base", "lse"])
def test_random_programs_agree_with_the_interpreter(features: frozenset[str], qemu: str, tmp_path: Path) -> None:
    image, expected = Image(VALUE_BYTES), []
    for seed in range(100):
        insns = ProgramGenerator(seed, 10 + seed, acquire=True).make()
        value = random_input(seed)
        image.add(translate(insns, "aarch64", features=features), bytes(value))
        ArrayOfOne.interpret(Program(insns), value)
        expected.append((0, bytes(value)))
    found = image.run(qemu, tmp_path)
    assert [seed for seed in range(100) if found[seed] != expected[seed]] == []


def test_division_and_atomics_in_every_register(qemu: str, tmp_path: Path) -> None:
    numbers = (0, 1, M, 1 << 63, 1 << 31, 0xFFFFFFFF, 7, 0x123456789ABCDEF0)
    texts = []
    for dst in range(10):
        for src in range(10):
            lines = [f"r{r} = {numbers[(r + dst) % 8]} ll" for r in range(10)]
            for op in ("/=", "%=", "s/=", "s%="):
                lines += [f"r{dst} {op} r{src}", f"w{src} {op} w{dst}", f"w{dst} {op} -3"]
            lines += [f"r0 ^= r{r}" if r % 2 else f"r0 += r{r}" for r in range(1, 10)]
            texts.append("\n".join([*lines, "exit"]))
            if dst == src:
                continue
            lines = [f"r{r} = {0x1111 * (r + 1)}" for r in range(10)]
            lines += ["*(u64 *)(r10 -8) = 99", f"r{dst} = r10"]
            for kind in ("add", "or", "and", "xor"):
                lines += [f"r{src} = atomic64_fetch_{kind}((u64 *)(r{dst} -8), r{src})"]
                lines += [f"r{src} = atomic_fetch_{kind}((u32 *)(r{dst} -4), r{src})"]
            lines += [
                f"r{dst} = 5",
                "r9 += r0",
                "r9 += r8",
                f"r9 += r{src}",
                "r0 = *(u64 *)(r10 -8)",
                "r0 ^= r9",
                "exit",
            ]
            texts.append("\n".join(lines))
    expected = [Machine().run(Program(assemble(text))) for text in texts]
    assert results(qemu, tmp_path, *texts) == expected


def test_functions_frames_and_loops(qemu: str, tmp_path: Path) -> None:
    texts = [
        "r6 = 100\n*(u64 *)(r10 -8) = 5\nr1 = r10\nr1 += -8\ncall f\nr0 += r6\nexit\n"
        "f: r6 = *(u64 *)(r1 +0)\n*(u64 *)(r10 -16) = 77\nr7 = r6\nagain: r7 += r6\nif r7 < 0x10 goto again\nr0 = r7\nexit",
        "r1 = 5\ncall f\nexit\nf: r1 += -1\nr6 = r1\nif r1 != 0x0 goto f\nr0 = 9\nexit",
        "r1 = 20\nr2 = subprog[f]\ncallx r2\nexit\nf: r0 = r1\nr0 += 1\nexit",
        "r0 = 0\nagain: may_goto +2\nr0 += 1\ngoto again\nexit",
        "r0 = 0x123456789abcdef0 ll\n*(u64 *)(r10 -512) = r0\nr0 = *(u32 *)(r10 -509)\nexit",
        "r1 = r10\nr1 += -512\n*(u32 *)(r1 +508) = 7\nr0 = *(u32 *)(r10 -4)\nr1 += 300\n*(u16 *)(r1 -299) = -1\nr0 += 1\nexit",
    ]
    expected = [120, 9, 21, 1 << 23, 0x0000000000000056789ABCD & 0xFFFFFFFF, 8]
    expected[4] = Machine().run(Program(assemble(texts[4])))
    assert results(qemu, tmp_path, *texts) == expected


def test_helpers_and_tail_calls(qemu: str, tmp_path: Path) -> None:
    """A helper is C to its caller: here it is another program, which takes and returns what C functions do."""
    image = Image(0)
    image.add(translate(assemble("r0 = r1\nr0 += r2\nr0 += r3\nr0 += r4\nr0 += r5\nr6 = 7\nexit"), "aarch64"), b"")
    image.name("helper", 5)
    image.add(translate(assemble("r6 = 3\nr0 = 55\nexit"), "aarch64"), b"")
    image.name("map", 9)
    image.add(translate(assemble("r0 = 0\nif r3 != 0x1 goto +2\nr0 = map[fd:9]\nexit"), "aarch64"), b"")
    image.name("helper", 12)
    image.add(
        translate(assemble("r6 = 9\nr1 = 1\nr2 = 2\nr3 = 3\nr4 = 4\nr5 = 5\ncall 5\nr0 += r6\nexit"), "aarch64"), b""
    )
    text = "r6 = 1\n*(u64 *)(r10 -40) = 7\nr2 = 0\nr3 = {}\ncall tail_call\nr0 = 7\nexit"
    for index in (1, 2):
        image.add(translate(assemble(text.format(index)), "aarch64"), b"")
    assert [value for value, _ in image.run(qemu, tmp_path)][3:] == [24, 55, 7]


@pytest.mark.parametrize("features", [frozenset[str](), frozenset({"lse"})], ids=["base", "lse"])
def test_routines_of_hash_maps(features: frozenset[str], qemu: str, tmp_path: Path) -> None:
    """Update, look up and delete on the memory of a map that Python made; Python reads what came of it."""
    table = create(MapShape("hash", 12, 8, 4))
    keys = [bytes([n]) * 12 for n in range(3)]
    table.update(keys[0], b"8 bytes.")
    size = table.layout.size
    code = [make_routine(layout_of(table), n).insns for n in (1, 2, 3)]  # type: ignore[arg-type]
    steps = [(2, keys[1]), (2, keys[0]), (1, keys[1]), (3, keys[0]), (1, keys[0]), (2, keys[2])]
    data = bytes(table.region.data) + b"".join(keys) + bytes(4) + b"new one."
    lines = ["r6 = 0"]
    for number, key in steps:
        at = size + 12 * keys.index(key)
        lines += [
            "r1 = map[fd:1][0]+0",
            f"r2 = map[fd:1][0]+{at}",
            f"r3 = map[fd:1][0]+{size + 40}",
            "r4 = 0",
            "r5 = 1",
        ]
        lines += [f"call {number}", "r6 <<= 8", "if r0 == 0x0 goto +1", "r6 |= 1"]
    image = Image(len(data))
    for number, insns in enumerate(code, 1):
        unless_called = [
            Insn(0x55, 1, 0, 2, 0),
            *assemble("r0 = 0\nexit"),
        ]  # the runner calls every program once, with 0
        image.add(translate([*unless_called, *insns], "aarch64", features=features), data)
        image.name("helper", number)
    image.add(translate(assemble("\n".join([*lines, "r0 = r6", "exit"])), "aarch64"), data)
    result, left = image.run(qemu, tmp_path)[-1]
    assert result == 1 << 24, "the look-up of the new key, and no other step, had a result"
    table.region.data[:] = left[:size]
    assert dict(table.items()) == {keys[1]: [b"new one."], keys[2]: [b"new one."]}
    table.close()


@pytest.mark.parametrize("spec", MAPS, ids=lambda spec: f"{spec.type}-{spec.key_size}-{spec.value_size}")
def test_helpers_of_maps(spec: MapSpec, qemu: str, tmp_path: Path) -> None:
    """Programs that call nothing but helpers of one map: everything is machine code, and leaves what the interpreter leaves. The CPU is 1, by rseq."""
    check_on_map(spec, [MapProgram(spec, seed).insns for seed in range(8)], qemu, tmp_path)


@pytest.mark.parametrize("spec", VISITED, ids=lambda spec: f"{spec.type}-{spec.key_size}-{spec.value_size}")
def test_callbacks(spec: MapSpec, qemu: str, tmp_path: Path) -> None:
    check_on_map(spec, [visiting(spec, stop_at) for stop_at in (1, 2, 100)], qemu, tmp_path)


def check_on_map(spec: MapSpec, programs: list[list[Insn]], qemu: str, folder: Path) -> None:
    """Run programs on a map with a few keys, in QEMU and in the interpreter: the memory afterwards is the same."""
    made, io = create(shape_of(spec)), create(shape_of(IO))
    plan = make_plan({IO_NUMBER: io, MAP_NUMBER: made}, cpu=BY_RSEQ)
    made.seed = made.region.words[SEED >> 3] = 0x1122334455667788
    for number in range(3 if spec.key_size and spec.type != "lpm_trie" else 0):
        made.update(number.to_bytes(spec.key_size, "little"), bytes([number + 5]) * spec.value_size)
    fresh, value = bytes(made.region.data), IO.value_size
    words = value + len(fresh)
    # There is no thread pointer in the runner's executable: the offset from it is an address, that of a word behind the map.
    offsets = {("map_value", IO_NUMBER): 0, ("map", MAP_NUMBER): value, ("owner", 0): words, ("rseq", 0): words + 4}
    image, expected = Image(words + 8, offsets), []
    for number, insns in enumerate(programs):
        code = translate(insns, "aarch64", features=FEATURES[number % 2], plan=plan)
        assert {reloc.kind for reloc in code.relocs} <= {"map", "map_value", "owner", "rseq", "function"}
        image.add(code, bytes(value) + fresh + bytes([9, 0, 0, 0, 1, 0, 0, 0]))
        made.region.data[:] = fresh
        io.region.data[io.layout.entries :] = bytes(len(io.region.data) - io.layout.entries)
        world = World()
        world.cpu = 1
        Machine(helper_table(), maps={IO_NUMBER: io, MAP_NUMBER: made}, world=world).run(Program(insns))
        expected.append((io.lookup(bytes(4)) or [b""])[0] + bytes(made.region.data))
    assert [left[: len(expected[0])] for _, left in image.run(qemu, folder)] == expected


def test_helpers_of_rings(qemu: str, tmp_path: Path) -> None:
    ring = create(MapShape("ringbuf", 0, 0, PAGESIZE))
    assert isinstance(ring, RingMap)
    size = ring.layout.size
    text = """
        r1 = map[fd:1]
        r2 = 21
        r3 = 0
        call ringbuf_reserve
        r6 = r0
        r1 = map[fd:1]
        r2 = map[fd:1]
        r3 = 10
        r4 = 0
        call ringbuf_output
        r7 = r0
        *(u64 *)(r6 +0) = 7
        r1 = r6
        r2 = 0
        call ringbuf_submit
        r1 = map[fd:1]
        r2 = 100
        r3 = 0
        call ringbuf_reserve
        r1 = r0
        r2 = 0
        call ringbuf_discard
        r1 = map[fd:1]
        r2 = 4096
        r3 = 0
        call ringbuf_reserve
        r7 |= r0
        r0 = r7
        exit
    """
    code = translate(assemble(text), "aarch64", plan=make_plan({1: ring}))
    image = Image(size, {("map", 1): 0})
    image.add(code, bytes(ring.region.data[:size]))
    result, left = image.run(qemu, tmp_path)[0]
    first = ring.reserve(21)
    ring.output(bytes(ring.region.data[:10]))
    ring.region.data[first : first + 8] = (7).to_bytes(8, "little")
    ring.commit(first)
    ring.commit(ring.reserve(100), discard=True)
    assert ring.reserve(4096) == result == 0
    assert left == bytes(ring.region.data[:size])
    ring.close()


def register_probe(number: int) -> MachineCode:
    """Machine code that calls helper `number` with known numbers in the registers that a function may change, and stores all in the buffer afterwards."""
    code = push(29, 30) + push(19, 20) + bytes(8)
    code += b"".join(mov_imm(r, 0x1111 * (r + 1) & 0xFFFF) for r in range(18))
    code += (0xD63F0260).to_bytes(4, "little")  # blr x19
    code += b"".join(memory(STORE, 3, r, 20, 8 * r) for r in range(18))
    code += pop(19, 20) + pop(29, 30) + (0xD65F03C0).to_bytes(4, "little")
    code += bytes(-len(code) % 8)
    loads = b"".join(
        (0x58000000 | (len(code) - at) // 4 << 5 | r).to_bytes(4, "little") for at, r in ((8, 19), (4, 20))
    )
    relocs = (CodeReloc(len(code), "helper", number), CodeReloc(len(code) + 8, "map_value", 1))
    return MachineCode("aarch64", code[:8] + loads + code[16:] + bytes(16), relocs, ())


def test_registers_that_are_said_to_stay_do_stay(qemu: str, tmp_path: Path) -> None:
    pieces = {
        repr(insn): [insn, Insn(0x95)]
        for program in make_programs(range(120))
        for insn in program
        if insn.opcode & 7 in (4, 7)
    }
    texts = [
        "*(u64 *)(r10 -8) = 5\nr5 = *(u64 *)(r10 -8)",
        "*(u64 *)(r10 -300) = 70000",
        "if r1 > 70000 goto +1\nr3 = 1",
        "r6 = 1",
        "r0 = r1",
    ]
    texts += [
        f"*(u64 *)(r10 -8) = 5\nr{r} = atomic64_fetch_{op}((u64 *)(r10 -8), r{r})"
        for op in ("add", "and")
        for r in range(6)
    ]
    texts += [
        "*(u64 *)(r10 -8) = 5\nr0 = atomic64_cmpxchg((u64 *)(r10 -8), r0, r3)",
        "*(u64 *)(r10 -8) = 1\nlock *(u64 *)(r10 -8) += r3",
    ]
    programs = [*pieces.values(), *(assemble(f"{text}\nexit") for text in texts)]
    image, codes = Image(144), []
    for number, insns in enumerate(programs):
        codes.append(translate(insns, "aarch64", features=FEATURES[number % 2]))
        image.add(codes[-1], bytes(144))
        image.name("helper", number)
    for number in range(len(programs)):
        image.add(register_probe(number), bytes(144))
    seen: set[int] = set()
    for insns, code, (_, left) in zip(programs, codes, image.run(qemu, tmp_path)[len(programs) :]):
        found = [int.from_bytes(left[8 * r : 8 * r + 8], "little") for r in range(18)]
        changed = {r for r in range(18) if found[r] != 0x1111 * (r + 1) & 0xFFFF}
        assert changed <= code.changes, (insns, changed, code.changes)
        seen |= changed
    assert seen >= {0, 1, 2, 3, 4, 7, 9, 10}


@settings(deadline=None)
@given(st.lists(instructions(), min_size=1, max_size=12))
def test_any_instructions_are_translated_or_refused(insns: list[Insn]) -> None:
    try:
        code = translate([*insns, Insn(0x95)], "aarch64")
    except (FormatError, FeatureError):
        return
    assert len(code.text) % 4 == 0 and bytes.fromhex("c0035fd6") in code.text


def test_immediates(tmp_path: Path, qemu: str) -> None:
    """Numbers of every shape, loaded and compared and combined."""
    numbers = [
        0,
        1,
        -1,
        4095,
        4096,
        0xFFF000,
        0x1000000,
        -4095,
        -4096,
        0x7FFFFFFF,
        -0x80000000,
        0x00FF00FF,
        0x3FC,
        0xFFFE,
        -2,
    ]
    texts = []
    for number in numbers:
        lines = ["r0 = 0x0123456789abcdef ll"]
        for op in ("+=", "-=", "&=", "|=", "^=", "*="):
            lines += [
                f"r1 = r0\nr1 {op} {number}\nw2 = w0\nw2 {op} {number}\nr0 ^= r1\nr0 += r2\nif r0 s> {number & 0xFFFFFFFF} goto +1\nr0 += 1"
            ]
        texts.append("\n".join([*lines, f"if w0 & {number & 0xFFFFFFFF:#x} goto +1", "r0 += 3", "exit"]))
    assert results(qemu, tmp_path, *texts) == [Machine().run(Program(assemble(text))) for text in texts]


def test_bit_patterns_are_those_of_the_architecture() -> None:
    """All 5,334 immediates of 64-bit logical instructions, made by the architecture's own rule, are found again."""
    seen = {}
    for size in (2, 4, 8, 16, 32, 64):
        for ones in range(1, size):
            for rotation in range(size):
                part = (1 << ones) - 1
                part = (part >> rotation | part << size - rotation) & (1 << size) - 1
                value = sum(part << at for at in range(0, 64, size))
                seen[value] = (size == 64) << 12 | rotation << 6 | (~(2 * size - 1) & 0x3F) | ones - 1
    assert len(seen) == 5334
    assert all(bit_pattern(value, True) == pattern for value, pattern in seen.items())
    assert bit_pattern(0, True) is None and bit_pattern(M, True) is None and bit_pattern(5, True) is None


def test_loads_of_numbers_are_short() -> None:
    lengths = {
        0: 1,
        1: 1,
        M: 1,
        0xFFFF0000: 1,
        0x12345678: 2,
        M - 5: 1,
        0x5555555555555555: 1,
        0x123456789ABCDEF0: 4,
        0xFFFFFFFF00000001: 1,
    }
    assert {value: len(mov_imm(1, value)) // 4 for value in lengths} == lengths


@pytest.mark.oracle
def test_a_disassembler_knows_every_word(tmp_path: Path) -> None:
    objdump = shutil.which("aarch64-linux-gnu-objdump")
    if objdump is None:
        pytest.skip("needs aarch64-linux-gnu-objdump (Debian package binutils-aarch64-linux-gnu)")
    for features in FEATURES:
        text = b"".join(
            translate(ProgramGenerator(seed, 60).make(), "aarch64", features=features).text[:-16] for seed in range(30)
        )
        (tmp_path / "code").write_bytes(text)
        command = [objdump, "-D", "-b", "binary", "-m", "aarch64", str(tmp_path / "code")]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        bad = [line for line in out.splitlines() if "undefined" in line or ".inst" in line]
        assert len(bad) == 0, bad[:5]

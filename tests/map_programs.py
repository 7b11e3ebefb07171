"""Random programs that call the helpers of one map, and store what each returned, or what it led to, in the map `io`."""

from __future__ import annotations

from random import Random

from sonde.bpf.asm import assemble
from sonde.bpf.isa import LDDW, Insn, encode
from sonde.spec.object import MapSpec, ProgramSpec, Reloc

STEPS = 40
IO = MapSpec("io", "array", 4, 8 * STEPS, 1)
IO_NUMBER, MAP_NUMBER = 1, 2
KEY, VALUE, STACK_LIMIT = -128, -256, 120  # offsets in the stack, and the bytes that keys and values may have


class MapProgram:
    """A program of STEPS calls for `spec`. The code has the numbers IO_NUMBER and MAP_NUMBER for the maps."""

    def __init__(self, spec: MapSpec, seed: int) -> None:
        self.spec = spec
        self.random = Random(seed)
        lines = ["r6 = 1 ll"]  # becomes the address of the value of `io`
        for step in range(STEPS):
            lines += [*self.step(), f"*(u64 *)(r6 +{8 * step}) = r7"]
        self.insns = [self._named(insn) for insn in assemble("\n".join([*lines, "r0 = 0", "exit"]))]

    def _named(self, insn: Insn) -> Insn:
        if insn.opcode != LDDW:
            return insn
        return Insn(LDDW, insn.dst, 2 if insn.imm == IO_NUMBER else 1, 0, insn.imm)

    def program(self) -> ProgramSpec:
        """The program as the kernel engine takes it."""
        relocs, pc, code = [], 0, []
        for insn in self.insns:
            if insn.opcode == LDDW:
                name = IO.name if insn.imm == IO_NUMBER else self.spec.name
                relocs.append(Reloc(pc, "map_value" if insn.src == 2 else "map", name))
                insn = Insn(LDDW, insn.dst, insn.src)
            code.append(insn)
            pc += insn.slots
        return ProgramSpec("maps", "raw_tracepoint", encode(code), tuple(relocs))

    # steps ----------------------------------------------------------------------------------------------------

    def step(self) -> list[str]:
        if self.spec.key_size == 0:
            return self.queue_step()
        choice = self.random.random()
        if choice < 0.4:
            flags = self.random.choice((0, 0, 0, 1, 2, 3, 4, 8))
            return [*self.key(), *self.value(), *self.call(2, f"r3 = r10\nr3 += {VALUE}\nr4 = {flags}"), "r7 = r0"]
        if choice < 0.6:
            return [*self.key(), *self.call(3, ""), "r7 = r0"]
        if choice < 0.7 and "percpu" in self.spec.type:
            return [*self.key(), *self.call(195, f"r3 = {self.random.choice((0, 1, 2, 77))}"), *self.through()]
        return [*self.key(), *self.call(1, ""), *self.through()]

    def queue_step(self) -> list[str]:
        place = f"r2 = r10\nr2 += {VALUE}"
        name = self.random.choice(("push", "push", "pop", "peek"))
        if name == "push" or self.spec.type == "bloom_filter":
            flags = self.random.choice((0, 0, 0, 2, 1, 4))
            return [*self.value(), "r1 = 2 ll", place, f"r3 = {flags}", "call 87", "r7 = r0"]
        number = 88 if name == "pop" else 89
        load = f"r8 = *(u8 *)(r10 {VALUE})"
        return [
            *self.value(),
            "r1 = 2 ll",
            place,
            f"call {number}",
            load,
            "r8 <<= 32",
            "r7 = r0",
            "w7 = w7",
            "r7 |= r8",
        ]

    def key(self) -> list[str]:
        number = self.random.randrange(self.spec.max_entries + 3)
        if self.spec.type == "lpm_trie":
            length = self.random.randrange(8 * (self.spec.key_size - 4) + 2)
            byte = self.random.choice((0x80, 0xFF, 0x5A))
            return [*self.fill(KEY, self.spec.key_size, byte), f"*(u32 *)(r10 {KEY}) = {length}"]
        return [
            *self.fill(KEY, self.spec.key_size, 0),
            f"*(u{32 if self.spec.key_size >= 4 else 8} *)(r10 {KEY}) = {number}",
        ]

    def value(self) -> list[str]:
        return self.fill(VALUE, self.spec.value_size, self.random.randrange(256))

    def fill(self, at: int, size: int, byte: int) -> list[str]:
        word = int.from_bytes(bytes([byte]) * 4, "little")
        word -= word >> 31 << 32
        return [f"*(u32 *)(r10 {offset}) = {word}" for offset in range(at, at + (size + 3 & ~3), 4)]

    def call(self, number: int, rest: str) -> list[str]:
        return ["r1 = 2 ll", "r2 = r10", f"r2 += {KEY}", *([rest] if rest else []), f"call {number}"]

    def through(self) -> list[str]:
        """Read the first byte that a look-up led to, and change it."""
        return ["r7 = -1", "if r0 == 0x0 goto +4", "r7 = *(u8 *)(r0 +0)", "r8 = r7", "r8 += 3", "*(u8 *)(r0 +0) = r8"]


MAPS = [
    MapSpec("m", "hash", 4, 8, 5),
    MapSpec("m", "hash", 13, 3, 3),
    MapSpec("m", "percpu_hash", 8, 4, 4),
    MapSpec("m", "lru_hash", 4, 8, 30),
    MapSpec("m", "array", 4, 3, 3),
    MapSpec("m", "percpu_array", 4, 8, 3),
    MapSpec("m", "lpm_trie", 8, 8, 6, flags=1),
    MapSpec("m", "lpm_trie", 20, 12, 6, flags=1),
    MapSpec("m", "lpm_trie", 5, 3, 4, flags=1),
    MapSpec("m", "lpm_trie", 104, 8, 6, flags=1),
    MapSpec("m", "queue", 0, 5, 3),
    MapSpec("m", "stack", 0, 8, 3),
    MapSpec("m", "stack", 0, 100, 2),
    MapSpec("m", "lru_hash", 4, 8, 3),
    MapSpec("m", "lru_percpu_hash", 4, 8, 3),
    MapSpec("m", "bloom_filter", 0, 8, 50),
    MapSpec("m", "bloom_filter", 0, 21, 5),
]


def visiting(spec: MapSpec, stop_at: int) -> list[Insn]:
    """A program that visits all entries of the map, each by a local function that adds up keys and values, changes values, and stops after some; and calls another in a loop."""
    load = "u32" if spec.key_size >= 4 else "u8"
    text = f"""
        r1 = 2 ll
        r2 = subprog[visit]
        r6 = 1 ll
        r3 = r6
        r4 = 0
        call for_each_map_elem
        *(u64 *)(r6 +16) = r0
        r1 = 2 ll
        r2 = subprog[visit]
        r3 = r6
        r4 = 1
        call for_each_map_elem
        *(u64 *)(r6 +24) = r0
        r1 = 10
        r2 = subprog[turn]
        r3 = r6
        r4 = 0
        call loop
        *(u64 *)(r6 +32) = r0
        r1 = {(8 << 20) + 1}
        r2 = subprog[turn]
        r3 = r6
        r4 = 0
        call loop
        *(u64 *)(r6 +40) = r0
        r0 = 0
        exit
        visit:
        r1 = *({load} *)(r2 +0)
        r2 = *(u64 *)(r4 +0)
        r2 += r1
        r1 = *(u8 *)(r3 +0)
        r2 *= 31
        r2 ^= r1
        *(u64 *)(r4 +0) = r2
        r1 += 1
        *(u8 *)(r3 +0) = r1
        r1 = *(u64 *)(r4 +8)
        r1 += 1
        *(u64 *)(r4 +8) = r1
        r0 = 0
        if r1 != {stop_at:#x} goto on
        r0 = 1
        on: exit
        turn:
        r3 = *(u64 *)(r2 +48)
        r3 += r1
        *(u64 *)(r2 +48) = r3
        r0 = 0
        if r1 != 0x6 goto out
        r0 = 1
        out: exit
    """
    program = MapProgram(spec, 0)
    return [program._named(insn) if insn.opcode == LDDW and insn.src == 0 else insn for insn in assemble(text)]


VISITED = [
    MAPS[0],
    MAPS[1],
    MAPS[2],
    MapSpec("m", "array", 4, 3, 5),
    MapSpec("m", "percpu_array", 4, 8, 3),
    MapSpec("m", "lru_hash", 4, 8, 3),
    MapSpec("m", "lru_percpu_hash", 9, 8, 6),
    MapSpec("m", "hash", 200, 8, 5),
    MapSpec("m", "hash", 264, 8, 5),
    MapSpec("m", "hash", 500, 8, 5),
]

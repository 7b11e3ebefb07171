"""Random programs aimed at what verifiers get wrong: each is a few pieces, and each piece one way in which a verifier was, or could be, fooled.

Bounds passed from 32 to 64 bits and back, signed against unsigned, known bits through multiplication and shifts, numbers and pointers spilled whole
or in part, variable offsets into the stack, map values and packets, copies of pointers around null checks, records held over branches, calls and
callbacks, numbers that reach a caller through its stack, loops of every kind. A program is careless by a rate of its own: what is wrong is mostly
wrong by one. Nothing is said of which are safe: what a verifier accepts must run on any input without a fault.
"""

from __future__ import annotations

from random import Random

VALUE_BYTES, CONTEXT_BYTES, RECORD_BYTES, PACKET_BYTES = 64, 96, 24, 64
# Numbers of the maps, as `bpf_hostile_runs` has them.
ARRAY, HASH, RING, OUTER, PROGRAMS, QUEUE = 1, 2, 3, 4, 5, 6
NUMBERS = (1, 2, 3, 4)  # registers that hold numbers between pieces; r0 and r5 are scratch
R_CONTEXT, R_VALUE, R_POINTER = 6, 7, 8  # r9: a number that calls keep
EDGES = (0, 1, 2, 7, 8, 15, 31, 32, 63, 64, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, -1, -2, -8, -64, -0x80000000)
SIZES = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
_COMPARE = ("==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&")
_OPS = ("+=", "-=", "*=", "&=", "|=", "^=", "<<=", ">>=", "s>>=", "/=", "%=", "s/=", "s%=")


class HostileGenerator:
    """One program for each seed. `kind` is its program type: "raw_tracepoint", or "xdp", whose first two loads are of data and data_end."""

    def __init__(self, seed: int, kind: str = "raw_tracepoint") -> None:
        self.random = Random(seed)
        self.kind = kind
        self.careless = self.random.choice((0.02, 0.02, 0.1, 0.4))
        self.lines: list[str] = []
        self.functions: list[str] = []
        self.labels = 0
        self.depth = 0
        self.pieces = {
            self.number: 5, self.limit: 3, self.skip: 3, self.diamond: 2, self.spill: 3, self.value_access: 4, self.stack_access: 3,
            self.context_load: 1, self.lookup: 2, self.record: 2, self.helper_memory: 2, self.call: 1.5, self.callback: 1, self.loop: 1,
            self.atomic: 1, self.inner_map: 0.6, self.tail_call: 0.2, self.two_records: 0.5, self.stored_pointer: 1, self.widths: 2,
        }  # fmt: skip
        if kind == "xdp":
            self.pieces |= {self.packet: 5}

    def make(self) -> str:
        """The program as assembly."""
        r = self.random
        if self.kind == "xdp":
            self.add("r5 = *(u32 *)(r1 +0)", "r0 = *(u32 *)(r1 +4)", "*(u64 *)(r10 -80) = r5", "*(u64 *)(r10 -88) = r0")
        self.add("r6 = r1", f"r7 = map[fd:{ARRAY}][0]+0", "r8 = r7")
        for register in (*NUMBERS, 9):
            self.add(self.source(register))
        for off in range(-64, 0, 8):
            if r.random() < 0.9:
                self.add(f"*(u64 *)(r10 {off}) = {r.choice(EDGES)}")
        for _ in range(r.randint(3, 12)):
            self.piece()
        self.add("r0 = 0", "exit", *self.functions)
        return "\n".join(self.lines)

    # means ----------------------------------------------------------------------------------------------------

    def add(self, *lines: str) -> None:
        self.lines += lines

    def label(self) -> str:
        self.labels += 1
        return f"L{self.labels}"

    def wrong(self) -> bool:
        return self.random.random() < self.careless

    def off_by(self, number: int) -> int:
        """A number that is the right one, mostly."""
        return number + self.random.choice((1, 1, 2, 8, -1, 64)) if self.wrong() else number

    def source(self, register: int) -> str:
        """A number that comes from outside, of some size."""
        r = self.random
        size = r.choice((1, 2, 4, 8, 8))
        if self.kind == "xdp" or r.random() < 0.5:
            return f"r{register} = *({SIZES[size]} *)(r7 +{r.randrange(VALUE_BYTES // 8) * 8})"
        return f"r{register} = *({SIZES[size]} *)(r6 +{r.randrange(CONTEXT_BYTES // 8) * 8})"

    def any_number(self) -> int:
        return self.random.choice((*NUMBERS, 9))

    def refill(self) -> None:
        """Numbers for the registers that a call took."""
        for register in NUMBERS:
            self.add(
                self.random.choice(
                    (self.source(register), f"r{register} = r9", f"r{register} = {self.random.choice(EDGES)}")
                )
            )

    def piece(self) -> None:
        self.random.choices(list(self.pieces), list(self.pieces.values()))[0]()

    def few(self, most: int = 2) -> None:
        """Some pieces inside another one."""
        self.depth += 1
        if self.depth < 4:
            for _ in range(self.random.randint(1, most)):
                self.piece()
        self.depth -= 1

    def padding(self) -> None:
        """Instructions that do nothing, so that states are remembered here and there."""
        self.add(*["r0 = 0"] * self.random.choice((0, 0, 1, 8, 12)))

    # numbers --------------------------------------------------------------------------------------------------

    def number(self) -> None:
        r = self.random
        a, op, w = self.any_number(), r.choice(_OPS), r.choice("rrw")
        if r.random() < 0.25:
            b = self.any_number()
            self.add(r.choice((f"r{a} = r{b}", f"w{a} = w{b}", f"r{a} = (s8)r{b}", f"r{a} = (s16)r{b}", f"r{a} = (s32)r{b}", f"w{a} = (s8)w{b}",
                               f"w{a} = (s16)w{b}", f"r{a} = -r{a}", f"w{a} = -w{a}", f"r{a} = be16 r{a}", f"r{a} = bswap32 r{a}")))  # fmt: skip
        elif r.random() < 0.4:
            self.add(f"{w}{a} {op} {w}{self.any_number()}")
        elif op.endswith(">=") or "<<" in op:
            self.add(f"{w}{a} {op} {r.randint(0, 31 if w == 'w' else 63)}")
        else:
            self.add(f"{w}{a} {op} {r.choice(EDGES) or 1}")

    def limit(self) -> None:
        """A number brought between 0 and some power of two, in one of the ways that compilers use."""
        r = self.random
        a = self.any_number()
        most = r.choice((7, 15, 31, 63))
        self.bound(a, most)

    def bound(self, a: int, most: int) -> None:
        """Bring a register into 0..most, more or less."""
        r = self.random
        limit, out = self.off_by(most), self.label()
        way = r.randrange(8)
        if way < 2 and most & most + 1 == 0:
            self.add(f"{r.choice('rw')}{a} &= {limit}")
        elif way == 2:
            self.add(f"if r{a} <= {limit} goto {out}", f"r{a} = {r.choice((0, limit))}", f"{out}:")
        elif way == 3:
            self.add(
                f"if w{a} <= {limit} goto {out}",
                f"w{a} = {r.choice((0, limit))}",
                f"{out}:",
                *([] if self.wrong() else [f"w{a} = w{a}"]),
            )
        elif way == 4:
            self.add(
                f"if r{a} s> {limit} goto {out}",
                *([] if self.wrong() else [f"if r{a} s>= 0 goto +1"]),
                f"{out}:",
                f"r{a} = 0",
            )
        elif way == 5:
            self.add(f"{r.choice('rw')}{a} %= {limit + 1}")
        elif way == 6:
            by = 64 - max(most.bit_length(), 1)
            self.add(f"r{a} {r.choice(('>>=', '>>=', '>>=', 's>>=')) if self.wrong() else '>>='} {by}")
            if most & most + 1:
                self.add(f"r{a} &= {most >> 1}")
        else:
            copy = r.choice([n for n in (*NUMBERS, 9) if n != a])
            self.add(f"r{copy} = r{a}", f"if r{copy} < {limit + 1} goto {out}", f"r{a} = 0", f"{out}:")

    def widths(self) -> None:
        """What is learnt of one half, or by one sign, used for the other."""
        r = self.random
        a, out = self.any_number(), self.label()
        first, second = r.choice("rw"), r.choice("rw")
        self.add(f"if {first}{a} {r.choice(_COMPARE)} {r.choice(EDGES)} goto {out}")
        self.add(r.choice((f"r{a} <<= 32", f"r{a} s>>= 32", f"r{a} >>= 32", f"r{a} += {r.choice(EDGES)}", f"w{a} = w{a}", f"r{a} *= {r.choice((2, 3, 8, 1 << 30))}",
                           f"r{a} = (s32)r{a}", f"w{a} s>>= {r.randrange(32)}", f"r{a} ^= -1")))  # fmt: skip
        self.add(f"if {second}{a} {r.choice(_COMPARE)} {r.choice((*EDGES, VALUE_BYTES - 8))} goto {out}")
        if r.random() < 0.7:
            self.add(
                "r8 = r7",
                f"if r{a} > {self.off_by(VALUE_BYTES - 8)} goto {out}" if r.random() < 0.7 else "r0 = 0",
                f"r8 += r{a}",
                "r0 = *(u64 *)(r8 +0)",
            )
        self.add(f"{out}: r8 = r7")

    def skip(self) -> None:
        """A conditional jump over pieces."""
        r = self.random
        out = self.label()
        other = f"{{}}{self.any_number()}" if r.random() < 0.3 else str(r.choice(EDGES))
        w = r.choice("rrw")
        self.add(f"if {w}{self.any_number()} {r.choice(_COMPARE)} {other.format(w)} goto {out}")
        lines = len(self.lines)
        self.few()
        if len(self.lines) == lines:
            self.add("r0 = 0")
        self.add(f"{out}: r8 = r7")

    def diamond(self) -> None:
        """Two ways that leave different numbers, or a pointer and a number, and meet again."""
        r = self.random
        a, b, other, join = self.any_number(), self.any_number(), self.label(), self.label()
        self.add(f"if r{a} {r.choice(_COMPARE)} {r.choice(EDGES)} goto {other}")
        left, right = (r.choice((f"r{b} = {r.choice((0, 1, 8, 56))}", f"r{b} = {r.choice(EDGES)}", f"r{b} &= {r.choice((7, 56, 63, 64))}",
                                 f"*(u64 *)(r10 -{r.randrange(1, 9) * 8}) = {r.choice((0, 8, 1000))}", f"r{b} = r9")) for _ in range(2))  # fmt: skip
        self.add(left)
        self.padding()
        self.add(f"goto {join}", f"{other}: {right}")
        self.padding()
        self.add(f"{join}:")
        self.padding()
        self.add("r0 = 0")
        if r.random() < 0.6:
            self.use(b, bounded=r.random() < 0.5)

    def use(self, register: int, *, bounded: bool) -> None:
        """A number as an index into the value."""
        size = self.random.choice((1, 2, 4, 8))
        if not bounded:
            self.bound(register, VALUE_BYTES - 8)
        self.add("r8 = r7", f"r8 += r{register}", f"r0 = *({SIZES[size]} *)(r8 +0)")

    # memory ---------------------------------------------------------------------------------------------------

    def value_access(self) -> None:
        r = self.random
        a, size = self.any_number(), r.choice((1, 2, 4, 8))
        scale = r.choice((0, 0, 1, 2, 3))
        most = (VALUE_BYTES - size) >> scale
        self.bound(a, most)
        if scale:
            self.add(r.choice((f"r{a} <<= {scale}", f"r{a} *= {1 << scale}")))
        minus = r.random() < 0.15
        off = self.off_by(0)
        self.add("r8 = r7", f"r8 += {most << scale}" if minus else "r0 = 0", f"r8 {'-' if minus else '+'}= r{a}")
        if r.random() < 0.5:
            self.add(f"r{self.any_number()} = *({SIZES[size]} *)(r8 {off:+d})")
        else:
            self.add(f"*({SIZES[size]} *)(r8 {off:+d}) = r{self.any_number()}")

    def stack_access(self) -> None:
        """A variable offset into the stack, over numbers and perhaps a stored pointer."""
        r = self.random
        a, size = self.any_number(), r.choice((1, 2, 4, 8))
        self.bound(
            a, self.off_by(63 - size + 1 if size > 1 else 63) if self.wrong() else r.choice((0, 7, 15, 31, 64 - size))
        )
        if r.random() < 0.3:
            self.add("*(u64 *)(r10 -32) = r7")
        self.add("r8 = r10", "r8 += -64", f"r8 += r{a}")
        if r.random() < 0.5:
            self.add(f"r{self.any_number()} = *({SIZES[size]} *)(r8 +0)")
        else:
            self.add(f"*({SIZES[size]} *)(r8 +0) = r{self.any_number()}")
        if r.random() < 0.4:
            b = self.any_number()
            self.add(f"r{b} = *(u64 *)(r10 {-8 * r.randint(1, 8)})")
            self.use(b, bounded=r.random() < 0.3)
        self.add("r8 = r7")

    def spill(self) -> None:
        """Store and load again, whole or in part, before or after it is limited."""
        r = self.random
        a, b, slot = self.any_number(), self.any_number(), -8 * r.randint(1, 8)
        size, back = r.choice((8, 8, 4, 2, 1)), r.choice((8, 8, 4, 2, 1))
        if r.random() < 0.4:
            self.bound(a, r.choice((7, 56, 63)))
        self.add(f"*({SIZES[size]} *)(r10 {slot}) = r{a}")
        if r.random() < 0.3:
            part = r.choice((1, 2, 4))
            self.add(f"*({SIZES[part]} *)(r10 {slot + r.randrange(8 // part) * part}) = {r.choice(EDGES)}")
        if r.random() < 0.4:
            self.bound(a, r.choice((7, 56, 63)))
        self.add(
            f"r{b} = *({r.choice(('u', 'u', 's')) if back < 8 else 'u'}{8 * back} *)(r10 {slot + (r.randrange(8 // back) * back if r.random() < 0.3 else 0)})"
        )
        if r.random() < 0.7:
            self.use(b, bounded=r.random() < 0.5)

    def stored_pointer(self) -> None:
        """A pointer through the stack, perhaps with a part overwritten."""
        r = self.random
        slot = -8 * r.randint(1, 8)
        self.add(f"*(u64 *)(r10 {slot}) = {r.choice(('r7', 'r7', 'r10', 'r6'))}")
        if self.wrong():
            self.add(
                r.choice(
                    (
                        f"*(u8 *)(r10 {slot}) = 1",
                        f"*(u32 *)(r10 {slot + 4}) = r9",
                        f"r8 = r10\nr8 += {slot}\nr1 = 1\nlock *(u64 *)(r8 +0) += r1",
                    )
                )
            )
        if r.random() < 0.3:
            self.few(1)
        self.add(
            f"r8 = *(u64 *)(r10 {slot})",
            f"r0 = *({SIZES[r.choice((1, 8))]} *)(r8 {self.off_by(r.choice((0, 0, 56, -8))):+d})",
            "r8 = r7",
        )

    def context_load(self) -> None:
        r = self.random
        size = r.choice((1, 2, 4, 8))
        end = CONTEXT_BYTES if self.kind != "xdp" else 24
        place = r.randrange(8, end, size) if not self.wrong() else r.choice((end, end - 1, -1, 3))
        if self.kind == "xdp":
            return
        self.add(f"r{self.any_number()} = *({SIZES[size]} *)(r6 {place:+d})")

    def atomic(self) -> None:
        r = self.random
        a, size = self.any_number(), r.choice((4, 8))
        place = r.choice(
            (
                f"r7 {r.randrange(VALUE_BYTES // size) * size + self.off_by(0):+d}",
                f"r10 {-size * r.randint(1, 64 // size)}",
            )
        )
        kind, memory = "64" if size == 8 else "", f"({SIZES[size]} *)({place})"
        self.add(r.choice((
            f"lock *{memory} += r{a}", f"lock *{memory} |= r{a}", f"r{a} = atomic{kind}_fetch_add({memory}, r{a})",
            f"r{a} = atomic{kind}_fetch_and({memory}, r{a})", f"r{a} = atomic{kind}_xchg({memory}, r{a})",
            f"r0 = r{self.any_number()}\nr0 = atomic{kind}_cmpxchg({memory}, r0, r{a})",
        )))  # fmt: skip
        if r.random() < 0.6:
            self.use(a, bounded=r.random() < 0.3)

    # maps, records --------------------------------------------------------------------------------------------

    def key(self) -> None:
        r = self.random
        self.add(
            f"*(u32 *)(r10 -72) = {r.choice((0, 1, 2, 3))}"
            if r.random() < 0.7
            else f"*(u32 *)(r10 -72) = r{self.any_number()}"
        )
        self.add("r2 = r10", "r2 += -72")

    def lookup(self) -> None:
        """A look-up, copies of its result, a null check of one of them."""
        r = self.random
        out, slot = self.label(), -8 * r.randint(1, 8)
        self.key()
        self.add(f"r1 = map[fd:{HASH}]", "call map_lookup_elem")
        self.refill()
        checked, used = r.choice((("r0", "r0"), ("r0", "r8"), ("r8", "r0"), ("r0", "s"), ("r8", "s")))
        self.add("r8 = r0", f"*(u64 *)(r10 {slot}) = r0")
        if self.wrong():
            self.add(r.choice(("r8 += 8", "r8 += r9", f"*(u32 *)(r10 {slot}) = 1", "r0 = 1")))
        if not self.wrong():
            self.add(f"if {checked} == 0 goto {out}" if not self.wrong() else f"if {checked} != 0 goto {out}")
        if used == "s":
            self.add(f"r0 = *(u64 *)(r10 {slot})")
            used = "r0"
        if r.random() < 0.5:
            a = r.choice(NUMBERS)
            self.bound(a, VALUE_BYTES - 8)
            self.add(f"{used} += r{a}")
        self.add(f"r1 = *(u64 *)({used} {self.off_by(0):+d})", f"*(u8 *)({used} +0) = 1", f"{out}: r8 = r7")
        self.refill()

    def inner_map(self) -> None:
        r = self.random
        out = self.label()
        self.key()
        self.add(f"r1 = map[fd:{OUTER}]", "call map_lookup_elem", "r8 = r0")
        if not self.wrong():
            self.add(f"if r0 == 0 goto {out}")
        self.key()
        self.add("r1 = r8", "call map_lookup_elem")
        if not self.wrong():
            self.add(f"if r0 == 0 goto {out}")
        self.add(f"r1 = *(u64 *)(r0 {self.off_by(r.choice((0, 24))):+d})", f"{out}: r8 = r7")
        self.refill()

    def reserve(self, register: int, out: str) -> None:
        self.add(f"r1 = map[fd:{RING}]", f"r2 = {RECORD_BYTES}", "r3 = 0", "call ringbuf_reserve")
        self.refill()
        if not self.wrong():
            self.add(f"if r0 == 0 goto {out}")
        self.add(f"r{register} = r0")

    def finish(self, register: int) -> None:
        self.add(f"r1 = r{register}", "r2 = 0", f"call {self.random.choice(('ringbuf_submit', 'ringbuf_discard'))}")
        self.refill()

    def record(self) -> None:
        """A record, held over other pieces and given back, on all ways or not."""
        r = self.random
        out, slot = self.label(), -8 * r.randint(1, 8)
        self.reserve(8, out)
        self.add(f"*(u64 *)(r8 {self.off_by(r.choice((0, 16))):+d}) = r9", f"*(u64 *)(r10 {slot}) = r8")
        if r.random() < 0.4:
            a = self.any_number()
            self.bound(a, RECORD_BYTES - 8)
            self.add(f"r8 += r{a}", "*(u8 *)(r8 +0) = 1")
        if r.random() < 0.3:
            self.add(
                f"if r{self.any_number()} > {r.choice(EDGES)} goto +1", "r0 = 0" if not self.wrong() else f"goto {out}"
            )
        self.add(f"r8 = *(u64 *)(r10 {slot})")
        if not self.wrong():
            self.finish(8)
        if self.wrong():
            self.add("r0 = *(u64 *)(r8 +0)") if r.random() < 0.5 else self.finish(8)
        self.add(f"{out}: r8 = r7")

    def two_records(self) -> None:
        """Two records at once; perhaps one is taken for the other."""
        r = self.random
        out, half, a, b = self.label(), self.label(), -104, -112
        self.reserve(8, out)
        self.add(f"*(u64 *)(r10 {a}) = r8")
        self.reserve(8, half)
        self.add(f"*(u64 *)(r10 {b}) = r8")
        if self.wrong():
            self.add(
                f"if r9 {r.choice(_COMPARE)} {r.choice(EDGES)} goto +2",
                f"r8 = *(u64 *)(r10 {a})",
                f"*(u64 *)(r10 {b}) = r8",
            )
        self.padding()
        self.add(f"r8 = *(u64 *)(r10 {a})")
        self.finish(8)
        self.add(f"r8 = *(u64 *)(r10 {b})")
        self.finish(8)
        self.add(f"goto {out}", f"{half}: r8 = *(u64 *)(r10 {a})")
        self.finish(8)
        self.add(f"{out}: r8 = r7")

    def helper_memory(self) -> None:
        """A helper that reads or writes a variable number of bytes."""
        r = self.random
        a, what = r.choice(NUMBERS), r.randrange(4)
        room = r.choice((8, 16, 64))
        self.bound(a, room if r.random() < 0.5 else room - 1)
        if self.random.random() < 0.5:
            self.add(f"if r{a} != 0 goto +1", f"r{a} = 1")
        self.add(f"r0 = r{a}", f"r5 = {r.choice(('r10', 'r10', 'r7'))}")
        self.add(f"r5 += {-self.off_by(room)}" if self.lines[-1].endswith("r10") else f"r5 += {VALUE_BYTES - room}")
        if what == 0:
            self.add("r1 = r5", "r2 = r0", "r3 = r9", "call probe_read_kernel")
        elif what == 1:
            self.add("r1 = r5", "r2 = r0", "call get_current_comm")
        elif what == 2:
            self.add(f"r1 = map[fd:{RING}]", "r2 = r5", "r3 = r0", "r4 = 0", "call ringbuf_output")
        else:
            self.add(
                "r2 = r5",
                f"r1 = map[fd:{QUEUE}]",
                "r3 = 0",
                f"call {r.choice(('map_push_elem', 'map_pop_elem', 'map_peek_elem'))}",
            )
        self.add("r9 = r0" if r.random() < 0.3 else "r0 = 0")
        self.refill()
        if r.random() < 0.3:
            self.add(f"r1 = *(u64 *)(r10 {-8 * r.randint(1, 8)})")
            self.use(1, bounded=r.random() < 0.3)

    def tail_call(self) -> None:
        self.add("r1 = r6", f"r2 = map[fd:{PROGRAMS}]", "r3 = 0", "call tail_call")
        self.refill()

    # control --------------------------------------------------------------------------------------------------

    def loop(self) -> None:
        """A loop that ends: by a counter in a register or on the stack, or by may_goto."""
        r = self.random
        again, out = self.label(), self.label()
        way = r.randrange(3)
        if way == 0:
            self.add(f"r9 = {r.choice((0, 1))}", f"{again}: r9 += {r.choice((1, 1, 2, 8))}")
            self.few(1)
            self.add(f"if r9 {r.choice(('<', '<', 's<', '!='))} {r.choice((4, 8, 16, 57))} goto {again}")
        elif way == 1:
            self.add(f"*(u64 *)(r10 -96) = {r.randint(1, 6)}", f"{again}: r0 = 0")
            self.few(1)
            self.add(
                "r5 = *(u64 *)(r10 -96)",
                "r5 += -1",
                "*(u64 *)(r10 -96) = r5",
                f"if r5 {r.choice(('!=', 's>', '>'))} 0 goto {again}",
            )
        else:
            self.add(f"{again}: may_goto {out}", "r9 += 1" if r.random() < 0.5 else "r0 = 0")
            self.few(1)
            if r.random() < 0.5:
                self.add(f"if r9 > {r.choice((3, 8, 60))} goto {out}")
            self.add(f"goto {again}", f"{out}: r8 = r7")
        if r.random() < self.careless / 4:  # once more, for ever or nearly so
            self.add(r.choice((f"goto {again}", f"if r9 > {r.choice(EDGES)} goto {again}")), "r0 = 0")
        if r.random() < 0.5:
            self.use(9, bounded=r.random() < 0.5)

    def inside(self, build: str, *extra: str) -> str:
        """A function made of pieces; returns its label. The caller's lines are kept apart meanwhile."""
        name, lines, self.lines = self.label(), self.lines, []
        pieces, kind, self.kind = self.pieces, self.kind, "function"
        self.pieces = {
            p: w
            for p, w in pieces.items()
            if p in (self.number, self.limit, self.skip, self.spill, self.widths, self.value_access)
        }
        self.add(f"{name}: {build}", f"r7 = map[fd:{ARRAY}][0]+0", "r8 = r7", *extra)
        if self.depth < 4:
            self.few(3)
        self.pieces, self.kind = pieces, kind
        self.functions += [*self.lines, "exit"]
        self.lines = lines
        return name

    def prologue(self) -> list[str]:
        """The stack of a function."""
        return [f"*(u64 *)(r10 {off}) = {self.random.choice(EDGES)}" for off in range(-64, 0, 8)]

    def call(self) -> None:
        """A function that is given an address on the stack, and leaves a number there."""
        r = self.random
        if self.depth > 2 or len(self.functions) > 200:
            return
        self.functions, before = [], self.functions
        slot, a = -8 * r.randint(1, 8), r.choice(NUMBERS)
        left, right = r.sample((0, 1, 7, 56, 57, 64, 1000), 2)
        skip = self.label()
        name = self.inside(
            "r6 = r1", "r9 = r2", *self.prologue(), f"r1 = {r.choice(EDGES)}", "r2 = r9", "r3 = r9", "r4 = 1"
        )
        body, self.functions = self.functions, before
        ending = [f"r5 = {left}", f"if r9 {r.choice(_COMPARE)} {r.choice(EDGES)} goto {skip}", f"r5 = {right}", *["r0 = 0"] * r.choice((0, 9)), f"{skip}:",
                  *["r0 = 0"] * r.choice((1, 9)), f"*({r.choice(('u64', 'u64', 'u32', 'u8'))} *)(r6 +0) = r{r.choice((5, 5, 9))}",
                  f"r0 = r{r.choice((5, 9, 3))}" if not self.wrong() else r.choice(("r0 = r10", "*(u64 *)(r6 +0) = r10\nr0 = 0"))]  # fmt: skip
        self.functions += [*body[:-1], *ending, "exit"]
        self.add("r1 = r10", f"r1 += {slot}", "r2 = r9", f"call {name}")
        self.add("r9 = r0" if r.random() < 0.3 else "r0 = 0")
        self.refill()
        self.add(f"r{a} = *(u64 *)(r10 {slot})")
        self.use(r.choice((a, a, 9)), bounded=r.random() < 0.6)

    def callback(self) -> None:
        """bpf_loop or bpf_for_each_map_elem, whose function changes the caller's stack."""
        r = self.random
        if self.depth > 1 or len(self.functions) > 200:
            return
        self.functions, before = [], self.functions
        slot, each = -8 * r.randint(1, 8), r.random() < 0.3
        context = "r4" if each else "r2"
        name = self.inside(f"r6 = {context}", "r9 = r3" if each else "r9 = r1", *self.prologue(),
                           *(["r9 = *(u64 *)(r9 +0)"] if each else []), "r1 = r9", "r2 = 1", "r3 = r9", "r4 = 2")  # fmt: skip
        body, self.functions = self.functions, before
        change = r.choice((["*(u64 *)(r6 +0) = r9"], ["r5 = *(u64 *)(r6 +0)", "r5 += 8", "*(u64 *)(r6 +0) = r5"], ["*(u64 *)(r6 +0) = 57"], ["*(u8 *)(r6 +0) = 1"], ["r0 = 0"],
                           ["r5 = *(u64 *)(r6 +0)", f"if r5 > {self.off_by(VALUE_BYTES - 8)} goto +3", "r8 = r7", "r8 += r5", "r0 = *(u64 *)(r8 +0)", "*(u64 *)(r6 +0) = r9"]))  # fmt: skip
        self.functions += [*body[:-1], *change, f"r0 = {r.choice((0, 0, 1)) if not self.wrong() else 2}", "exit"]
        if each:
            self.add(
                f"r1 = map[fd:{HASH}]",
                f"r2 = subprog[{name}]",
                "r3 = r10",
                f"r3 += {slot}",
                "r4 = 0",
                "call for_each_map_elem",
            )
        else:
            self.add(f"r1 = {r.choice((0, 1, 3, 9))}" if r.random() < 0.7 else "r1 = r9\nr1 &= 7", f"r2 = subprog[{name}]", "r3 = r10", f"r3 += {slot}", "r4 = 0",
                     "call loop")  # fmt: skip
        self.refill()
        self.add(f"r1 = *(u64 *)(r10 {slot})")
        self.use(1, bounded=r.random() < 0.5)

    # packets --------------------------------------------------------------------------------------------------

    def packet(self) -> None:
        """A packet pointer, moved by a known or a variable number, compared with the end, copied, and used."""
        r = self.random
        if self.kind != "xdp":
            return
        a, out, size = self.any_number(), self.label(), r.choice((1, 2, 4, 8))
        self.add("r8 = *(u64 *)(r10 -80)", "r5 = *(u64 *)(r10 -88)")
        variable, step = r.random() < 0.5, r.choice((0, 4, 14, 40))
        if variable:
            self.bound(a, r.choice((7, 15, 63)))
            self.add(f"r8 += r{a}")
        self.add("r0 = r8", f"r0 += {step + size}")
        compare = r.choice(
            (f"if r0 > r5 goto {out}", f"if r5 < r0 goto {out}", f"if r0 >= r5 goto {out}", f"if r5 <= r0 goto {out}")
        )
        if self.wrong():
            compare = r.choice(
                (
                    f"if r0 < r5 goto {out}",
                    f"if r5 > r0 goto {out}",
                    f"if r8 > r5 goto {out}",
                    f"if r0 == r5 goto {out}",
                    "r0 = 0",
                )
            )
        self.add(compare)
        if self.wrong() and variable:
            self.add(r.choice((f"r8 += r{a}", "r8 += 1", f"r8 -= {step}", "r8 += r9")))
        access = f"*({SIZES[size]} *)({'r0' if self.wrong() else 'r8'} {self.off_by(step):+d})"
        self.add(f"r{self.any_number()} = {access}" if r.random() < 0.7 else f"{access} = r9", f"{out}: r8 = r7")

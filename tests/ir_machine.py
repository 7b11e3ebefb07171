"""A second opinion on the compiler: an interpreter for integer IR, and a generator of random functions.

Functions read their inputs from entry 0 of the array map `io` and write their results there, so that the same function can be run by
this interpreter and, compiled, by the kernel.
"""

from __future__ import annotations

import random

from sonde.compiler.builder import Builder
from sonde.compiler.ir import (
    BINARY,
    COMPARE,
    I1,
    I8,
    I16,
    I32,
    I64,
    WIDTH,
    Block,
    Const,
    Function,
    Inst,
    Module,
    Param,
    Value,
    bytes_of,
)
from sonde.spec.object import MapSpec

INPUTS = 6
IO_BYTES = 512
AREA_BYTES = 24
STEP_LIMIT = 20_000
TYPES = (I8, I16, I32, I64)
OPS = sorted(BINARY)
COMPARISONS = sorted(COMPARE)
INTERESTING = (0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000,
               0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip


def run(function: Function, io: bytearray, module: Module | None = None, arguments: tuple[int, ...] = ()) -> int:
    """Interpret `function` with `io` as the map's memory (changed in place); return its result.

    Pointers are pairs of memory and offset. `module` has the functions that are called.
    """
    values: dict[Value, object] = dict(zip(function.params, arguments))
    slots: dict[Inst, bytearray] = {}
    block, passed = function.blocks[0], []
    for _ in range(STEP_LIMIT):
        values.update(zip(block.params, passed))
        for inst in block.insts:
            if inst.op == "callsub":
                assert module is not None
                called = module.functions[inst.symbol]
                values[inst] = run(called, io, module, tuple(_get(a, values) for a in inst.args))
            else:
                values[inst] = _step(inst, values, slots, io)
        end = block.end
        assert end is not None
        if end.op == "ret":
            return _get(end.args[0], values) & (1 << 64) - 1
        if end.op == "jump":
            target, given = end.targets[0]
        else:
            target, given = end.targets[0 if _get(end.args[0], values) else 1]
        block, passed = target, [_get(a, values) for a in given]
    raise RuntimeError("too many steps")


def _get(v: Value, values: dict[Value, object]):  # type: ignore[no-untyped-def]
    if isinstance(v, Const):
        return v.imm & (1 << WIDTH.get(v.type, 64)) - 1
    return values[v]


def _step(inst: Inst, values: dict[Value, object], slots: dict[Inst, bytearray], io: bytearray):  # type: ignore[no-untyped-def]
    op = inst.op
    a = [_get(v, values) for v in inst.args]
    if op in BINARY or op in COMPARE:
        return evaluate(op, a[0], a[1], WIDTH[inst.args[0].type])
    mask = (1 << WIDTH[inst.type]) - 1 if inst.type in WIDTH else 0
    if op in ("zext", "trunc", "opaque"):
        return a[0] & mask
    if op == "cast":
        return a[0]
    if op == "sext":
        return _signed(a[0], WIDTH[inst.args[0].type]) & mask
    if op == "neg":
        return -a[0] & mask
    if op == "bswap":
        return int.from_bytes(a[0].to_bytes(bytes_of(inst.type), "little"), "big")
    if op == "bound":
        return a[0] & inst.imm if inst.imm & inst.imm + 1 == 0 and not inst.low else max(min(a[0], inst.imm), inst.low)
    if op == "alloca":
        return slots.setdefault(inst, bytearray(inst.size)), 0
    if op == "map_value":
        return io, inst.imm
    if op == "ptradd":
        return a[0][0], a[0][1] + _signed(a[1], 64)
    return _access(inst, a)


def _access(inst: Inst, a: list):  # type: ignore[no-untyped-def, type-arg]
    """What instructions do to memory."""
    op = inst.op
    if op == "call" and inst.symbol == "get_prandom_u32":
        return 0xDEAD  # programs must not depend on it
    if op == "call" and inst.symbol == "probe_read_kernel":
        (memory, at), size, (source, start) = a
        memory[at : at + size] = source[start : start + size]
        return 0
    memory, at = a[0]
    at += inst.offset
    if op == "load":
        return int.from_bytes(memory[at : at + bytes_of(inst.type)], "little") & (1 << WIDTH[inst.type]) - 1
    if op == "store":
        size = bytes_of(inst.args[1].type)
        memory[at : at + size] = (a[1] & (1 << WIDTH[inst.args[1].type]) - 1).to_bytes(size, "little")
    elif op == "memset":
        memory[at : at + inst.size] = bytes([inst.imm & 255]) * inst.size
    elif op == "memcpy":
        source, start = a[1]
        start += inst.src_offset
        memory[at : at + inst.size] = source[start : start + inst.size]
    else:
        raise NotImplementedError(op)
    return None


def _signed(n: int, width: int) -> int:
    n &= (1 << width) - 1
    return n - (1 << width) if n >> width - 1 else n


def evaluate(op: str, a: int, b: int, width: int) -> int:
    """The meaning of the binary operations, written independently of the compiler's folding."""
    mask = (1 << width) - 1
    a, b, sa, sb = a & mask, b & mask, _signed(a, width), _signed(b, width)
    shift = b & (63 if width == 64 else 31)
    if op in ("udiv", "umod"):
        return (a // b if op == "udiv" else a % b) if b else (0 if op == "udiv" else a)
    if op in ("sdiv", "smod"):
        quotient = (abs(sa) // abs(sb)) * (1 if (sa < 0) == (sb < 0) else -1) if b else 0
        return (quotient if op == "sdiv" else sa - quotient * sb) & mask
    table = {
        "add": a + b, "sub": a - b, "mul": a * b, "and": a & b, "or": a | b, "xor": a ^ b, "shl": a << shift,
        "lshr": a >> shift, "ashr": sa >> shift, "eq": a == b, "ne": a != b, "ult": a < b, "ule": a <= b, "ugt": a > b,
        "uge": a >= b, "slt": sa < sb, "sle": sa <= sb, "sgt": sa > sb, "sge": sa >= sb,
    }  # fmt: skip
    return int(table[op]) & mask


class Generator:
    """Makes one random function: arithmetic of all widths, branches, loops with a bound, variables in slots."""

    def __init__(self, seed: int, size: int = 30, *, variable_stack_places: bool = True) -> None:
        self.random = random.Random(seed)
        self.size = size
        self.variable_stack_places = variable_stack_places  # old kernels refuse them
        self.module = Module()
        self.module.add_map(MapSpec("io", "array", 4, IO_BYTES, 1))
        self.function = Function("fuzz", [Param("ptr.ctx", "ctx")], program="raw_tracepoint")
        self.b = Builder(self.module, self.function)
        self.pools: dict[str, list[Value]] = {t: [] for t in (*TYPES, I1)}
        self.slots = [(self.b.alloca(8), I64), (self.b.alloca(4, 4), I32), (self.b.alloca(1, 1), I8)]
        self.areas = [self.b.alloca(AREA_BYTES), self.b.alloca(AREA_BYTES), self.b.alloca(AREA_BYTES)]

    def make(self) -> Module:
        b = self.b
        for i in range(INPUTS):
            value = b.load(I64, b.map_value("io", 8 * i))
            self.pools[I64].append(value)
            for t in (I8, I16, I32):
                if self.random.random() < 0.4:
                    self.pools[t].append(b.load(t, b.map_value("io", 8 * i)))
        for slot, t in self.slots:
            b.store(slot, self.pick(t))
        for area in self.areas:
            b.memset(area, AREA_BYTES, self.random.choice((0, 0xA5)), align=8)
        self.body(self.size, 0)
        self.results()
        b.ret(self.pick(I64))
        return self.module

    def results(self) -> None:
        """Write a sample of all live values where the caller can see them."""
        at = 8 * INPUTS
        for t in (*TYPES, I1):
            for value in self.random.sample(self.pools[t], min(8, len(self.pools[t]))):
                self.b.store(self.b.map_value("io", at), value)
                at += 8
        for area in self.areas:
            self.b.memcpy(self.b.map_value("io", at), area, AREA_BYTES, align=8)
            at += AREA_BYTES

    def pick(self, t: str) -> Value:
        if not self.pools[t] or self.random.random() < 0.15:
            return Const(self.random.choice(INTERESTING) & (1 << WIDTH[t]) - 1, t)
        recent = self.pools[t][-12:]
        return self.random.choice(recent if self.random.random() < 0.7 else self.pools[t])

    def body(self, budget: int, depth: int) -> None:
        while budget > 0:
            kind = self.random.random()
            if kind < 0.62 or depth > 2:
                self.arithmetic()
                budget -= 1
            elif kind < 0.7:
                self.variable()
                budget -= 1
            elif kind < 0.78:
                self.memory()
                budget -= 1
            elif kind < 0.8:
                self.call()
                budget -= 2
            elif kind < 0.92:
                self.diamond(depth)
                budget -= 6
            else:
                self.loop(depth)
                budget -= 8

    def arithmetic(self) -> None:
        t = self.random.choice(TYPES)
        kind = self.random.random()
        if kind < 0.7:
            op = self.random.choice(OPS)
            a, c = self.pick(t), self.pick(t)
            if isinstance(a, Const) and isinstance(c, Const):
                a = self.b.load(t, self.b.map_value("io", 0))
            if op in ("shl", "lshr", "ashr") and isinstance(c, Const):
                c = Const(c.imm % WIDTH[t], t)
            elif op in ("shl", "lshr", "ashr"):
                c = self.b.binary("and", c, WIDTH[t] - 1)
            self.pools[t].append(self.b.binary(op, a, c))
        elif kind < 0.8:
            self.pools[t].append(self.b.convert("zext", self.flag(), t))
        elif kind < 0.86:
            self.pools[t].append(self.b.unary("neg", self.value(t)))
        elif kind < 0.9 and t != I8:
            self.pools[t].append(self.b.unary("bswap", self.value(t)))
        else:
            source = self.random.choice(TYPES)
            value = self.value(source)
            if WIDTH[source] > WIDTH[t]:
                self.pools[t].append(self.b.convert("trunc", value, t))
            elif WIDTH[source] < WIDTH[t]:
                self.pools[t].append(self.b.convert(self.random.choice(("zext", "sext")), value, t))

    def value(self, t: str) -> Value:
        v = self.pick(t)
        return self.b.load(t, self.b.map_value("io", 8)) if isinstance(v, Const) else v

    def condition(self) -> Value:
        """A comparison, one that was made before, or a flag; sometimes a number, of which any but 0 is true."""
        kind = self.random.random()
        if kind < 0.3 and self.pools[I1]:
            return self.pick(I1)
        t = self.random.choice(TYPES)
        if kind > 0.9:
            return self.value(t)
        made = self.b.binary(self.random.choice(COMPARISONS), self.value(t), self.pick(t))
        self.pools[I1].append(made)
        return made

    def flag(self) -> Value:
        """A value of one bit that is not a constant."""
        condition = self.condition()
        if condition.type == I1 and not isinstance(condition, Const):
            return condition
        return self.b.binary("ne", self.value(I64), 0)

    def variable(self) -> None:
        slot, t = self.random.choice(self.slots)
        if self.random.random() < 0.5:
            self.pools[t].append(self.b.load(t, slot))
        else:
            self.b.store(slot, self.pick(t))

    def memory(self) -> None:
        """Something with the areas: parts of them, copies, clearing, computed places, a helper that copies."""
        b, chance = self.b, self.random
        area, other = chance.sample(self.areas, 2)
        t = chance.choice(TYPES)
        size = bytes_of(t)
        offset = chance.randrange(AREA_BYTES // size) * size
        kind = chance.randrange(8)
        if kind < 2:
            self.pools[t].append(b.load(t, b.ptradd(area, offset)))
        elif kind < 4:
            b.store(area, self.pick(t), offset)
        elif kind == 4:
            b.memset(
                area,
                size * chance.choice((1, 2)),
                chance.choice((0, 0x11)),
                offset=min(offset, AREA_BYTES - 16),
                align=size,
            )
        elif kind == 5:
            length = chance.randint(1, AREA_BYTES - 8)
            b.memcpy(area, other, length, offset=8 * chance.randrange(2) * (length <= 16), align=8)
        elif kind == 6 and self.variable_stack_places:
            place = b.ptradd(area, b.bound(self.value(I64), AREA_BYTES - 1))
            if chance.random() < 0.5:
                self.pools[I8].append(b.load(I8, place))
            else:
                b.store(place, self.pick(I8))
        else:
            length = chance.randint(1, AREA_BYTES - offset)
            source = b.convert("cast", b.ptradd(other, chance.randrange(AREA_BYTES - length + 1)), I64)
            b.call("probe_read_kernel", [b.ptradd(area, offset), length, source])

    def call(self) -> None:
        """A helper that destroys registers, or a function of our own."""
        b = self.b
        if self.random.random() < 0.6:
            self.pools[I64].append(b.binary("and", b.call("get_prandom_u32"), 0))
            return
        if len(self.module.functions) < 3:
            self.function_of_our_own()
        name = self.random.choice([n for n in self.module.functions if n != "fuzz"])
        function = self.module.functions[name]
        self.pools[I64].append(b.callsub(function, [self.pick(I64) for _ in function.params]))

    def function_of_our_own(self) -> None:
        """Add a small function with a branch in it."""
        params = [Param(I64, f"a{i}") for i in range(self.random.randint(1, 4))]
        function = Function(f"sub{len(self.module.functions)}", list(params))
        b = Builder(self.module, function)
        values: list[Value] = list(params)
        for _ in range(self.random.randint(1, 5)):
            values.append(b.binary(self.random.choice(OPS[:3]), self.random.choice(values), self.random.choice(values)))
        yes, no = b.new_block("yes"), b.new_block("no")
        b.branch(b.binary(self.random.choice(COMPARISONS), values[-1], values[0]), yes, no)
        b.at(yes)
        b.ret(b.binary("xor", values[-1], 0x1234))
        b.at(no)
        b.ret(b.load(I64, b.map_value("io", 8)))

    def diamond(self, depth: int) -> None:
        b = self.b
        types = [self.random.choice((*TYPES, I1)) for _ in range(self.random.randint(0, 3))]
        yes, no, join = b.new_block("yes"), b.new_block("no"), b.new_block("join", types)
        b.branch(self.condition(), yes, no)
        saved = {t: list(pool) for t, pool in self.pools.items()}
        for block in (yes, no):
            b.at(block)
            self.pools = {t: list(pool) for t, pool in saved.items()}
            self.body(self.random.randint(0, 4), depth + 1)
            b.jump(join, *[self.pick(t) for t in types])
        self.pools = saved
        b.at(join)
        for param in join.params:
            self.pools[param.type].append(param)

    def loop(self, depth: int) -> None:
        """A loop of 1 to 4 rounds whose other parameters change places."""
        b = self.b
        types = [self.random.choice(TYPES) for _ in range(2)]
        types.append(types[0])
        head, inside, out = b.new_block("head", [I64, *types]), b.new_block("inside"), b.new_block("out")
        b.jump(head, Const(0), *[self.pick(t) for t in types])
        b.at(head)
        counter, *carried = head.params
        b.branch(b.binary("ult", counter, self.random.randint(1, 4)), inside, out)
        b.at(inside)
        saved = {t: list(pool) for t, pool in self.pools.items()}
        for p in carried:
            self.pools[p.type].append(p)
        self.body(self.random.randint(0, 3), depth + 1)
        swapped = [carried[2], self.pick(types[1]), carried[0]]
        b.jump(head, b.binary("add", counter, 1), *swapped)
        self.pools = saved
        b.at(out)
        for p in carried:
            self.pools[p.type].append(p)


def random_inputs(seed: int) -> bytearray:
    """Return the map's memory with random inputs, odd values often."""
    chance = random.Random(seed)
    io = bytearray(IO_BYTES)
    for i in range(INPUTS):
        value = chance.choice(INTERESTING) if chance.random() < 0.5 else chance.getrandbits(64)
        io[8 * i : 8 * i + 8] = value.to_bytes(8, "little")
    return io


def copy_module(module: Module) -> Module:
    """Return a deep copy by way of the text form."""
    from sonde.compiler.text import format_module, parse_module

    return parse_module(format_module(module))


def blocks_of(module: Module) -> list[Block]:
    """Return the blocks of the only function."""
    return next(iter(module.functions.values())).blocks

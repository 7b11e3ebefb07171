"""What random integer functions do not reach: copies, big slots, per-CPU data, helpers that call back, atomics, bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sonde.compiler.builder import Builder
from sonde.compiler.ir import I8, I16, I32, I64, MAP, Function, Module, Param, Value
from sonde.compiler.pipeline import compile_module
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.spec.object import MapSpec, ObjectSpec

pytestmark = pytest.mark.kernel
KEY = bytes(4)


def run(build: Callable[[Builder, Module], Value | int], *, maps: tuple[MapSpec, ...] = (), rounds: int = 1) -> int:
    """Build, load and run a program; return the 64-bit result that it stores."""
    module = Module()
    module.add_map(MapSpec("io", "array", 4, 64, 1))
    for spec in maps:
        module.add_map(spec)
    function = Function("main", [Param("ptr.ctx", "ctx")], program="raw_tracepoint")
    b = Builder(module, function)
    result = build(b, module)
    b.store(b.map_value("io"), b.const(result) if isinstance(result, int) else result)
    b.ret(0)
    compiled = compile_module(module, live_target())
    with KernelEngine().load(ObjectSpec(compiled.programs, compiled.maps)) as loaded:
        for _ in range(rounds):
            loaded.run("main")
        values = loaded.maps["io"].lookup(KEY)
        assert values is not None
        return int.from_bytes(values[0][:8], "little")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 16, 31])
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_memcpy_and_memset(size: int, offset: int) -> None:
    def build(b: Builder, _: Module) -> Value:
        source, target = b.alloca(40), b.alloca(40)
        b.memset(source, 40, 0xAB, align=8)
        b.memset(target, 40, 0, align=8)
        b.store(source, b.const(0x11, I8), offset)
        b.memcpy(target, source, size, offset=offset, src_offset=offset)
        last = b.convert("zext", b.load(I8, target, offset + size - 1), I64)
        first = b.convert("zext", b.load(I8, target, offset), I64)
        beyond = b.convert("zext", b.load(I8, target, offset + size), I64)
        return b.binary("or", b.binary("or", b.binary("shl", beyond, 16), b.binary("shl", last, 8)), first)

    assert run(build) == (0x1111 if size == 1 else 0xAB11)


@pytest.mark.parametrize("offset", range(8))
@pytest.mark.parametrize("type_", [I16, I32, I64])
def test_the_stack_at_any_address(offset: int, type_: str) -> None:
    """Members of packed structs: the verifier wants every access to the stack aligned."""
    number = 0x7766554433221100 + offset
    mask = (1 << {I16: 16, I32: 32, I64: 64}[type_]) - 1

    def build(constant: bool) -> Callable[[Builder, Module], Value]:
        def body(b: Builder, _: Module) -> Value:
            given, slot, other = b.map_value("given"), b.alloca(24), b.alloca(24)
            b.store(given, b.const(number))
            b.memset(slot, 24, 0xFF, align=8)
            value: Value = b.load(type_, given) if not constant else b.const(number & mask, type_)
            b.store(slot, value, offset)
            b.call(
                "probe_read_kernel", [other, 24, slot]
            )  # the store has to be in memory, and the load to come from there
            read = b.load(type_, other, offset)
            wide = read if type_ == I64 else b.convert("zext", read, I64)
            beyond = b.convert("zext", b.load(I8, other, offset + mask.bit_length() // 8), I64)
            return b.binary("add", wide, b.binary("sub", beyond, 0xFF))

        return body

    maps = (MapSpec("given", "array", 4, 8, 1),)
    assert run(build(False), maps=maps) == number & mask
    assert run(build(True), maps=maps) == number & mask


def test_slots_beyond_the_stack_go_to_scratch() -> None:
    def build(b: Builder, _: Module) -> Value:
        big = [b.alloca(300) for _ in range(4)]
        for i, slot in enumerate(big):
            b.memset(slot, 300, i + 1, align=8)
        b.call("get_current_comm", [big[0], 16])
        total: Value = b.convert("zext", b.load(I8, big[1], 299), I64)
        for slot in big[2:]:
            total = b.binary("add", b.binary("mul", total, 10), b.convert("zext", b.load(I8, slot, 299), I64))
        return total

    assert run(build) == 234


def test_many_values_across_calls_are_spilled() -> None:
    def build(b: Builder, _: Module) -> Value:
        values = [b.binary("and", b.call("get_prandom_u32"), 0) for _ in range(20)]
        values = [b.binary("add", b.call("ktime_get_ns") if i == 19 else v, i) for i, v in enumerate(values)]
        values[19] = b.binary("sub", values[19], values[19])
        total: Value = values[0]
        for v in values[1:]:
            total = b.binary("add", total, v)
        return total

    assert run(build) == sum(range(19))


def test_percpu_value_is_looked_up_once() -> None:
    spec = MapSpec("percpu", "percpu_array", 4, 32, 1)

    def build(b: Builder, module: Module) -> Value:
        for offset in (0, 8, 16):
            p = b.percpu_value("percpu", offset)
            b.store(p, b.binary("add", b.load(I64, p), offset + 1))
        return b.load(I64, b.percpu_value("percpu", 16))

    assert run(build, maps=(spec,), rounds=3) == 51
    module = Module()
    module.add_map(spec)
    b = Builder(module, Function("main", [Param("ptr.ctx", "ctx")], program="raw_tracepoint"))
    build(b, module)
    b.ret(0)
    program = compile_module(module, live_target()).programs[0]
    assert program.helpers == ("map_lookup_elem",)
    assert [r.symbol for r in program.relocs] == ["percpu"]


def test_callback_of_bpf_loop() -> None:
    target = live_target()
    if not target.features.have("helper:loop"):
        pytest.skip("the kernel has no bpf_loop")

    def build(b: Builder, module: Module) -> Value:
        callback = Function("each", [Param(I64, "index"), Param("ptr.stack", "state")], callback=True)
        c = Builder(module, callback)
        index, state = callback.params
        c.store(state, c.binary("add", c.load(I64, state), index))
        c.ret(0)
        state_slot = b.alloca(8)
        b.store(state_slot, b.const(0))
        b.call("loop", [10, b.funcaddr(callback), state_slot, 0])
        return b.load(I64, state_slot)

    assert run(build) == 45


def test_subprogram_call() -> None:
    def build(b: Builder, module: Module) -> Value:
        square = Function("square", [Param(I64, "x")])
        c = Builder(module, square)
        c.ret(c.binary("mul", square.params[0], square.params[0]))
        value = b.binary("and", b.call("ktime_get_ns"), 0)
        return b.callsub(square, [b.binary("add", value, 12)])

    assert run(build) == 144


@pytest.mark.parametrize("type_", [I32, I64])
def test_atomics(type_: str) -> None:
    spec = MapSpec("data", "array", 4, 16, 1)

    def build(b: Builder, _: Module) -> Value:
        p = b.map_value("data")
        b.atomic("add", p, b.const(5, type_))
        old = b.atomic("add", p, b.const(2, type_), fetch=True)
        b.atomic("or", p, b.const(8, type_))
        swapped = b.atomic("xchg", p, b.const(100, type_))
        compared = b.atomic("cmpxchg", p, b.const(7, type_), expected=b.const(100, type_))
        parts = [old, swapped, compared, b.load(type_, p)]
        total: Value = b.const(0)
        for part in parts:
            wide = b.convert("zext", part, I64)
            total = wide if part is old else b.binary("add", b.binary("mul", total, 1000), wide)
        return total

    assert run(build, maps=(spec,)) == 5_015_100_007


def test_bound_lets_the_verifier_accept_a_variable_offset() -> None:
    def build(b: Builder, _: Module) -> Value:
        p = b.map_value("io", 8)
        index = b.bound(b.call("get_prandom_u32"), 31)
        b.store(b.ptradd(p, index), b.const(1, I8))
        clamped = b.bound(b.call("ktime_get_ns"), 40)
        b.store(b.ptradd(p, clamped), b.const(2, I8))
        return b.bound(b.binary("and", b.call("ktime_get_ns"), 0), 10, low=3)

    assert run(build) == 3


def test_map_value_memory_may_be_null_checked_and_used() -> None:
    spec = MapSpec("table", "hash", 4, 8, 16)

    def build(b: Builder, _: Module) -> Value:
        key, one = b.alloca(4, 4), b.alloca(8)
        b.store(key, b.const(7, I32))
        b.store(one, b.const(1))
        found, absent, done = b.new_block("found"), b.new_block("absent"), b.new_block("done", [I64])
        value = b.call("map_lookup_elem", [b.map("table"), key], MAP)
        b.branch(b.binary("ne", value, 0), found, absent)
        b.at(found)
        b.atomic("add", value, b.const(1))
        b.jump(done, b.load(I64, value))
        b.at(absent)
        b.call("map_update_elem", [b.map("table"), key, one, 0])
        b.jump(done, b.const(0))
        b.at(done)
        return done.params[0]

    assert run(build, maps=(spec,), rounds=4) == 4


def test_narrow_results_are_clean() -> None:
    def build(b: Builder, _: Module) -> Value:
        narrow = b.convert("trunc", b.call("ktime_get_ns"), I16)
        zero = b.binary("sub", narrow, narrow)
        minus = b.binary("sub", zero, 1)
        return b.convert("zext", minus, I64)

    assert run(build) == 0xFFFF

"""Stack frames, register allocation, far jumps, relocations, line information: what programs look like when they are done."""

from __future__ import annotations

from itertools import pairwise

import pytest
from fake_target import make_target
from ir_machine import Generator, copy_module

from sonde.bpf.isa import GOTOL, decode, iter_pcs
from sonde.compiler.builder import Builder
from sonde.compiler.frame import Frame
from sonde.compiler.ir import CTX, I8, I64, Function, Inst, Module, Param
from sonde.compiler.lower import lower
from sonde.compiler.machine import FIRST_VIRTUAL
from sonde.compiler.pipeline import compile_module
from sonde.compiler.regalloc import allocate
from sonde.compiler.text import parse_module
from sonde.errors import CompileError, FeatureError, Span
from sonde.spec.object import CoreAccess, MapSpec, ProgramSpec

STORE_ON_STACK, LOAD_FROM_STACK = 0x7B, 0x79


def start() -> Builder:
    module = Module()
    module.add_map(MapSpec("io", "array", 4, 64, 1))
    return Builder(module, Function("main", [Param(CTX, "ctx")], program="raw_tracepoint"))


def finish(b: Builder, without: tuple[str, ...] = ()) -> ProgramSpec:
    return compile_module(b.module, make_target(without)).programs[0]


def test_slots_used_one_after_the_other_share_their_place() -> None:
    b = start()
    for i in range(5):
        slot = b.alloca(200)
        b.memset(slot, 200, i, align=8)
        b.call("trace_printk", [slot, 200])
    b.ret(0)
    compiled = compile_module(b.module, make_target())
    assert compiled.programs[0].stack_bytes < 300
    assert "scratch" not in [spec.name for spec in compiled.maps]


def test_slots_in_use_at_once_do_not_overlap() -> None:
    b = start()
    slots = [b.alloca(size, align) for size, align in ((1, 1), (8, 8), (3, 1), (16, 8), (2, 2), (4, 4))]
    for slot in slots:
        b.memset(slot, slot.size)
    b.call("get_prandom_u32")
    for slot in slots:
        b.call("trace_printk", [slot, slot.size])
    b.ret(0)
    frame = Frame(b.function, 512)
    places = sorted((offset, offset + slot.size) for slot, offset in frame.slots.items())
    assert all(end <= begin for (_, end), (begin, _) in pairwise(places))
    assert all(offset % slot.align == 0 for slot, offset in frame.slots.items())
    assert places[-1][1] <= 0 and places[0][0] >= -frame.size


def test_wide_slots_go_to_scratch_each_program_in_its_own_part() -> None:
    module = Module()
    for name in ("one", "two"):
        b = Builder(module, Function(name, [Param(CTX, "ctx")], program="raw_tracepoint"))
        big, small = b.alloca(600), b.alloca(16)
        for slot in (big, small):
            b.memset(slot, slot.size, align=8)
        b.call("trace_printk", [big, 600])
        b.call("trace_printk", [small, 16])
        b.ret(0)
    compiled = compile_module(module, make_target())
    (scratch,) = [spec for spec in compiled.maps if spec.name == "scratch"]
    assert (scratch.type, scratch.max_entries, scratch.value_size) == ("percpu_array", 1, 1200)
    assert all(program.stack_bytes <= 64 for program in compiled.programs)
    assert all([r.symbol for r in program.relocs] == ["scratch"] for program in compiled.programs)


@pytest.mark.parametrize("seed", range(30))
def test_allocation_leaves_machine_registers_only(seed: int) -> None:
    module = copy_module(Generator(seed, 60).make())
    function = module.functions["fuzz"]
    frame = Frame(function, 512)
    blocks, keep = lower(function, frame, make_target())
    allocate(blocks, frame, keep)
    for block in blocks:
        for op in block.ops:
            assert all(r < FIRST_VIRTUAL for r in (*op.uses(), *op.defs(), op.dst, op.src))


def test_constants_are_made_again_rather_than_kept_on_the_stack() -> None:
    """Ten constants in use across a call do not fit into four registers, and need no stack."""
    b = start()
    numbers = [b.emit(Inst("const", I64, [], imm=0x1234_5678_9ABC_0000 + i)) for i in range(10)]
    b.call("get_prandom_u32")
    p = b.map_value("io")
    for number in numbers:
        b.store(p, number, volatile=True)
    b.ret(0)
    compiled = compile_module(b.module, make_target(), optimised=False)
    assert compiled.programs[0].stack_bytes == 0


def test_far_jumps_need_the_newest_instructions() -> None:
    def build() -> Builder:
        b = start()
        p = b.map_value("io")
        big, end = b.new_block("big"), b.new_block("end")
        b.branch(b.binary("eq", b.load(I64, p), 5), big, end)
        b.at(big)
        for i in range(33_000):
            b.store(p, b.const(i & 127, I8), volatile=True)
        b.jump(end)
        b.at(end)
        b.store(p, b.binary("add", b.load(I64, p), 1))
        b.ret(0)
        return b

    insns = decode(finish(build()).insns)
    starts = {pc for pc, _ in iter_pcs(insns)}
    far = [(pc, insn) for pc, insn in iter_pcs(insns) if insn.opcode == GOTOL]
    assert far and all(pc + 1 + insn.imm in starts for pc, insn in far)
    with pytest.raises(FeatureError) as caught:
        finish(build(), without=("isa:v4",))
    assert caught.value.feature == "isa:v4"


def test_functions_that_call_themselves_are_refused() -> None:
    b = start()
    loop = Function("loop", [Param(I64, "x")])
    inner = Builder(b.module, loop)
    inner.ret(inner.callsub(loop, [loop.params[0]]))
    b.ret(b.callsub(loop, [b.const(1)]))
    with pytest.raises(CompileError, match="calls itself"):
        finish(b)


def test_core_accesses_are_relocated_where_their_value_went() -> None:
    b = start()
    task = b.call("get_current_task_btf", [], "ptr.btf")
    pid = CoreAccess("field_byte_offset", "struct task_struct", ("pid",), 2472)
    comm = CoreAccess("field_byte_offset", "struct task_struct", ("comm",), 3000)
    exists = CoreAccess("field_exists", "struct task_struct", ("pid",), 1)
    slot = b.alloca(16)
    number = b.load("i32", b.ptradd(task, b.core(pid)))
    b.call("probe_read_kernel", [slot, 16, b.convert("cast", b.ptradd(task, b.core(comm)), I64)])
    total = b.binary("add", b.binary("add", b.convert("zext", number, I64), b.core(exists)), b.load(I64, slot))
    b.ret(total)
    program = finish(b)
    insns = dict(iter_pcs(decode(program.insns)))
    found = {r.core: insns[r.pc] for r in program.relocs if r.kind == "core"}
    assert set(found) == {pid, comm, exists}
    assert found[pid].off == 2472 and found[pid].opcode & 7 == 1  # the load itself
    assert found[comm].imm == 3000
    assert found[exists].imm == 1


def test_lines_follow_the_spans() -> None:
    b = start()
    spans = [Span("x", line, 1, line, 5) for line in (1, 2, 3)]
    p = b.map_value("io")
    for i, span in enumerate(spans):
        b.span = span
        b.store(p, b.call("ktime_get_ns"), 8 * i)
    b.ret(0)
    program = finish(b)
    assert [line.span.line for line in program.lines] == [1, 2, 3]
    assert [line.pc for line in program.lines] == sorted({line.pc for line in program.lines})
    assert program.helpers == ("ktime_get_ns",)


def test_null_check_needs_no_second_zero() -> None:
    """Where a pointer was just found to be null, the zero to return is there."""
    text = """
map @m hash key=4 value=8 max_entries=1
func @p(%ctx: ptr.ctx) -> i64 program=raw_tracepoint {
entry:
  %key = alloca size=4 align=4
  store %key, 1:i32
  %m = map @m
  %v = call.ptr.map @map_lookup_elem %m, %key
  %found = ne.i1 %v, 0:ptr.map
  branch %found, yes(), no()
yes():
  %n = load.i64 %v
  ret %n
no():
  ret 0
}
"""
    program = compile_module(parse_module(text), make_target()).programs[0]
    assert len(program.insns) // 8 == 9  # key, r2 (2), r1 (2), call, if, load, exit


def test_what_a_comparison_bounds_for_an_offset_stays_in_a_register() -> None:
    """Verifiers before Linux 6.8 forget what was stored on the stack before it was compared, and refuse the offset."""
    b = start()
    index = b.load(I64, b.function.params[0])
    inside, outside = b.new_block("inside"), b.new_block("outside")
    b.branch(b.binary("ult", index, 8), inside, outside)
    b.at(inside)
    others = [b.call("get_prandom_u32") for _ in range(5)]  # more that live across calls than there are registers for
    for _ in range(3):
        b.call("send_signal", [0])
        for other in others:
            b.atomic("add", b.map_value("io"), b.binary("mul", other, other))
    b.atomic("xor", b.ptradd(b.map_value("io"), b.binary("shl", index, 3)), others[0])
    b.jump(outside)
    b.at(outside)
    b.ret(0)
    insns = decode(finish(b).insns)
    stored = [insn.src for insn in insns if insn.opcode == STORE_ON_STACK and insn.dst == 10]
    assert stored, "the test wants more values than there are registers"
    compared = next(insn for insn in insns if insn.opcode & 7 in (5, 6) and insn.imm in (7, 8))
    before = insns[: insns.index(compared)]
    assert not [insn for insn in before if insn.opcode == STORE_ON_STACK and insn.src == compared.dst]
    shifted = next(i for i, insn in enumerate(insns) if insn.opcode & 0xF0 == 0x60 and insn.imm == 3)
    source = insns[shifted - 1] if insns[shifted - 1].dst == insns[shifted].dst else insns[shifted]
    assert source.opcode != LOAD_FROM_STACK

"""Which calls of map helpers a program's machine code carries out itself: what it must know of the maps, and where a call works on which map."""

from __future__ import annotations

from ...record import Record
from ..isa import CALL, LDDW, Insn
from ..maps.layout import MapLayout, layout_of
from ..maps.machine import FINISHERS, LOOP, has_routine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..maps import SharedMap
    from ..maps.machine import Routine

LOOKUP = 1  # bpf_map_lookup_elem
CPU_NUMBER = 8  # bpf_get_smp_processor_id
_NO_MAP = -1
_MOV64 = 0xBF

BY_ADDRESS, BY_RSEQ, BY_FRAME = "cpu", "rseq", "frame"


class MapPlan(Record, eq=False):
    """What the JIT does itself: layouts of maps by their number in the code. Helpers of other maps are called as any helper is.

    `cpu` says how machine code learns the number of the running CPU:

    BY_ADDRESS  from a u32 whose address is filled in when the code is placed (relocation "cpu")
    BY_RSEQ     from the thread's rseq area, which glibc registers since 2.35: the offset of its field cpu_id from the thread pointer (`__rseq_offset` + 4) is
                filled in (relocation "rseq"); where that is no CPU's number, since nobody registered the area, `cpu_fallback` is taken
    BY_FRAME    from the u32 that register r12 (x86-64) or x23 (aarch64) points to, which programs leave alone; it is below the number of copies, and that number plus 1 is
                what claims of maps get as their owner

    A number that is not below the map's number of copies becomes `cpu_fallback` as well, so that no copy outside the map is ever touched.
    """

    layouts: Mapping[int, MapLayout]
    cpu: str = BY_ADDRESS
    cpu_fallback: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """What tells plans apart."""
        return (frozenset(self.layouts.items()), self.cpu, self.cpu_fallback)


def make_plan(tables: Mapping[int, SharedMap], *, cpu: str = BY_ADDRESS, cpu_fallback: int = 0) -> MapPlan:
    """Return the plan for the maps of a program, by their numbers in the code."""
    found = {number: layout_of(table) for number, table in tables.items()}
    return MapPlan({number: layout for number, layout in found.items() if layout is not None}, cpu, cpu_fallback)


def find_calls(body: Sequence[tuple[int, Insn]], leaders: frozenset[int], plan: MapPlan) -> dict[int, int]:
    """Return the map numbers of calls that the plan covers, by pc: where the same straight run loads the map before.

    `leaders` are the pcs that jumps lead to, where nothing is known. Calls that finish a ring's record name no map: they get that of any ring of the plan.
    Helpers that work on no map (the number of the CPU, bpf_loop) have the number -1.
    """
    found: dict[int, int] = {}
    known: dict[int, int] = {}  # register to map number
    for pc, insn in body:
        if pc in leaders:
            known.clear()
        class_ = insn.opcode & 7
        if insn.opcode == LDDW and insn.src in (1, 5):
            known[insn.dst] = insn.imm & 0xFFFFFFFF
        elif insn.opcode & ~8 == CALL:
            number = _planned(insn, known.get(1, _NO_MAP), plan)
            if number is not None:
                found[pc] = number
            for register in range(6):
                known.pop(register, None)
        elif insn.opcode == _MOV64 and insn.off == 0 and insn.src in known:
            known[insn.dst] = known[insn.src]
        elif class_ in (0, 1, 4, 7):
            known.pop(insn.dst, None)
            if class_ == 0:
                known.pop(0, None)
        elif class_ == 3 and insn.opcode & 0xE0 == 0xC0:  # atomics may change either, and r0
            for register in (insn.dst, insn.src, 0):
                known.pop(register, None)
    return found


def _planned(insn: Insn, number: int, plan: MapPlan) -> int | None:
    """The number of the map that a call works on, when the plan covers the call."""
    if insn.opcode != CALL or insn.src != 0:
        return None
    if insn.imm == LOOP or (insn.imm == CPU_NUMBER and plan.cpu == BY_RSEQ):
        return _NO_MAP
    if insn.imm in FINISHERS:
        number = next((n for n, layout in plan.layouts.items() if layout.kind == "ringbuf"), _NO_MAP)
    layout = plan.layouts.get(number)
    return number if layout is not None and has_routine(layout, insn.imm) else None


def routine_text(routine: Routine, arch: str, features: frozenset[str]) -> bytes:
    """Return the machine code of a routine: position-independent, without relocations."""
    from . import translate

    code = translate(routine.insns, arch, features=features, stack_bytes=routine.stack_bytes)
    assert not code.relocs
    return code.text

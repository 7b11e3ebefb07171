"""The compiler's door: an IR module and a target in, programs and maps out. A pure function: same input, same bytes."""

from __future__ import annotations

from ..record import Record
from ..spec.object import MapSpec, ProgramSpec, StackSlot
from .emit import Code
from .frame import STACK_BYTES, Frame
from .lower import lower
from .lowering import SCRATCH_MAP
from .passes import optimise
from .passes.inline import called, callees_first, inline
from .peephole import drop_known
from .regalloc import allocate
from .tidy import tidy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..spec.target import Target
    from .ir import Function, Module
    from .machine import MBlock

_SHORT = 0x3F00  # operations, of two slots at most, in a function whose jumps reach everywhere
_ROOM_ABOVE = 96  # bytes of stack that each function leaves for every one above it


class CompiledModule(Record, eq=False):
    """What a module compiles to; `maps` are the module's and the scratch map when one is needed."""

    programs: tuple[ProgramSpec, ...]
    maps: tuple[MapSpec, ...]


def compile_module(
    module: Module, target: Target, *, trace: Callable[[str, str], None] | None = None, optimised: bool = True
) -> CompiledModule:
    """Compile every program of `module` for `target`. The module is used up: passes rewrite it in place.

    `trace(stage, text)` gets the IR after each pass that changed something. Raises CompileError for what eBPF cannot do.
    Without `optimised` the IR is compiled as it stands.
    """
    if optimised:
        for function in callees_first(module):
            inline(function, module)
            optimise(function, module.maps, _tracer(function, trace))
    programs = []
    scratch_bytes = 0
    for function in module.functions.values():
        if function.program:
            program, scratch_bytes = _compile_program(module, function, target, scratch_bytes)
            programs.append(program)
    maps = list(module.maps.values())
    if scratch_bytes:
        maps.append(MapSpec(SCRATCH_MAP, "percpu_array", 4, scratch_bytes, 1))
    return CompiledModule(tuple(programs), tuple(maps))


def _tracer(function: Function, trace: Callable[[str, str], None] | None) -> Callable[[str], None] | None:
    if trace is None:
        return None
    from .text import format_function

    return lambda name: trace(name, format_function(function))


def _compile_program(module: Module, function: Function, target: Target, scratch_bytes: int) -> tuple[ProgramSpec, int]:
    """Compile one program and what it calls; its wide scratch lies behind `scratch_bytes`. Returns the end of that."""
    functions = _closure(module, function)
    calls = {f: [module.functions[name] for name in called(f)] for f in functions}
    ready: dict[Function, list[MBlock]] = {}
    frames: dict[Function, Frame] = {}
    below: dict[Function, int] = {}  # function -> stack of it and of the deepest chain of calls that it makes
    for each in callees_first(module, function):
        beneath = max((below[f] for f in calls[each]), default=0)
        budget = STACK_BYTES - beneath - _ROOM_ABOVE * _height(each, function, calls)
        frame, ready[each] = _compile_function(each, target, max(budget, _ROOM_ABOVE), scratch_bytes)
        frames[each] = frame
        below[each] = beneath + (frame.size + 31 & ~31)
        scratch_bytes = frame.scratch_bytes
    code = Code()
    for name in _still_called(function.name, {f.name: ready[f] for f in functions}):
        code.add_function(name, ready[module.functions[name]])
    program = ProgramSpec(
        function.name,
        function.program,
        code.finish(),
        tuple(code.relocs),
        function.attach_type,
        function.attach_btf,
        tuple(code.lines),
        function.license,
        function.sleepable,
        tuple(sorted(code.helpers)),
        below[function],
        tuple(_stack_slots(code, frames)),
    )
    return program, scratch_bytes


def _stack_slots(code: Code, frames: dict[Function, Frame]) -> Iterator[StackSlot]:
    """What lies where on the stacks of the functions that are in the code, for reports."""
    for function, frame in frames.items():
        pc = code.starts.get(function.name)
        if pc is None:
            continue
        for slot, offset in frame.slots.items():
            name = slot.name.rpartition(".")[0]
            yield StackSlot(pc, function.name, "(temporary)" if name == "slot" else name, offset, slot.size)
        if frame.has_key_slot:
            yield StackSlot(pc, function.name, "(key of per-CPU memory)", frame.key_slot, 4)
        for offset in frame.spills:
            yield StackSlot(pc, function.name, "(register)", offset, 8)


def _compile_function(
    function: Function, target: Target, budget: int, scratch_start: int
) -> tuple[Frame, list[MBlock]]:
    """Return the code of a function in layout order. What spilling needs is found by trying."""
    room = budget
    while True:
        frame = Frame(function, room, scratch_start)
        blocks, keep = lower(function, frame, target)
        allocate(blocks, frame, keep)
        if frame.size <= budget or not frame.slots:
            drop_known(blocks, frame.spills)
            return frame, _within_reach(tidy(blocks), target)
        room = max(room - (frame.size - budget), 0)


def _within_reach(blocks: list[MBlock], target: Target) -> list[MBlock]:
    """Mend jumps that are too far, which only a very long function has."""
    if sum(len(block.ops) for block in blocks) < _SHORT:
        return blocks
    from .far import reach_far

    return reach_far(blocks, target)


def _still_called(program: str, ready: dict[str, list[MBlock]]) -> list[str]:
    """Return the functions that the finished code of a program reaches: verifiers refuse others."""
    names = [program]
    for name in names:
        for block in ready[name]:
            for op in block.ops:
                if op.kind == "subprogram" and op.symbol not in names:
                    names.append(op.symbol)
    return names


def _height(function: Function, program: Function, calls: dict[Function, list[Function]]) -> int:
    """Return how many functions may be active above `function`."""
    above = [f for f, callees in calls.items() if function in callees]
    return 0 if function is program else 1 + max(_height(f, program, calls) for f in above)


def _closure(module: Module, function: Function) -> list[Function]:
    """Return `function` and all functions that it reaches, itself first."""
    found = [function]
    for each in found:
        found += [other for name in called(each) if (other := module.functions[name]) not in found]
    return found

"""The compiler's door: an IR module and a target in, programs and maps out. A pure function: same input, same bytes."""

from __future__ import annotations

from ..record import Record
from ..spec.object import MapSpec, ProgramSpec
from .emit import Code
from .frame import CALLEE_BUDGET, STACK_BUDGET, Frame
from .lower import lower
from .lowering import SCRATCH_MAP
from .passes import optimise
from .regalloc import allocate
from .tidy import tidy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..spec.target import Target
    from .ir import Function, Module


class CompiledModule(Record, eq=False):
    """What a module compiles to; `maps` are the module's and the scratch map when one is needed."""

    programs: tuple[ProgramSpec, ...]
    maps: tuple[MapSpec, ...]


def compile_module(
    module: Module, target: Target, *, trace: Callable[[str, str], None] | None = None, optimised: bool = True
) -> CompiledModule:
    """Compile every program of `module` for `target`. `trace(stage, text)` gets the IR after each pass.

    Raises FeatureError when the target lacks what the module needs.
    """
    for function in module.functions.values():
        optimise(function, trace if optimised else None, enabled=optimised)
    scratch_bytes = 0
    programs = []
    for function in module.functions.values():
        if function.program:
            program, used = _compile_program(module, function, target)
            programs.append(program)
            scratch_bytes = max(scratch_bytes, used)
    maps = list(module.maps.values())
    if scratch_bytes:
        maps.append(MapSpec(SCRATCH_MAP, "percpu_array", 4, scratch_bytes, 1))
    return CompiledModule(tuple(programs), tuple(maps))


def _compile_program(module: Module, function: Function, target: Target) -> tuple[ProgramSpec, int]:
    code = Code()
    functions = _closure(module, function)
    stack = scratch = 0
    for each in functions:
        frame = Frame(each, STACK_BUDGET if len(functions) == 1 else STACK_BUDGET - CALLEE_BUDGET)
        blocks, keep = lower(each, frame, target)
        allocate(blocks, frame, keep)
        code.add_function(each.name, tidy(blocks))
        stack = max(stack, frame.size)
        scratch = max(scratch, frame.scratch_bytes)
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
        stack,
    )
    return program, scratch


def _closure(module: Module, function: Function) -> list[Function]:
    """Return `function` and all functions that it reaches, itself first."""
    found = [function]
    for each in found:
        for block in each.blocks:
            for inst in block.insts:
                if inst.op in ("callsub", "funcaddr"):
                    other = module.functions[inst.symbol]
                    if other not in found:
                        found.append(other)
    return found

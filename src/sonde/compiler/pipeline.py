"""The compiler's door: an IR module and a target in, programs and maps out. A pure function: same input, same bytes."""

from __future__ import annotations

from ..record import Record
from ..spec.object import MapSpec, ProgramSpec
from .emit import Code
from .frame import CALLEE_BUDGET, STACK_BUDGET, Frame
from .lower import lower
from .lowering import SCRATCH_MAP
from .passes import optimise
from .peephole import drop_known
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
    """Compile every program of `module` for `target`. The module is used up: passes rewrite it in place.

    `trace(stage, text)` gets the IR after each pass that changed something, and the assembly of each program. Raises
    FeatureError when the target lacks what the module needs. Without `optimised` the IR is compiled as it stands.
    """
    for function in module.functions.values():
        if optimised:
            optimise(function, module.maps, _tracer(function, trace))
    programs = []
    scratch_bytes = 0
    for function in module.functions.values():
        if function.program:
            program, scratch_bytes = _compile_program(module, function, target, scratch_bytes)
            programs.append(program)
            if trace is not None:
                _show(program, trace)
    maps = list(module.maps.values())
    if scratch_bytes:
        maps.append(MapSpec(SCRATCH_MAP, "percpu_array", 4, scratch_bytes, 1))
    return CompiledModule(tuple(programs), tuple(maps))


def _tracer(function: Function, trace: Callable[[str, str], None] | None) -> Callable[[str], None] | None:
    if trace is None:
        return None
    from .text import format_function

    return lambda name: trace(name, format_function(function))


def _show(program: ProgramSpec, trace: Callable[[str, str], None]) -> None:
    from ..bpf.disasm import disassemble
    from ..bpf.isa import decode

    notes = {r.pc: f"{r.kind} {r.symbol}" for r in program.relocs}
    trace(f"assembly of {program.name}", disassemble(decode(program.insns), notes=notes))


def _compile_program(
    module: Module, function: Function, target: Target, scratch_bytes: int
) -> tuple[ProgramSpec, int]:
    """Compile one program and what it calls; its wide scratch lies behind `scratch_bytes`. Returns the end of that."""
    code = Code()
    functions = _closure(module, function)
    stack = 0
    for each in functions:
        frame = Frame(each, STACK_BUDGET if len(functions) == 1 else STACK_BUDGET - CALLEE_BUDGET, scratch_bytes)
        blocks, keep = lower(each, frame, target)
        allocate(blocks, frame, keep)
        drop_known(blocks, frame.spills)
        code.add_function(each.name, tidy(blocks))
        stack = max(stack, frame.size)
        scratch_bytes = frame.scratch_bytes
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
    return program, scratch_bytes


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

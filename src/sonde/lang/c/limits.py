"""What is checked of a finished program: whether its variables have room; and where its lines come from.

Variables that do not fit the 512 bytes of stack lie in a per-CPU map, as large as the kernel lets one value be. Beyond that the text is
wrong, and the error says what takes the room.
"""

from __future__ import annotations

from ...compiler.frame import STACK_BYTES
from ...compiler.lowering import SCRATCH_MAP
from ..source import Place
from .lower_frame import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Module
    from ...compiler.pipeline import CompiledModule
    from ...errors import Span
    from .analysis import FunctionSymbol

PERCPU_LIMIT = 32768  # bytes in one value of a per-CPU map
_SHOWN = 8  # variables


def check_memory(symbol: FunctionSymbol, module: Module, compiled: CompiledModule) -> None:
    """Raise CompileError, with the room that each variable takes, when they take more than there is."""
    program = next(p for p in compiled.programs if p.name == symbol.name)
    scratch = next((spec.value_size for spec in compiled.maps if spec.name == SCRATCH_MAP), 0)
    if program.stack_bytes <= STACK_BYTES and scratch <= PERCPU_LIMIT:
        return
    slots = [
        (inst.size, inst.name.rpartition(".")[0], function.name)
        for function in module.functions.values()
        for inst in function.blocks[0].insts
        if inst.op == "alloca"
    ]
    lines = [f"{size:7} bytes  {name} in {where}()" for size, name, where in sorted(slots, reverse=True)[:_SHOWN]]
    if scratch > PERCPU_LIMIT:
        message = f"the variables of {symbol.name}() take {scratch} bytes; there is room for {PERCPU_LIMIT}"
    else:
        message = f"{symbol.name}() and what it calls take {program.stack_bytes} bytes of stack; there is room for {STACK_BYTES}"
    raise failure(symbol.span, message, "the largest are:\n" + "\n".join(lines))


def show_calls(module: Module) -> None:
    """Let the lines of a program name the text, where a macro stood, rather than the macro's own text."""
    for function in module.functions.values():
        for block in function.blocks:
            for inst in block.insts:
                inst.span = outermost(inst.span)
            if block.end is not None:
                block.end.span = outermost(block.end.span)


def outermost(span: Span | None) -> Span | None:
    """Return the place of the macro call that a place came from, or the place itself."""
    if not isinstance(span, Place):
        return span
    while span.call is not None:
        span = span.call
    return span

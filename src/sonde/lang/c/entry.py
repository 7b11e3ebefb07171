"""The way into a program: what its parameters are, by its type and by its name.

The first parameter is the context. Others are arguments of the traced function: they lie in registers, and those of a system call in
the registers of the caller, to which the first argument of the kernel's function points.
"""

from __future__ import annotations

from ...compiler.ir import I64
from ...debuginfo.ctype import UINT64
from ...debuginfo.ptregs import get_ptregs
from .lower_frame import failure
from .lower_numbers import convert
from .lower_places import variable_place
from .values import Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Param, Value
    from . import ast
    from .analysis import Variable
    from .lower import Program
    from .lower_frame import Frame
    from .values import Operand, Place

_MOST = 6  # parameters besides the context
_SYSCALL_NAMES = ("syscall__", "kprobe____x64_sys_", "kprobe____arm64_sys_")
_SYSCALL_FOURTH = {
    "x86_64": "r10"
}  # the register that a system call has its fourth argument in, where it is another than a function's


class EntryRules:
    """What reads of the context mean besides loads."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def read(self, f: Frame, node: ast.Node, place: Place) -> Operand | None:
        """Return the value of a place that is no plain memory, or None."""
        return None


def start(f: Frame, ctx: Param) -> None:
    """Give the parameters of a program their values."""
    params = f.symbol.params
    f.ctx = ctx
    if not params:
        return
    f.store_value(variable_place(f, params[0]), ctx)
    rest = params[1:]
    if not rest:
        return
    if len(rest) > _MOST:
        raise failure(rest[_MOST].span, f"a program takes at most {_MOST} arguments besides its context")
    used = f.program.spaces.flow(f.program.analysis.functions[f.symbol.name]).used
    _from_registers(f, ctx, [p if p in used else None for p in rest])


def _from_registers(f: Frame, ctx: Value, params: list[Variable | None]) -> None:
    """Load parameters from the registers that the traced function got them in."""
    target = f.program.target
    regs = get_ptregs(target.arch)
    if regs is None:
        raise failure(f.symbol.span, f"the registers of {target.arch} are not known")
    inner: Value | None = None
    names = list(regs.args)
    if _is_syscall(f):
        inner = f.b.load(I64, ctx, regs.get_offset(regs.args[0]))
        names[3] = _SYSCALL_FOURTH.get(target.arch, names[3])
    for i, param in enumerate(params):
        if param is None:
            continue
        offset = regs.get_offset(names[i])
        if inner is None:
            value: Value = f.b.load(I64, ctx, offset)
        else:
            slot = f.b.alloca(8, 8, param.name)
            f.b.call(f.program.reader("kernel"), [slot, 8, f.b.binary("add", inner, offset)])
            value = f.b.load(I64, slot)
        f.store(variable_place(f, param), convert(f, Scalar(value, UINT64), param.ctype))


def _is_syscall(f: Frame) -> bool:
    """Tell whether the function is written for a system call's function, whose only argument points to the caller's registers."""
    if not f.symbol.name.startswith(_SYSCALL_NAMES):
        return False
    return f.program.target.kconfig("CONFIG_ARCH_HAS_SYSCALL_WRAPPER") == "y" or f.program.target.arch in (
        "x86_64",
        "aarch64",
    )

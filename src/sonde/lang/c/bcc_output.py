"""Output to the kernel's trace pipe: `bpf_trace_printk`, as BCC has it (a format alone) and as the kernel has it (with its size)."""

from __future__ import annotations

from ...debuginfo.ctype import INT64
from . import ast
from .lower_expressions import evaluate
from .lower_frame import failure
from .lower_numbers import wide_register
from .lower_places import decay
from .values import Place, Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from .lower_frame import Frame
    from .values import Operand

_VALUES = 3  # that the helper prints at most


def trace_printk(f: Frame, node: ast.Call) -> Operand:
    """A call of bpf_trace_printk. In BCC's dialect a literal format brings its size along."""
    args = list(node.args)
    if not args:
        raise failure(node.span, "bpf_trace_printk() takes a format")
    literal = args[0]
    while isinstance(literal, ast.Cast):
        literal = literal.operand
    values: list[Value | int] = []
    if isinstance(literal, ast.String) and f.program.text.options.dialect == "bcc":
        values = [f.address(f.program.globals.string(f, literal.value)), len(literal.value) + 1]
        args = args[1:]
    limit = _VALUES + (0 if values else 2)
    if len(args) > limit:
        raise failure(
            node.span, f"bpf_trace_printk() prints at most {_VALUES} values", "call it twice, or submit an event"
        )
    for arg in args:
        operand = evaluate(f, arg)
        values.append(wide_register(f, decay(f, operand) if isinstance(operand, Place) else operand))
    f.b.span = node.span
    return Scalar(f.b.call("trace_printk", values), INT64)

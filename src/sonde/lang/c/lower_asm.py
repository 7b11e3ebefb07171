"""Inline assembly, as far as programs for BPF use it: barriers, hiding a value from the optimiser, and moves.

`asm volatile("")`, with or without a memory clobber, is nothing here: the compiler moves no memory access across calls that could see it.
`asm volatile("" : "+r"(x))`, also written `"=r"(x) : "0"(x)`, makes x opaque. `asm("%0 = %1" : "=r"(x) : "r"(y))` is a move that nothing looks through; also `+=` and its like.
"""

from __future__ import annotations

import re

from ...compiler.ir import I64, Const, Inst, is_pointer
from ...debuginfo.ctype import UINT64
from . import ast
from .lower_expressions import evaluate, own_place
from .lower_frame import failure
from .lower_numbers import convert, wide_register
from .lower_places import read
from .values import Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from .lower_frame import Frame

_STATEMENT = re.compile(r"\s*%\[?(\w+)\]?\s*(=|[-+*&|^]=|<<=|>>=)\s*(?:%\[?(\w+)\]?|(-?(?:0x)?[0-9a-fA-F]+))\s*")
_OPERATION = {"+=": "add", "-=": "sub", "*=": "mul", "&=": "and", "|=": "or", "^=": "xor", "<<=": "shl", ">>=": "lshr"}
_HINT = 'supported are barriers (an empty text), "" : "+r"(x), and moves and arithmetic of the form %0 = %1, %0 += 4'


def lower_asm(f: Frame, node: ast.Asm) -> None:
    """Lower one asm statement. Raises CompileError for what is not among the forms above."""
    operands = [*node.outputs, *node.inputs]
    values = [_input(f, o, i < len(node.outputs)) for i, o in enumerate(operands)]
    for operand, value in zip(operands, list(values)):
        if operand.constraint.isdecimal():  # the same register as an output, which so begins with this value
            values[int(operand.constraint)] = value
    names = {name: i for i, o in enumerate(operands) for name in (str(i), o.name) if name}
    for line in node.template.replace("\n", ";").split(";"):
        if line.strip():
            _statement(f, node, line, names, values)
    for output, value in zip(node.outputs, values):
        place = own_place(f, output.expr)
        hidden = f.b.emit(Inst("opaque", value.type, [value])) if not is_pointer(value.type) else value
        space = f.spaces.of(output.expr)
        f.store(
            place, convert(f, Scalar(hidden, place.ctype if is_pointer(value.type) else UINT64, space), place.ctype)
        )


def _input(f: Frame, operand: ast.AsmOperand, written: bool) -> Value:
    if written and not operand.constraint.startswith("+"):
        return Const(0, I64)
    if "m" in operand.constraint and "r" not in operand.constraint:
        raise failure(operand.span, "an operand of inline assembly in memory", _HINT)
    value = read(f, own_place(f, operand.expr)) if written else evaluate(f, operand.expr)
    return wide_register(f, value)


def _statement(f: Frame, node: ast.Asm, line: str, names: dict[str, int], values: list[Value]) -> None:
    match = _STATEMENT.fullmatch(line)
    target = names.get(match[1]) if match else None
    if match is None or target is None or (match[3] and match[3] not in names):
        raise failure(node.span, f"this inline assembly is not understood: {line.strip()!r}", _HINT)
    source = values[names[match[3]]] if match[3] else Const(int(match[4], 0))
    if match[2] == "=":
        values[target] = source
    else:
        values[target] = f.b.binary(_OPERATION[match[2]], f.as_number(values[target]), f.as_number(source))

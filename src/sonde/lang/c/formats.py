"""Formats of bpf_trace_printk and its like: how many values they take, of which kind, and what the kernel refuses.

The kernel checks a format when the program runs (bpf_bprintf_prepare in kernel/bpf/helpers.c): one that it refuses prints nothing, and only the result
of the call says so.
"""

from __future__ import annotations

from ...debuginfo.ctype import Array, Pointer, strip
from ...record import Record
from . import ast
from .analysis import Variable
from .arithmetic import is_integer, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .checker import Checker

_INTEGERS = b"diuxX"
_POINTER_WORDS = (b"pks", b"pus", b"pi4", b"pI4", b"pi6", b"pI6")
_POINTER_LETTERS = b"KxsSB"


class Conversion(Record):
    """One conversion: its text, whether it prints a "number", "character", "string" or "pointer", and why the kernel refuses it."""

    text: str
    kind: str
    refused: str = ""


def parse_format(form: bytes) -> list[Conversion]:
    """Return the conversions of a format, as the kernel reads it."""
    found: list[Conversion] = []
    at = form.find(b"%")
    while at >= 0:
        if form[at + 1 : at + 2] == b"%":
            at = form.find(b"%", at + 2)
            continue
        end = at + 1
        while form[end : end + 1] in (b"0", b"+", b"-", b" "):
            end += 1
        while form[end : end + 1].isdigit():
            end += 1
        conversion, end = _conversion(form, at, end)
        found.append(conversion)
        at = form.find(b"%", end)
    return found


def _conversion(form: bytes, start: int, at: int) -> tuple[Conversion, int]:
    letter = form[at : at + 1]
    if letter == b"p":
        end = at + 1
        if form[at : at + 3] in _POINTER_WORDS:
            end = at + 3
        elif form[end : end + 1] and form[end] in _POINTER_LETTERS:
            end += 1
        kind = "string" if form[at:end] in (b"pks", b"pus") else "pointer"
        return Conversion(form[start:end].decode("utf-8", "replace"), kind), end
    if letter in (b"s", b"c"):
        kind = "string" if letter == b"s" else "character"
        return Conversion(form[start : at + 1].decode("utf-8", "replace"), kind), at + 1
    end = at
    while (
        form[end : end + 1] in (b"l", b"h", b"z", b"j", b"t", b"q", b"L", b".", b"#", b"*")
        or form[end : end + 1].isdigit()
    ):
        end += 1
    length, last = form[at:end], form[end : end + 1]
    text = form[start : end + 1].decode("utf-8", "replace")
    if last and last in _INTEGERS and length in (b"", b"l", b"ll"):
        return Conversion(text, "number"), end + 1
    why = (
        "has a length or precision that the kernel does not know"
        if last and last in _INTEGERS
        else "is not known to the kernel"
    )
    return Conversion(text, "number" if last and last in _INTEGERS + b"o" else "", why), end + 1


# Where the format is among the arguments of a helper, and the values: from there on, or (True) in an array there.
_HELPERS = {
    "trace_printk": (0, 2, False),
    "trace_vprintk": (0, 2, True),
    "snprintf": (2, 3, True),
    "seq_printf": (1, 3, True),
}


def check_format(ck: Checker, node: ast.Call, helper: str) -> None:
    """Warn about a format that does not fit its values, or that the kernel refuses. For calls that libbpf's macros make."""
    if helper not in _HELPERS:
        return
    where, values_at, in_array = _HELPERS[helper]
    form = _text_of(ck, node.args[where]) if where < len(node.args) else None
    values = _array(ck, node, values_at) if in_array else list(node.args[values_at:])
    if form is None or values is None:
        return
    span = node.span
    while getattr(span, "call", None) is not None:
        span = span.call  # type: ignore[attr-defined]
    for message, hint in complaints(ck, form, values):
        ck.warn(span, message, hint=hint)


def complaints(ck: Checker, form: bytes, values: list[ast.Expr]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a format and its values: messages with hints."""
    conversions = parse_format(form)
    if len(conversions) != len(values):
        have = f"{len(values)} value{'s are' if len(values) != 1 else ' is'} given"
        yield f"the format has {len(conversions)} conversion{'s' if len(conversions) != 1 else ''}, but {have}", ""
    for conversion in conversions:
        if conversion.refused:
            hint = "it knows %d %i %u %x %X with l or ll, %c, %s, %p; a refused format prints nothing"
            yield f"{conversion.text} {conversion.refused}", hint
    for conversion, value in zip(conversions, values):
        ctype = strip(ck.types[value])
        address = isinstance(ctype, (Pointer, Array))
        if conversion.kind == "string" and is_integer(ctype):
            yield f"{conversion.text} prints a string, but the value is of type {shown(ck.types[value])}", ""
        elif (
            conversion.kind in ("number", "character") and address and "l" not in conversion.text
        ):  # %lx prints a whole address
            yield (
                f"{conversion.text} prints a number, but the value is of type {shown(ck.types[value])}",
                "%p and %s print what pointers lead to",
            )


def _text_of(ck: Checker, node: ast.Node) -> bytes | None:
    """The text of a format: a literal, or a constant array that begins with one."""
    while isinstance(node, ast.Cast):
        node = node.operand
    if isinstance(node, ast.String):
        return node.value
    variable = ck.symbols.get(node)
    if isinstance(variable, Variable) and variable.init and len(variable.init) == 1:
        value = variable.init[0].value
        return value.value if isinstance(value, ast.String) else None
    return None


def _array(ck: Checker, node: ast.Call, index: int) -> list[ast.Expr] | None:
    """The values that an array is made of which a helper gets: below the casts that make them numbers."""
    argument = node.args[index] if index < len(node.args) else None
    while isinstance(argument, ast.Cast):
        argument = argument.operand
    variable = ck.symbols.get(argument) if argument is not None else None
    if not isinstance(variable, Variable) or variable.init is None:
        return None
    values: list[ast.Expr] = []
    for part in variable.init:
        value = part.value
        while isinstance(value, ast.Cast):
            value = value.operand
        values.append(value)
    return values

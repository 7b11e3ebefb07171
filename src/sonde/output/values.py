"""Decoded values as text, the way bpftrace's print() and map output show them."""

from __future__ import annotations

from ..spec.layout import Average, EnumValue, RecordValue, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..spec.layout import Layout


def value_text(value: Any, layout: Layout | None = None) -> str:
    """Return the text of one value."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return f"0x{value:x}" if layout is not None and layout.kind == "pointer" else str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return "(" + ", ".join(value_text(v) for v in value) + ")"
    if isinstance(value, RecordValue):
        return "{ " + ", ".join(f".{n} = {value_text(v)}" for n, v in zip(value.names, value.values)) + " }"
    if isinstance(value, EnumValue):
        return value.name or str(value.number)
    if isinstance(value, Average):
        return str(divide(value.total, value.count))
    if isinstance(value, Stats):
        return f"{{ .count = {value.count}, .average = {divide(value.total, value.count)}, .total = {value.total} }}"
    return str(value)


def divide(total: int, count: int) -> int:
    """Divide as C does, toward zero; 0 for no count."""
    if not count:
        return 0
    return -(-total // count) if total < 0 else total // count

"""Decoded values as text, the way bpftrace 0.27 shows them in print(), maps and `%s`.

The layout says what a Python value means: an int may be a number, a pointer, an address. One small function for each
kind. Nested values bring their own layouts.
"""

from __future__ import annotations

from .symboltext import stack_text, symbol_text
from .timetext import timestamp_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..spec.layout import Average, EnumValue, Inet, Layout, RecordValue, Stats, Username


def value_text(value: Any, layout: Layout) -> str:
    """Return the text of `value`, which was decoded by `layout`."""
    write = _WRITERS.get(layout.kind)
    return write(value, layout) if write is not None else str(value)


def key_text(key: Any, layout: Layout) -> str:
    """Return a map key as it stands between brackets: a tuple without its parentheses."""
    if layout.kind == "tuple":
        return ", ".join(_field_texts(key, layout))
    return value_text(key, layout)


def divide(total: int, count: int) -> int:
    """Divide as C does, toward zero; 0 when there is nothing to divide by."""
    if not count:
        return 0
    return -(-total // count) if total < 0 else total // count


def buffer_text(data: bytes) -> str:
    """Return bytes as text, each one that is not printable ASCII as \\xNN."""
    return "".join([chr(b) if 0x20 <= b < 0x7F else f"\\x{b:02x}" for b in data])


def dump_text(data: bytes) -> str:
    """Return bytes as a dump: offset, 16 bytes in hexadecimal digits, and as text; a line of its own for each 16."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        text = "".join([chr(b) if 0x20 <= b < 0x7F else "." for b in part])
        lines.append(f"\n    {start:04x}  {part.hex(' '):<47}  {text}")
    return f"{len(data)} bytes{''.join(lines)}"


def inet_text(packed: bytes) -> str:
    """Return an IPv4 or IPv6 address in its usual form."""
    if len(packed) == 4:
        return ".".join(map(str, packed))
    from _socket import AF_INET6, inet_ntop  # `socket` imports much, and takes 5 ms for it

    return inet_ntop(AF_INET6, packed)


def user_name(uid: int) -> str:
    """Return the name of a user id, or "" when the machine has none."""
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError, OverflowError):
        return ""


def _int(value: int, layout: Layout) -> str:
    return str(value)


def _bool(value: bool, layout: Layout) -> str:
    return "true" if value else "false"


def _pointer(value: int, layout: Layout) -> str:
    return f"0x{value:x}"


def _text(value: str, layout: Layout) -> str:
    return value


def _enum(value: EnumValue, layout: Layout) -> str:
    return value.name or str(value.number)


def _buffer(value: bytes, layout: Layout) -> str:
    return buffer_text(value)


def _inet(value: Inet, layout: Layout) -> str:
    return inet_text(value.packed)


def _mac(value: bytes, layout: Layout) -> str:
    return ":".join([f"{b:02X}" for b in value])


def _username(value: Username, layout: Layout) -> str:
    return user_name(value.uid)


def _none(value: None, layout: Layout) -> str:
    return ""


def _array(value: Sequence[Any], layout: Layout) -> str:
    element = layout.element
    assert element is not None
    return "[" + ",".join([value_text(item, element) for item in value]) + "]"


def _field_texts(values: Sequence[Any], layout: Layout) -> list[str]:
    return [value_text(value, field.layout) for value, field in zip(values, layout.fields)]


def _tuple(value: Sequence[Any], layout: Layout) -> str:
    return "(" + ", ".join(_field_texts(value, layout)) + ")"


def _record(value: RecordValue, layout: Layout) -> str:
    texts = _field_texts(value.values, layout)
    return "{ " + ", ".join([f".{name} = {text}" for name, text in zip(value.names, texts)]) + " }"


def _average(value: Average, layout: Layout) -> str:
    return str(divide(value.total, value.count))


def _stats(value: Stats, layout: Layout) -> str:
    average = divide(value.total, value.count)
    return f"{{ .count = {value.count}, .average = {average}, .total = {value.total} }}"


_WRITERS: dict[str, Callable[[Any, Layout], str]] = {
    "int": _int,
    "count": _int,
    "sum": _int,
    "min": _int,
    "max": _int,
    "bool": _bool,
    "pointer": _pointer,
    "enum": _enum,
    "string": _text,
    "cgroup_path": _text,
    "strerror": _text,
    "signal_name": _text,
    "syscall_name": _text,
    "probe": _text,
    "text": _text,
    "buffer": _buffer,
    "raw": _buffer,
    "dump": lambda value, layout: dump_text(value),
    "inet": _inet,
    "mac": _mac,
    "kstack": lambda value, layout: stack_text(value),
    "ustack": lambda value, layout: stack_text(value),
    "ksym": lambda value, layout: symbol_text(value),
    "usym": lambda value, layout: symbol_text(value),
    "username": _username,
    "timestamp": lambda value, layout: timestamp_text(value),
    "array": _array,
    "tuple": _tuple,
    "record": _record,
    "struct": _record,
    "none": _none,
    "avg": _average,
    "stats": _stats,
}

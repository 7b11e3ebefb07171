"""The helpers about text: formats (bpf_bprintf_prepare in kernel/bpf/helpers.c), comparison, numbers in strings."""

from __future__ import annotations

from errno import EINVAL, ERANGE

from .host import M, errno
from .memory import fetch, fetch_string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .host import Host

_MOST_ARGUMENTS = 12
_STRING_LIMIT = 512
_INTEGERS = "diuxX"


class _BadFormat(Exception):
    """A format that the kernel refuses."""


def _pieces(form: str) -> Iterator[tuple[str, str, str]]:
    """Cut a format into (literal text, options of a conversion, conversion)."""
    at = 0
    while at < len(form):
        start = form.find("%", at)
        if start < 0:
            yield form[at:], "", ""
            return
        end = start + 1
        while end < len(form) and form[end] in "0123456789-+ #.l":
            end += 1
        conversion = form[end : end + 1]
        if conversion == "p":
            tail = form[end + 1 : end + 3]
            width = {"k": 3, "u": 3, "i": 3, "I": 3}.get(tail[:1], 2 if tail[:1] in ("K", "x", "s", "S", "B") else 1)
            conversion = form[end : end + width]
        if not conversion:
            raise _BadFormat
        yield form[at:start], form[start + 1 : end], conversion
        at = end + len(conversion)


def render(host: Host, form: bytes, arguments: list[int]) -> bytes:
    """Return the text of a format; raises _BadFormat for conversions that the kernel does not take, or too few arguments."""
    out, left = b"", list(arguments)
    for literal, options, conversion in _pieces(form.decode("latin-1")):
        out += literal.encode("latin-1")
        if conversion == "%":
            out += b"%"
        elif conversion:
            if not left:
                raise _BadFormat
            out += _convert(host, options, conversion, left.pop(0))
    return out


def _convert(host: Host, options: str, conversion: str, value: int) -> bytes:
    flags, longs = options.replace("l", ""), options.count("l")
    if conversion in _INTEGERS:
        bits = 64 if longs else 32
        value &= (1 << bits) - 1
        if conversion in "di" and value >> bits - 1:
            value -= 1 << bits
        return (f"%{flags}{'d' if conversion in 'iu' else conversion}" % value).encode()
    if conversion == "c":
        return bytes([value & 0xFF])
    if conversion in ("s", "pks", "pus"):
        text = fetch_string(host, value, _STRING_LIMIT, conversion == "pus")
        return _padded(flags, text if text is not None else b"")
    if conversion in ("ps", "pS", "pB"):
        return _padded(flags, host.world.symbol(value).encode())
    if conversion in ("p", "pK", "px"):
        return _padded(flags, f"{value & M:016x}".encode())
    return _address(host, conversion, value)


def _padded(flags: str, text: bytes) -> bytes:
    width, _, precision = flags.lstrip("-+ #0").partition(".")
    text = text[: int(precision)] if precision else text
    return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0))


def _address(host: Host, conversion: str, value: int) -> bytes:
    size = {"pi4": 4, "pI4": 4, "pi6": 16, "pI6": 16}.get(conversion, 0)
    if not size:
        raise _BadFormat
    data = fetch(host, value, size, False) or bytes(size)
    if size == 4:
        return ".".join(f"{byte:03d}" if conversion == "pi4" else str(byte) for byte in data).encode()
    pieces = [data[i : i + 2].hex() for i in range(0, 16, 2)]
    return (":".join(pieces) if conversion == "pI6" else "".join(pieces)).encode()


def _arguments(host: Host, address: int, size: int) -> list[int] | None:
    """The array of u64 that a format takes its arguments from; None when its size is wrong."""
    if size % 8 or size > 8 * _MOST_ARGUMENTS:
        return None
    data = host.memory.read(address, size) if size else b""
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, size, 8)]


def _format(host: Host, form: bytes, address: int, size: int) -> bytes | None:
    arguments = _arguments(host, address, size)
    try:
        return None if arguments is None else render(host, form, arguments)
    except _BadFormat:
        return None


def _snprintf(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """Returns the bytes that the whole text would take, its NUL among them."""
    size = r2 & 0xFFFFFFFF
    text = _format(host, host.memory.read_string(r3, _STRING_LIMIT), r4, r5 & 0xFFFFFFFF)
    if text is None:
        return errno(-EINVAL)
    if size:
        host.memory.write(r1, text[: size - 1] + b"\0")
    return len(text) + 1


def _given_format(host: Host, address: int, size: int) -> bytes | None:
    form = host.memory.read(address, size & 0xFFFFFFFF)
    return form.partition(b"\0")[0] if form.endswith(b"\0") else None


def _trace_printk(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    form = _given_format(host, r1, r2)
    try:
        text = render(host, form, [r3, r4, r5]) if form is not None else None
    except _BadFormat:
        text = None
    return _print(host, text)


def _trace_vprintk(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    form = _given_format(host, r1, r2)
    return _print(host, _format(host, form, r3, r4 & 0xFFFFFFFF) if form is not None else None)


def _print(host: Host, text: bytes | None) -> int:
    if text is None:
        return errno(-EINVAL)
    host.world.printk(text.decode("utf-8", "replace"))
    return len(text)


def _seq_printf(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    form = _given_format(host, r2, r3)
    text = _format(host, form, r4, r5 & 0xFFFFFFFF) if form is not None else None
    if text is None:
        return errno(-EINVAL)
    host.world.written += text
    return 0


def _seq_write(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    host.world.written += host.memory.read(r2, r3 & 0xFFFFFFFF)
    return 0


def _strncmp(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """-1, 0 or 1, as strncmp with the size of the first string as limit."""
    size = r2 & 0xFFFFFFFF
    first = host.memory.read(r1, size).partition(b"\0")[0]
    second = host.memory.read_string(r3, size)[:size]
    return errno((first > second) - (first < second))


def _number(unsigned: bool, host: Host, address: int, size: int, base: int, result: int) -> int:
    """Parse a number at the start of a string; store it, and return the bytes that it took."""
    if base not in (0, 8, 10, 16):
        return errno(-EINVAL)
    text = host.memory.read(address, size & 0xFFFFFFFF).partition(b"\0")[0].decode("latin-1")
    at = len(text) - len(text.lstrip(" \t\n\r\v\f"))
    negative = text[at : at + 1] == "-" and not unsigned
    at += negative
    prefix = text[at : at + 2].lower()
    if base == 0:
        base = 16 if prefix == "0x" else 8 if prefix[:1] == "0" else 10
    if base == 16 and prefix == "0x":
        at += 2
    digits = 0
    value = 0
    while at + digits < len(text) and _digit(text[at + digits]) < base:
        value = value * base + _digit(text[at + digits])
        digits += 1
    if not digits:
        return errno(-EINVAL)
    if value > (M if unsigned else (1 << 63) - (0 if negative else 1)):
        return errno(-ERANGE)
    host.memory.write(result, ((-value if negative else value) & M).to_bytes(8, "little"))
    return at + digits


def _digit(letter: str) -> int:
    return "0123456789abcdef".find(letter.lower()) % 100 if letter.isalnum() and letter.isascii() else 99


def _strtol(unsigned: bool):  # type: ignore[no-untyped-def]
    def strtol(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        if r3 & ~0x1F:
            return errno(-EINVAL)
        return _number(unsigned, host, r1, r2, r3, r4) if r2 else errno(-EINVAL)

    return strtol


HELPERS = {
    "snprintf": _snprintf,
    "trace_printk": _trace_printk,
    "trace_vprintk": _trace_vprintk,
    "seq_printf": _seq_printf,
    "seq_write": _seq_write,
    "strncmp": _strncmp,
    "strtol": _strtol(False),
    "strtoul": _strtol(True),
}

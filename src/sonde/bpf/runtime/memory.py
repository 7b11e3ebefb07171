"""The helpers that read and write memory which may not be there: what is in the program's regions first, then what the world knows."""

from __future__ import annotations

from errno import EFAULT, EPERM

from ...errors import RunError
from .host import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .host import Host

    Helper = Callable[[Host, int, int, int, int, int], int]

_PIECE = 256  # bytes asked for at a time in search of the end of a string


def fetch(host: Host, address: int, size: int, user: bool) -> bytes | None:
    """Return bytes at any address; None when not all of them can be read."""
    if not size:
        return b""
    try:
        return host.memory.read(address, size)
    except RunError:
        return host.world.read(address, size, user)


def _read(user: bool) -> Helper:
    def probe_read(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        size = r2 & 0xFFFFFFFF
        data = fetch(host, r3, size, user)
        if size:
            host.memory.write(r1, data if data is not None else bytes(size))
        return 0 if data is not None else errno(-EFAULT)

    return probe_read


def fetch_string(host: Host, address: int, limit: int, user: bool) -> bytes | None:
    """Return a string without its NUL, `limit` bytes at most; None when memory ends before either."""
    text = b""
    step = _PIECE
    while len(text) < limit:
        step = min(step, limit - len(text))
        piece = fetch(host, address + len(text), step, user)
        if piece is None:
            if step == 1:
                return None
            step //= 2
            continue
        head, nul, _ = piece.partition(b"\0")
        text += head
        if nul:
            break
    return text


def _read_string(user: bool) -> Helper:
    """Returns the bytes written, the NUL among them."""

    def probe_read_str(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        size = r2 & 0xFFFFFFFF
        if not size:
            return 0
        text = fetch_string(host, r3, size, user)
        if text is None:
            host.memory.write(r1, bytes(size))
            return errno(-EFAULT)
        text = text[: size - 1] + b"\0"
        host.memory.write(r1, text)
        return len(text)

    return probe_read_str


def _write_user(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    data = host.memory.read(r2, r3 & 0xFFFFFFFF)
    try:
        host.memory.write(r1, data)
        return 0
    except RunError:
        return 0 if host.world.write_user(r1, data) else errno(-EPERM)


HELPERS = {
    "probe_read": _read(False),
    "probe_read_kernel": _read(False),
    "probe_read_user": _read(True),
    "probe_read_str": _read_string(False),
    "probe_read_kernel_str": _read_string(False),
    "probe_read_user_str": _read_string(True),
    "copy_from_user": _read(True),
    "probe_write_user": _write_user,
}

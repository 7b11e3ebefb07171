"""The helpers that read and write memory which may not be there: what is in the program's regions first, then what the world knows.

User memory is the world's alone where it is apart: an address there may be one of a region here, too.
"""

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
    if not (user and host.world.apart):
        try:
            return host.memory.read(address, size)
        except RunError:
            pass
    return host.world.read(address, size, user)


def _is_user(address: int) -> bool:
    """Whose memory bpf_probe_read takes an address for: the upper half is the kernel's."""
    return not address >> 63


def _read(user: bool | None) -> Helper:
    """`user`: whose memory; None: the address tells."""

    def probe_read(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        size = r2 & 0xFFFFFFFF
        data = fetch(host, r3, size, _is_user(r3) if user is None else user)
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


def _read_string(user: bool | None) -> Helper:
    """Returns the bytes written, the NUL among them."""

    def probe_read_str(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        size = r2 & 0xFFFFFFFF
        if not size:
            return 0
        text = fetch_string(host, r3, size, _is_user(r3) if user is None else user)
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
    "probe_read": _read(None),
    "probe_read_kernel": _read(False),
    "probe_read_user": _read(True),
    "probe_read_str": _read_string(None),
    "probe_read_kernel_str": _read_string(False),
    "probe_read_user_str": _read_string(True),
    "copy_from_user": _read(True),
    "probe_write_user": _write_user,
}

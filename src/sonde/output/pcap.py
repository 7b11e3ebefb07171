"""skboutput(): packets appended to a pcap file (the classic format, little-endian, Ethernet)."""

from __future__ import annotations

import os
import time
from struct import pack

from ..errors import OutputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.engine import Row

_FILE_HEADER = pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0x40000, 1)


def append_packet(row: Row) -> None:
    """Append the packet of a row (fields: its whole length, the bytes captured). Raises OutputError.

    A file that was not begun by this process is written anew.
    """
    path = row.event.get_param("path")
    length, data = row.values
    seconds, rest_ns = divmod(time.time_ns(), 1_000_000_000)
    record = pack("<IIII", seconds, rest_ns // 1000, len(data), length) + data
    fresh = path not in _begun
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if fresh else os.O_APPEND)
        fd = os.open(path, flags, 0o644)
        try:
            os.write(fd, _FILE_HEADER + record if fresh else record)
        finally:
            os.close(fd)
    except OSError as failure:
        raise OutputError(f"cannot write packets to {path}: {failure.strerror}") from None
    _begun.add(path)


_begun: set[str] = set()

"""/proc/PID/maps: the text becomes `Mapping` records, and an address finds the file and the offset that it came from. And /proc/PID/task: who runs there."""

from __future__ import annotations

from bisect import bisect_right

from ..errors import FormatError, PrivilegeError, TargetError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DELETED = " (deleted)"
_KNOWN_LINES = 4096
_known: dict[str, Mapping] = {}  # by line: a process is looked at again and again, and most of its lines stay


class Mapping(Record):
    """One line: addresses `start` to `end` (excluded) of a process hold the file at `path` from byte `offset` on.

    `path` is "" for anonymous memory, "[heap]", "[vdso]" and the like for special ones, and without the mark for deleted
    files, which `deleted` keeps. `dev` is "major:minor" in hexadecimal.
    """

    start: int
    end: int
    perms: str
    offset: int
    dev: str
    inode: int
    path: str
    deleted: bool = False

    @property
    def executable(self) -> bool:
        """True when code may run from it."""
        return self.perms[2] == "x"

    @property
    def is_file(self) -> bool:
        """True when it shows a file, not anonymous or special memory."""
        return self.path.startswith("/") and self.inode != 0


def parse_maps(text: str, *, path: str = "") -> list[Mapping]:
    """Parse the text of a maps file, in the order of its lines (by address). Raises FormatError."""
    mappings = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        mapping = _known.get(line)
        if mapping is None:
            try:
                mapping = _parse_line(line)
            except ValueError:
                raise FormatError(f"line {number} is no mapping: {line[:80]!r}", path=path) from None
            if len(_known) >= _KNOWN_LINES:
                _known.clear()
            _known[line] = mapping
        mappings.append(mapping)
    return mappings


def _parse_line(line: str) -> Mapping:
    span, perms, offset, dev, inode, *rest = line.split(" ", 5)
    low, _, high = span.partition("-")
    start, end = int(low, 16), int(high, 16)
    if len(perms) != 4 or not 0 <= start <= end <= 1 << 64 or ":" not in dev or "-" in offset + inode:
        raise ValueError
    path = rest[0].lstrip(" ") if rest else ""
    deleted = path.endswith(_DELETED) and path.startswith("/")
    if deleted:
        path = path[: -len(_DELETED)]
    if "\\" in path:
        path = path.replace("\\012", "\n")  # the only character that the kernel escapes
    return Mapping(start, end, perms, int(offset, 16), dev, int(inode), path, deleted)


def read_maps(pid: int) -> list[Mapping]:
    """Read the mappings of process `pid`. Raises TargetError when it is gone, PrivilegeError when it may not be looked at."""
    path = f"/proc/{pid}/maps"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError(f"there is no process {pid}") from None
    except PermissionError:
        raise PrivilegeError(f"{path} may not be read by this user", capability="CAP_SYS_PTRACE") from None
    return parse_maps(text, path=path)


def find_mapping(mappings: Sequence[Mapping], address: int) -> Mapping | None:
    """Return the mapping that holds `address`, or None; `mappings` are in ascending order."""
    index = bisect_right(mappings, address, key=lambda m: m.start) - 1
    return mappings[index] if index >= 0 and address < mappings[index].end else None


def list_threads(pid: int) -> list[int]:
    """Return the thread ids of a process; none when it is gone."""
    import os

    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []

"""Numbers that the machine has names for: errors, signals, system calls, control groups."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def strerror(number: int) -> str:
    """Return the C library's text for an errno."""
    return os.strerror(number)


def signal_name(number: int) -> str:
    """Return "SIGTERM" for 15; numbers without a name give "UNKNOWN"."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return "UNKNOWN"


def syscall_name(number: int) -> str:
    """Return the name of a system call of this machine, or its number as text."""
    from .syscalls import name_of

    return name_of(number)


CGROUP_ROOT = "/sys/fs/cgroup"


def cgroup_path(ident: int, pattern: str = "") -> str:
    """Return "hierarchy:path" of control group `ident` (its inode number), or "" when there is none.

    `pattern` selects hierarchies by name, as a shell pattern. Costs a walk over the control groups on a miss.
    """
    found = []
    for name, root in _hierarchies():
        if pattern:
            from fnmatch import fnmatchcase

            if not fnmatchcase(name, pattern):
                continue
        path = _find_inode(root, ident)
        if path is not None:
            found.append(f"{name}:{path}")
    return ",".join(found)


def _hierarchies() -> Iterator[tuple[str, str]]:
    """Yield (name, mount point): "unified" for version 2, and the folders of version 1."""
    if os.path.exists(CGROUP_ROOT + "/cgroup.procs"):
        yield "unified", CGROUP_ROOT
        return
    try:
        names = sorted(os.listdir(CGROUP_ROOT))
    except OSError:
        return
    for name in names:
        if os.path.isdir(f"{CGROUP_ROOT}/{name}"):
            yield name, f"{CGROUP_ROOT}/{name}"


def _find_inode(root: str, ident: int) -> str | None:
    try:
        if os.stat(root).st_ino == ident:
            return "/"
    except OSError:
        return None
    stack = [root]
    while stack:
        folder = stack.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            try:
                if not entry.is_dir(follow_symlinks=False):
                    continue
            except OSError:
                continue
            if entry.inode() == ident:
                return entry.path[len(root) :]
            stack.append(entry.path)
    return None

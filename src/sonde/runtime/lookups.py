"""Numbers that the machine has names for: errors, signals, system calls, control groups."""

from __future__ import annotations

import os


def strerror(number: int) -> str:
    """Return the C library's text for an errno; "Unknown error" for a number that is none."""
    text = os.strerror(number)
    return "Unknown error" if text.startswith("Unknown error") else text


def signal_name(number: int) -> str:
    """Return what the C library calls a signal ("Killed" for 9); "N/A" for numbers that no signal can have."""
    from signal import SIGRTMAX, SIGRTMIN, strsignal

    if not 0 <= number <= SIGRTMAX:
        return "N/A"
    if number >= SIGRTMIN:
        return f"Real-time signal {number - SIGRTMIN}"
    return (strsignal(number) if number else None) or f"Unknown signal {number}"


def syscall_name(number: int) -> str:
    """Return the name of a system call of this machine."""
    from ..debuginfo.syscalls import syscall_name as name_of

    return name_of(number, os.uname().machine)


def cgroup_path(ident: int, pattern: str = "", mounts: str = "/proc/self/mounts") -> str:
    """Return "hierarchy:path" for each control group whose inode is `ident`, joined by commas; "" when there is none.

    Hierarchies are called by the last part of their mount point, version 2 always "unified", which comes first.
    `pattern` selects them by shell pattern. Costs a walk over the control groups.
    """
    found = []
    for name, root in _hierarchies(mounts):
        if pattern:
            from fnmatch import fnmatchcase

            if not fnmatchcase(name, pattern):
                continue
        path = _find_inode(root, ident)
        if path is not None:
            found.append(f"{name}:{path}")
    return ",".join(found)


def _hierarchies(mounts: str) -> list[tuple[str, str]]:
    """Return (name, mount point) of all hierarchies."""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError:
        return []
    unified, others = [], []
    for line in lines:
        _, where, kind, *_ = (*line.split(" "), "", "", "")
        if kind == "cgroup2":
            unified.append(("unified", where))
        elif kind == "cgroup":
            others.append((where.rpartition("/")[2], where))
    return unified[:1] + sorted(others)


def _find_inode(root: str, ident: int) -> str | None:
    """Return the path below `root` of the folder with inode `ident`, "/" for `root` itself."""
    try:
        if os.stat(root).st_ino == ident:
            return "/"
    except OSError:
        return None
    waiting = [root]
    while waiting:
        for folder in _folders(waiting.pop()):
            if folder.inode() == ident:
                return folder.path[len(root) :]
            waiting.append(folder.path)
    return None


def _folders(path: str) -> list[os.DirEntry[str]]:
    """Return the folders in `path`; none when it has gone meanwhile."""
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []

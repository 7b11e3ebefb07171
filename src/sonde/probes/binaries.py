"""The files that a uprobe or USDT probe may mean: a path, a glob, a command on PATH, a library, a process's own files."""

from __future__ import annotations

import os

from ..errors import ProbeError
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .scope import Scope


def find_binaries(kind: str, written: str, scope: Scope) -> list[str]:
    """Return the paths that `written` means, at least one. Raises ProbeError when there is none.

    "" is the program of -p or -c; "*" every file that the process of -p has mapped for execution, without -p those of
    all processes and the commands on PATH; a name that starts with "lib" a library as the loader finds it; any other
    name without "/" a command on PATH.
    """
    if written == "*":
        paths = mapped_files(scope) if scope.pid else sorted({*mapped_files(scope), *_glob("*")})
    elif not written:
        paths = [own_program(kind, scope)]
    elif has_wildcard(written):
        paths = _glob(written)
    else:
        paths = _find(written, scope)
    if not paths:
        raise ProbeError(f"{kind} target file '{written}' does not exist or is not executable")
    return paths


def own_program(kind: str, scope: Scope) -> str:
    """Return the program that -p or -c names."""
    if scope.pid:
        try:
            return in_mount_namespace(os.readlink(f"{scope.machine.proc}/{scope.pid}/exe"), scope)
        except OSError as error:
            raise ProbeError(f"the program of process {scope.pid} cannot be found: {error.strerror}") from None
    if scope.command_path:
        return scope.command_path
    raise ProbeError(f"{kind} should have a target", hint="name a file, or the process with -p PID")


def mapped_files(scope: Scope) -> list[str]:
    """Return the files that are mapped for execution: by the process of -p, or by any process."""
    pids = [str(scope.pid)] if scope.pid else [p for p in os.listdir(scope.machine.proc) if p.isdecimal()]
    found: dict[str, None] = {}
    for pid in pids:
        for path in _mapped(pid, scope):
            found.setdefault(path)
    return [path for path in found if is_elf(path)]


def _mapped(pid: str, scope: Scope) -> list[str]:
    try:
        with open(f"{scope.machine.proc}/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    paths: dict[str, None] = {}
    for line in lines:
        fields = line.split(None, 5)
        if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/") and not fields[5].endswith(" (deleted)"):
            paths[fields[5]] = None
    if len(paths) == 2:  # a program and its loader, which may not have begun
        there = {_library_name(path) for path in paths}  # musl's loader is its C library
        paths.update(dict.fromkeys(path for path in _to_be_mapped(pid, scope) if _library_name(path) not in there))
    return [in_mount_namespace(path, scope, pid) for path in paths]


def _library_name(path: str) -> str:
    return os.path.basename(path).partition(".so")[0]


def _to_be_mapped(pid: str, scope: Scope) -> list[str]:
    """The libraries that the loader of a process will map."""
    from ..debuginfo.needed import find_needed

    try:
        program = os.readlink(f"{scope.machine.proc}/{pid}/exe")
        with open(f"{scope.machine.proc}/{pid}/environ", encoding="utf-8", errors="surrogateescape") as file:
            environ = dict(word.split("=", 1) for word in file.read().split("\0") if "=" in word)
    except OSError:
        return []
    return find_needed(program, scope.arch, environ, f"{scope.machine.proc}/{pid}/root")


def in_mount_namespace(path: str, scope: Scope, pid: str = "") -> str:
    """Return the path by which this process reaches `path` of another one, which may live in a container."""
    pid = pid or str(scope.pid)
    proc = scope.machine.proc
    try:
        if os.readlink(f"{proc}/{pid}/ns/mnt") == os.readlink(f"{proc}/self/ns/mnt"):
            return path
    except OSError:
        return path
    return f"{proc}/{pid}/root{path}"


def _find(written: str, scope: Scope) -> list[str]:
    if "/" in written:
        return [written] if is_elf(written) else []
    if written.startswith("lib"):
        path = _find_library(written, scope)
        if path:
            return [path]
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        path = f"{directory or '.'}/{written}"
        if is_elf(path) and os.access(path, os.X_OK):
            return [path]  # the first one, as a shell takes it
    return []


def _find_library(written: str, scope: Scope) -> str:
    if scope.pid:
        for path in _mapped(str(scope.pid), scope):
            name = path.rpartition("/")[2]
            if name == written or name.startswith((written + ".", written + "-")):
                return path
    from ..debuginfo.ldcache import get_library

    return get_library(written, scope.arch)


def _glob(written: str) -> list[str]:
    if "/" not in written:
        matches = make_matcher(written)
        folders = [d for d in os.environ.get("PATH", os.defpath).split(":") if d]
        paths = [f"{d}/{name}" for d in folders for name in _list(d) if matches(name)]
    else:
        from glob import escape, glob

        # Only `*` is special in probe names.
        paths = glob("*".join(escape(part) for part in written.split("*")))
    return sorted({path for path in paths if is_elf(path)})


def distinct_files(paths: list[str]) -> list[str]:
    """Drop further names of a file that was named already: attached twice, a probe would fire twice."""
    found: dict[tuple[int, int], str] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found.setdefault((status.st_dev, status.st_ino), path)
    return list(found.values())


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def is_elf(path: str) -> bool:
    """Tell whether `path` is a readable ELF program or library."""
    try:
        if os.stat(path).st_mode & 0o170000 != 0o100000:
            return False  # opening a device or a pipe could have effects
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        head = os.read(fd, 18)
    except OSError:
        return False
    finally:
        os.close(fd)
    return head[:4] == b"\x7fELF" and head[16:18] in (b"\x02\0", b"\x03\0")

"""Running a tool that was written for BCC: an unmodified script, with our `bcc` first on its path."""

from __future__ import annotations

import os
import sys

from ...errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDERS = ("/usr/share/bcc/tools", "/usr/sbin", "/usr/bin", "/sbin", "/usr/local/sbin")
_SUFFIX = "-bpfcc"


def find_tool(name: str) -> str:
    """Return the path of a tool: a path, or the name of an installed one ("opensnoop", "opensnoop-bpfcc"). Raises UsageError."""
    if "/" in name or os.path.isfile(name):
        if os.path.isfile(name):
            return name
        raise UsageError(f"there is no file {name}")
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *_FOLDERS]
    for candidate in (name if name.endswith(_SUFFIX) else name + _SUFFIX, name):
        for folder in folders:
            path = os.path.join(folder, candidate)
            if os.path.isfile(path):
                return path
    raise UsageError(
        f"there is no tool {name}: neither a file nor installed as {name}{_SUFFIX}",
        hint="give the path of a script, or install the package bpfcc-tools",
    )


def run_tool(path: str, arguments: Sequence[str]) -> int:
    """Run a tool in this process, as `python PATH ARGUMENTS` would, and return its exit status.

    A script of another language (some tools are wrappers in shell) takes the place of this process.
    """
    from . import shim_path

    with open(path, "rb") as file:
        text = file.read()
    if not _is_python(text):
        _execute(path, arguments)
    sys.argv = [path, *arguments]
    sys.path[0:0] = [shim_path(), os.path.dirname(os.path.abspath(path))]
    import types

    script = types.ModuleType("__main__")
    script.__file__ = path
    sys.modules["__main__"] = script
    try:
        exec(compile(text, path, "exec", dont_inherit=True), script.__dict__)
    except SystemExit as ending:
        return _status(ending.code)
    return 0


def _is_python(text: bytes) -> bool:
    line = text.split(b"\n", 1)[0]
    return not line.startswith(b"#!") or b"python" in line


def _status(code: object) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


def _execute(path: str, arguments: Sequence[str]) -> None:
    """Become the script, whose Python children find our `bcc` by PYTHONPATH."""
    from . import shim_path

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    paths = [shim_path(), root, os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    os.execve(path, [path, *arguments], environment)

"""From C text to a unit whose functions can be compiled one by one: the only file here that knows the C front end's door."""

from __future__ import annotations

import os
import sys

from ...errors import CompileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...lang.c.options import Unit
    from ...spec.target import Target

NAME = "/virtual/main.c"  # what BCC calls a text without a file
relocatable = False  # whether programs are compiled for other kernels than this one; `recording` sets it


class ProgramError(CompileError):
    """A BCC text that cannot be compiled; as a string, it says all there is to say, as the traceback of a script shows only that."""

    def __init__(self, error: CompileError, name: str) -> None:
        super().__init__(error.diagnostics)
        self.name = name

    def __str__(self) -> str:
        return f"Failed to compile BPF module {self.name}\n{self.render()}"


def open_unit(text: bytes, path: str = "", header: str = "", flags: Sequence[str] = ()) -> Unit:
    """Analyse a BCC text for the running machine. Warnings go to stderr, as a compiler's do. Raises ProgramError, FeatureError."""
    from ...lang.c.compile import compile_c
    from ...lang.c.options import Options
    from ...lang.source import Source

    source = Source(path or NAME, text.decode("utf-8", "surrogateescape"))
    options = Options(flags=tuple(flags), directory=os.path.dirname(path), header=header, relocatable=relocatable)
    try:
        unit: Unit = compile_c(source, _target(), options)
    except CompileError as error:
        raise ProgramError(error, path or "<text>") from None
    for warning in unit.warnings:
        print(warning.render(), file=sys.stderr)
    return unit


def _target() -> Target:
    from .inprocess import in_process_target, is_wanted

    if is_wanted() and not relocatable:
        return in_process_target()
    from ...kernel.target import live_target

    return live_target()


def read_source(path: bytes) -> tuple[bytes, str]:
    """Read a source file, which may lie beside the script. Returns the text and the path. Raises UsageError."""
    from ...errors import UsageError

    name = os.fsdecode(path)
    beside = os.path.join(os.path.abspath(os.path.dirname(sys.argv[0])), name)
    for candidate in (name, beside):
        if os.path.isfile(candidate):
            with open(candidate, "rb") as file:
                return file.read(), candidate
    raise UsageError(f"Could not find file {name}", hint=f"looked in {os.getcwd()} and beside the script: {beside}")


def find_header(path: bytes) -> str:
    """Return the path of a header file, which may lie beside the script; "" for none."""
    name = os.fsdecode(path)
    beside = os.path.join(os.path.abspath(os.path.dirname(sys.argv[0])), name)
    return beside if name and not os.path.isfile(name) and os.path.isfile(beside) else name

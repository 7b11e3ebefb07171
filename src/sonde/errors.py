"""Every exception that sonde raises on purpose, and the diagnostics that they carry.

    SondeError
    ├── UsageError            a wrong option or argument                              (exit 2)
    ├── CompileError          a program text is wrong; carries one or more Diagnostic (exit 1)
    ├── FormatError           bytes that are not what they should be: BTF, ELF, tracefs, /proc, trace files
    ├── ProbeError            a probe does not exist or cannot be had here; carries close names
    │   └── MissingProbeError its form is right, but nothing here matches it
    ├── FeatureError          the target lacks a feature that the program needs
    ├── PrivilegeError        a capability is missing; names it
    ├── KernelError           a system call was refused; carries the errno and what was asked
    │   ├── VerifierError     the kernel's verifier refused a program; carries its log
    │   ├── AttachError       a loaded program could not be attached
    │   └── MapError          a map in memory refused what the kernel's would refuse; the errno is the kernel's
    ├── UnsafeError           sonde's own verifier refused a program for another process; carries the place in its source
    ├── RunError              a program that runs without a kernel did what it must not; says at which instruction
    ├── TargetError           the traced process or command cannot be started, found or traced
    │   └── BusyError         a thread stands where nothing can be changed right now; the same may succeed a moment later
    └── OutputError           the output cannot be written (disk full, closed descriptor)

A message says what was asked, what was found, where, and what to do next. Library code raises; only `cli` prints.
"""

from __future__ import annotations

from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Span(Record):
    """A range of a source text. Lines and columns count from 1; the end column is the first one not covered."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    @property
    def excerpt(self) -> str:
        """The source lines that the span covers, where it knows its text; "" otherwise."""
        return ""


class Diagnostic(Record):
    """One error or warning about a program text. `excerpt` is the text of the lines of `span`, without the last newline."""

    severity: str  # "ERROR", "WARNING"
    message: str
    span: Span | None = None
    excerpt: str = ""
    hint: str = ""
    notes: tuple[Diagnostic, ...] = ()  # the macro expansion chain, a first definition …

    def render(self) -> str:
        """Return the text as bpftrace prints it: place, message, source line, underline, hint; no trailing newline."""
        if self.span is None:
            text = f"{self.severity}: {self.message}"
        else:
            s = self.span
            one_line = s.end_line == s.line
            columns = f":{s.column}-{s.end_column}" if one_line else f"-{s.end_line}"
            text = f"{s.file}:{s.line}{columns}: {self.severity}: {self.message}"
            if self.excerpt:
                text += "\n" + (_underlined(self.excerpt, s) if one_line else self.excerpt)
        if self.hint:
            text += f"\nHINT: {self.hint}"
        for note in self.notes:
            text += "\n" + note.render()
        return text


def _underlined(excerpt: str, span: Span) -> str:
    """One source line, tabs widened as bpftrace widens them, and `~~~` below the span."""
    before, inside = excerpt[: span.column - 1], excerpt[span.column - 1 : span.end_column - 1]
    indent = " " * max(len(before.replace("\t", _TAB)), span.column - 1)
    mark = "~" * max(len(inside.replace("\t", _TAB)), span.end_column - span.column)
    return excerpt.replace("\t", _TAB) + "\n" + indent + mark


_TAB = "    "


class SondeError(Exception):
    """Base of all errors that sonde raises on purpose. `hint` says what to do next, in one sentence."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def render(self) -> str:
        """Return the full text for a terminal, without a trailing newline."""
        return f"ERROR: {self.message}" + (f"\nHINT: {self.hint}" if self.hint else "")


class UsageError(SondeError):
    """A wrong option, argument or combination of them."""


class CompileError(SondeError):
    """A program text that cannot be compiled. `diagnostics` holds at least one error."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(diagnostics[0].message)
        self.diagnostics = tuple(diagnostics)

    def render(self) -> str:
        return "\n".join(d.render() for d in self.diagnostics)


class FormatError(SondeError):
    """Bytes that are not what their name promises. `path` and `offset` (bytes, -1: unknown) say where."""

    def __init__(self, message: str, *, path: str = "", offset: int = -1, hint: str = "") -> None:
        place = (path + (f" at byte {offset}" if offset >= 0 else "")).lstrip()
        super().__init__(f"{place}: {message}" if place else message, hint=hint)
        self.path = path
        self.offset = offset


class ProbeError(SondeError):
    """A probe that does not exist here, or whose form is wrong. `close` lists similar names that do exist."""

    def __init__(self, message: str, *, close: Sequence[str] = (), hint: str = "") -> None:
        if close and not hint:
            hint = "did you mean " + ", ".join(close) + "?"
        super().__init__(message, hint=hint)
        self.close = tuple(close)


class MissingProbeError(ProbeError):
    """An attach point whose form is right, but that nothing here matches."""


class FeatureError(SondeError):
    """The target machine lacks `feature`, a name of the feature table."""

    def __init__(self, message: str, *, feature: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.feature = feature


class PrivilegeError(SondeError):
    """The process lacks `capability` (one name such as CAP_BPF, or "")."""

    def __init__(self, message: str, *, capability: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.capability = capability


class KernelError(SondeError):
    """The kernel refused a request. `errno` is its number, `what` the request in words."""

    def __init__(self, what: str, errno: int, *, hint: str = "") -> None:
        import os

        super().__init__(f"{what}: {os.strerror(errno)}", hint=hint)
        self.what = what
        self.errno = errno


class VerifierError(KernelError):
    """The kernel's verifier refused program `program`. `log` is its full log, `summary` the line that matters."""

    def __init__(
        self,
        program: str,
        errno: int,
        *,
        log: str = "",
        summary: str = "",
        diagnostic: Diagnostic | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(f"the kernel refused to load program {program}", errno, hint=hint)
        self.program = program
        self.log = log
        self.summary = summary
        self.diagnostic = diagnostic

    def render(self) -> str:
        text = self.diagnostic.render() + "\n" if self.diagnostic else ""
        text += super().render()
        return text + (f"\nverifier: {self.summary}" if self.summary else "")


class UnsafeError(SondeError):
    """sonde's own verifier refused program `program`, which was to run in another process. `diagnostic` is the place in its source."""

    def __init__(self, message: str, program: str, *, diagnostic: Diagnostic | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.program = program
        self.diagnostic = diagnostic

    def render(self) -> str:
        text = self.diagnostic.render() + "\n" if self.diagnostic else ""
        return text + super().render()


class AttachError(KernelError):
    """A loaded program could not be attached to its probe."""


class MapError(KernelError):
    """A map that lives in memory of ours refused an operation, as the kernel's own map would have, with the same errno."""


class RunError(SondeError):
    """A program in an engine of ours did what it must not: read outside its memory, ran too long, called what is not there.

    `pc` is the instruction (-1: unknown), `address` the place in memory that was asked for (-1: none).
    """

    def __init__(self, message: str, *, pc: int = -1, address: int = -1, hint: str = "") -> None:
        super().__init__(f"instruction {pc}: {message}" if pc >= 0 else message, hint=hint)
        self.pc = pc
        self.address = address


class TargetError(SondeError):
    """The traced process or command cannot be started, found or traced."""


class BusyError(TargetError):
    """A thread of the process stands where nothing can be changed right now: let it run, and try again."""


class OutputError(SondeError):
    """The output cannot be written."""

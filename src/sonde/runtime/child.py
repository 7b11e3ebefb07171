"""The command of -c: started stopped, so that its pid is known and all probes are in place before its first instruction.

The child is forked and waits on a pipe. `release` lets it call exec; the same pipe pair tells whether that worked.
"""

from __future__ import annotations

import os

from ..errors import TargetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal  # `signal` imports enum, which costs 2 ms of start-up


if TYPE_CHECKING:
    from typing import Protocol

    class Command(Protocol):
        """A process of ours that waits to be let go."""

        pid: int

        def fileno(self) -> int: ...
        def release(self) -> None: ...
        def close(self) -> None: ...


class Child:
    """A stopped child process that will run `command`. Close kills it when it still runs. Raises TargetError."""

    def __init__(self, command: str) -> None:
        words = split_command(command)
        if not words:
            raise TargetError(f"the command {command!r} is empty")
        self.command = command
        self.path = find_program(words[0])
        self.status: int | None = None
        go_read, self._go = os.pipe2(os.O_CLOEXEC)
        self._error, error_write = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if not self.pid:
            os.close(self._go)
            os.close(self._error)
            _become(self.path, words, go_read, error_write)
        os.close(go_read)
        os.close(error_write)
        self._pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        """A descriptor that is readable once the child has ended."""
        return self._pidfd

    def release(self) -> None:
        """Let the child run its program. Raises TargetError when exec fails; does nothing the second time."""
        if self._go < 0:
            return
        try:
            os.write(self._go, b"g")
        except BrokenPipeError:
            pass  # killed while it waited: its end is seen by the pidfd
        os.close(self._go)
        self._go = -1
        failure = os.read(self._error, 16)
        os.close(self._error)
        self._error = -1
        if failure:
            reason = os.strerror(int(failure))
            self.close()
            raise TargetError(f"cannot run {self.path}: {reason}", hint="check that it is an executable program")

    def close(self) -> None:
        """Kill the child when it still runs, and reap it."""
        for fd in (self._go, self._error):
            if fd >= 0:
                os.close(fd)
        self._go = self._error = -1
        if self._pidfd < 0:
            return
        if self.status is None:
            try:
                os.kill(self.pid, 9)
                self.status = os.waitpid(self.pid, 0)[1]
            except (ProcessLookupError, ChildProcessError):
                self.status = 0
        os.close(self._pidfd)
        self._pidfd = -1


def _become(path: str, words: list[str], go: int, error: int) -> NoReturn:
    """In the child: wait for the word, then become the program; never returns into the caller's code."""
    try:
        _reset_signals()
        if os.read(go, 1) == b"g":
            os.execv(path, words)
    except OSError as failure:
        os.write(error, str(failure.errno).encode())
    finally:
        os._exit(127)


def _reset_signals() -> None:
    """Undo what the interpreter has set and programs would inherit; end with the tracer should it be killed."""
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT):
        _signal.signal(number, _signal.SIG_DFL)
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(_signal.SIGTERM), 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass  # then an orphaned child goes on, as any background job


_PR_SET_PDEATHSIG = 1


def split_command(command: str) -> list[str]:
    """Split a command line at blanks; quotes (single or double) hold words together.

    A backslash takes a following blank, quote or backslash literally; before anything else it stands for itself.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    at = 0
    while at < len(command):
        letter = command[at]
        at += 1
        if letter == "\\" and quote != "'" and command[at : at + 1] in _ESCAPABLE:
            word = (word or "") + command[at]
            at += 1
        elif letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote, word = letter, word or ""
        elif not quote and letter in " \t\n":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + letter
    if quote:
        raise TargetError(f"the command {command!r} has no closing {quote}")
    return words if word is None else [*words, word]


_ESCAPABLE = (" ", "'", '"', "\\")


def find_program(name: str) -> str:
    """Return the path of the executable `name`, searched in PATH unless it has a slash. Raises TargetError."""
    if "/" in name:
        candidates = [name]
    else:
        candidates = [f"{folder or '.'}/{name}" for folder in os.environ.get("PATH", os.defpath).split(":")]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    if "/" in name and os.path.exists(name):
        raise TargetError(f"cannot run {name}: it is not an executable file")
    where = "" if "/" in name else " in PATH"
    raise TargetError(f"cannot run {name}: there is no such program{where}")

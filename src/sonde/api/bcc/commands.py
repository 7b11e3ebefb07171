"""BCC's `exec`: start a command stopped, let it run once all probes are in place, and ask whether it has ended."""

from __future__ import annotations

import os
import sys

from ...errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_gate: list[int] = []  # the end of a pipe that holds the command back
_ended: list[int] = []  # processes that were waited for


def run_cmd(args: Sequence[str]) -> int:
    """Start a command, which waits for `cmd_ready` before it executes; return its process id."""
    import signal

    if _gate:
        raise UsageError("one command is waiting already")
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        _wait_and_execute(reading, args)
    os.close(reading)
    _gate.append(writing)
    signal.signal(signal.SIGCHLD, _collect)
    return pid


def _wait_and_execute(gate: int, args: Sequence[str]) -> None:
    """What the child does. It never returns: no clean-up of the parent may run in it."""
    try:
        if not os.read(gate, 1):
            os._exit(1)  # the parent has gone
        os.execvp(args[0], list(args))
    except OSError as error:
        print(f"failed to exec command: {' '.join(args)}: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _collect(signum: int, frame: Any) -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except OSError:
            break
        if pid == 0:
            return
        _ended.append(pid)


def cmd_ready() -> None:
    """Let the command execute."""
    gate = _gate.pop()
    try:
        os.write(gate, b"x")
    finally:
        os.close(gate)


def cmd_exited() -> int:
    """Return 1 once the command has ended, 0 before."""
    return 1 if _ended else 0

"""A thread followed through exec: seized while it waits before the call (`halts`), held at the first instruction of what it becomes, or let go when the call has failed.

Nothing depends on sonde meanwhile: there is no breakpoint, and should sonde die the kernel lets the thread run on. An exec gives the thread that calls it the number of its
process; other threads end. Under an unprivileged tracer a set-uid program would run without its privileges: those are not followed (`keeps_privileges`).
"""

from __future__ import annotations

import os
from time import monotonic

from . import ptrace
from .refusal import CAP_SYS_PTRACE, explain, read_status
from .seized import SeizedThreads
from .spawn import stand_still

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_EXECVEAT, _AT_FDCWD = 322, -100
_MOST_PATH_BYTES = 4096
_SET_IDS = 0o6000
_PATIENCE_S = 2.0
_STOPPING = (19, 20, 21, 22)  # SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU


class Exec:
    """A thread that is about to call exec, seized. A context manager; all use must be in one thread of ours.

    `tid` is the thread as the process numbers it.
    """

    def __init__(self, pid: int, tid: int) -> None:
        """Seize the thread, which keeps running. Raises TargetError, PrivilegeError."""
        self.pid = pid
        self.since = self.seen = monotonic()  # when it came to its halt, when it was last seen in the call
        self.ended = False
        self._seized = SeizedThreads(pid, False, _PATIENCE_S, ())
        self._seized.seize_only(find_thread(pid, tid), ptrace.O_TRACESYSGOOD | ptrace.O_TRACEEXEC)

    def is_there(self) -> bool:
        """Whether it stands in the new program; stops for other reasons are passed on. When it has `ended` it never will."""
        try:
            return not self.ended and self._look()
        except ProcessLookupError:
            self.ended = True
            return False

    def _look(self) -> bool:
        status = self._seized.look()
        if status is None:
            return False
        event, signal = status >> 16, status >> 8 & 0x7F
        if event == ptrace.EVENT_EXEC:
            stand_still(self.pid, monotonic() + _PATIENCE_S)
            ptrace.request(ptrace.SETOPTIONS, self.pid, 0, ptrace.O_TRACESYSGOOD)
            return True
        if event == ptrace.EVENT_STOP and signal in _STOPPING:
            self._seized.resume(ptrace.LISTEN)  # all of its process is stopped by a signal, and stays so
        else:
            self._seized.resume(ptrace.CONT, 0 if event else signal)
        return False

    def take(self) -> int:
        """Hand over the thread, which stands: it is somebody else's to let go. Returns its number."""
        return self._seized.take()

    def close(self) -> None:
        """Let the thread go. Twice is harmless."""
        self._seized.close()
        self._seized.let_go_after_exec()

    def __enter__(self) -> Exec:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_thread(pid: int, tid: int) -> int:
    """Return the number that a thread of a process has here, where `tid` is what it calls itself. Raises TargetError, PrivilegeError."""
    if read_status(tid).get("NSpid", f"{tid}") == f"{tid}" and os.path.exists(f"/proc/{pid}/task/{tid}"):
        return tid
    try:
        names = os.listdir(f"/proc/{pid}/task")
    except OSError:
        raise explain(pid) from None
    for name in names:
        if read_status(int(name)).get("NSpid", "").split()[-1:] == [str(tid)]:
            return int(name)
    raise explain(pid)


def keeps_privileges(pid: int, call: Sequence[int]) -> bool:
    """Whether a call of exec (its number and arguments) gives the same program under a tracer like us as without one.

    Not so for a program with rights of its own, set-uid or by capabilities, unless we have CAP_SYS_PTRACE; nor where the file cannot be looked at.
    """
    try:
        if int(read_status(os.getpid()).get("CapEff", "0"), 16) >> CAP_SYS_PTRACE & 1:
            return True
        path = _path_of(pid, call)
        if os.stat(path).st_mode & _SET_IDS:
            return False
        return "security.capability" not in os.listxattr(path)
    except (OSError, ValueError):
        return False


def _path_of(pid: int, call: Sequence[int]) -> str:
    """The file that a call of exec names, as we can reach it. Raises OSError."""
    number, first, second = call[:3]
    at, address = (first & 0xFFFFFFFF, second) if number == _EXECVEAT else (_AT_FDCWD & 0xFFFFFFFF, first)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        name = b""
        while b"\0" not in name and len(name) < _MOST_PATH_BYTES:
            piece = os.pread(memory.fileno(), 4096 - (address + len(name)) % 4096, address + len(name))
            if not piece:
                raise OSError("the name cannot be read")
            name += piece
    text = os.fsdecode(name.partition(b"\0")[0])
    if text.startswith("/proc/self/"):
        return f"/proc/{pid}/{text[11:]}"
    if text.startswith("/"):
        return f"/proc/{pid}/root{text}"
    start = f"/proc/{pid}/cwd" if at == _AT_FDCWD & 0xFFFFFFFF else f"/proc/{pid}/fd/{at}"
    return f"{start}/{text}" if text else start

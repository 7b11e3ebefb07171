"""Where printed bytes go: stdout or a file, in as few writes as the buffering allows. A write that fails is an OutputError.

A closed pipe raises BrokenPipeError, which ends a session silently.
"""

from __future__ import annotations

import os

from ..errors import OutputError

FULL_BYTES = 1 << 16
NOTICE = b"__BPFTRACE_NOTIFY_PROBES_ATTACHED\n"  # what programs that start bpftrace may ask it to print
PIPE_BYTES = 1 << 16  # what a pipe holds by default


class Sink:
    """Collects chunks of bytes and writes them to a descriptor.

    `buffering`: "none" writes each chunk at once, "line" at each flush, "full" when 64 KiB wait or at close.
    """

    def __init__(self, fd: int, name: str = "the output", buffering: str = "line", *, owned: bool = False) -> None:
        self.chunks: list[bytes] = []
        self.fd = fd
        self._name = name
        self._buffering = buffering
        self._owned = owned
        self._widened = False
        self.write = self._write_now if buffering == "none" else self.chunks.append

    def _write_now(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self.sync()

    def flush(self) -> None:
        """All rows that were there are in: write them, unless the buffering says to wait."""
        if self._buffering != "full" or sum(map(len, self.chunks)) >= FULL_BYTES:
            self.sync()

    def sync(self) -> None:
        """Write all that waits. Raises OutputError, or BrokenPipeError when the reader has gone."""
        if not self.chunks:
            return
        data = memoryview(b"".join(self.chunks))
        self.chunks.clear()
        if len(data) > PIPE_BYTES and not self._widened:
            self._widened = True
            _widen_pipe(self.fd)
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except BrokenPipeError:
                raise
            except BlockingIOError:
                _wait_writable(self.fd)
            except OSError as failure:
                raise OutputError(f"cannot write {self._name}: {failure.strerror}") from None

    def close(self) -> None:
        """Write all that waits; close the descriptor when it was opened here."""
        try:
            self.sync()
        finally:
            if self._owned and self.fd >= 0:
                os.close(self.fd)
                self.fd = -1


def open_sink(path: str = "", buffering: str = "line") -> Sink:
    """Open a file, or stdout for "". Raises OutputError."""
    if not path:
        return Sink(1, "the standard output", buffering or "line")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as failure:
        raise OutputError(f"cannot open {path} for the output: {failure.strerror}") from None
    return Sink(fd, path, buffering or "line", owned=True)


def _widen_pipe(fd: int) -> None:
    """Make room for much output at once when `fd` is a pipe: fewer waits for its reader while the kernel's ring fills."""
    import fcntl

    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass  # no pipe, or the system's limit is lower


_F_SETPIPE_SZ = 1031


def _wait_writable(fd: int) -> None:
    """Someone else made the descriptor non-blocking: wait until it takes more."""
    import select

    select.select([], [fd], [])


def tell(fd: int, text: str) -> None:
    """Write a line to stderr. Where that is closed or full, nobody wants to know."""
    try:
        data = memoryview(text.encode("utf-8", "surrogateescape") + b"\n")
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        pass


def write_atomically(path: str, text: str) -> None:
    """Replace the file at `path` by `text`, or leave it as it was. Raises OutputError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with open(fd, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as failure:
        raise OutputError(f"cannot write {path}: {failure.strerror}") from None

"""Rows that print something from elsewhere: files of cat(), the output of system()."""

from __future__ import annotations

import os

CHUNK_BYTES = 1 << 16
_ENTIRE = 1 << 62


def read_file(path: bytes, limit: int) -> tuple[bytes, str]:
    """Return up to `limit` bytes of a file (0: all), and why it could not be read ("" when it could)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failure:
        return b"", failure.strerror or ""
    chunks: list[bytes] = []
    left = limit or _ENTIRE
    try:
        while left:
            chunk = os.read(fd, min(left, CHUNK_BYTES))
            if not chunk:
                break
            chunks.append(chunk)
            left -= len(chunk)
    except OSError as failure:
        return b"".join(chunks), failure.strerror or ""
    finally:
        os.close(fd)
    return b"".join(chunks), ""


def run_command(command: bytes) -> tuple[bytes, int]:
    """Run a shell command; return what it wrote (stdout and stderr together) and its exit code."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, write_end, 1), (os.POSIX_SPAWN_DUP2, write_end, 2)]
    words: list[str | bytes] = ["sh", "-c", command]
    try:
        pid = os.posix_spawn("/bin/sh", words, os.environ, file_actions=actions, setsigdef=_IGNORED_SIGNALS)
    finally:
        os.close(write_end)
    chunks: list[bytes] = []
    try:
        while chunk := os.read(read_end, CHUNK_BYTES):
            chunks.append(chunk)
    finally:
        os.close(read_end)
        status = os.waitpid(pid, 0)[1]
    return b"".join(chunks), os.waitstatus_to_exitcode(status)


_IGNORED_SIGNALS = (13, 25)  # SIGPIPE and SIGXFSZ: the interpreter ignores them, and children would inherit that

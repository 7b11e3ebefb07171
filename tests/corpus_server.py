"""Runs command lines of `sonde bpftrace` in forked children of one warm process: a case costs what the case costs.

Speaks JSON lines on stdin and stdout: {"words", "env", "cwd"} in, {"status", "out", "err"} back.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 20.0
SRC = Path(__file__).resolve().parents[1] / "src"


class Server:
    """The parent's side: starts the server, sends requests. A context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SRC)},
        )

    def run(self, words: list[str], env: dict[str, str] | None = None, cwd: str = "/") -> tuple[int, str, str]:
        """Run `bpftrace WORDS`; return its status, stdout and stderr. Status 124: it did not end in time."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "env": env or {}, "cwd": cwd}) + "\n")
        self._process.stdin.flush()
        reply = json.loads(self._process.stdout.readline())
        return reply["status"], reply["out"], reply["err"]

    def close(self) -> None:
        """End the server."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _serve() -> None:
    from sonde.cli.main import run

    for program in ("begin { printf(1) }", "begin { @[comm] = count(); @a = hist(1); print(kstack); exit() }"):
        _in_child(lambda program=program: run("bpftrace", ["-e", program]), 1, 2, {}, "/", warm=True)  # type: ignore[misc]
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            words = request["words"]
            status = _in_child(
                lambda words=words: run("bpftrace", words),  # type: ignore[misc]
                out.fileno(),
                err.fileno(),
                request["env"],
                request["cwd"],
            )
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "backslashreplace"))
        print(json.dumps({"status": status, "out": texts[0], "err": texts[1]}), flush=True)


def _in_child(function, out, err, env, cwd, warm=False):  # type: ignore[no-untyped-def]
    """Call `function` in a forked child with these streams; return its status. `warm`: here, for the sake of imports."""
    if warm:
        return _warm(function)
    pid = os.fork()
    if not pid:
        code = 70
        try:
            null = os.open(os.devnull, os.O_RDONLY)
            for old, new in ((null, 0), (out, 1), (err, 2)):
                os.dup2(old, new)
            os.environ.update(env)
            os.chdir(cwd)
            os.setpgid(0, 0)
            code = function()
            sys.stdout.flush()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code & 255)
    end = time.monotonic() + LIMIT_S
    pause = 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return 124
        time.sleep(pause)
        pause = min(pause * 1.3, 0.01)


def _warm(function) -> None:  # type: ignore[no-untyped-def]
    saved = [os.dup(1), os.dup(2)]
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        function()
        sys.stdout.flush()
    except Exception:
        pass  # whatever is wrong will show in the cases
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for fd in (*saved, null):
            os.close(fd)


if __name__ == "__main__":
    _serve()

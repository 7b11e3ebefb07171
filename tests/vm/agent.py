"""Runs in the guest as its init: takes requests on one virtio port, sends output on a second, results on a third.

A request is one JSON line: {"argv": […] or "python": source, "env": {…}, "cwd": …, "timeout": s, "stdin": …}. Python requests run in
a fork of this process, which saves them the interpreter's start (0.75 s under emulation). Standard output and
error of a request are files in the guest; the reply carries both, base64 in one JSON line.
"""

import base64
import json
import os
import signal
import sys
import time


def find_port(name: str) -> str:
    for port in os.listdir("/sys/class/virtio-ports"):
        with open(f"/sys/class/virtio-ports/{port}/name") as f:
            if f.read().strip() == name:
                return f"/dev/{port}"
    raise SystemExit(f"no virtio port {name}")


def child(request: dict) -> None:
    os.setsid()
    for number, path in ((1, "/tmp/.out"), (2, "/tmp/.err")):
        fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600)
        os.dup2(fd, number)
    null = os.open("/dev/null", os.O_RDONLY)
    if "stdin" in request:
        with open("/tmp/.in", "wb") as f:
            f.write(request["stdin"].encode())
        null = os.open("/tmp/.in", os.O_RDONLY)
    os.dup2(null, 0)
    os.closerange(3, 256)
    os.environ.update(request.get("env", {}))
    os.chdir(request.get("cwd", "/"))
    if "argv" in request:
        try:
            os.execvp(request["argv"][0], request["argv"])
        except OSError as error:
            os.write(2, f"{request['argv'][0]}: {error}\n".encode())
            os._exit(127)
    status = 0
    try:
        sys.path[:0] = request.get("path", [])
        sys.argv = ["guest", *request.get("args", [])]
        exec(compile(request["python"], "<request>", "exec"), {"__name__": "__main__"})
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def wait(pid: int, timeout_s: float) -> tuple[int, bool]:
    """Wait for the child, reaping orphans meanwhile (this process is init); kill its session at the limit."""
    end = time.monotonic() + timeout_s
    late = False
    while True:
        done, status = os.waitpid(-1, os.WNOHANG)
        if done == pid:
            return os.waitstatus_to_exitcode(status), late
        if done == 0:
            if time.monotonic() > end:
                late = True
                end = time.monotonic() + 5
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.005)


def read(path: str) -> str:
    try:
        with open(path, "rb") as f:
            return base64.b64encode(f.read()).decode()
    except OSError:
        return ""


def main() -> None:
    import ctypes  # noqa: F401  (warmed for the forks)
    import mmap  # noqa: F401
    import struct  # noqa: F401

    requests = open(find_port("requests"), "rb", buffering=0)  # noqa: SIM115
    replies = open(find_port("replies"), "wb", buffering=0)  # noqa: SIM115
    replies.write(json.dumps({"ready": os.uname().release}).encode() + b"\n")
    pending = b""
    while True:
        data = requests.read(65536)
        if not data:
            time.sleep(0.01)
            continue
        pending += data
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                child(request)
            status, late = wait(pid, request.get("timeout", 60))
            reply = {"status": status, "timeout": late, "out": read("/tmp/.out"), "err": read("/tmp/.err")}
            send(replies, json.dumps(reply).encode() + b"\n")


def send(port, data: bytes) -> None:
    """Write all of `data`: the console driver takes 32 KiB at a time."""
    while data:
        data = data[port.write(data) or 0 :]


main()

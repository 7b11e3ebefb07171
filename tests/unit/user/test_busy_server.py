"""A server with many threads, busy all the time, probed and left alone again and again: every answer is right, and its code is as it was.

SONDE_ROUNDS=100 does it a hundred times. SONDE_REDIS=DIRECTORY takes Debian's redis-server and redis-benchmark from there (or from PATH) for the server.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.user.engine import UserEngine
from sonde.user.target import user_target

ROUNDS = int(os.environ.get("SONDE_ROUNDS", "4"))
SERVER = """
import hashlib, http.server, json, zlib
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        data = zlib.compress(json.dumps({"path": self.path, "digest": hashlib.sha256(self.path.encode()).hexdigest()}).encode() * 20)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
SCRIPTS = (
    "uprobe:libc:malloc { @ = count(); @h = hist(arg0); } uretprobe:libc:malloc { @r = count(); } uprobe:libc:free { @f[ustack(3)] = count(); }",
    "tracepoint:raw_syscalls:sys_enter { @[args.id] = count(); } tracepoint:raw_syscalls:sys_exit { @e[args.id, args.ret < 0] = count(); }",
    "uprobe:libc:mem* { @[probe] = count(); } uretprobe:libc:poll { @p[retval] = count(); } uprobe:libc:pthread_* { @t[func] = count(); }",
)


class Client:
    """Threads that ask all the time; `wrong` are the answers that were not as they should be."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers = 0
        self.wrong: list[str] = []
        self._going = True
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        import json
        import zlib

        number = random.randrange(1 << 30)
        while self._going:
            number += 1
            path = f"/{number}"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
                    text = zlib.decompress(answer.read()).decode()
                one = json.dumps({"path": path, "digest": hashlib.sha256(path.encode()).hexdigest()})
                if text != one * 20:
                    self.wrong.append(f"{path}: {text[:200]}")
                self.answers += 1
            except Exception as failure:
                self.wrong.append(f"{path}: {failure!r}")

    def stop(self) -> None:
        self._going = False
        for thread in self._threads:
            thread.join()


def code_of(pid: int) -> str:
    """A digest of all code of files that a process has mapped."""
    digest = hashlib.sha256()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            words = line.split()
            if len(words) > 5 and "x" in words[1] and words[5].startswith("/") and not words[5].startswith("/memfd"):
                start, end = (int(word, 16) for word in words[0].split("-"))
                memory.seek(start)
                digest.update(memory.read(end - start))
    return digest.hexdigest()


def rounds(pid: int, check: Callable[[], None], scripts: Sequence[str] = SCRIPTS) -> None:
    before = code_of(pid)
    for number in range(ROUNDS):
        script = scripts[number % len(scripts)]
        spec = compile(script, user_target(live_target()), TraceOptions(pid=pid))
        with UserEngine(pid).load(spec) as loaded:
            loaded.attach(spec.probes)
            time.sleep(0.2)
            counts = [
                sum(int.from_bytes(v[:8], "little") for v in vs)
                for m in loaded.maps.values()
                if m.shape.kind.startswith("percpu")
                for _, vs in m.items()
            ]
            assert sum(counts) > 0, (script, loaded.notes)
        assert code_of(pid) == before, script
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "sonde" not in maps or any("stays" in note for note in loaded.notes), maps
        check()


def test_a_server_of_many_threads() -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    client = Client(int(process.stdout.readline()))

    def check() -> None:
        assert process.poll() is None and not client.wrong, client.wrong[:3]

    try:
        rounds(process.pid, check)
        answered = client.answers
        time.sleep(0.2)
        assert client.answers > answered > 0
    finally:
        client.stop()
        process.kill()
        process.communicate()
    assert not client.wrong


@contextmanager
def redis() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    folder = os.environ.get("SONDE_REDIS", "")
    server, load = (shutil.which(name, path=folder or None) for name in ("redis-server", "redis-benchmark"))
    if not server or not load:
        pytest.skip("needs redis-server and redis-benchmark (Debian packages redis-server, redis-tools)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [server, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--io-threads", "2"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        time.sleep(1)
        words = [load, "-p", port, "-n", "1000000000", "-c", "20", "-P", "4", "-t", "set,get,incr,lpush,zadd", "-q"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as client:
            try:
                yield process.pid, client
            finally:
                client.kill()
                process.kill()


def test_redis_under_load() -> None:
    with redis() as (pid, client):

        def check() -> None:
            assert client.poll() is None, client.stderr.read() if client.stderr else ""
            assert Path(f"/proc/{pid}/exe").exists()

        server = os.readlink(f"/proc/{pid}/exe")
        commands = (
            f"uprobe:{server}:*Command {{ @[func] = count(); }} uretprobe:{server}:*Command {{ @r[func] = count(); }}"
        )
        rounds(pid, check, (commands, *SCRIPTS[1:]))

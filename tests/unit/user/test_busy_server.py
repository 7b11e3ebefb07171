"""A server with many threads, busy all the time, probed and left alone again and again: every answer is right, and its code is as it was.

SONDE_ROUNDS=100 does it a hundred times. SONDE_REDIS=DIRECTORY takes Debian's redis-server and redis-benchmark from there (or from PATH) for the server,
SONDE_POSTGRES=DIRECTORY the programs of postgresql.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.user.engine import UserEngine
from sonde.user.target import user_target

ROUNDS = int(os.environ.get("SONDE_ROUNDS", "4"))
pytestmark = pytest.mark.timeout(120 + 3 * ROUNDS)
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


class Postgres:
    """A database in a folder of its own, reached by a socket there, with pgbench at work on it. A context manager.

    It does not run as root: then it is nobody's. `words` are more options of pgbench.
    """

    def __init__(self, *words: str) -> None:
        folders = [os.environ.get("SONDE_POSTGRES", ""), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
        names = ("initdb", "postgres", "pgbench", "psql")
        self._programs = {name: shutil.which(name, path=os.pathsep.join(folders)) for name in names}
        if not all(self._programs.values()):
            pytest.skip("needs initdb, postgres, pgbench and psql (Debian package postgresql)")
        self._who: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
        self._folder = Path(tempfile.mkdtemp(prefix="sonde-postgres-"))
        try:
            self._set_up(words)
        except BaseException:
            self.close()
            raise

    server: subprocess.Popen[str] | None = None
    client: subprocess.Popen[str] | None = None

    def _set_up(self, words: Sequence[str]) -> None:
        if self._who:
            os.chown(self._folder, 65534, 65534)
        data, socket = f"{self._folder}/data", str(self._folder)
        self._run("initdb", "-D", data, "-U", "sonde", "--no-sync", "--auth=trust", "--locale=C")
        self.server = self._start("postgres", "-D", data, "-k", socket, "-c", "listen_addresses=", "-c", "fsync=off")
        while not (self._folder / ".s.PGSQL.5432").exists() or not self._answers():
            assert self.server.poll() is None, (self._folder / "postgres.log").read_text()
            time.sleep(0.05)
        self._run("pgbench", "-h", socket, "-U", "sonde", "-i", "-q", "postgres")
        caught = self._folder / "caught.sql"  # an error, which is a longjmp, that the statement itself catches
        caught.write_text("DO $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END $$;\n")
        load = ("-n", "-T", "100000", "-b", "tpcb-like@4", "-f", f"{caught}@1", *words)
        self.client = self._start("pgbench", "-h", socket, "-U", "sonde", *load, "postgres")
        while not self.done():
            time.sleep(0.05)

    def _words(self, name: str, words: Sequence[str]) -> list[str]:
        return [str(self._programs[name]), *words]

    def _run(self, name: str, *words: str) -> str:
        done = subprocess.run(
            self._words(name, words), cwd=self._folder, capture_output=True, text=True, check=False, **self._who
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _start(self, name: str, *words: str) -> subprocess.Popen[str]:
        with (self._folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                self._words(name, words), cwd=self._folder, stdout=log, stderr=log, text=True, **self._who
            )

    def _answers(self) -> bool:
        words = self._words("psql", ["-h", str(self._folder), "-U", "sonde", "-c", "select 1", "postgres"])
        return subprocess.run(words, cwd=self._folder, capture_output=True, check=False, **self._who).returncode == 0

    def ask(self, query: str) -> str:
        """The rows of a query, columns with a bar between."""
        return self._run("psql", "-h", str(self._folder), "-U", "sonde", "-Atc", query, "postgres").strip()

    def done(self) -> int:
        """How many transactions there have been."""
        return int(self.ask("select count(*) from pgbench_history"))

    def backend(self) -> int:
        """The process that serves the one client."""
        return int(self.ask("select pid from pg_stat_activity where application_name = 'pgbench'"))

    def check(self) -> None:
        """Raise AssertionError where a transaction or a process has failed, or the books do not balance."""
        log = (self._folder / "postgres.log").read_text()
        assert "terminated" not in log and "PANIC" not in log and "ERROR" not in log, log[-2000:]
        assert self.client is not None and self.client.poll() is None, (self._folder / "pgbench.log").read_text()
        sums = self.ask(
            "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), "
            "(select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history)"
        )
        assert len(set(sums.split("|"))) == 1, sums

    def children(self) -> list[int]:
        """The processes that the server has now."""
        assert self.server is not None
        return [
            int(pid) for pid in Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()
        ]

    def close(self) -> None:
        """End all of it and remove the folder. Twice is harmless."""
        if self.client is not None:
            self.client.kill()
            self.client.wait()
        if self.server is not None:
            self.server.send_signal(signal.SIGQUIT)  # at once
            self.server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Postgres:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def database_scripts(pid: int) -> tuple[str, ...]:
    """Probes in the server's own program: of its executor, of memory and locks; of system calls."""
    server = os.readlink(f"/proc/{pid}/exe")
    return (
        f"uprobe:{server}:Exec* {{ @[func] = count(); }} uretprobe:{server}:Exec* {{ @r[func] = count(); }}",
        f"uprobe:{server}:palloc* {{ @ = hist(arg0); }} uretprobe:{server}:heap_* {{ @r[func] = count(); }} uretprobe:{server}:*Portal* {{ @p = count(); }}",
        f"uprobe:{server}:LWLock* {{ @[func] = count(); }} uretprobe:{server}:pg_* {{ @r[func] = count(); }} uretprobe:{server}:err* {{ @e[func] = count(); }}",
        SCRIPTS[1],
    )


def test_a_database_s_process_under_load() -> None:
    """One process serves one client; its transactions go on, and the books balance."""
    with Postgres("-c", "1") as database:
        pid, before = database.backend(), database.done()
        rounds(pid, database.check, database_scripts(pid))
        assert database.backend() == pid
        assert database.done() > before


def test_a_database_that_forks_for_each_transaction() -> None:
    """The probes are put into the parent, and the children that it forks meanwhile have them: what is taken out of it is taken out of them."""
    with Postgres("-C", "-c", "2") as database:
        assert database.server is not None
        pid, before = database.server.pid, database.done()

        def check() -> None:
            database.check()
            for child in database.children():
                try:
                    maps = Path(f"/proc/{child}/maps").read_text()
                except OSError:  # it has ended
                    continue
                assert "sonde" not in maps, maps

        rounds(pid, check, database_scripts(pid))
        assert database.done() > before

"""A program that answers on its standard output what it is asked on its input, with scripts of the user engine in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.debuginfo.elf import Elf
from sonde.kernel.sampling import Sampler
from sonde.spec.object import ObjectSpec
from sonde.user.budget import Limit
from sonde.user.engine import UserEngine, UserObject
from sonde.user.target import user_target


def build(source: str, folder: Path, *options: str) -> str:
    """Compile C text; return the program's path."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    path = str(folder / "target")
    subprocess.run(
        ["gcc", "-g", *options, "-x", "c", "-", "-o", path, "-lpthread"], input=source, text=True, check=True
    )
    return path


def text_of(pid: int) -> bytes:
    """The code of a process's files as it is in memory now."""
    pieces = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, perms, *_, name = line.split(maxsplit=5) if len(line.split()) > 5 else (*line.split(), "")
        if "x" in perms and name.startswith("/") and "memfd" not in name:
            start, end = (int(word, 16) for word in span.split("-"))
            with open(f"/proc/{pid}/mem", "rb") as memory:
                memory.seek(start)
                pieces.append(memory.read(end - start))
    return b"".join(pieces)


class Running:
    """The program at work: `ask("work 10")` returns the number that it answers."""

    def __init__(self, path: str, *arguments: str, user: int | None = None) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [path, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=user, group=user
        )
        assert self.process.stdout is not None and self.process.stdin is not None
        assert self.process.stdout.readline() == "ready\n"
        self.pid = self.process.pid

    def ask(self, line: str) -> int:
        self.say(line)
        return self.hear()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def compile(self, script: str, *, unsafe: bool = False) -> ObjectSpec:
        target = user_target(live_target(), unsafe=unsafe)
        return compile(script.replace("PATH", self.path), target, TraceOptions(pid=self.pid, unsafe=unsafe))

    def attach(
        self,
        script: str,
        limit: Limit | None = None,
        *,
        unsafe: bool = False,
        unwind: str = "fp",
        fast_reads: bool = False,
    ) -> UserObject:
        spec = self.compile(script, unsafe=unsafe)
        sample = lambda probe: Sampler(probe, os.uname().machine, stacks=unwind == "dwarf")  # noqa: E731
        engine = UserEngine(self.pid, None, sample, limit, unsafe=unsafe, fast_reads=fast_reads, unwind=unwind)
        loaded = engine.load(spec)
        for probe in spec.probes:
            if probe.type not in ("begin", "end"):
                loaded.attach([probe])
        loaded.begin_to_follow()
        return loaded

    def faults(self) -> int:
        """How often the kernel had to give it a page."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return int(fields[7]) + int(fields[9])

    def shared_kib(self) -> int:
        """How much memory that others may have too is in its tables."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("RssShmem:")[2].split()[0])

    def text(self) -> bytes:
        """The code of the program as it is in memory now."""
        return text_of(self.pid)

    def address(self, name: str) -> int:
        """The address of a symbol in the process."""
        with Elf.open(self.path) as elf:
            symbol = elf.get_symbol(name)
            assert symbol is not None
            first = int(Path(f"/proc/{self.pid}/maps").read_text().split("-")[0], 16)
            return symbol.vaddr + (0 if elf.is_exec else first)

    def read(self, address: int, size: int) -> bytes:
        with open(f"/proc/{self.pid}/mem", "rb") as memory:
            memory.seek(address)
            return memory.read(size)

    def write(self, address: int, data: bytes) -> None:
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(address)
            memory.write(data)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def traces(self) -> list[str]:
        return [line for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines() if "sonde" in line]


def at_work(path: str) -> Iterator[Running]:
    """What a fixture yields: a program at work, which ends with the test."""
    running = Running(path)
    yield running
    running.close()


def total(loaded: UserObject, name: str, key: bytes = bytes(4)) -> int:
    """The sum of all copies of a number."""
    return sum(int.from_bytes(value[:8], "little") for value in loaded.maps[name].lookup(key) or [])

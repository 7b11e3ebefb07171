"""A probe for the user engine's tests, by hand: counts in shared memory, runs the instructions that it displaced, jumps back."""

from __future__ import annotations

import mmap
import os

from user_targets import Target

from sonde.user.agent import Agent
from sonde.user.patches import Patch, put_in_soon, remove_when_left, take_out
from sonde.user.stopped import StoppedProcess

# What displaced code begins with: name, its first instructions (offsets), bytes in all.
WINDOWS = {"probed": ((0, 1, 6), 9), "slow": ((0, 2, 4), 5), "main.work": ((0, 4), 8)}


class Probe:
    """A counting probe on a function of WINDOWS."""

    def __init__(self, target: Target, name: str) -> None:
        self.pid = target.pid
        self.address = target.symbol(name)
        self.offsets, self.length = WINDOWS[name]
        with StoppedProcess(self.pid, all_threads=False) as stopped:
            self.agent = Agent.create(stopped, (self.address, self.address), 4096)
            shared = self.agent.share(stopped, 4096)
            self.original = stopped.read(self.address, self.length)
        self.memory = mmap.mmap(shared.fd, shared.size)
        os.close(shared.fd)
        # push rax; mov rax, address; lock inc qword [rax]; pop rax: flags are dead where a function begins
        code = b"\x50\x48\xb8" + shared.address.to_bytes(8, "little") + b"\xf0\x48\xff\x00\x58"
        self.entry = self.agent.reserve(len(code) + self.length + 5)
        self.copy = self.entry + len(code)
        self.agent.write(
            self.entry, code + self.original + self._jump(self.copy + self.length, self.address + self.length)
        )
        jump = self._jump(self.address, self.entry).ljust(self.length, b"\xcc")
        self.patch = Patch(self.address, self.original, jump, {offset: self.copy + offset for offset in self.offsets})

    @staticmethod
    def _jump(here: int, there: int) -> bytes:
        return b"\xe9" + (there - here - 5).to_bytes(4, "little", signed=True)

    @property
    def count(self) -> int:
        """How often it was hit."""
        return int.from_bytes(self.memory[:8], "little")

    def put_in(self) -> None:
        """Put it in."""
        put_in_soon(self.pid, [self.agent], [self.patch])

    def take_out(self) -> None:
        """Take it out; the memory stays."""
        with StoppedProcess(self.pid) as stopped:
            assert take_out(stopped, [self.agent], [self.patch]) == []

    def remove(self) -> list[str]:
        """Take the memory away."""
        self.memory.close()
        return remove_when_left(self.pid, [self.agent])

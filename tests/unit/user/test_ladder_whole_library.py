"""Many places of the C library and of libcrypto in a process that uses them: whatever a jump cannot be put at is told, and the process does what it did.

SONDE_PLACES="SEED EVERY" takes other places, one in EVERY instructions.
"""

from __future__ import annotations

import os
import platform
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running, total

from sonde.debuginfo.elf import Elf
from sonde.debuginfo.procmaps import read_maps
from sonde.debuginfo.x86length import measure
from sonde.record import replace
from sonde.user.engine import UserEngine

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")

TESTS = Path(__file__).resolve().parents[2]
WORK = """
import sys
sys.path.insert(0, sys.argv.pop())
import hashlib, x86_whole
hashlib.new("sha1")
first = x86_whole.work()
print("ready", flush=True)
for line in sys.stdin:
    print(int(x86_whole.work() == first), flush=True)
"""


@pytest.fixture
def running() -> Iterator[Running]:
    found = Running(sys.executable, "-c", WORK, str(TESTS))
    yield found
    found.close()


def places(path: str, every: int, chance: random.Random) -> list[int]:
    """The file offsets of one in so many instructions of the functions in a file."""
    found = set()
    with Elf.open(path) as elf:
        for function in elf.iter_functions():
            first = elf.get_offset(function.vaddr)
            body, at = bytes(elf.data[first : first + function.size]), 0
            try:
                while at < function.size:
                    if chance.random() * every < 1:
                        found.add(first + at)
                    at += measure(body, at)
            except IndexError:
                pass
    return sorted(found)


@pytest.mark.parametrize(("library", "function"), [("libc.so.6", "malloc"), ("libcrypto.so.3", "EVP_sha1")])
def test_random_instructions(running: Running, library: str, function: str) -> None:
    """Entries are among them, and jumps' targets, and code that is never run."""
    seed, every = (int(word) for word in os.environ.get("SONDE_PLACES", "7 800").split())
    files = {m.path for m in read_maps(running.pid) if m.is_file and m.executable}
    path = next((each for each in files if each.endswith(library)), "")
    if not path:
        pytest.skip(f"this Python does not use {library}")
    text = running.text()
    spec = running.compile(f"uprobe:{path}:{function} {{ @ = count(); }}")
    (probe,) = spec.probes
    offsets = places(path, every, random.Random(seed))
    probes = [replace(probe, name=f"{library}+{offset:#x}", offset=offset) for offset in offsets]
    with UserEngine(running.pid).load(replace(spec, probes=tuple(probes))) as loaded:
        hows = Counter(link.how.split()[0] for link in loaded.attach(probes))
        served = sum(hows[kind] for kind in ("nop", "relocated", "punned"))
        assert hows["punned"] and served >= 0.97 * len(probes)
        assert len(loaded.notes) == len(probes) - served
        assert running.ask("work") == 1
        assert total(loaded, "percpu") > 0
    assert not running.traces()
    assert running.text() == text
    assert running.ask("work") == 1

"""Damaged objects through every decoder of objects: `python bench/fuzz_objects.py [CASES [SEED]]`, 10,000 by default.

What does anything else than refuse or accept, takes more than 5 s or 1 GiB, is written to tests/hostile, where the tests find it.
"""

from __future__ import annotations

import hashlib
import random
import resource
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from hostile_objects import BYTES, FOLDER, damage, run, sound_files


def main(words: list[str]) -> int:
    """Run; return the number of failures."""
    cases = int(words[0]) if words else 10_000
    seed = int(words[1]) if len(words) > 1 else int(time.time())
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    files = sound_files()
    chance = random.Random(seed)
    failures = 0
    slowest = 0.0
    for number in range(cases):
        way, data = files[number % len(files)]
        damaged = damage(data, chance)
        start = time.perf_counter()
        try:
            run(way, damaged)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failures += 1
            name = f"{way}_{hashlib.sha256(damaged).hexdigest()[:12]}.bin"
            (FOLDER / name).write_bytes(damaged)
            print(f"{name}: {traceback.format_exception_only(error)[-1].strip()[:200]}", flush=True)
            print(traceback.format_tb(error.__traceback__)[-1], flush=True)
        slowest = max(slowest, time.perf_counter() - start)
    print(f"{cases} files, seed {seed}: {failures} failures, {slowest:.2f} s the slowest")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How complete the verifier is: of the programs at hand that the running kernel accepts, how many are accepted here, by where they come from.

`python bench/verifier_table.py [SOURCE...] [--refused]`; needs what loading programs needs. Sources: scripts (every case of the corpus), bcc (the programs of
Debian's BCC tools, as our front end compiles them), libbpf (programs in the style of its tools), objects (clang's, in tests/objects and tests/verifier_objects), fuzz (random programs that the kernel
accepts). --refused prints why each was refused here. A program that the kernel refuses is not counted, but listed where it is accepted here.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from sonde.api.verify import Verified
from sonde.api.verify import verify as verify_object
from sonde.errors import SondeError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.record import replace
from sonde.spec.object import ObjectSpec, ProgramSpec

ROOT = Path(__file__).resolve().parents[1]
Found = Iterator[tuple[str, ObjectSpec]]


def scripts() -> Found:
    """Every case of the corpus that compiles."""
    from corpus_cases import load_cases

    from sonde.api.trace import TraceOptions, compile

    target = live_target()
    for case in load_cases():
        words = case.words
        if "-e" not in words[:-1]:
            continue
        try:
            spec = compile(words[words.index("-e") + 1], target, TraceOptions(unsafe=True), environ=dict(case.env))
        except SondeError:
            continue
        yield case.name, spec


def bcc() -> Found:
    """The recorded texts of BCC's tools."""
    from bcc_entries import entry_of
    from bcc_texts import record, tool_names

    from sonde.lang.c.compile import compile_c
    from sonde.lang.c.options import Options
    from sonde.lang.source import Source

    for tool in tool_names():
        for text in record(tool)["texts"]:
            try:
                unit = compile_c(Source(f"{tool}.c", text["text"]), live_target(), Options(flags=tuple(text["cflags"])))
                for name in unit.programs:
                    entry = entry_of(tool, name, text["programs"])
                    if entry is not None:
                        compiled = unit.compile_program(name, entry)
                        yield f"{tool}: {name}", ObjectSpec((compiled.program,), (*unit.maps, *compiled.maps))
            except SondeError as error:
                print(f"left out: {tool}: {str(error).splitlines()[0]}", file=sys.stderr)


def objects() -> Found:
    """Objects that clang made."""
    from sonde.api.objects import read_object

    for path in sorted([*(ROOT / "tests/objects").glob("*.o"), *(ROOT / "tests/verifier_objects").glob("*.o")]):
        try:
            yield path.name, read_object(str(path), find_places=False)
        except SondeError as error:
            print(f"left out: {path.name}: {str(error).splitlines()[0]}", file=sys.stderr)


def libbpf() -> Found:
    """Programs in the style of libbpf's tools, as our front end compiles them."""
    from sonde.lang.c.options import Options
    from sonde.lang.c.sections import compile_object
    from sonde.lang.source import Source

    for path in sorted((ROOT / "tests/bpf_c").glob("*.bpf.c")):
        try:
            spec = compile_object(Source(path.name, path.read_text()), live_target(), Options())
        except SondeError as error:
            print(f"left out: {path.name}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        yield path.name, spec


def fuzz(count: int = 3000) -> Found:
    """Random programs about addresses."""
    from bpf_pointer_programs import make_program
    from bpf_programs import IO, kernel_program

    for seed in range(count):
        yield f"seed {seed}", ObjectSpec((kernel_program(make_program(seed)),), (IO,))


SOURCES = {"scripts": scripts, "bcc": bcc, "libbpf": libbpf, "objects": objects, "fuzz": fuzz}


def kernel_takes(spec: ObjectSpec, program: ProgramSpec) -> bool:
    """Whether the running kernel loads a program."""
    maps = tuple(replace(table, values=()) for table in spec.maps)  # which hold other programs
    try:
        with KernelEngine().load(replace(spec, programs=(program,), maps=maps)):
            return True
    except SondeError:
        return False


def judge(spec: ObjectSpec, program: ProgramSpec) -> tuple[Verified | None, float]:
    """Our verdict, and how many milliseconds it took."""
    before = time.perf_counter()
    try:
        found: Verified | None = verify_object(replace(spec, programs=(program,)), live_target())[0]
    except (SondeError, KeyError) as error:
        print(f"no verdict: {program.name}: {error!r}", file=sys.stderr)
        found = None
    return found, 1000 * (time.perf_counter() - before)


def main() -> int:
    """Print the table."""
    names = [w for w in sys.argv[1:] if not w.startswith("-")] or list(SOURCES)
    rows, both = [], [0, 0]
    for source in names:
        taken = accepted = only_here = 0
        times: list[float] = []
        for where, spec in SOURCES[source]():
            for program in spec.programs:
                found, took = judge(spec, program)
                safe = found is not None and found.verdict.safe
                if not kernel_takes(spec, program):
                    only_here += safe
                    if safe and "--refused" in sys.argv:
                        print(f"accepted here only: {where}: {program.name} ({program.type})")
                    continue
                taken, accepted = taken + 1, accepted + safe
                times.append(took)
                if not safe and "--refused" in sys.argv:
                    print(f"{where}: {found.text if found else 'no verdict'}\n")
        both = [both[0] + taken, both[1] + accepted]
        rows.append((source, taken, accepted, only_here, times))
    print("| programs | the kernel accepts | accepted here | share | accepted here only | time, median | slowest |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for source, taken, accepted, only_here, times in rows:
        share = f"{100 * accepted / taken:.1f} %" if taken else "–"
        speed = f"{statistics.median(times):.2f} ms | {max(times):.0f} ms" if times else "– | –"
        print(f"| {source} | {taken} | {accepted} | {share} | {only_here} | {speed} |")
    print(f"| all | {both[0]} | {both[1]} | {100 * both[1] / max(both[0], 1):.2f} % | | | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

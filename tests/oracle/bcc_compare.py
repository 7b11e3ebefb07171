"""Compares what one of Debian's BCC tools printed under BCC itself with what it printed under `sonde bcc`, around the same workload.

Three things are held together: titles (of columns and histograms, and what a tool says at its start), rows that the workload causes, and
the form of those rows (every number replaced). What was compared is written down for the page docs/parity/bcc_tools.md.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rooms
from oracle.bcc_cases import CASES, HISTOGRAM, Case
from oracle.bcc_language_cases import LANGUAGE_CASES
from vm.kernels import get_headers
from vm.modules import load_modules

if TYPE_CHECKING:
    from vm.guest import Guest

RUNNER = Path(__file__).with_name("toolrun.py")
KILLED = -9  # a BCC that lost each of the interrupts
LIMIT_S = 300.0  # for LLVM, which compiles one tool in 5 to 35 s under emulation on a quiet machine, and in five times as long on a busy one

RECORD = Path(__file__).resolve().parents[2] / "docs" / "parity" / "bcc_compared.json"
TITLE = re.compile(
    r"^(?:(?:Tracing|Attach|Detach|Collect|Monitor|Sampling|Summariz|Printing|Logging|Caching).*"  # what a tool says at its start
    r"|\s*[A-Z%][^\d\s=]*(?: +[A-Z%(#][^\d\s=]*)+ *"  # titles of columns
    r"|\s*\S+ +: count +distribution)$",
    re.M,
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Side:
    """How one run of a tool ended: exit status, output, errors, the seconds until it was attached, the interrupts until it ended."""

    status: int
    out: str
    err: str
    attached_s: float
    interrupts: int = 1


@dataclass
class Comparison:
    """What was compared, and what differs; "theirs" is BCC's."""

    titles: int = 0
    rows: int = 0
    sums: list[tuple[int, int]] = field(default_factory=list)  # theirs, ours
    differences: list[str] = field(default_factory=list)


def find_titles(out: str) -> list[str]:
    """Return each different title of an output, in the order of their first appearance; numbers in it (a process's) are replaced."""
    return list(dict.fromkeys(NUMBER.sub("N", line.strip("\n").rstrip()) for line in TITLE.findall(out)))


def find_rows(case: Case, out: str) -> list[tuple[str, ...]]:
    """Return what must be equal of each row of the workload."""
    if case.how == "histograms":
        found = ((m[1], re.findall(HISTOGRAM, m[2], re.M)) for m in re.finditer(case.rows, out, re.M))
        return [(name, str(sum(map(int, counts)))) for name, counts in found]
    return [m.groups() or (m[0],) for m in re.finditer(case.rows, out, re.M)]


def find_forms(case: Case, out: str) -> list[str]:
    """Return the different forms of the rows: numbers replaced, blanks made one, since a shorter number has more before it."""
    found = (re.sub(r"[ \t]+", " ", NUMBER.sub("N", m[0])).strip() for m in re.finditer(case.rows, out, re.M))
    return sorted(set(found))


def cut_alike(one: str, other: str) -> tuple[str, str]:
    """Return the last intervals of two outputs, as many of each: the one that started earlier has more of them. A time of day begins each."""
    parts = [re.split(r"^(?=\[?\d\d:\d\d:\d\d)", text, flags=re.M)[1:] for text in (one, other)]
    both = min(map(len, parts))
    return "".join(parts[0][len(parts[0]) - both :]), "".join(parts[1][len(parts[1]) - both :])


def add_up(rows: list[tuple[str, ...]]) -> dict[str, list[int]]:
    """Return the sums of the columns that are numbers, by what the other columns say."""
    found: dict[str, list[int]] = {}
    for row in rows:
        numbers = [int(cell) for cell in row if cell.isdecimal()]
        name = " ".join(cell for cell in row if not cell.isdecimal())
        found[name] = [a + b for a, b in zip(found.get(name, [0] * len(numbers)), numbers, strict=True)]
    return found


def compare(case: Case, theirs: Side, ours: Side) -> Comparison:
    """Compare two runs. A difference is a sentence that names both."""
    result = Comparison()
    say = result.differences.append
    if case.fails:
        _compare_failures(case, theirs, ours, result)
        return result
    if theirs.status not in (ours.status, KILLED):
        say(f"exit status: {theirs.status} under BCC, {ours.status} here")
    if ours.interrupts > 1:
        say(f"{ours.interrupts} interrupts to end it, and {theirs.interrupts} under BCC")
    titles = find_titles(theirs.out), find_titles(ours.out)
    result.titles = len(titles[0])
    if titles[0] != titles[1]:
        say(f"titles: {titles[0]} under BCC, {titles[1]} here")
    texts = cut_alike(theirs.out, ours.out) if case.ticks else (theirs.out, ours.out)
    rows = find_rows(case, texts[0]), find_rows(case, texts[1])
    if case.how == "set":
        rows = sorted(set(rows[0])), sorted(set(rows[1]))
    result.rows = len(rows[0])
    if not rows[0]:
        say(f"BCC's output has no row of the workload ({case.rows})")
    elif case.how == "sum":
        _compare_sums(case, rows, result)
    else:
        _compare_rows(case, rows, result)
    forms = find_forms(case, theirs.out), find_forms(case, ours.out)
    if case.how == "same" and forms[0] != forms[1]:
        say(f"forms of the rows: {forms[0]} under BCC, {forms[1]} here")
    return result


def _compare_failures(case: Case, theirs: Side, ours: Side, result: Comparison) -> None:
    """BCC fails. We show the rows of a case that has some; others this kernel cannot have, and we say so: no silence."""
    say = result.differences.append
    if not re.search(case.fails, theirs.out + theirs.err):
        say(f"BCC does not fail by {case.fails!r}: {theirs.out}{theirs.err}")
    result.rows = len(find_rows(case, ours.out)) if case.rows else 0
    if case.rows and not result.rows:
        say(f"BCC fails, and here are no rows either: {ours.out}{ours.err}")
    if not case.rows and (theirs.status != ours.status or not (ours.out + ours.err).strip()):
        say(f"BCC ended with {theirs.status}, sonde with {ours.status} and {ours.out}{ours.err!r}")


def _compare_rows(case: Case, rows: tuple[list[tuple[str, ...]], list[tuple[str, ...]]], result: Comparison) -> None:
    if len(rows[0]) < case.least:
        result.differences.append(f"{len(rows[0])} rows under BCC, and the workload makes {case.least}")
    if sorted(rows[0]) != sorted(rows[1]):
        lacking = [row for row in rows[0] if row not in rows[1]]
        more = [row for row in rows[1] if row not in rows[0]]
        result.differences.append(
            f"{len(rows[0])} rows under BCC, {len(rows[1])} here; only BCC's: {lacking}; only here: {more}"
        )


def _compare_sums(case: Case, rows: tuple[list[tuple[str, ...]], list[tuple[str, ...]]], result: Comparison) -> None:
    theirs, ours = add_up(rows[0]), add_up(rows[1])
    if max(numbers[0] for numbers in theirs.values()) < case.least:
        result.differences.append(f"{theirs} under BCC, and the workload makes {case.least}")
    for name in sorted({*theirs, *ours}):
        pairs = list(zip_longest(theirs.get(name, ()), ours.get(name, ()), fillvalue=0))
        result.sums += pairs
        for number, (one, other) in enumerate(pairs, 1):
            if abs(one - other) > case.within * max(one, other):
                text = f"the sum of column {number}{f' of {name}' if name else ''}: {one} under BCC, {other} here"
                result.differences.append(f"{text}, more than {case.within:.0%} apart")


def describe(case: Case, theirs: Side, ours: Side) -> dict[str, Any]:
    """Return the entry of the record for one case."""
    result = compare(case, theirs, ours)
    entry: dict[str, Any] = {"same": not result.differences, **asdict(result)}
    if case.fails:
        found = re.search(f".*(?:{case.fails}).*", theirs.out + theirs.err)
        entry["fails"] = found[0].strip() if found else ""
    kept = {key: value for key, value in entry.items() if value or key == "same"}
    return {**kept, "attached_s": [theirs.attached_s, ours.attached_s]}


def label(case: Case) -> str:
    """The name of a case as a file and as a test."""
    return case.name + (f"-{re.sub('[^a-zA-Z0-9]+', '_', case.args)[:30]}" if case.args else "")


def save(folder: Path, case: Case, release: str, theirs: Side, ours: Side) -> None:
    """Keep what both printed, for `write_record`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"made": date.today().isoformat(), "kernel": release, "sides": [asdict(theirs), asdict(ours)]}
    (folder / f"{label(case)}.json").write_text(json.dumps(made, indent=1))


def write_record(folder: Path) -> None:
    """Compare the runs that are kept in a folder, and write down the results in place of the record's for the same cases."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    known = {label(case): case for case in (*CASES, *LANGUAGE_CASES)}
    kept = {
        name: json.loads((folder / f"{name}.json").read_text()) for name in known if (folder / f"{name}.json").exists()
    }
    for name, run in kept.items():
        case = known[name]
        entry = describe(case, *(Side(**side) for side in run["sides"]))
        record[name] = {"tool": case.name, "args": case.args, **entry, "made": run["made"], "kernel": run["kernel"]}
    lines = [
        f"{json.dumps(name)}: {json.dumps(record[name], ensure_ascii=False)}"
        for name in sorted(record)
        if name in known
    ]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def run_both(guest: Guest, case: Case, app: str = "") -> tuple[Side, Side]:
    """Run a tool under BCC and under sonde in a guest, at the same time where that can be; `app` is the path of the built `case.app`."""
    load_modules(guest, *case.modules)
    arguments = shlex.split(case.args)
    commands = [
        [f"/usr/sbin/{case.name}-bpfcc", *arguments],
        ["/usr/bin/python3", "-m", "sonde", "bcc", case.name, *arguments],
    ]
    environs = [{"BCC_KERNEL_SOURCE": str(get_headers(guest.kernel))}, {"PYTHONPATH": str(rooms.ROOT / "src")}]
    both = list(zip(commands, environs, strict=True))
    sides: list[Side] = []
    for group in [[one] for one in both] if case.apart else [both]:
        request = {
            "commands": [command for command, _ in group],
            "environs": [environ for _, environ in group],
            "workload": "sleep 3; " * case.ticks
            + case.workload,  # a first interval, which is longer: modules are read from files
            **{name: getattr(case, name) for name in ("before", "after_s")},
            "app": app,
            "limit_s": LIMIT_S,
        }
        source = RUNNER.read_text() + "\nimport json, sys\nprint(json.dumps(run_pair(**json.loads(sys.argv[1]))))\n"
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb"}
        result = guest.python(source, args=[json.dumps(request)], env=env, timeout_s=2.5 * LIMIT_S)
        assert result.status == 0, result.err
        sides += [Side(*side) for side in json.loads(result.out)]
    return sides[0], sides[1]


if __name__ == "__main__":
    write_record(Path(sys.argv[1]))

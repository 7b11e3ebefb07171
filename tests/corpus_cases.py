"""Reads `tests/corpus/*.case` and checks what a program printed against a case. The format: tests/corpus/README.md."""

from __future__ import annotations

import os
import pwd
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"
BLOCKS = ("PROG", "EXPECT", "EXPECT_REGEX", "EXPECT_ERR", "FILE")
LINES = ("NAME", "RUN", "OPTIONS", "ARGS", "ENV", "REQUIRES", "STATUS", "PEER", "PEER_ORDER")


class CaseError(Exception):
    """A case file that does not follow the format."""


@dataclass
class Case:
    """One case. `expect` is None when stdout is not compared; `status` is the exit status."""

    name: str
    path: Path
    line: int
    prog: str = ""
    run: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    expect: str | None = None
    expect_regex: str | None = None
    expect_err: tuple[str, ...] = ()
    status: int = 0
    files: dict[str, str] = field(default_factory=dict)
    peer: str = ""  # why bpftrace is not held to the expectation
    peer_order: str = ""  # why bpftrace is held to the lines of EXPECT, but not to their order

    @property
    def words(self) -> list[str]:
        """The command line behind `bpftrace`."""
        return list(self.run) if self.run else [*self.options, "-e", self.prog, *self.args]


def load_cases() -> list[Case]:
    """Return all cases; raises CaseError for a file out of format or a name that is used twice."""
    cases: list[Case] = []
    for path in sorted(CORPUS.glob("*.case")):
        cases += read_cases(path)
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise CaseError(f"cases with the same name: {', '.join(sorted(twice))}")
    return cases


def read_cases(path: Path) -> list[Case]:
    """Return the cases of one file."""
    cases: list[Case] = []
    lines = path.read_text().splitlines()
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word not in BLOCKS + LINES:
            raise CaseError(f"{path.name}:{number}: {line!r} does not start with a known word")
        body: list[str] = []
        if word in BLOCKS:
            while at < len(lines) and (lines[at].startswith("  ") or not lines[at].strip()):
                body.append(lines[at][2:])
                at += 1
            while body and not body[-1].strip():
                body.pop()
        if word == "NAME":
            cases.append(Case(rest, path, number))
        elif not cases:
            raise CaseError(f"{path.name}:{number}: {word} before the first NAME")
        else:
            _set(cases[-1], word, rest, "\n".join(body))
    return cases


def _set(case: Case, word: str, rest: str, body: str) -> None:
    if word == "EXPECT":
        body = fill_in(body)
    if word == "FILE":
        case.files[rest] = body + "\n"
    elif word == "EXPECT_ERR":
        case.expect_err += tuple(line for line in (rest, *body.split("\n")) if line)
    elif word in BLOCKS:
        setattr(case, word.lower(), rest or body)
    elif word == "STATUS":
        case.status = int(rest)
    elif word in ("PEER", "PEER_ORDER"):
        setattr(case, word.lower(), rest)
    elif word == "ENV":
        case.env.update(pair.split("=", 1) for pair in shlex.split(rest))  # type: ignore[arg-type]
    else:
        setattr(case, word.lower(), tuple(shlex.split(rest)))


def fill_in(text: str) -> str:
    """Return an expectation for the user who runs the tests: ${UID}, ${GID} and ${USER} stand for what differs."""
    if "${" in text:
        user = pwd.getpwuid(os.getuid()).pw_name
        for name, value in (("UID", str(os.getuid())), ("GID", str(os.getgid())), ("USER", user)):
            text = text.replace("${" + name + "}", value)
    return text


def as_expected_lines(case: Case, out: str) -> str:
    """Return the text that the case expects when `out` has the same lines in any order, else `out`."""
    expected = case.expect or ""
    return expected if sorted(filled_lines(out)) == sorted(filled_lines(expected)) else out


def filled_lines(text: str) -> list[str]:
    """Return the lines of a text that are not empty."""
    return [line for line in text.splitlines() if line.strip()]


def differences(case: Case, status: int, out: str, err: str) -> list[str]:
    """Return what is wrong with an outcome, empty when all is as the case expects."""
    wrong = []
    if case.expect is not None and out.rstrip("\n") != case.expect:
        wrong.append(f"stdout is\n{out}\nexpected\n{case.expect}")
    if case.expect_regex is not None and not re.fullmatch(case.expect_regex, out.rstrip("\n")):
        wrong.append(f"stdout is\n{out}\nexpected to match\n{case.expect_regex}")
    wrong += [f"stderr is\n{err}\nexpected to contain {p!r}" for p in case.expect_err if not re.search(p, err)]
    if status != case.status:
        wrong.append(f"exit status {status}, expected {case.status}\nstdout\n{out}\nstderr\n{err}")
    return wrong

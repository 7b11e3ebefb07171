"""Debian's BCC tools under BCC itself and under sonde, in a guest with the kernel's headers: the same titles, rows and counts.

`SONDE_BCC_TOOLS=all` compares all of them; `SONDE_BCC_KEEP=FOLDER` keeps what both printed there,
from which `python tests/oracle/bcc_compare.py FOLDER` writes down what was compared, for docs/parity/bcc_tools.md.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from oracle.bcc_cases import CASES, Case
from oracle.bcc_compare import Side, compare, label, run_both, save
from oracle.bcc_language_cases import LANGUAGE_CASES
from oracle.standin import build_standin, lacking
from vm.kernels import KernelUnavailable, get_headers

if TYPE_CHECKING:
    from vm.guest import Guest

pytestmark = pytest.mark.oracle
# Those that LLVM has soon compiled, and one with many headers.
SAMPLE = ("biopattern", "dbstat", "filelife", "syncsnoop")
SERIES = "6.1"


def chosen() -> list[Case]:
    """Those that a run has time for: a few, or with SONDE_BCC_TOOLS=all every one."""
    return [
        case for case in (*CASES, *LANGUAGE_CASES) if os.environ.get("SONDE_BCC_TOOLS") == "all" or case.name in SAMPLE
    ]


@pytest.fixture(scope="session")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the programs that run beside some tools: built before the guest looks for them there."""
    folder = tmp_path_factory.mktemp("apps")
    for app in {case.app for case in chosen() if case.app and not lacking()}:
        build_standin(app, folder)
    return folder


@pytest.mark.parametrize("case", chosen(), ids=label)
def test_same_as_bcc(apps: Path, guest: Guest, case: Case) -> None:
    if guest.kernel.series != SERIES:
        pytest.skip(f"runs on {SERIES}")
    if not Path(f"/usr/sbin/{case.name}-bpfcc").exists():
        pytest.skip("needs Debian's package bpfcc-tools")
    if case.app and lacking():
        pytest.skip(f"needs {lacking()}")
    try:
        get_headers(guest.kernel)
    except KernelUnavailable as error:
        pytest.skip(f"no headers for BCC: {error}")
    theirs, ours = run_both(guest, case, str(apps / case.app) if case.app else "")
    assert "Traceback" not in ours.err, ours.err
    result = compare(case, theirs, ours)
    if os.environ.get("SONDE_BCC_KEEP"):
        save(Path(os.environ["SONDE_BCC_KEEP"]), case, guest.release, theirs, ours)
    shown = "\n".join(
        f"== {who}: {side.status}\n{side.out}\n-- stderr:\n{side.err}"
        for who, side in (("BCC", theirs), ("sonde", ours))
    )
    assert not result.differences, "\n".join(result.differences) + "\n" + shown


def test_every_tolerance_has_its_reason() -> None:
    cases = (*CASES, *LANGUAGE_CASES)
    assert [case.name for case in cases if bool(case.why) != bool(case.within)] == []
    assert len({label(case) for case in cases}) == len(cases)


OUT = "Tracing things... Hit Ctrl-C to end.\nTIME     PID    COMM FILE\n12:00:00 17     cat  seen\n12:00:00 9      ls   other\n"
WATCHED = Case("any", "", "", r"^\S+ (\d+ +cat .*)$")


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("COMM FILE", "COMM  FILE", "titles"),
        (
            "17     cat  seen",
            "17     cat  sewn",
            "only BCC's: [('17     cat  seen',)]; only here: [('17     cat  sewn',)]",
        ),
        ("12:00:00 17", "12:00 17", "forms"),
        ("12:00:00 17     cat  seen\n", "", "1 rows under BCC, 0 here"),
    ],
)
def test_comparison_finds_a_difference(old: str, new: str, difference: str) -> None:
    theirs, ours = Side(0, OUT, "", 1), Side(0, OUT.replace(old, new), "", 1)
    assert not compare(WATCHED, theirs, theirs).differences
    assert any(difference in found for found in compare(WATCHED, theirs, ours).differences)
    assert compare(WATCHED, theirs, replace(theirs, status=1)).differences


def test_comparison_of_nothing_fails() -> None:
    silent = Side(0, "", "", 1)
    assert compare(WATCHED, silent, silent).differences == [f"BCC's output has no row of the workload ({WATCHED.rows})"]
    assert compare(replace(WATCHED, fails="no such"), silent, silent).differences


@pytest.mark.parametrize(("ours", "found"), [("5\n6\n", False), ("5\n5\n", True), ("", True)])
def test_comparison_of_sums(ours: str, found: bool) -> None:
    case = Case("any", "", "", r"^(\d+)$", how="sum", within=0.05)
    result = compare(case, Side(0, "11\n", "", 1), Side(0, ours, "", 1))
    assert bool(result.differences) is found
    assert result.sums == [(11, sum(map(int, ours.split())))]

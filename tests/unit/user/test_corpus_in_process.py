"""The corpus without the kernel's help: the same scripts print the same, run by sonde itself and inside the processes that they start.

What only the kernel can do is refused with the reason, and counts as skipped. SONDE_CORPUS_STEP=1 runs all cases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_cases import Case, differences, load_cases
from corpus_needs import missing_need
from corpus_server import Server

STEP = int(os.environ.get("SONDE_CORPUS_STEP", "16"))
REFUSALS = (
    "the user engine",
    "the kernel engine can probe it",
    "which only the kernel has",
    "may not be read by this user",
    "hides the addresses in /proc/kallsyms",
    "needs the kernel's helper",
)
# What differs on purpose, with the reason.
DIFFERENT = {
    "ex_json_runtime_error_k": "reading the kernel's memory fails with EFAULT, not with what the kernel says of user addresses",
    "pr_provider_wildcard": "reading the kernel's list of events needs root",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.mark.parametrize("case", load_cases()[::STEP], ids=lambda case: case.name)
def test_case(case: Case, server: Server, tmp_path: Path) -> None:
    if case.name in DIFFERENT:
        pytest.skip(DIFFERENT[case.name])
    lacking = missing_need(tuple(need for need in case.requires if need != "uprobe"))
    if lacking:
        pytest.skip(f"needs {lacking}")
    for name, text in case.files.items():
        (tmp_path / name).write_text(text)
    status, out, err = server.run(case.words, {**case.env, "SONDE_ENGINE": "user"}, str(tmp_path))
    wrong = differences(case, status, out, err)
    refusal = next((line for line in err.splitlines() if any(word in line for word in REFUSALS)), "")
    if wrong and refusal and status == 1:
        pytest.skip(f"needs the kernel engine: {refusal}")
    assert not wrong, f"{case.path.name}:{case.line}: " + "\n".join(wrong)

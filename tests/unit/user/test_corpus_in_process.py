"""The corpus without the kernel's help: the same scripts print the same, run by sonde itself and inside the processes that they start.

What scripts do in `begin`, which sonde runs itself, they do once more in a function of a process (`test_begin_in_a_process`). What only the kernel can do is refused with the reason, and counts as skipped. SONDE_CORPUS_STEP=1 runs all cases.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from corpus_cases import Case, differences, load_cases
from corpus_needs import missing_need
from corpus_server import Server
from user_running import build

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


BEGIN = re.compile(r"\b(BEGIN|begin)\b(?=\s*[{/])")
OTHER_PROBES = re.compile(r"\b[a-z]+\s*:[a-zA-Z*\d/\"]|\b(END|end|self|bench|test)\b\s*[{/:]")
ONCE = """
__attribute__((noinline, noclone)) long f(long n) { __asm__ volatile("" ::: "memory"); return n + 1; }
int main(void) { f(7); return 0; }
"""
# What a uprobe has another answer to than `begin`.
OF_BEGIN = {
    **dict.fromkeys(["bi_comm", "bi_comm_call", "conf_max_strlen_zero", "fn_strcontains"], "comm is the command's"),
    **dict.fromkeys(["bi_cpid_without", "bi_has_cpid"], "there is a command"),
    **dict.fromkeys(["bi_probe", "prog_named_probe"], "the probe's name"),
    "fn_kstack_len": "a uprobe has no kernel stack",
    **dict.fromkeys(["more_multi_begin_maps", "prog_predicate"], "the last of several uprobes at a place runs first"),
}


def _moves(case: Case) -> bool:
    """Whether a script begins only, so that it can do so elsewhere."""
    options = ("-p", "-c", "-d", "-l", "--dry-run", "--info")
    plain = (
        not case.run and not case.status and not any(word.startswith(options) for word in (*case.options, *case.args))
    )
    plain = plain and '"col"' not in (case.expect or "")  # a place in the text
    return plain and bool(BEGIN.search(case.prog)) and not OTHER_PROBES.search(BEGIN.sub("", case.prog))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.mark.parametrize("case", load_cases()[::STEP], ids=lambda case: case.name)
def test_case(case: Case, server: Server, tmp_path: Path) -> None:
    if case.name in DIFFERENT:
        pytest.skip(DIFFERENT[case.name])
    run(case, server, tmp_path)


def run(case: Case, server: Server, tmp_path: Path) -> None:
    """Run a case on the user engine."""
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


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(ONCE, tmp_path_factory.mktemp("once"), "-O1")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the user engine enters x86-64 processes")
@pytest.mark.parametrize("case", [case for case in load_cases() if _moves(case)][::STEP], ids=lambda case: case.name)
def test_begin_in_a_process(case: Case, server: Server, once: str, tmp_path: Path) -> None:
    """What is computed in the process is what sonde, or the kernel, computes."""
    if case.name in {**DIFFERENT, **OF_BEGIN}:
        pytest.skip({**DIFFERENT, **OF_BEGIN}[case.name])
    prog = BEGIN.sub(f"uprobe:{once}:f", case.prog)
    run(replace(case, prog=prog, options=(*case.options, "-c", once), expect_err=()), server, tmp_path)

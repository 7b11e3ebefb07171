"""The checklists behind docs/parity/*.md: every item of a peer's language, interface and command line.

An item names the tests that show it: a corpus case (`case:NAME`) or a pytest function (`path::function`). An item without
one is "missing" or, with a note that starts with "later:", left for a later milestone. `tests/test_parity.py` checks that every
named test exists and that the pages are current; `python tests/parity_items.py` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "parity"


@dataclass(frozen=True)
class Page:
    """One page: made from tests/parity/NAME.txt, followed by the hand-written files `more`."""

    name: str
    peer: str  # whose items these are, and what is followed where versions differ
    more: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.md"


PAGES = (
    Page("bpftrace", "Output follows bpftrace 0.27.1.", ("tools.md",)),
    Page(
        "bcc",
        "Names and arguments follow BCC 0.37, text that is printed follows 0.26, beside which the tests run.",
        ("bcc_tools.md",),
    ),
    Page("machine", "Semantics follow Linux 6.18, on which the tests compare."),
    Page("user-engine", "What runs inside a process; output is that of the kernel engine."),
)


@dataclass(frozen=True)
class Item:
    """One row. `tests` are the references; `note` says what differs or is left out."""

    section: str
    text: str
    tests: tuple[str, ...] = ()
    note: str = ""

    @property
    def state(self) -> str:
        if self.note.startswith("later:"):
            return "later"
        return "done" if self.tests else "missing"


def load_items(page: Page) -> list[Item]:
    """Read the items of a page: `section | item | tests | note`, one a line."""
    items = []
    for line in (ROOT / "tests" / "parity" / f"{page.name}.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            section, text, tests, note = (part.strip() for part in line.split(" | "))
            items.append(Item(section, text, tuple(tests.split()) if tests != "-" else (), note if note != "-" else ""))
    return items


def _forms() -> list[str]:
    """The table of instruction forms, made from the instruction set's own."""
    from instruction_forms import OPS, render_table

    shown = {
        "assembler, disassembler, verifier": "unit/bpf/test_instruction_forms.py::test_text_and_machine_code_both_ways, ::test_the_verifier_takes_it_or_says_why_not",
        "interpreter, x86-64": "unit/bpf/test_instruction_forms.py::test_it_runs_or_is_refused",
        "all engines, each form many times": "unit/bpf/test_machine_programs.py::test_every_operation_is_there, ::test_x86_64_agrees, ::test_aarch64_agrees",
        "the kernel": "kernel/test_interp_differential.py::test_the_kernel_agrees",
    }
    return [
        "## Instruction forms", "", f"The {len(OPS)} forms of the table in `sonde.bpf.isa`, which encoder, decoder and all columns here are driven by. Each is shown by:", "",
        *(f"* {what}: `{test}`" for what, test in shown.items()), "", *render_table(),
    ]  # fmt: skip


def render(page: Page, items: list[Item]) -> str:
    """Return the text of a page."""
    states = [item.state for item in items]
    lines = [
        f"# {page.name}: what sonde does of it, and the test that shows it",
        "",
        f"Printed by `python tests/parity_items.py` from `tests/parity/{page.name}.txt`; `tests/test_parity.py` checks that the tests",
        f"named here exist. `case:` is a file in `tests/corpus/`. {page.peer}",
        "",
        f"{states.count('done')} done, {states.count('missing')} missing, {states.count('later')} left for later.",
    ]
    section = ""
    for item in items:
        if item.section != section:
            section = item.section
            lines += ["", f"## {section}", "", "| item | state | shown by | note |", "|---|---|---|---|"]
        tests = ", ".join(f"`{t}`" for t in item.tests)
        text = item.text.replace("|", "\\|")
        lines.append(f"| {text} | {item.state} | {tests} | {item.note.replace('|', chr(92) + '|')} |")
    if page.name == "machine":
        lines += ["", *_forms()]
    for name in page.more:
        lines += ["", (FOLDER / name).read_text().rstrip()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for each in PAGES:
        each.path.write_text(render(each, load_items(each)))

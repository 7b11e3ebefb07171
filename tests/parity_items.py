"""The checklist behind docs/parity/bpftrace.md: every item of the language and command line of bpftrace 0.27.

An item names the tests that show it: a corpus case (`case:NAME`) or a pytest function (`path::function`). An item without
one is "missing" or, with a note that starts with "later:", left for a later milestone. `tests/test_parity.py` checks that every
named test exists and that the page is current; `python tests/parity_items.py` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "parity" / "bpftrace.md"


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


def load_items() -> list[Item]:
    """Read the items from tests/parity/bpftrace.txt: `section | item | tests | note`, one a line."""
    items = []
    for line in (ROOT / "tests" / "parity" / "bpftrace.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            section, text, tests, note = (part.strip() for part in line.split(" | "))
            items.append(Item(section, text, tuple(tests.split()) if tests != "-" else (), note if note != "-" else ""))
    return items


def render(items: list[Item]) -> str:
    """Return the page."""
    states = [item.state for item in items]
    lines = [
        "# bpftrace: what sonde does of it, and the test that shows it",
        "",
        "Printed by `python tests/parity_items.py` from `tests/parity/bpftrace.txt`; `tests/test_parity.py` checks that the tests",
        "named here exist. `case:` is a file in `tests/corpus/`. Output follows bpftrace 0.27.1.",
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
    tools = ROOT / "docs" / "parity" / "tools.md"
    if tools.exists():
        lines += ["", tools.read_text().rstrip()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(load_items()))

"""The parity page is current, and what it names exists."""

from __future__ import annotations

import re

import parity_items
import pytest

ITEMS = parity_items.load_items()


@pytest.mark.parametrize("reference", sorted({t for item in ITEMS for t in item.tests}))
def test_named_test_exists(reference: str) -> None:
    if reference.startswith("case:"):
        name = reference.removeprefix("case:")
        found = any(
            re.search(rf"^NAME {re.escape(name)}$", p.read_text(), re.M)
            for p in (parity_items.ROOT / "tests" / "corpus").glob("*.case")
        )
        assert found, f"no corpus case is called {name}"
        return
    path, _, function = reference.partition("::")
    text = (parity_items.ROOT / "tests" / path).read_text()
    assert not function or f"def {function}(" in text


def test_page_is_current() -> None:
    assert parity_items.PAGE.read_text() == parity_items.render(ITEMS), "run `python tests/parity_items.py`"

"""The parity pages are current, and what they name exists."""

from __future__ import annotations

import re

import parity_items
import pytest

ITEMS = {page: parity_items.load_items(page) for page in parity_items.PAGES}


@pytest.mark.parametrize("reference", sorted({t for items in ITEMS.values() for item in items for t in item.tests}))
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


@pytest.mark.parametrize("page", parity_items.PAGES, ids=lambda page: page.name)
def test_page_is_current(page: parity_items.Page) -> None:
    assert page.path.read_text() == parity_items.render(page, ITEMS[page]), "run `python tests/parity_items.py`"

"""The programs that are traced are built once and removed at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import user_targets


@pytest.fixture(scope="session", autouse=True)
def built_programs() -> Iterator[None]:
    """Remove what was compiled."""
    yield
    user_targets.remove_built()

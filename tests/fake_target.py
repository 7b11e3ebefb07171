"""A target of no machine in particular: has every feature but those that are taken away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sonde.spec.target import Target


class FakeFeatures:
    """Answers yes to everything but `without`."""

    def __init__(self, without: Iterable[str] = ()) -> None:
        self.without = frozenset(without)

    def have(self, name: str) -> bool:
        return name not in self.without


def _unknown(*_: object) -> Any:
    raise LookupError("this target has no such facts")


def make_target(without: Iterable[str] = ()) -> Target:
    """Return a target for x86-64 with all features but `without`."""
    return Target("x86_64", "test", 4096, 2, FakeFeatures(without), _unknown, _unknown, _unknown, _unknown)

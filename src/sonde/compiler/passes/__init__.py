"""The optimisation passes, and the order in which they run."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..ir import Function


def optimise(function: Function, trace: Callable[[str, str], None] | None, *, enabled: bool) -> None:
    """Rewrite `function` in place."""

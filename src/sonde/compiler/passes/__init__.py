"""The optimisation passes, and the order in which they run."""

from __future__ import annotations

from .cse import eliminate_common
from .eliminate import eliminate
from .fold import fold
from .promote import promote
from .propagate import propagate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..ir import Function

_ROUNDS = 3


def optimise(function: Function, trace: Callable[[str, str], None] | None, *, enabled: bool) -> None:
    """Rewrite `function` in place. Without `enabled` nothing is done, which tests compare with."""
    if not enabled:
        return
    promote(function)
    for _ in range(_ROUNDS):
        changed = propagate(function)
        changed |= fold(function)
        changed |= eliminate_common(function)
        changed |= eliminate(function)
        if not changed:
            break

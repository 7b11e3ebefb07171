"""The optimisation passes, and the order in which they run."""

from __future__ import annotations

from .branches import simplify_branches
from .cse import eliminate_common
from .eliminate import eliminate
from .fold import fold
from .forward import forward
from .promote import promote
from .propagate import propagate
from .stores import drop_dead_stores

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...spec.object import MapSpec
    from ..ir import Function

_ROUNDS = 4


def optimise(function: Function, maps: dict[str, MapSpec], after: Callable[[str], None] | None = None) -> None:
    """Rewrite `function` in place. `after(pass name)` is called behind each pass."""
    passes: list[tuple[str, Callable[[], bool]]] = [
        ("propagate", lambda: propagate(function)),
        ("fold", lambda: fold(function)),
        ("common subexpressions", lambda: eliminate_common(function)),
        ("forward", lambda: forward(function, maps)),
        ("dead stores", lambda: drop_dead_stores(function, maps)),
        ("dead code", lambda: eliminate(function)),
        ("branches", lambda: simplify_branches(function)),
        ("promote", lambda: promote(function)),
    ]
    promote(function)
    if after is not None:
        after("promote")
    for _ in range(_ROUNDS):
        changed = False
        for name, run in passes:
            if run():
                changed = True
                if after is not None:
                    after(name)
        if not changed:
            break

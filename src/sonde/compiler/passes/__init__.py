"""The optimisation passes, and the order in which they run."""

from __future__ import annotations

from .branches import simplify_branches
from .context import load_context_early
from .cse import eliminate_common
from .eliminate import eliminate
from .fold import fold
from .forward import forward
from .graph import order_blocks
from .merge import merge_stores
from .promote import promote
from .propagate import propagate
from .stores import drop_dead_stores

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...spec.object import MapSpec
    from ..ir import Function

_LIMIT = 40  # of passes that change something: a bound for what would go on for ever


def optimise(function: Function, maps: dict[str, MapSpec], after: Callable[[str], None] | None = None) -> None:
    """Rewrite `function` in place. `after(pass name)` is called behind each pass that changed something.

    The passes run in turn until each of them has seen the function as it is and had nothing to do.
    """
    passes: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("promote", lambda: promote(function)),
        ("propagate", lambda: propagate(function)),
        ("fold", lambda: fold(function)),
        ("common subexpressions", lambda: eliminate_common(function)),
        ("forward", lambda: forward(function, maps)),
        ("dead code", lambda: eliminate(function)),
        ("branches", lambda: simplify_branches(function)),
        ("dead stores", lambda: drop_dead_stores(function, maps)),
    )
    order_blocks(function)
    idle = changes = at = 0
    while idle < len(passes) and changes < _LIMIT:
        name, run = passes[at % len(passes)]
        at += 1
        if run():
            idle = 0
            changes += 1
            if after is not None:
                after(name)
        else:
            idle += 1
    load_context_early(function)
    merge_stores(function)
    if after is not None:
        after("merge")

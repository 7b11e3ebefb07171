"""The helpers that programs call, without a kernel: one table, name to Python function, for the interpreter and for machine code in this process.

    machine = Machine(helper_table(), maps={1: table}, world=World())

What only a live system knows (which thread runs, its stack, the time) is asked of a `World`, whose methods are there to be overridden. A helper
that is in no module here is refused when it is called, by its name.
"""

from __future__ import annotations

from .world import World as World

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .host import Host

    HelperFunction = Callable[[Host, int, int, int, int, int], int]


def named_helpers() -> dict[str, HelperFunction]:
    """Return all helpers that are there, by name."""
    from . import facts, maps, memory, rings, text

    return {**facts.HELPERS, **maps.HELPERS, **memory.HELPERS, **rings.HELPERS, **text.HELPERS}


def helper_table() -> dict[int, HelperFunction]:
    """Return all helpers that are there, by number, as `Machine` takes them."""
    from ..helpers import HELPERS

    return {HELPERS[name].ident: function for name, function in named_helpers().items()}

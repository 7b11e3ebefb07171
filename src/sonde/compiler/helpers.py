"""Which helpers a call in the IR may name, and with what: the door of the front ends to the machine's table of helpers."""

from __future__ import annotations

from ..bpf.helpers import HELPERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..bpf.helpers import Helper


def get_helper(which: str | int) -> Helper | None:
    """Return the helper of this name (without `bpf_`) or number, or None. Kinds of arguments: see `bpf.helpers`."""
    return HELPERS.get(which)


def helper_names() -> list[str]:
    """Return the names of all helpers, in the order of their numbers."""
    return [helper.name for helper in HELPERS]

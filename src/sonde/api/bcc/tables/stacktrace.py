"""Stack traces by id: what get_stackid() of a program kept."""

from __future__ import annotations

from .base import TableBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_BUILD_ID_VALID = 1  # BPF_STACK_BUILD_ID_VALID: build id and offset are known; others are plain addresses or nothing


class StackTrace(TableBase):
    """A table of stacks: an array of addresses, or of build ids and offsets with the flag BPF_F_STACK_BUILD_ID."""

    MAX_DEPTH = 127
    BPF_F_STACK_BUILD_ID = 1 << 5
    BPF_STACK_BUILD_ID_EMPTY = 0
    BPF_STACK_BUILD_ID_VALID = 1
    BPF_STACK_BUILD_ID_IP = 2

    def walk(self, stack_id: int, resolve: Callable[[Any], Any] | None = None) -> Iterator[Any]:
        """Iterate over the addresses of a stack, the innermost first, each through `resolve`. Raises KeyError at once.

        With build ids, the items are those of struct bpf_stack_build_id, up to the first that has none.
        """
        stack = self[self.Key(stack_id)]
        return self._walk(stack, resolve)

    def _walk(self, stack: Any, resolve: Callable[[Any], Any] | None) -> Iterator[Any]:
        with_ids = bool(self.flags & self.BPF_F_STACK_BUILD_ID)
        for item in stack.trace if with_ids else stack.ip:
            if item.status != _BUILD_ID_VALID if with_ids else item == 0:
                return
            yield resolve(item) if resolve else item

    def clear(self) -> None:
        """Do nothing, as in BCC: an id that is still in another table would lead to another stack."""

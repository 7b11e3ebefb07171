"""Facts: what is already known at this point of a program, so that it is not found out again.

Two kinds: ("key", ...) is a key that lies on the stack, ("entry", map, key) and ("value", map, key) an entry that was found and
its value. A fact holds in the block where it was noted and in those that only this block leads to.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...compiler.ir import Block


class Facts:
    """A stack of scopes, one for each branch that the current code is in."""

    __slots__ = ("_expected", "_scopes")

    def __init__(self) -> None:
        self._scopes: list[dict[Any, Any]] = [{}]
        self._expected: dict[Block, dict[Any, Any]] = {}

    def recall(self, key: Any) -> Any:
        """Return what is known under `key` here, or None."""
        for scope in reversed(self._scopes):
            found = scope.get(key)
            if found is not None:
                return found
        return None

    def remember(self, key: Any, value: Any) -> None:
        """Note a fact that holds from here on, in this block and those that only it leads to."""
        self._scopes[-1][key] = value

    def forget(self, wanted: Callable[[Any], bool]) -> None:
        """Drop the facts whose key `wanted` selects, in all scopes."""
        for scope in self._scopes:
            for key in [k for k in scope if wanted(k)]:
                del scope[key]

    def forget_map(self, name: str) -> None:
        """Drop what is known about entries of a map: they may be gone."""
        self.forget(lambda key: key[0] in ("entry", "value") and key[1] == name)

    def forget_values(self, name: str) -> None:
        """Drop what is known about values in a map: they may have changed in place."""
        self.forget(lambda key: key[0] == "value" and key[1] == name)

    def forget_entries(self) -> None:
        """Drop what is known about entries of all maps."""
        self.forget(lambda key: key[0] in ("entry", "value"))

    def expect(self, block: Block, key: Any, value: Any) -> None:
        """Note a fact that holds once the program has come to `block`."""
        self._expected.setdefault(block, {})[key] = value

    def expect_all(self, block: Block) -> None:
        """Note that what was found out since the last branch holds in `block`, to which only the current code leads."""
        self._expected[block] = {**self._scopes[-1], **self._expected.get(block, {})}

    def enter(self, block: Block) -> None:
        """Begin the scope of a block that only the current code leads to."""
        self._scopes.append(self._expected.pop(block, {}))

    def leave(self) -> None:
        """End the innermost scope."""
        self._scopes.pop()

"""Rewriting of syntax trees: nodes are never changed, so a rewritten tree shares with the old one what stayed the same."""

from __future__ import annotations

from ...record import replace
from .ast import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    N = TypeVar("N", bound=Node)
    Change = Callable[[Node], "Node | None"]


def rewrite(node: Node, change: Change) -> Node:
    """Return `change(node)`, or if that is None the node with its children rewritten; the node itself if nothing changed."""
    new = change(node)
    return rewrite_children(node, change) if new is None else new


def rewrite_children(node: N, change: Change) -> N:
    """Return `node` with its children rewritten; the node itself if nothing changed."""
    changes: dict[str, Any] = {}
    for field in node._fields:
        old = getattr(node, field)
        new = _rewrite_value(old, change)
        if new is not old:
            changes[field] = new
    return replace(node, **changes) if changes else node


def _rewrite_value(value: Any, change: Change) -> Any:
    if isinstance(value, Node):
        return rewrite(value, change)
    if type(value) is tuple:
        new = tuple(_rewrite_value(item, change) for item in value)
        return value if all(a is b for a, b in zip(new, value)) else new
    return value


def copy(node: N) -> N:
    """Return a copy of a tree that shares no node with it (spans are shared)."""
    return type(node)(*(_copy_value(getattr(node, field)) for field in node._fields))


def _copy_value(value: Any) -> Any:
    if isinstance(value, Node):
        return copy(value)
    return tuple(_copy_value(item) for item in value) if type(value) is tuple else value


def iter_nodes(node: Node) -> Iterator[Node]:
    """Yield `node` and every node below it, in the order of the text."""
    stack: list[Any] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, Node):
            yield item
            stack.extend(getattr(item, field) for field in reversed(item._fields))
        elif type(item) is tuple:
            stack.extend(reversed(item))

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
        if isinstance(old, Node):
            new: Any = rewrite(old, change)
        elif type(old) is tuple and old:
            new = _rewrite_tuple(old, change)
        else:
            continue
        if new is not old:
            changes[field] = new
    return replace(node, **changes) if changes else node


def _rewrite_tuple(old: tuple[Any, ...], change: Change) -> tuple[Any, ...]:
    new: list[Any] = []
    same = True
    for item in old:
        if isinstance(item, Node):
            new.append(rewrite(item, change))
        else:
            new.append(_rewrite_tuple(item, change) if type(item) is tuple else item)
        same = same and new[-1] is item
    return old if same else tuple(new)


def copy(node: N) -> N:
    """Return a copy of a tree that shares no node with it (spans are shared)."""
    values = []
    for field in node._fields:
        value = getattr(node, field)
        if isinstance(value, Node):
            value = copy(value)
        elif type(value) is tuple:
            items = []
            for item in value:
                items.append(copy(item) if isinstance(item, Node) else item)
            value = tuple(items)
        values.append(value)
    return type(node)(*values)


def children(node: Node) -> Iterator[Node]:
    """Yield the nodes right below a node, in the order of the text."""
    for field in node._fields:
        value = getattr(node, field)
        for item in value if type(value) is tuple else (value,):
            if isinstance(item, Node):
                yield item


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


def height_of(node: Node) -> int:
    """Return the number of nodes on the longest way down from `node`."""
    highest = 0
    stack: list[tuple[Any, int]] = [(node, 1)]
    while stack:
        item, height = stack.pop()
        if isinstance(item, Node):
            highest = max(highest, height)
            for field in item._fields:
                stack.append((getattr(item, field), height + 1))
        elif type(item) is tuple:
            for child in item:
                stack.append((child, height))
    return highest

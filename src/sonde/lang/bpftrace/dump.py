"""The syntax tree as indented text, for `--explain` and for tests."""

from __future__ import annotations

from . import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dump(node: ast.Node, depth: int = 0) -> str:
    """Return a tree as text, one node a line, children indented by two spaces below their parent."""
    return "\n".join(_lines(node, depth))


def _lines(node: ast.Node, depth: int) -> list[str]:
    values: list[str] = []
    children: list[str] = []
    for field in node._fields[1:]:
        value = getattr(node, field)
        if isinstance(value, ast.Node):
            children += _labelled(field, value, depth + 1)
        elif type(value) is tuple and _holds_nodes(value):
            for item in value:
                children += _labelled("", item, depth + 1)
        elif field not in ("warnings", "words") and value != () and not _is_default(node, field, value):
            values.append(_show(field, value))
    head = " ".join([type(node).__name__, *filter(None, values)])
    return ["  " * depth + head, *children]


def _labelled(label: str, value: Any, depth: int) -> list[str]:
    if type(value) is tuple:
        return [line for item in value for line in _labelled(label, item, depth)]
    lines = _lines(value, depth)
    if label in _LABELS:
        lines[0] = f"{'  ' * depth}{label}: {lines[0].lstrip()}"
    return lines


_LABELS = frozenset(["condition", "then", "otherwise", "predicate", "key", "index", "type", "result", "start", "end"])


def _holds_nodes(value: tuple[Any, ...]) -> bool:
    return bool(value) and (isinstance(value[0], ast.Node) or (type(value[0]) is tuple and _holds_nodes(value[0])))


def _is_default(node: ast.Node, field: str, value: Any) -> bool:
    return field in node._defaults and value == node._defaults[field] and value is not False


def _show(field: str, value: Any) -> str:
    if isinstance(value, str) and field in ("name", "op", "kind", "type", "text"):
        return value or '""'
    if isinstance(value, bool) and field != "value":
        return field if value else ""
    return repr(value)

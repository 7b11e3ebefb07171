"""What a program does to each map of its script: adds to an aggregation, reads, writes. From the typed tree, so branches that are never taken count too.

print() of a whole map, clear() and zero() are done by the session, and so is print() of an entry of an aggregation.
"""

from __future__ import annotations

from ...debuginfo.ctype import strip
from ...spec.object import MapUse
from . import ast
from .rewrite import children
from .stype import Aggregate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .analysis import AnalysedProbe, CallInfo, MapInfo

_BY_THE_SESSION = ("print", "clear", "zero")


def find_uses(probe: AnalysedProbe, maps: Mapping[str, MapInfo]) -> tuple[MapUse, ...]:
    """Return the uses of maps in a probe's predicate and body, each once, by name."""
    found = _Uses(probe, maps)
    if probe.predicate is not None:
        found.visit(probe.predicate)
    found.visit(probe.body)
    return tuple(MapUse(name, how) for name, how in sorted(found.uses))


class _Uses:
    def __init__(self, probe: AnalysedProbe, maps: Mapping[str, MapInfo]) -> None:
        self.probe = probe
        self.maps = maps
        self.uses: set[tuple[str, str]] = set()

    def visit(self, node: ast.Node) -> None:
        """Note the uses in a node and in all below it."""
        if node in self.probe.constants:
            return
        if isinstance(node, ast.Assign) and isinstance(node.target, (ast.Map, ast.MapAccess)):
            self._assign(node, node.target)
        elif isinstance(node, ast.Unary) and node.op in ("++", "--", "&"):
            self._change(node.operand)
        elif isinstance(node, ast.Call) and node in self.probe.calls:
            self._call(node, self.probe.calls[node])
        elif isinstance(node, ast.Map):
            self.uses.add((node.name, "read"))
        else:
            for child in children(node):
                self.visit(child)

    def _is_aggregate(self, name: str) -> bool:
        return isinstance(strip(self.maps[name].value), Aggregate)

    def _assign(self, node: ast.Assign, target: ast.Map | ast.MapAccess) -> None:
        if node.op:
            self._change(target)
        elif isinstance(target, ast.MapAccess):
            self._target(target.map)
            self.visit(target.key)
        else:
            self._target(target)
        self.visit(node.value)

    def _target(self, node: ast.Map) -> None:
        self.uses.add((node.name, "add" if self._is_aggregate(node.name) else "write"))

    def _change(self, node: ast.Node) -> None:
        """What is read and written."""
        name = node.map.name if isinstance(node, ast.MapAccess) else node.name if isinstance(node, ast.Map) else ""
        if name:
            self.uses.add((name, "write"))
        self.visit(node)

    def _call(self, node: ast.Call, info: CallInfo) -> None:
        arguments = list(node.args)
        first = arguments[0] if arguments else None
        if info.name in _BY_THE_SESSION and isinstance(first, ast.Map):
            del arguments[0]
        elif info.name == "print" and isinstance(first, ast.MapAccess) and self._is_aggregate(first.map.name):
            arguments[0] = first.key
        elif info.name == "delete":
            for name, _ in info.params["targets"]:
                self.uses.add((name, "write"))
        for argument in arguments:
            self.visit(argument)

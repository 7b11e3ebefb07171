"""What programs hand to user space: the C type of each event, found from the arguments of the calls that submit them."""

from __future__ import annotations

from ...debuginfo.ctype import Pointer, Void, strip
from . import ast
from .analysis import FunctionSymbol, Table
from .walk import iter_nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .analysis import Analysis

_METHODS = {"perf_submit": 1, "perf_submit_skb": 2, "ringbuf_output": 0, "ringbuf_submit": 0}  # where the data is
_HELPERS = {
    "perf_event_output": (1, 3),
    "ringbuf_output": (0, 1),
    "skb_output": (1, 3),
    "xdp_output": (1, 3),
}  # map, data


def find_events(analysis: Analysis) -> dict[str, CType | None]:
    """Return the type of the events of each buffer; None where there are several."""
    found: dict[str, CType | None] = {}
    for info in analysis.functions.values():
        definition = info.symbol.definition
        if definition is None:
            continue
        for node in iter_nodes(definition.body):
            submitted = _submitted(analysis, node) if isinstance(node, ast.Call) else None
            if submitted is None:
                continue
            name, data = submitted
            ctype = _type_of(analysis, data)
            if ctype is None:
                continue
            known = found.setdefault(name, ctype)
            if known is not None and strip(known) is not strip(ctype):
                found[name] = None
    return found


def _submitted(analysis: Analysis, node: ast.Call) -> tuple[str, ast.Node] | None:
    """Return the buffer and the data of a call that submits an event."""
    method = analysis.methods.get(node)
    if method is not None:
        index = _METHODS.get(method[1])
        return (method[0].name, node.args[index]) if index is not None and index < len(node.args) else None
    symbol = analysis.symbols.get(node.function)
    if isinstance(symbol, FunctionSymbol) and symbol.helper in _HELPERS:
        where, data = _HELPERS[symbol.helper]
        table = node.args[where] if where < len(node.args) else None
        while isinstance(table, (ast.Cast, ast.Unary)):
            table = table.operand
        named = analysis.symbols.get(table) if table is not None else None
        if isinstance(named, Table) and data < len(node.args):
            return named.name, node.args[data]
    return None


def _type_of(analysis: Analysis, node: ast.Node) -> CType | None:
    """The type of the data, below casts that hide it."""
    while isinstance(node, ast.Cast):
        node = node.operand
    ctype = strip(analysis.types[node])
    if isinstance(ctype, Pointer):
        ctype = strip(ctype.target)
    return None if isinstance(ctype, Void) else ctype

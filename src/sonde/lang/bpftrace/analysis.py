"""What type checking hands to the lowering: a typed program, in side tables; the tree itself is never written to.

Contract with the lowering
--------------------------
* `Analysis.probes` has one AnalysedProbe for each BPF program to be made. A probe of the script that stands for several
  concrete ones is one AnalysedProbe as long as all may share one program: same program type, same context types, no use
  of `probe`. Its tables (`type_of`, `variables`, `calls`, `constants`, `fields`) are its own: two AnalysedProbes of
  one script probe share the nodes, not the meaning.
* Every Expr node of `body` and `predicate` that is evaluated has a Type. A node in `constants` has that value whatever
  its operands are (their nodes may have no type): int, bool, str. Look there first.
* Of `c ? a : b` with a constant `c`, and of `if comptime`, only the branch taken has types: look at the condition's
  constant. A plain `if` always has types in both branches.
* Conversions are implicit: an assignment converts the value's type to the variable's or map's (`VariableInfo.type`,
  `MapInfo.value`); a map key converts to `MapInfo.key`; a Binary (and an Assign with an operator) converts both sides to
  the type in `operands` (absent: no conversion) and computes in it; a ForRange counts in it. Both branches of a choice
  convert to the choice's type. No LiteralInt is left in any table.
* A call in the script is a Call or, without parentheses, an Identifier (`pid`, `kstack`); both are keys of `calls`.
* An aggregation that stands for one number (count, sum, min, max, avg) is read as that number wherever it is copied to: into
  a variable, map, key, tuple, and in the tuples of a loop over a map. Its own node has the type of the aggregation.
* Map-value functions appear as the value of an Assign to a Map or MapAccess (`@x[k] = count()`).
* A FieldAccess has an entry in `fields`: through which struct and which members.
"""

from __future__ import annotations

from ...record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...debuginfo.ctype import CType, Field, Struct
    from ...debuginfo.tracefs import TracepointField
    from ...errors import Diagnostic
    from ...probes.model import Context, Probe
    from . import ast
    from .functions import Function


class Type(Record):
    """The type of an expression's value.

    `space` says how memory is read: the memory that a pointer points to, or in which a struct, array or string lies.

    ""        a value of our own: a register, or memory of the program (stack, scratch, map value)
    "kernel"  probe_read_kernel
    "user"    probe_read_user
    "ctx"     the context: direct loads at constant offsets (a tracepoint's record, fentry's array of arguments)
    "btf"     a kernel pointer that the verifier trusts by its BTF type: direct loads
    "own"     memory of the program, by its address (`&$x`)
    "any"     unknown: a number cast to a pointer where the probe does not tell; try user, then kernel

    An integer may have a space too: where it would lead as an address (`arg0`, `reg("di")`, sums of these). What a variable,
    map or tuple takes is copied: a struct, array or string in them is a value of our own, and the pointers inside of it
    lead where `leads` says.
    """

    ctype: CType
    space: str = ""
    leads: str = ""


class VariableInfo:
    """One scratch variable of one scope. `ident` is unique in its AnalysedProbe."""

    __slots__ = ("assigned", "declared", "ident", "name", "node", "type", "used")

    def __init__(self, name: str, ident: int, node: ast.Node) -> None:
        self.name = name
        self.ident = ident
        self.node = node  # where it was made
        self.type: Type | None = None  # None only while the types are being found
        self.declared = False  # with a type of its own, by `let $x: T`
        self.assigned = False
        self.used = False


class MapInfo(Record, eq=False):
    """One map. `key` is None for a scalar map. `declared` is "hash", "lruhash", "percpuhash", "percpulruhash" or ""."""

    name: str  # with the "@"
    key: CType | None
    value: CType
    max_entries: int
    declared: str = ""
    span: Any = None  # of the first use
    leads: str = ""  # where pointers in the value lead, see Type


class CallInfo(Record, eq=False):
    """A call or a builtin, resolved.

    `params` has what was folded out of the arguments, by function:

    printf errorf warnf debugf cat system   "segments": tuple[spec.object.Segment, ...]; "args": nodes after the format
    strftime                                "format": str, "clock": str ("monotonic", "boot", "tai", "sw_tai")
    time                                    "format": str
    nsecs                                   "clock"
    hist                                    "bits"
    lhist                                   "low", "high", "step"
    tseries                                 "interval_ns", "buckets", "aggregation"
    kstack ustack                           "mode", "limit"
    str buf path                            "size" (largest result in bytes, NUL included), "length": node of the argument or None
    print                                   "map": str for a whole map, "top", "div": nodes or None; "entry": MapAccess of one value
    clear zero has_key delete len find      "map": name of the map; "key": node or None
    join                                    "separator": str
    ntop                                    "family": node or None, "address": node
    reg                                     "register": str
    kaddr uaddr percpu_kaddr                "symbol": str
    cgroupid                                "path": str
    cgroup_path                             "filter": str
    argN                                    "index"
    skboutput                               "path": str
    strncmp                                 "size"
    pid tid                                 "namespace": "curr_ns" or "init"
    signal signal_thread                    "signal": number, if it is known
    pton                                    "packed": bytes
    config typeinfo                         "values": of the record's items
    """

    name: str
    function: Function
    args: tuple[Any, ...]
    params: dict[str, Any]


class FieldInfo(Record, eq=False):
    """Where a FieldAccess goes: member `field` of `struct`; of a tracepoint's `args` also its `tracepoint` field."""

    struct: Struct | None
    field: Field | None
    tracepoint: TracepointField | None = None
    index: int = -1  # of a record's item; of fentry's args: the index of the 8-byte slot


class AnalysedProbe(Record, eq=False):
    """One program to be made, with the concrete probes that it is attached to."""

    node: ast.Probe
    probes: tuple[Probe, ...]
    context: Context
    body: ast.BlockExpr
    predicate: ast.Expr | None
    type_of: dict[ast.Node, Type]
    variables: dict[ast.Node, VariableInfo]  # Variable nodes (uses and declarations) to the variable
    calls: dict[ast.Node, CallInfo]
    constants: dict[ast.Node, int | str | bool]
    fields: dict[ast.Node, FieldInfo]
    operands: dict[ast.Node, CType]


class Analysis(Record, eq=False):
    """A typed program."""

    program: ast.Program
    probes: tuple[AnalysedProbe, ...]
    maps: dict[str, MapInfo]
    warnings: tuple[Diagnostic, ...] = ()

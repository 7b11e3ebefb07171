"""Typer: the state of one run of type checking, and the few operations that all rules share.

Types are found by walking the program in its order, again and again until nothing changes: a variable or map that was
read before its type grew makes another walk necessary, which is rare. Errors belong to the stage at which bpftrace
finds them; only those of the earliest stage are shown, as a later one would not have been reached.
"""

from __future__ import annotations

from ...errors import Diagnostic
from ..source import Place, diagnose
from . import ast
from .analysis import AnalysedProbe, CallInfo, FieldInfo, Type, VariableInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...debuginfo.btf import Btf
    from ...debuginfo.ctype import CType
    from ...errors import Span
    from ...spec.target import Target
    from .cdefs import CScope
    from .config import Config
    from .functions import Function
    from .options import Options

SUGAR, FLOW, CALLS, TYPES, CHECKS = range(5)  # stages, in bpftrace's order


class MapState:
    """What is known of one map so far."""

    __slots__ = (
        "aggregate_arg", "key", "key_read", "name", "node", "scalar", "value", "value_read", "written",
    )  # fmt: skip

    def __init__(self, name: str, node: ast.Node) -> None:
        self.name = name
        self.node = node
        self.scalar: bool | None = None  # decided by the first use
        self.key: CType | None = None
        self.value: Type | None = None
        self.aggregate_arg: CType | None = None  # what sum() and its like are called with
        self.key_read = False
        self.value_read = False
        self.written = False


class Group:
    """One AnalysedProbe in the making: its tables live for one walk, its variables for all of them."""

    __slots__ = ("function", "hoisted", "hoisted_at", "probe", "variables")

    def __init__(self, probe: AnalysedProbe) -> None:
        self.probe = probe
        self.variables: dict[ast.Node, VariableInfo] = {}  # by the node that made them
        self.hoisted: set[str] = set()  # used outside of the block that assigns them, as old scripts may
        self.hoisted_at: dict[str, ast.Node] = {}
        self.function: ast.Subprogram | None = None  # of a `fn`


class Assignment:
    """A value that must fit into a variable or map once all types are known."""

    __slots__ = ("group", "name", "node", "target", "type", "value")

    def __init__(self, group: Group, node: ast.Node, value: ast.Node, type_: Type, target: Any, name: str) -> None:
        self.group = group
        self.node = node
        self.value = value
        self.type = type_
        self.target = target  # VariableInfo or MapState
        self.name = name


def place_of(node: ast.Node) -> Span:
    """Return what a diagnostic about `node` underlines.

    As in bpftrace: of a cast the type in its parentheses, of a declaration with a value the declaration, of a loop over a
    range its head; a statement up to its semicolon.
    """
    span = node.span
    if not isinstance(span, Place):
        return span
    end = span.end
    if isinstance(node, (ast.Jump, ast.ExprStatement, ast.MapDecl)):
        end += span.source.text[end : end + 1] == ";"
    elif isinstance(node, ast.ForRange) and isinstance(node.end.span, Place):
        end = node.end.span.end
    elif isinstance(node, ast.Cast) and isinstance(node.type.span, Place):
        end = span.source.text.find(")", node.type.span.end) + 1
    return Place(span.source, span.start, end, span.call) if span.start < end else span


class Typer:
    """The state of type checking. Rules are functions that take it first."""

    def __init__(self, target: Target, config: Config, options: Options, scope: CScope | None) -> None:
        self.target = target
        self.config = config
        self.options = options
        self.c_scope = scope
        self.maps: dict[str, MapState] = {}
        self.rules: dict[type, Callable[[Typer, Any], Type | None]] = {}
        self.changed = False
        self.absent_maps: frozenset[str] = frozenset()  # maps of probes that match nothing here
        self._kernel_types: dict[str, CType | None] = {}
        self._btf: Btf | bool | None = False  # False: not asked for yet
        self.reset()

    def reset(self) -> None:
        """Begin a walk."""
        self.errors: list[tuple[int, Diagnostic]] = []
        self.warnings: list[Diagnostic] = []
        self.assignments: list[Assignment] = []
        self.changed = False
        self.unresolved: list[ast.Node] = []
        self.keys: list[tuple[ast.Node, CType, MapState]] = []  # map keys, to be converted to the map's key type
        self.whole_maps: list[tuple[ast.Map, Group]] = []  # uses of maps that say nothing of their types
        self.seen: dict[VariableInfo, Type | None] = {}  # variables that were read in this walk
        for state in self.maps.values():
            state.key_read = state.value_read = False

    def enter_group(self, group: Group) -> None:
        """Begin one program; its tables are emptied."""
        probe = group.probe
        self.group = group
        self.probe = probe
        self.type_of = probe.type_of
        self.constants = probe.constants
        for table in (probe.type_of, probe.constants, probe.variables, probe.calls, probe.fields, probe.operands):
            table.clear()
        for info in group.variables.values():
            info.assigned = info.used = False
        self.scopes: list[dict[str, VariableInfo]] = [{}]
        self.gone: set[str] = set()  # variables of blocks that ended
        self.loops = 0  # for and while around the current node
        self.jumps: list[str] = []  # the kinds of loops around it
        self.meta = 0  # sizeof, typeof and their like around it
        self.in_format = False  # a format string may be longer than strings are
        self.subprogram = False
        self.config_values: dict[ast.Node, list[Any]] = {}

    # diagnostics ------------------------------------------------------------------------------------------------

    def error(
        self, node: ast.Node, message: str, stage: int = TYPES, *, hint: str = "", notes: tuple[Diagnostic, ...] = ()
    ) -> None:
        """Record an error about `node`."""
        self.errors.append((stage, diagnose(place_of(node), message, hint=hint, notes=notes)))

    def warn(self, node: ast.Node, message: str, *, hint: str = "", notes: tuple[Diagnostic, ...] = ()) -> None:
        """Record a warning about `node`."""
        self.warnings.append(diagnose(place_of(node), message, severity="WARNING", hint=hint, notes=notes))

    def check_unstable(self, node: ast.Node, feature: str) -> None:
        """Refuse a feature, or warn of it once, as the config variable unstable_FEATURE says."""
        gate = getattr(self.config, f"unstable_{feature}")
        if gate == "error":
            message = (
                f"{feature} feature is not enabled by default. To enable this unstable feature, set the config flag to "
                f"enable. unstable_{feature}=enable"
            )
            self.error(node, message, CALLS)
        elif gate == "warn":
            message = (
                f"Script is using an unstable feature: {feature}. To prevent this warning you must explicitly enable it "
                f"in the config e.g. unstable_{feature}=enable"
            )
            if all(w.message != message for w in self.warnings):
                self.warnings.append(Diagnostic("WARNING", message))

    # types ------------------------------------------------------------------------------------------------------

    def visit(self, node: ast.Node) -> Type | None:
        """Find the type of an expression; None when it is not known yet, or wrong (which has been said then)."""
        found = self.rules[type(node)](self, node)
        if found is not None:
            self.type_of[node] = found
        return found

    def constant(self, node: ast.Node, value: int | str | bool) -> None:
        """Say that `node` has this value."""
        self.constants[node] = value

    def call(self, node: ast.Node, function: Function, args: tuple[Any, ...] = (), **params: Any) -> CallInfo:
        """Record what a call is."""
        info = self.probe.calls[node] = CallInfo(function.name, function, args, params)
        return info

    def field(self, node: ast.Node, info: FieldInfo) -> None:
        """Record where a field access goes."""
        self.probe.fields[node] = info

    def kernel_type(self, name: str) -> CType | None:
        """Return the kernel's type of this name; None if it has none, or there is no BTF."""
        known = self._kernel_types
        if name not in known:
            btf = self.btf()
            known[name] = btf.get_type(name) if btf is not None else None
        return known[name]

    def btf(self) -> Btf | None:
        """Return the kernel's BTF, if there is one."""
        from ...errors import FeatureError

        if self._btf is False:
            try:
                self._btf = self.target.btf()
            except FeatureError:
                self._btf = None
        return self._btf  # type: ignore[return-value]

    @property
    def kind(self) -> str:
        """The type of the probes of this program."""
        probes = self.probe.probes
        return probes[0].type if probes else ""

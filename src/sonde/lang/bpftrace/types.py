"""Type checking: a parsed script to a typed program (see `analysis` for what that is, `typing_*` for the rules)."""

from __future__ import annotations

from ...debuginfo.ctype import INT64
from ...errors import CompileError
from ...probes.model import Context
from ...record import replace
from ..source import Place, diagnose
from . import ast
from .analysis import AnalysedProbe, Analysis, MapInfo, Type
from .stype import Aggregate, type_name
from .typing_expressions import RULES
from .typing_maps import default_value
from .typing_operators import literal_of, visit_condition, warn_conversion
from .typing_probes import expand_probes
from .typing_promotion import fits, number_fits, settle
from .typing_state import CHECKS, Assignment, Group, MapState, Typer, place_of
from .typing_variables import hoist, make_variable, pop_scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from ...errors import Diagnostic, Span
    from ...spec.target import Target
    from ..source import Source
    from .cdefs import CScope
    from .config import Config
    from .options import Options

_MAX_WALKS = 50


def analyse(program: ast.Program, source: Source, target: Target, config: Config, options: Options) -> Analysis:
    """Type a script whose macros are expanded and whose parameters are put in.

    `Analysis.warnings` are those of this pass. Raises CompileError with all diagnostics: probes that do not exist, wrong
    types, wrong calls. Cost: no type of the kernel is decoded that the script does not touch.
    """
    scope, program = _read_c(program, target, options)
    warnings: list[Diagnostic] = []
    groups = expand_probes(program, target, config, options, warnings)
    typer = Typer(target, config, options, scope)
    typer.rules.update(RULES)
    typer.absent_maps = _absent_maps(program, groups)
    functions = [_subprogram_group(node) for node in program.subprograms]
    _find_types(typer, groups, functions, program)
    _fail_on_errors(typer)
    _settle(groups)
    warnings += typer.warnings
    _warn_unused_maps(typer, program, warnings)
    probes = tuple(group.probe for group in groups)
    return Analysis(program, probes, _make_maps(typer, program, config), tuple(_unique(warnings)))


def _read_c(program: ast.Program, target: Target, options: Options) -> tuple[CScope | None, ast.Program]:
    """Read the C definitions of a script, if it has any, behind the headers that the command line wants."""
    if options.headers:
        from .headers import included_first

        first = included_first(options.headers)
        program = replace(program, c_definitions=(*first, *program.c_definitions))
    if not program.c_definitions:
        return None, program
    from ...errors import FeatureError
    from .cdefs import expand_c_macros, parse_c

    try:
        lookup = target.btf().get_type
    except FeatureError:
        lookup = None
    scope = parse_c(program.c_definitions, lookup, target.arch, options.directories)
    return scope, expand_c_macros(program, scope)


def _absent_maps(program: ast.Program, groups: list[Group]) -> frozenset[str]:
    """Return the maps of probes that match nothing on this machine: what is asked of them elsewhere is no mistake."""
    present = {group.probe.node for group in groups}
    absent = [node for node in program.probes if node not in present]
    if not absent:
        return frozenset()
    from .rewrite import iter_nodes

    return frozenset(n.name for node in absent for n in iter_nodes(node) if isinstance(n, ast.Map))


# Walks ------------------------------------------------------------------------------------------------------------


def _find_types(typer: Typer, groups: list[Group], functions: list[Group], program: ast.Program) -> None:
    """Walk the program until no type changes any more."""
    for _ in range(_MAX_WALKS):
        typer.reset()
        for group in groups:
            _walk_probe(typer, group)
        for group in functions:
            _walk_function(typer, group)
        if typer.changed or _give_defaults(typer):
            continue
        break
    _check_unresolved(typer)
    for assignment in typer.assignments:
        _check_assignment(typer, assignment)
    for node, ctype, state in typer.keys:
        if state.key is not None:
            warn_conversion(typer, node, ctype, state.key)
    _check_maps(typer, program)


def _walk_probe(typer: Typer, group: Group) -> None:
    typer.enter_group(group)
    hoist(typer)
    node = group.probe.node
    if node.predicate is not None:
        visit_condition(typer, node.predicate, _Predicate(_between_slashes(node.predicate)))
    typer.visit(node.body)
    pop_scope(typer)


class _Predicate(ast.Node, eq=False):
    """A predicate with its slashes, as the place of a diagnostic."""


def _between_slashes(node: ast.Expr) -> Span:
    span = node.span
    if not isinstance(span, Place) or span.call is not None:
        return span
    text = span.source.text
    start, end = text.rfind("/", 0, span.start), text.find("/", span.end)
    return span.source.span(start, end + 1) if 0 <= start < end else span


def _give_defaults(typer: Typer) -> bool:
    """Let maps that are read but never assigned hold int64, once nothing else can be found; tell whether any did."""
    if not typer.unresolved or typer.errors:
        return False
    given = False
    for state in typer.maps.values():
        if state.value is None and (state.value_read or state.written):
            state.value = default_value()
            given = True
    return given


def _check_unresolved(typer: Typer) -> None:
    """Variables that are read and never assigned have no type; one that runs over an unknown map is not to blame."""
    if typer.errors or _undefined_maps(typer):
        return
    for node in typer.unresolved:
        if isinstance(node, ast.Variable):
            typer.error(node, "Could not resolve the type of this variable")


# Checks that need all types ---------------------------------------------------------------------------------------


def _check_assignment(typer: Typer, assignment: Assignment) -> None:
    final: Type | None = assignment.target.type if hasattr(assignment.target, "type") else assignment.target.value
    if final is None:
        return
    typer.type_of, typer.constants = assignment.group.probe.type_of, assignment.group.probe.constants
    value = literal_of(typer, assignment.value)
    if isinstance(value, int) and not isinstance(value, bool):
        ok = number_fits(value, final.ctype)
    else:
        ok = fits(assignment.type.ctype, final.ctype)
    if not ok:
        what = (
            "map already has a value type" if isinstance(assignment.target, MapState) else "variable already has a type"
        )
        given = type_name(assignment.type.ctype)
        typer.error(
            assignment.node,
            f"Type mismatch for {assignment.name}: trying to assign value of type '{given}' "
            f"when {what} '{type_name(final.ctype)}'",
        )
    elif value is None:
        warn_conversion(typer, assignment.value, assignment.type.ctype, final.ctype)


def _check_maps(typer: Typer, program: ast.Program) -> None:
    for node, group in _undefined_maps(typer):
        typer.group = group
        typer.error(node, f"Undefined map: {node.name}", CHECKS)
    for declaration in program.map_decls:
        _check_declaration(typer, declaration)


def _undefined_maps(typer: Typer) -> list[tuple[ast.Map, Group]]:
    """Return the mentions of whole maps that no probe gives a value."""
    maps, absent = typer.maps, typer.absent_maps
    return [(m, group) for m, group in typer.whole_maps if maps[m.name].value is None and m.name not in absent]


_MAP_TYPES = ("percpulruhash", "percpuhash", "lruhash", "hash")


def _check_declaration(typer: Typer, node: ast.MapDecl) -> None:
    if node.type not in _MAP_TYPES:
        hint = "Valid map types: " + ", ".join(_MAP_TYPES)
        typer.error(node, f"Invalid bpf map type: {node.type}", CHECKS, hint=hint)
        return
    state = typer.maps.get(node.name)
    if state is None or state.value is None:
        return
    per_cpu = isinstance(state.value.ctype, Aggregate)
    if per_cpu != node.type.startswith("percpu"):
        typer.error(
            state.node,
            f"Incompatible map types. Type from declaration: {node.type}. Type from value/key type: "
            f"{'percpuhash' if per_cpu else 'hash'}",
            CHECKS,
        )


def _warn_unused_maps(typer: Typer, program: ast.Program, warnings: list[Diagnostic]) -> None:
    for node in program.map_decls:
        if node.name not in typer.maps:
            warnings.append(diagnose(place_of(node), f"Unused map: {node.name}", severity="WARNING"))


# Functions --------------------------------------------------------------------------------------------------------


def _subprogram_group(node: ast.Subprogram) -> Group:
    """A function is checked as a program of its own that no probe has; nothing can call it."""
    probe = ast.Probe(node.span, (), None, node.body)
    context = Context("none")
    group = Group(AnalysedProbe(probe, (), context, node.body, None, {}, {}, {}, {}, {}, {}))
    group.function = node
    return group


def _walk_function(typer: Typer, group: Group) -> None:
    from .typing_names import resolve_type

    node = group.function
    assert node is not None
    typer.enter_group(group)
    typer.subprogram = True
    for variable, name in node.params:
        ctype = resolve_type(typer, name)
        info = make_variable(typer, variable.name, variable)
        info.assigned = info.declared = True
        if ctype is not None:
            info.type = Type(ctype, "kernel")
    resolve_type(typer, node.result)
    typer.visit(node.body)
    pop_scope(typer)


# Results ----------------------------------------------------------------------------------------------------------


def _fail_on_errors(typer: Typer) -> None:
    if not typer.errors:
        return
    first = min(stage for stage, _ in typer.errors)
    raise CompileError(_unique([d for stage, d in typer.errors if stage == first]))


def _unique(diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    """Drop what was said before about the same place, as happens when one body is typed for several programs."""
    seen: set[tuple[object, str]] = set()
    result = []
    for diagnostic in diagnostics:
        key = (diagnostic.span, diagnostic.message)
        if key not in seen:
            seen.add(key)
            result.append(diagnostic)
    return result


def _settle(groups: list[Group]) -> None:
    """Decide the sign of numbers where nothing has."""
    for group in groups:
        for info in group.variables.values():
            if info.type is not None:
                info.type = _settled(info.type)
        types = group.probe.type_of
        for node, found in types.items():
            types[node] = _settled(found)


def _settled(found: Type) -> Type:
    ctype = settle(found.ctype)
    return found if ctype is found.ctype else Type(ctype, found.space, found.leads)


def _make_maps(typer: Typer, program: ast.Program, config: Config) -> dict[str, MapInfo]:
    declared = {node.name: node for node in program.map_decls}
    maps: dict[str, MapInfo] = {}
    for name, state in typer.maps.items():
        declaration = declared.get(name)
        entries = declaration.max_entries if declaration else config.max_map_keys
        key: CType | None = None
        if not state.scalar:
            key = settle(state.key) if state.key is not None else None
        value = settle(state.value.ctype) if state.value is not None else INT64
        kind = declaration.type if declaration else ""
        leads = (state.value.leads or state.value.space) if state.value is not None else ""
        maps[name] = MapInfo(name, key, value, 1 if key is None else entries, kind, state.node.span, leads)
    return maps

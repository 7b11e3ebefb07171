"""`SEC(".struct_ops.link") struct tcp_congestion_ops x = { .init = (void *)f, … };`: a set of programs in place of a struct of the kernel's functions.

The variable becomes a map of type struct_ops; each function that it names becomes a program for the member that it stands in.
"""

from __future__ import annotations

from ...debuginfo.ctype import Struct, sizeof, strip
from ...record import replace
from ...spec.object import MapSpec, ProbeSpec
from . import ast
from .analysis import FunctionSymbol
from .lower_frame import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...spec.object import ProgramSpec
    from .analysis import Analysis, Initialiser, Variable

LINK = 1 << 13  # BPF_F_LINK: a link registers the set
_SECTIONS = (".struct_ops", ".struct_ops.link")


def is_set(variable: Variable) -> bool:
    """Tell whether a variable is a set of programs."""
    return variable.section in _SECTIONS


def find_function(analysis: Analysis, part: Initialiser) -> str:
    """Return the function that an initialiser names, "" for anything else."""
    value = part.value
    while isinstance(value, ast.Cast) or (isinstance(value, ast.Unary) and value.op == "&"):
        value = value.operand
    symbol = analysis.symbols.get(value)
    return symbol.name if isinstance(symbol, FunctionSymbol) else ""


def set_of(variable: Variable, content: bytes, values: Iterable[tuple[int, str]]) -> MapSpec:
    """Return the map of a set. Raises CompileError for a variable that is no struct."""
    if not isinstance(strip(variable.ctype), Struct):
        raise failure(variable.span, f"{variable.name} in section {variable.section} is no struct of functions")
    flags = LINK if variable.section.endswith(".link") else 0
    return MapSpec(
        variable.name,
        "struct_ops",
        4,
        sizeof(variable.ctype),
        1,
        flags,
        content,
        values=tuple(values),
        value_type=strip(variable.ctype),
    )


def place_programs(programs: Iterable[ProgramSpec], maps: Iterable[MapSpec]) -> Iterator[ProgramSpec]:
    """Yield the programs; those of sets for the members that they stand in. One that none of the sets has is left out, as in libbpf."""
    members: dict[str, str] = {}
    for spec in maps:
        struct = spec.value_type
        if spec.type == "struct_ops" and isinstance(struct, Struct):
            names = {member.offset: member.name for member in struct.members}
            members.update((function, f"{struct.name}.{names.get(offset, '')}") for offset, function in spec.values)
    for program in programs:
        if program.type != "struct_ops" or not members:
            yield program
        elif program.name in members:
            yield replace(program, attach_btf=members[program.name])


def probes_of(maps: Iterable[MapSpec]) -> Iterator[ProbeSpec]:
    """Yield what registers the sets."""
    for spec in maps:
        if spec.type == "struct_ops" and spec.values:
            yield ProbeSpec(f"struct_ops:{spec.name}", "struct_ops", spec.values[0][1], symbol=spec.name)

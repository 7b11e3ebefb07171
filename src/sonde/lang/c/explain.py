"""What --explain shows of a C text: the syntax tree as C, the types of names, bytecode, attach plan. Text for people, not an interface."""

from __future__ import annotations

from ...debuginfo.ctype import sizeof
from .arithmetic import shown
from .print_c import print_external

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.object import ObjectSpec
    from ..source import Source
    from . import ast
    from .analysis import Analysis


def show_tree(unit: ast.TranslationUnit, source: Source) -> str:
    """Return what the parser understood of the text itself, without its headers, as C text."""
    return "\n".join(print_external(item) for item in unit.items if item.span.file == source.name)


def show_names(analysis: Analysis) -> str:
    """Return tables, global variables and programs with the variables of each, and their types."""
    lines = []
    for table in analysis.tables.values():
        key, leaf = ("nothing" if ctype is None else shown(ctype) for ctype in (table.key, table.leaf))
        lines.append(f"map {table.name}: {table.kind}, {key} -> {leaf}")
    for variable in analysis.globals.values():
        lines.append(f"{variable.storage} {variable.name}: {shown(variable.ctype)}, {sizeof(variable.ctype)} bytes")
    for name, info in analysis.functions.items():
        if info.symbol.is_program:
            lines.append(f"program {name}")
            lines += [f"  {variable.name}: {shown(variable.ctype)}" for variable in info.locals]
    return "\n".join(lines)


def show_programs(spec: ObjectSpec) -> str:
    """Return the programs as the kernel would print them."""
    from ...compiler.listing import format_program

    return "\n".join(format_program(program) for program in spec.programs)


def show_plan(spec: ObjectSpec) -> str:
    """Return which program goes where, and the maps."""
    lines = [f"{probe.name} -> {probe.program}" for probe in spec.probes]
    for each in spec.maps:
        lines.append(
            f"map {each.name}: {each.type}, key {each.key_size}, value {each.value_size}, {each.max_entries} entries"
        )
    return "\n".join(lines)

"""What --explain shows of each stage: types, IR, bytecode, attach plan. Text for people, not an interface."""

from __future__ import annotations

from .stype import type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Module
    from ...spec.object import ObjectSpec, ProbeSpec
    from .analysis import Analysis


def show_types(analysis: Analysis) -> str:
    """Return the types of maps and variables, and what the programs are attached to."""
    lines = []
    for info in sorted(analysis.maps.values(), key=lambda m: m.name):
        key = f"[{type_name(info.key)}]" if info.key is not None else ""
        lines.append(f"{info.name}{key}: {type_name(info.value)}")
    for probe in analysis.probes:
        lines.append(", ".join(p.name for p in probe.probes[:5]) + (" ..." if len(probe.probes) > 5 else ""))
        for variable in {v.ident: v for v in probe.variables.values()}.values():
            if variable.type is not None:
                space = f" ({variable.type.space} memory)" if variable.type.space else ""
                lines.append(f"  {variable.name}: {type_name(variable.type.ctype)}{space}")
    return "\n".join(lines)


def show_module(module: Module) -> str:
    """Return the IR before any pass."""
    from ...compiler.text import format_module

    return format_module(module)


def show_programs(spec: ObjectSpec) -> str:
    """Return the programs as the kernel would print them."""
    from ...compiler.listing import format_program

    return "\n".join(format_program(program) for program in spec.programs)


def show_plan(spec: ObjectSpec) -> str:
    """Return the probes, the maps and the events."""
    lines = [f"{probe.name} -> {probe.program}{_details(probe)}" for probe in spec.probes]
    for each in spec.maps:
        lines.append(
            f"map {each.name}: {each.type}, key {each.key_size}, value {each.value_size}, {each.max_entries} entries"
        )
    for event in spec.events:
        fields = ", ".join(f"{f.name}: {f.layout.kind} at {f.offset}" for f in event.fields)
        lines.append(f"event {event.ident}: {event.kind}, {event.size} bytes" + (f" ({fields})" if fields else ""))
    return "\n".join(lines)


def _details(probe: ProbeSpec) -> str:
    if probe.path:
        return f" at {probe.path}+0x{probe.offset:x}"
    if probe.period_ns:
        return f" each {probe.period_ns} ns"
    return ""

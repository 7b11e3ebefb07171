"""A typed program as text, for `--explain`: its programs, the types of variables and maps, what was folded."""

from __future__ import annotations

from .stype import type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .analysis import AnalysedProbe, Analysis, Type


def describe(analysis: Analysis) -> str:
    """Return what type checking found, one line for each variable, map and call with folded arguments."""
    lines: list[str] = []
    for number, probe in enumerate(analysis.probes, 1):
        lines += _describe_probe(number, probe)
    if analysis.maps:
        lines.append("maps")
    for info in analysis.maps.values():
        key = f"[{type_name(info.key)}]" if info.key is not None else ""
        entries = f", {info.max_entries} entries" if info.key is not None else ""
        declared = f", {info.declared}" if info.declared else ""
        lines.append(f"  {info.name}{key}: {type_name(info.value)}{entries}{declared}")
    return "\n".join(lines)


def _describe_probe(number: int, probe: AnalysedProbe) -> list[str]:
    names = [p.name for p in probe.probes]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    lines = [f"program {number}: {', '.join(names[:3])}{more}"]
    for info in {i.ident: i for i in probe.variables.values()}.values():
        if info.type is not None:
            lines.append(f"  {info.name}: {spell(info.type)}")
    for call in probe.calls.values():
        known = {k: v for k, v in call.params.items() if isinstance(v, (int, str))}
        if known:
            lines.append(f"  {call.name}(): " + ", ".join(f"{k}={v!r}" for k, v in known.items()))
    return lines


def spell(found: Type) -> str:
    """Spell a type with its address space."""
    space = found.space or found.leads
    return type_name(found.ctype) + (f" ({space})" if space else "")

"""What a text in libbpf's style shows: the records of its ring and perf buffers as they come, its maps and global variables at the end.

All by their C types. Maps without values of their own that a reader could look at (rings, maps of programs, sockets or maps, stack traces) are left out, and so is
what is const, which never says anything new.
"""

from __future__ import annotations

from ...debuginfo.ctype import Array, Int, sizeof, strip
from ...record import replace
from ...spec.clayout import layout_of
from ...spec.layout import Layout, LayoutField
from ...spec.object import StreamSpec, ViewSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .analysis import Table
    from .compile import Text

_KEYED = ("hash", "lru_hash", "array", "percpu_hash", "lru_percpu_hash", "percpu_array", "lpm_trie")
STREAMED = ("ringbuf", "perf_event_array")
_SHOWN = (".data", ".bss")  # sections of variables that programs change


def views_of(text: Text) -> tuple[ViewSpec, ...]:
    """Return the views of all maps that can be read, and of all variables that programs can change."""
    maps = [_map_view(table) for table in text.tables.values() if _is_readable(table)]
    variables = [
        ViewSpec(variable.name, map_name, None, _layout(variable.ctype), offset=offset)
        for variable, (map_name, offset) in text.globals.offsets.items()
        if map_name.startswith(_SHOWN) and sizeof(variable.ctype)
    ]
    return (*maps, *variables)


def streams_of(text: Text) -> tuple[StreamSpec, ...]:
    """Return the buffers that programs write records to, with what those may be. Pinned ones have a reader elsewhere."""
    from .events import find_event_types

    streams = []
    for name, types in find_event_types(text.analysis).items():
        table = text.tables[name]
        if table.kind in STREAMED and not table.pinning:
            streams.append(StreamSpec(name, tuple(_layout(ctype) for ctype in types)))
    return tuple(streams)


def _is_readable(table: Table) -> bool:
    return (
        table.kind in _KEYED and table.key is not None and table.leaf is not None and not table.name.endswith(".inner")
    )


def _map_view(table: Table) -> ViewSpec:
    assert table.key is not None and table.leaf is not None
    value, per_cpu = _layout(table.leaf), "percpu" in table.kind
    if per_cpu and (value.kind != "int" or value.size > 8):  # there is no sum of it: all CPUs are shown
        value = Layout("array", value.size, element=value)
    return ViewSpec(
        table.name,
        table.name,
        _layout(table.key),
        value,
        per_cpu=per_cpu,
        sparse="array" in table.kind,
    )


def _layout(ctype: CType) -> Layout:
    """Return the layout of a C type: u8 and s8 are small numbers, only an array of plain char is a text."""
    inner = strip(ctype)
    if isinstance(inner, Int) and inner.size == 16:
        return Layout("int", 16, inner.signed)
    if isinstance(inner, Array):
        element = strip(inner.element)
        if isinstance(element, Int) and element.encoding == "char" and element.name != "char":
            return Layout("array", sizeof(inner), element=_layout(element), count=inner.count)
        if isinstance(element, Int) and element.encoding == "char" and not inner.count:
            return Layout("string", 0)  # as long as the record goes on
    return _flat(layout_of(ctype, _layout))


def _flat(layout: Layout) -> Layout:
    """A struct whose members include those of the structs and unions without a name in it, as C has it."""
    if layout.kind != "struct" or all(field.name or field.layout.kind != "struct" for field in layout.fields):
        return layout
    fields: list[LayoutField] = []
    for field in layout.fields:
        if field.name or field.layout.kind != "struct":
            fields.append(field)
        else:  # its own nameless members were taken in before
            fields += [replace(each, offset=field.offset + each.offset) for each in field.layout.fields]
    return replace(layout, fields=tuple(fields))

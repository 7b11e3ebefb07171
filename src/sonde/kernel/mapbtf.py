"""The BTF that the kernel demands of some maps: of local storage, and of values that hold a spin lock, a timer or a kernel pointer.

It is made from the C types of key and value, or from their layouts where only these are known. The kernel finds special members by
the name and the size of their struct.
Format: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.ctype import CType
    from ..spec.layout import Layout
    from ..spec.object import MapSpec

_LOCAL_STORAGE = frozenset(["sk_storage", "inode_storage", "task_storage", "cgrp_storage"])
_SPECIAL = frozenset(
    [
        "bpf_spin_lock",
        "bpf_timer",
        "bpf_wq",
        "bpf_list_head",
        "bpf_list_node",
        "bpf_rb_root",
        "bpf_rb_node",
        "bpf_refcount",
    ]
)
_TAGS = frozenset(["kptr", "kptr_untrusted", "percpu_kptr", "uptr"])
_LIMIT = 4096  # types looked at in one value


class MapBtf(Record):
    """A BTF blob, and the types of key and value in it."""

    blob: bytes
    key: int
    value: int


def needs_btf(spec: MapSpec) -> bool:
    """Tell whether the kernel refuses the map without BTF."""
    if spec.type in _LOCAL_STORAGE or (spec.value is not None and _is_special(spec.value)):
        return True
    return spec.value_type is not None and _has_special(spec.value_type)


def _is_special(layout: Layout) -> bool:
    if layout.name in _SPECIAL:
        return True
    if layout.element is not None and _is_special(layout.element):
        return True
    return any(_is_special(field.layout) for field in layout.fields)


def _has_special(ctype: CType) -> bool:
    from ..debuginfo.ctype import Array, Pointer, Qualified, Struct, Typedef

    queue, seen = [ctype], {ctype}
    while queue and len(seen) < _LIMIT:
        each = queue.pop()
        if isinstance(each, Pointer) and each.tag in _TAGS:
            return True
        if isinstance(each, Struct):
            if each.name in _SPECIAL:
                return True
            inner = [member.ctype for member in each.members]
        else:
            inner = [each.target] if isinstance(each, (Array, Qualified, Typedef)) else []
        queue += (t for t in inner if t not in seen)
        seen.update(inner)
    return False


def make_map_btf(spec: MapSpec) -> MapBtf:
    """Make the BTF of a map."""
    from ..debuginfo.btfwrite import encode
    from ..debuginfo.ctype import Int

    number = Int("int", spec.key_size, True)  # local storage takes no other key
    if spec.value_type is not None:
        types = [spec.key_type or number, spec.value_type]
    else:
        key = number if spec.type in _LOCAL_STORAGE else _as_type(spec.key, spec.key_size)
        types = [key, _as_type(spec.value, spec.value_size)]
    blob, (key_id, value_id) = encode(types)
    return MapBtf(blob, key_id, value_id)


def _as_type(layout: Layout | None, size: int) -> CType:
    """The C type of a layout; without one, bytes."""
    from ..debuginfo.ctype import CHAR, Array, Int

    if layout is not None and layout.size == size:
        if layout.kind == "struct":
            return _as_struct(layout)
        if layout.kind == "array" and layout.element is not None:
            return Array(_as_type(layout.element, layout.element.size), layout.count)
        if layout.kind not in ("string", "raw", "buffer") and size in (1, 2, 4, 8):
            return Int(f"{'s' if layout.signed else 'u'}{8 * size}", size, layout.signed)
    return Array(CHAR, size)


def _as_struct(layout: Layout) -> CType:
    from ..debuginfo.ctype import Member, Struct

    members = tuple(
        Member(
            field.name, _as_type(field.layout, field.layout.size), 8 * field.offset + field.bit_offset, field.bit_width
        )
        for field in layout.fields
        if field.layout.size
    )
    return Struct("struct", _identifier(layout.name), layout.size, members)


def _identifier(name: str) -> str:
    """A name that BTF takes."""
    return name.encode("ascii", "replace").decode().replace("?", "_")

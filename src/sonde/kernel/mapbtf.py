"""The BTF that the kernel demands of some maps: of local storage, and of values that hold a spin lock, a timer or a kernel pointer.

It is made from the C types of key and value, or from their layouts where only these are known. The kernel finds special members by
the name and the size of their struct.
Format: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

from struct import pack

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
_INT, _ARRAY, _STRUCT = 1 << 24, 3 << 24, 4 << 24
_KIND_FLAG = 1 << 31
_SIGNED = 1 << 24


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
    if spec.value_type is not None:
        from ..debuginfo.btfwrite import encode
        from ..debuginfo.ctype import Int

        own_key = Int("int", spec.key_size, True)  # local storage takes no other
        blob, (key, value) = encode([spec.key_type or own_key, spec.value_type])
        return MapBtf(blob, key, value)
    types = _Types()
    key = (
        types.integer("int", spec.key_size, True) if spec.type in _LOCAL_STORAGE else types.of(spec.key, spec.key_size)
    )
    value = types.of(spec.value, spec.value_size)
    return MapBtf(types.blob(), key, value)


class _Types:
    def __init__(self) -> None:
        self._types = bytearray()
        self._strings = bytearray(b"\0")
        self._known: dict[object, int] = {}
        self._count = 0

    def blob(self) -> bytes:
        header = pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self._types), len(self._types), len(self._strings))
        return header + bytes(self._types) + bytes(self._strings)

    def _string(self, text: str) -> int:
        if not text:
            return 0
        offset = len(self._strings)
        self._strings += text.encode("ascii", "replace").replace(b"?", b"_") + b"\0"
        return offset

    def _add(self, name: str, info: int, size: int, rest: bytes) -> int:
        self._types += pack("=III", self._string(name), info, size) + rest
        self._count += 1
        return self._count

    def integer(self, name: str, size: int, signed: bool) -> int:
        """An integer of 1 to 8 bytes."""
        key = name, size, signed
        if key not in self._known:
            encoding = (_SIGNED if signed else 0) | 8 * size
            self._known[key] = self._add(name, _INT, size, pack("=I", encoding))
        return self._known[key]

    def _array(self, element: int, count: int) -> int:
        return self._add("", _ARRAY, 0, pack("=III", element, self.integer("int", 4, True), count))

    def of(self, layout: Layout | None, size: int) -> int:
        """The type of a layout; without one, bytes."""
        if layout is None or layout.size != size or layout.kind in ("string", "raw", "buffer"):
            return self._array(self.integer("char", 1, False), size)
        if layout.kind == "struct":
            return self._struct(layout)
        if layout.kind == "array" and layout.element is not None:
            return self._array(self.of(layout.element, layout.element.size), layout.count)
        if size in (1, 2, 4, 8):
            return self.integer(f"{'s' if layout.signed else 'u'}{8 * size}", size, layout.signed)
        return self._array(self.integer("char", 1, False), size)

    def _struct(self, layout: Layout) -> int:
        fields = [(f, self.of(f.layout, f.layout.size)) for f in layout.fields if f.layout.size]
        bits = any(f.bit_width for f, _ in fields)
        members = b""
        for field, ident in fields:
            offset = 8 * field.offset + field.bit_offset
            members += pack("=III", self._string(field.name), ident, field.bit_width << 24 | offset if bits else offset)
        info = _STRUCT | len(fields) | (_KIND_FLAG if bits else 0)
        return self._add(layout.name, info, layout.size, members)

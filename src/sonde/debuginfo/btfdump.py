"""C types to C text: the definition of a struct, union, enum or typedef, with its padding spelt out.

The layout of the text, and the way of showing padding (`long: 64;`), are those of libbpf's BTF dumper, which bpftrace and
bpftool print with, so that definitions can be compared line by line.
"""

from __future__ import annotations

from ..errors import FormatError
from .ctype import Array, CType, Enum, Forward, FuncProto, Member, Pointer, Qualified, Struct, Typedef, alignof, sizeof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Layer = Union[Array, FuncProto, Pointer, Qualified]

_LINES_LIMIT = 100_000
_NESTING_LIMIT = 32
_GAP_LIMIT_BITS = 1 << 20
_LAYERS_LIMIT = 64
_WORD_BYTES = 8
_PADS = (("long", 64), ("int", 32), ("short", 16), ("char", 8))


def definition(ctype: CType) -> str:
    """Return the C definition of a type, with members and their padding, and the semicolon; no newline at the end.

    Raises FormatError for a type that C cannot express (one that contains itself).
    """
    if isinstance(ctype, Typedef):
        return f"typedef {_Writer().declaration(ctype.target, ctype.name, 0)};"
    if isinstance(ctype, (Struct, Enum)):
        return _Writer().body(ctype, 0) + ";"
    return f"{_Writer().declaration(ctype, '', 0)};"


class _Writer:
    """Writes one definition; counts what it writes, since corrupt debug information can ask for endless text."""

    def __init__(self) -> None:
        self.left = _LINES_LIMIT

    def spend(self, level: int, lines: int = 1) -> None:
        self.left -= lines
        if self.left < 0 or level > _NESTING_LIMIT:
            raise FormatError("a type that contains itself, or definitions nested without end")

    # definitions ----------------------------------------------------------------------------------------------

    def body(self, ctype: Struct | Enum, level: int) -> str:
        self.spend(level)
        return self.enum_body(ctype, level) if isinstance(ctype, Enum) else self.struct_body(ctype, level)

    def enum_body(self, enum: Enum, level: int) -> str:
        tabs = "\t" * (level + 1)
        suffix = ("LL" if enum.signed else "ULL") if enum.size == 8 else ""
        lines = [f"{tabs}{name} = {value}{suffix},\n" for name, value in enum.values.items()]
        mode = " __attribute__((mode(byte)))" if enum.size == 1 else ""
        return f"enum{' ' * bool(enum.name)}{enum.name} {{\n{''.join(lines)}{tabs[1:]}}}{mode}"

    def struct_body(self, struct: Struct, level: int) -> str:
        tabs = "\t" * (level + 1)
        packed = struct.kind == "struct" and _is_packed(struct)
        lines: list[str] = []
        end = 0
        in_bits = False
        for member in struct.members:
            align = 1 if packed else _align(member.ctype)
            bits = member.width_bits
            pads = _padding(end, member.offset_bits, align, in_bits and bits > 0)
            self.spend(level, 1 + len(pads))
            lines += pads
            text = self.declaration(member.ctype, member.name, level + 1)
            lines.append(f"{text}: {bits};" if bits else f"{text};")
            end = member.offset_bits + (bits or _size(member) * 8)
            in_bits = bits > 0
        if struct.kind == "struct":
            lines += _padding(end, struct.size * 8, _align(struct), False)
        inside = "".join(f"\n{tabs}{line}" for line in lines)
        if lines or struct.size:
            inside += f"\n{tabs[1:]}"
        tail = " __attribute__((packed))" if packed else ""
        return f"{struct.kind}{' ' * bool(struct.name)}{struct.name} {{{inside}}}{tail}"

    # declarations ---------------------------------------------------------------------------------------------

    def declaration(self, ctype: CType, name: str, level: int) -> str:
        """Return the declaration of `name`, with the bodies of anonymous structs, unions and enums in it."""
        self.spend(level)
        layers: list[Layer] = []
        while isinstance(ctype, (Array, FuncProto, Pointer, Qualified)):
            layers.append(ctype)
            if len(layers) > _LAYERS_LIMIT:
                raise FormatError("a declaration without end")
            ctype = ctype.result if isinstance(ctype, FuncProto) else ctype.target
        base = ""
        while layers and isinstance(layers[-1], Qualified):
            base += f"{_qualifier(layers.pop())} "
        return base + self.base(ctype, level) + self.declarator(layers, name, False, level)

    def base(self, ctype: CType, level: int) -> str:
        if isinstance(ctype, (Struct, Enum)) and not ctype.name:
            return self.body(ctype, level)
        if isinstance(ctype, (Struct, Forward)):
            return f"{ctype.kind} {ctype.name}"
        return f"enum {ctype.name}" if isinstance(ctype, Enum) else ctype.name

    def declarator(self, layers: list[Layer], name: str, after_star: bool, level: int) -> str:
        """Return what follows the base type: the layers from the innermost (last) to the outermost, and the name."""
        text = ""
        while layers:
            layer = layers.pop()
            if isinstance(layer, Pointer):
                tag = f' __attribute__((btf_type_tag("{layer.tag}")))' if layer.tag else ""
                after_star = after_star and not tag
                text += f"{tag}{'*' if after_star else ' *'}"
                after_star = True
            elif isinstance(layer, Qualified):
                text += f" {_qualifier(layer)}"
                after_star = False
            else:
                return text + self.suffixed(layer, layers, name, after_star, level)
        return text + _spaced(name, after_star)

    def suffixed(self, layer: Array | FuncProto, layers: list[Layer], name: str, after_star: bool, level: int) -> str:
        """An array or function, whose bounds or parameters stand after what is declared."""
        while layers and isinstance(layers[-1], Qualified):
            layers.pop()  # C has no qualified arrays and functions; compilers emit some all the same
        if isinstance(layer, Array):
            suffix = f"[{layer.count}]"
            plain = not layers or isinstance(layers[-1], Array)
            space = " " if layers and name and not after_star else ""
        else:
            suffix = f"({self.parameters(layer, level)})"
            plain = not layers
            space = " " if layers else ""
        if not layers:
            return _spaced(name, after_star) + suffix
        inner = self.declarator(layers, name, True, level)
        return space + (inner if plain else f"({inner})") + suffix

    def parameters(self, proto: FuncProto, level: int) -> str:
        parts = [self.declaration(p.ctype, p.name, level + 1) for p in proto.params]
        if proto.variadic and parts:
            parts.append("...")
        return ", ".join(parts) or "void"


def _qualifier(layer: Layer) -> str:
    if layer.name in ("const", "volatile", "restrict"):
        return layer.name
    return f'__attribute__((btf_type_tag("{layer.name}")))'


def _spaced(name: str, after_star: bool) -> str:
    return f" {name}" if name and not after_star else name


# Layout -----------------------------------------------------------------------------------------------------------


def _size(member: Member) -> int:
    return sizeof(member.ctype)


def _align(ctype: CType) -> int:
    return min(alignof(ctype), _WORD_BYTES)


def _is_packed(struct: Struct) -> bool:
    """Tell whether the members stand where only a packed struct has them."""
    return struct.align == 1 and any(_align(m.ctype) > 1 for m in struct.members)


def _padding(start: int, end: int, align: int, in_bits: bool) -> list[str]:
    """Return the unnamed bit-fields that keep what follows at bit `end`, where the compiler would not by itself.

    `align` is the alignment in bytes of what follows. A pad of width 0 closes the current unit of its type, which is
    needed where the next member would fit before that boundary.
    """
    if start >= end:
        return []
    pads = []
    fitting = [(n, w, at) for n, w in _PADS if (at := _round_up(start, w)) <= end]
    name, width, at = fitting[0] if fitting else ("char", 8, start)
    if start < at:
        if in_bits:
            pads.append(f"{name}: {at - start};")
        elif (at == end and _round_up(start, align * 8) != at) or (at != end and end - at <= at - start):
            pads.append(f"{name}: 0;")
    if end - at > _GAP_LIMIT_BITS:
        raise FormatError(f"a gap of {(end - at) // 8} bytes between two members")
    while end - at >= width:
        pads.append(f"{name}: {width};")
        at += width
    if at < end:
        name = next(n for n, w in reversed(_PADS) if w >= end - at)
        pads.append(f"{name}: {end - at};")
    return pads


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit

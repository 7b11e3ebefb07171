"""Global data: file-scope and static variables, and string literals, as array maps whose one entry has their first content.

`.data` has what starts with something else than zeros, `.bss` the rest, `.rodata` what is const; other sections by their names. A map
belongs to the whole text, so that all programs see the same variables. Strings belong to the program that uses them (`.strings`).
"""

from __future__ import annotations

from ...debuginfo.ctype import Array, Int, Pointer, Qualified, Typedef, alignof, sizeof, strip
from ...spec.object import MapSpec
from . import ast
from .arithmetic import underlying, wrap
from .lower_frame import failure
from .struct_ops import find_function, is_set, set_of
from .texts import ROOM_BYTES, TEXTS, space_of, text_of
from .values import Place, is_aggregate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .analysis import Analysis, Initialiser, Variable
    from .lower_frame import Frame

RDONLY_PROG = 0x80  # BPF_F_RDONLY_PROG: programs may read only
STRINGS = ".strings"


class GlobalData:
    """The layout and the first content of all global variables of a text."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.offsets: dict[Variable, tuple[str, int]] = {}  # variable -> map, bytes into its entry
        self._bytes: dict[str, bytearray] = {}
        self._maps: dict[str, MapSpec] = {}
        self.sets: list[MapSpec] = []  # of programs (see `struct_ops`)
        self._texts: dict[bytes, int] = {}  # where each text lies that a global pointer leads to
        self.texts: dict[Variable, str] = {}  # the variables with such pointers, and their spaces
        for variable in analysis.globals.values():
            if variable.storage in ("static", "global"):
                self._add(variable)
        for info in analysis.functions.values():
            for variable in info.locals:
                if variable.storage == "static":
                    self._add(variable)
        if TEXTS in self._bytes:
            self._bytes[TEXTS] += bytes(ROOM_BYTES)

    def _add(self, variable: Variable) -> None:
        if is_set(variable):
            self._add_set(variable)
            return
        content = self._content(variable)
        section = variable.section
        if not section.startswith((".data", ".bss", ".rodata")):
            constant = is_const(variable.ctype) or variable in self.texts
            section = ".rodata" if constant else ".data" if any(content) else ".bss"
        whole = self._bytes.setdefault(section, bytearray())
        whole += bytes(-len(whole) % max(alignof(variable.ctype), 1))
        self.offsets[variable] = section, len(whole)
        whole += content

    def _add_set(self, variable: Variable) -> None:
        data = bytearray(max(sizeof(variable.ctype), 1))
        values = []
        for part in variable.init or ():
            function = find_function(self.analysis, part)
            if function:
                values.append((part.offset, function))
            else:
                self._put(data, part)
        self.sets.append(set_of(variable, bytes(data), values))

    def word(self, name: str, offset: int) -> int:
        """Return 8 bytes of a section as a number."""
        return int.from_bytes(self._bytes[name][offset : offset + 8], "little")

    def size_of(self, name: str) -> int:
        """Return the size of a section in bytes."""
        return len(self._bytes[name])

    def _text(self, text: bytes) -> int:
        """Where a text lies, plus 1."""
        if text not in self._texts:
            whole = self._bytes.setdefault(TEXTS, bytearray())
            self._texts[text] = len(whole) + 1
            whole += text + b"\0"
        return self._texts[text]

    def _content(self, variable: Variable) -> bytearray:
        space = space_of(variable)
        if space != "map":
            self.texts[variable] = space
        data = bytearray(max(sizeof(variable.ctype), 1))
        for part in variable.init or ():
            self._put(data, part)
        return data

    def _put(self, data: bytearray, part: Initialiser) -> None:
        value = part.value
        size = sizeof(part.ctype)
        if isinstance(value, ast.String) and isinstance(strip(part.ctype), Array):
            text = (value.value + b"\0")[:size]
            data[part.offset : part.offset + len(text)] = text
            return
        if is_aggregate(part.ctype) and value in self.analysis.literals:
            for inner in self.analysis.literals[value]:
                from ...record import replace

                self._put(data, replace(inner, offset=part.offset + inner.offset))
            return
        leads_to = text_of(part)
        number = self.analysis.constants.get(value) if leads_to is None else self._text(leads_to)
        if number is None:
            message, hint = "the first value of a global variable has to be a constant", ""
            if isinstance(strip(part.ctype), Pointer):  # a map's memory is made before anything has an address
                hint = "a global pointer begins as NULL, or leads to a text"
            raise failure(value.span, message, hint)
        kind = underlying(part.ctype)
        if kind is not None:
            number = wrap(number, kind)
        if part.bit_width:
            size += part.bit_offset + part.bit_width > 8 * size  # packed: it ends in the byte behind its unit
            old = int.from_bytes(data[part.offset : part.offset + size], "little")
            mask = (1 << part.bit_width) - 1
            number = old & ~(mask << part.bit_offset) | (number & mask) << part.bit_offset
        data[part.offset : part.offset + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")

    def map(self, name: str) -> MapSpec:
        """The map of one section."""
        made = self._maps.get(name)
        if made is None:
            made = self._maps[name] = self._make(name)
        return made

    def _make(self, name: str) -> MapSpec:
        """The map with the types of the variables that other objects may know; static ones are this text's own."""
        made = data_map(name, bytes(self._bytes[name]))
        shared = [
            (offset, variable)
            for variable, (section, offset) in self.offsets.items()
            if section == name and variable.storage == "global"
        ]
        if not shared:
            return made
        from ...debuginfo.ctype import Member, Struct
        from ...record import replace

        members = tuple(Member(v.name, v.ctype, 8 * at) for at, v in sorted(shared, key=lambda pair: pair[0]))
        return replace(made, value_type=Struct("datasec", name, made.value_size, members))

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """The maps, in order of their names."""
        return (*(self.map(name) for name in sorted(self._bytes)), *self.sets)


def data_map(name: str, content: bytes) -> MapSpec:
    """An array of one entry with this content; one that is called .rodata… or .strings cannot be changed."""
    constant = name.startswith((".rodata", STRINGS))
    content += bytes(-len(content) % 8)
    flags = RDONLY_PROG if constant else 0
    initial = content if any(content) or constant else b""
    return MapSpec(name, "array", 4, len(content), 1, flags, initial, frozen=constant)


def is_const(ctype: CType) -> bool:
    """Tell whether a variable of this type cannot be changed: `const`, or an array of what is."""
    while isinstance(ctype, (Typedef, Qualified, Array)):
        if isinstance(ctype, Qualified) and ctype.name == "const":
            return True
        ctype = ctype.target
    return False


class Globals:
    """Where one program finds global data."""

    def __init__(self, data: GlobalData) -> None:
        self.data = data
        self._strings: dict[bytes, int] = {}
        self._content = bytearray()

    def place(self, f: Frame, variable: Variable) -> Place:
        """Where a global variable lies."""
        found = self.data.offsets.get(variable)
        if found is None:
            from .externs import extern_place

            return extern_place(f, variable)
        name, offset = found
        f.program.module.add_map(self.data.map(name))
        return Place(f.b.map_value(name), offset, variable.ctype, self.data.texts.get(variable, "map"))

    def string(self, f: Frame, text: bytes) -> Place:
        """Where a string literal lies; equal ones share their place."""
        ctype = Array(Int("char", 1, True, "char"), len(text) + 1)
        offset = self._strings.get(text)
        if offset is None:
            offset = self._strings[text] = len(self._content)
            self._content += text + b"\0"
        maps = f.program.module.maps
        maps[STRINGS] = data_map(STRINGS, bytes(self._content))
        return Place(f.b.map_value(STRINGS), offset, ctype, "map")

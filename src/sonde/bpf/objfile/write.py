"""An `ObjectFile` to the bytes of an ELF object that libbpf and bpftool load: the way back of `read`.

Programs go to the sections that they name, what they call to .text, maps to .maps with their types in BTF, maps of data to sections of their own
names. .BTF.ext has the names of functions, the source lines with their text, and CO-RE relocations.
"""

from __future__ import annotations

from struct import pack, pack_into, unpack_from

from ...debuginfo.btfmin import Reducer
from ...debuginfo.btfwrite import EXTERN, GLOBAL, STATIC, BtfWriter
from ...debuginfo.corerelo import KINDS, local_answer, write_access
from ...debuginfo.ctype import CHAR, VOID, Array, FuncProto, Int, Member, Param, Pointer, Struct, sizeof, strip
from ...errors import FormatError
from ...record import replace
from .. import isa
from . import elfwrite
from .byteorder import to_big_endian
from .elfwrite import ALLOC, EXECUTE, FUNC, NOBITS, OBJECT, PROGBITS, WRITE, ElfWriter
from .maps import is_data
from .model import (
    KCONFIG,
    KSYMS,
    LICENSE,
    LINE_COLUMN_BITS,
    MAPS,
    R_BPF_64_32,
    R_BPF_64_64,
    R_BPF_64_ABS64,
    TEXT,
    Line,
)
from .structops import is_struct_ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .elfwrite import OutSection, OutSymbol
    from .model import Extern, Fill, MapDef, ObjectFile, Program, Question

_INT = Int("int", 4, True)
_CALL = 0x85
_PROTO = FuncProto(_INT, (Param("ctx", Pointer(VOID)),))
_LINE_LIMIT = (1 << 32 - LINE_COLUMN_BITS) - 1


def write_object(found: ObjectFile) -> bytes:
    """Return the object file, in the byte order of its data. Raises FormatError for what cannot be written."""
    data = _Writer(found).write()
    return to_big_endian(data) if found.byte_order == "big" else data


class _Writer:
    """One object on its way to bytes."""

    def __init__(self, found: ObjectFile) -> None:
        self.found = found
        self.elf = ElfWriter()
        self.types = BtfWriter()
        self.reducer = Reducer()
        self.maps: dict[str, OutSymbol] = {}
        self.ops: dict[str, list[tuple[int, int, int]]] = {}  # variables of sections .struct_ops: node, offset, size
        self.externs: dict[str, OutSymbol] = {}
        self.programs: dict[str, OutSymbol] = {}
        self.taken = {program.name for program in found.programs}
        self.functions: list[tuple[OutSection, int, int]] = []  # section, byte offset, node of the type
        self.lines: list[tuple[OutSection, int, Line]] = []
        self.questions: list[tuple[OutSection, int, Question]] = []
        self.text = self.elf.section(TEXT, PROGBITS, ALLOC | EXECUTE, 8)

    def write(self) -> bytes:
        """Return the bytes."""
        for program in self.found.programs:
            for fill in program.fills:
                if fill.core is not None:
                    self.reducer.use(fill.core.kind, fill.core.local, fill.core.path)
        self.write_maps()
        self.write_externs()
        for program in self.found.programs:
            self.write_program(program)
        self.fill_values()
        self.fill_addresses()
        license = self.elf.section(LICENSE, PROGBITS, ALLOC | WRITE)
        license.data += self.found.license.encode("utf-8", "replace") + b"\0"
        self.write_types()
        return self.elf.build()

    # Maps and externs --------------------------------------------------------------------------------------------

    def write_maps(self) -> None:
        """Declare maps in .maps, and lay out sections of data."""
        placed: list[tuple[int, int, int]] = []
        for each in self.found.maps:
            if is_data(each.section):
                self.write_data(each)
                continue
            if is_struct_ops(each.section):
                self.write_struct_ops(each)
                continue
            section = self.elf.section(MAPS, PROGBITS, ALLOC | WRITE, 8)
            definition = define_map(each)
            offset, size = len(section.data), definition.size + 8 * _slots(each)
            if any(number >= max(each.max_entries, 1) for number, _ in each.values):
                raise FormatError(f"map {each.name} of {each.max_entries} entries is to hold more of them")
            section.data += bytes(size)
            self.maps[each.name] = self.elf.symbol(each.name, section, offset, size, OBJECT)
            placed.append((self.types.add_variable(each.name, definition), offset, size))
        if placed:
            self.types.add_section(MAPS, len(self.elf.section(MAPS).data), placed)
        for name, variables in self.ops.items():
            self.types.add_section(name, len(self.elf.section(name).data), variables)

    def write_struct_ops(self, each: MapDef) -> None:
        """A set of programs as a variable of its section."""
        section = self.elf.section(each.section, PROGBITS, ALLOC | WRITE, 8)
        section.data += bytes(-len(section.data) % 8)
        offset = len(section.data)
        section.data += each.initial.ljust(each.value_size, b"\0")
        self.maps[each.name] = self.elf.symbol(each.name, section, offset, each.value_size, OBJECT)
        if each.value is None:
            raise FormatError(f"{each.name} has no type")
        node = self.types.add_variable(each.name, each.value)
        self.ops.setdefault(each.section, []).append((node, offset, each.value_size))

    def write_data(self, each: MapDef) -> None:
        """A section of data with its variables."""
        bare = each.section.startswith(".bss")
        if bare and any(each.initial):
            raise FormatError(f"section {each.section} has a first content")
        flags = ALLOC if each.frozen else ALLOC | WRITE
        section = self.elf.section(each.section, NOBITS if bare else PROGBITS, flags, 8)
        section.size = each.value_size
        if not bare:
            section.data += each.initial.ljust(each.value_size, b"\0")
        placed = []
        for name, ctype, offset in _variables(each):
            size = sizeof(ctype)
            self.elf.symbol(name, section, offset, size, OBJECT)
            placed.append((self.types.add_variable(name, ctype), offset, size))
        self.types.add_section(each.section, each.value_size, placed)
        self.maps[each.name] = self.elf.section_symbol(section)

    def write_externs(self) -> None:
        """Declare what the kernel has, by section."""
        for each in self.found.externs:
            if each.section not in (KCONFIG, KSYMS):
                self.declare(each)  # another object's
        for section in (KCONFIG, KSYMS):
            listed = []
            for each in self.found.externs:
                if each.section == section:
                    listed.append((self.declare(each), 0, sizeof(each.ctype)))
            if listed:
                self.types.add_section(section, 0, listed)

    def declare(self, each: Extern) -> int:
        """Declare one extern; return its node."""
        binding = elfwrite.WEAK if each.weak else elfwrite.GLOBAL
        self.externs[each.name] = self.elf.symbol(each.name, None, binding=binding)
        if isinstance(strip(each.ctype), FuncProto):
            return self.types.add_function(each.name, self.reducer.reduce(each.ctype), EXTERN)
        return self.types.add_variable(each.name, each.ctype, EXTERN)

    def fill_values(self) -> None:
        """Say by relocations what entries of maps hold at the start."""
        for each in self.found.maps:
            symbol = self.maps[each.name]
            for number, name in each.values:
                held = self.maps.get(name) or self.programs.get(name)
                if held is None or symbol.section is None:
                    raise FormatError(f"map {each.name} is to hold {name!r}, which the object does not have")
                if is_struct_ops(each.section):
                    at = symbol.value + number
                else:
                    at = symbol.value + symbol.size - 8 * (_slots(each) - number)
                symbol.section.relocations.append((at, held, R_BPF_64_ABS64))

    def fill_addresses(self) -> None:
        """Say by relocations what addresses stand in sections of data."""
        for each in self.found.maps:
            section = self.elf.sections.get(each.section)
            for address in each.addresses if section is not None else ():
                known = self.externs if address.kind == "ksym" else self.maps
                symbol = known.get(address.symbol)
                if symbol is None and address.weak:
                    symbol = self.externs[address.symbol] = self.elf.symbol(address.symbol, None, binding=elfwrite.WEAK)
                if symbol is None or section is None:
                    raise FormatError(f"{each.name} holds the address of {address.symbol}, which cannot be written")
                order = ">" if self.found.byte_order == "big" else "<"
                pack_into(f"{order}Q", section.data, address.offset, address.addend & (1 << 64) - 1)
                section.relocations.append((address.offset, symbol, R_BPF_64_ABS64))

    # Code --------------------------------------------------------------------------------------------------------

    def write_program(self, program: Program) -> None:
        """Place a program in its section, and what it calls in .text."""
        count = len(program.insns) // 8
        starts = [function.pc for function in program.functions]
        if not starts or starts[0] or starts != sorted(set(starts)) or starts[-1] >= count:
            raise FormatError(f"the functions of program {program.name} do not follow each other in its code")
        own = self.elf.section(program.section, PROGBITS, ALLOC | EXECUTE, 8)
        places: list[tuple[OutSection, int]] = []
        for function, start, end in zip(program.functions, starts, [*starts[1:], count]):
            section = self.text if start else own
            offset = len(section.data)
            places.append((section, offset))
            section.data += program.insns[start * 8 : end * 8]
            size = (end - start) * 8
            name = self.name_function(program, function.name) if start else program.name
            binding = elfwrite.LOCAL if start else elfwrite.GLOBAL
            symbol = self.elf.symbol(name, section, offset, size, FUNC, binding)
            if not start:
                self.programs[name] = symbol
            node = self.types.add_function(name, _PROTO, STATIC if start else GLOBAL)
            self.functions.append((section, offset, node))
        placed = _Placed(starts, places)
        for fill in program.fills:
            self.write_fill(program, fill, placed)
        for line in _complete(program, starts):
            self.lines.append((*placed.find(line.pc), line))

    def name_function(self, program: Program, name: str) -> str:
        """A name for a function in .text, where those of all programs meet."""
        if name in self.taken:
            name = f"{program.name}__{name}"
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def write_fill(self, program: Program, fill: Fill, placed: _Placed) -> None:
        """Turn one place into a relocation, or a record of .BTF.ext."""
        section, at = placed.find(fill.pc)
        if fill.core is not None:
            self.write_question(section, at, fill.core)
            return
        wide = section.data[at] == isa.LDDW
        kind = R_BPF_64_64 if wide else R_BPF_64_32
        imm = 0
        if fill.kind == "subprogram":
            text, offset = placed.find(fill.addend)
            symbol = self.elf.section_symbol(text)
            imm = offset if wide else offset // 8 - 1
        elif fill.kind == "map_value" and fill.symbol == KCONFIG:
            symbol = self.find_configured(fill.addend)
        elif fill.kind in ("map", "map_value"):
            symbol = self._find(program, fill, self.maps)
            imm = fill.addend
        else:
            symbol = self._find(program, fill, self.externs)
            imm = fill.addend if wide else -1
        source = 0 if wide else 1
        section.data[at + 1] = section.data[at + 1] & 0x0F | source << 4
        pack_into("<i", section.data, at + 4, imm)
        if wide:
            pack_into("<i", section.data, at + 12, 0)
        section.relocations.append((at, symbol, kind))

    def _find(self, program: Program, fill: Fill, known: dict[str, OutSymbol]) -> OutSymbol:
        if fill.symbol not in known:
            raise FormatError(f"program {program.name}, instruction {fill.pc}: the object has no {fill.symbol!r}")
        return known[fill.symbol]

    def find_configured(self, offset: int) -> OutSymbol:
        """The extern that lies at an offset of the map .kconfig."""
        for each in self.found.externs:
            if each.section == KCONFIG and each.offset == offset:
                return self.externs[each.name]
        raise FormatError(f"there is no extern at byte {offset} of .kconfig")

    def write_question(self, section: OutSection, at: int, question: Question) -> None:
        """A CO-RE relocation: the instruction gets what the reduced local type answers."""
        if question.local is None:
            raise FormatError(f"the CO-RE relocation of {question.type_name} has no type of its own")
        if question.kind == "field_lshift_u64" and self.found.byte_order == "big":
            raise FormatError("a shift of a bit-field in big-endian order cannot be written")
        reduced = replace(question, local=self.reducer.reduce(question.local))
        self.questions.append((section, at, reduced))
        if question.kind != "type_id_local":
            reduced = replace(reduced, value=local_answer(reduced) & 0xFFFFFFFFFFFFFFFF)
        _put(section.data, at, reduced.value)

    # Types -------------------------------------------------------------------------------------------------------

    def write_types(self) -> None:
        """Write .BTF and .BTF.ext, which refer to each other's strings and numbers."""
        roots = [self.types.add(q.local) if q.local is not None else -1 for _, _, q in self.questions]
        names = {
            section.name: self.types.string(section.name)
            for section, *_ in (*self.functions, *self.lines, *self.questions)
        }
        lines = [(s, at, self.pack_line(at, line)) for s, at, line in self.lines]
        accesses = [
            self.types.string(write_access(q.kind, q.local, q.index, q.path)) if q.local is not None else 0
            for _, _, q in self.questions
        ]
        section = self.elf.section(".BTF", PROGBITS, 0, 4)
        section.data += self.types.build()
        functions = [(s, at, pack("<II", at, self.types.ident(node))) for s, at, node in self.functions]
        questions = [
            (s, at, pack("<IIII", at, self.types.ident(root), access, KINDS.index(q.kind)))
            for (s, at, q), root, access in zip(self.questions, roots, accesses)
        ]
        tables = [_table(functions, 8, names), _table(lines, 16, names), _table(questions, 16, names)]
        head = pack("<HBBI", 0xEB9F, 1, 0, 32)
        at = 0
        for table in tables:
            head += pack("<II", at, len(table))
            at += len(table)
        self.elf.section(".BTF.ext", PROGBITS, 0, 4).data += head + b"".join(tables)

    def pack_line(self, at: int, line: Line) -> bytes:
        """One record of line info."""
        span = line.span
        column = min(max(span.column, 0), (1 << LINE_COLUMN_BITS) - 1)
        where = min(span.line, _LINE_LIMIT) << LINE_COLUMN_BITS | column
        text = span.excerpt.split("\n", 1)[0]
        return pack("<IIII", at, self.types.string(span.file), self.types.string(text), where)


class _Placed:
    """Where the functions of a program went: from its own instruction numbers to a section and a byte offset."""

    def __init__(self, starts: list[int], places: list[tuple[OutSection, int]]) -> None:
        self.starts = starts
        self.places = places

    def find(self, pc: int) -> tuple[OutSection, int]:
        """Return the section and the byte offset of instruction `pc`."""
        from bisect import bisect_right

        number = bisect_right(self.starts, pc) - 1
        section, offset = self.places[number]
        return section, offset + (pc - self.starts[number]) * 8


def _complete(program: Program, starts: list[int]) -> list[Line]:
    """The lines of a program with one at the start of each function, which the kernel demands; none where there are none at all."""
    if not program.lines:
        return []
    lines = {line.pc: line for line in program.lines}
    first = program.lines[0].span
    for start, end in zip(starts, [*starts[1:], len(program.insns) // 8]):
        if start not in lines:
            inside = [pc for pc in lines if start <= pc < end]
            lines[start] = Line(start, lines[min(inside)].span if inside else first)
    return [lines[pc] for pc in sorted(lines)]


def _table(records: list[tuple[OutSection, int, bytes]], size: int, names: dict[str, int]) -> bytes:
    """A table of .BTF.ext: records by section, sorted by offset."""
    if not records:
        return b""
    grouped: dict[str, list[tuple[int, bytes]]] = {}
    for section, at, raw in records:
        grouped.setdefault(section.name, []).append((at, raw))
    table = pack("<I", size)
    for name, each in grouped.items():
        each.sort(key=lambda record: record[0])
        table += pack("<II", names[name], len(each)) + b"".join(raw for _, raw in each)
    return table


def _put(code: bytearray, at: int, value: int) -> None:
    """Put what a CO-RE relocation stands for into its instruction."""
    opcode = code[at]
    kind = opcode & 7
    if kind in (isa.BPF_ALU, isa.BPF_ALU64):
        pack_into("<I", code, at + 4, value & 0xFFFFFFFF)
    elif kind in (isa.BPF_LDX, isa.BPF_ST, isa.BPF_STX):
        pack_into("<H", code, at + 2, value & 0xFFFF)
    elif opcode == isa.LDDW:
        pack_into("<I", code, at + 4, value & 0xFFFFFFFF)
        pack_into("<I", code, at + 12, value >> 32)
    else:
        (slot,) = unpack_from("<Q", code, at)
        raise FormatError(f"instruction {slot:#x} cannot hold what a CO-RE relocation stands for")


def _variables(each: MapDef) -> list[tuple[str, CType, int]]:
    """Name, type and offset of each variable of a section of data; one that is all of it where they are not known."""
    if isinstance(each.value, Struct) and each.value.kind == "datasec":
        return [(m.name, m.ctype, m.offset) for m in each.value.members]
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in each.section.lstrip(".")) + "_bytes"
    return [(name, Array(CHAR, each.value_size), 0)]


def _slots(each: MapDef) -> int:
    """How many entries of a map are spelt out."""
    return max((number + 1 for number, _ in each.values), default=0)


def define_map(each: MapDef) -> Struct:
    """The struct by which libbpf knows a map. What entries hold at the start comes behind it, as in C behind a flexible array."""
    numbers = [
        ("type", each.type),
        ("max_entries", each.max_entries),
        ("map_flags", each.flags),
        ("map_extra", each.extra),
    ]
    numbers.append(("pinning", int(each.pinned)))
    attributes: list[tuple[str, CType]] = [(name, Pointer(Array(_INT, value))) for name, value in numbers if value]
    for word, size, ctype in (("key", each.key_size, each.key), ("value", each.value_size, each.value)):
        if ctype is not None and sizeof(ctype) == size and each.inner is None:
            attributes.append((word, Pointer(ctype)))
        elif size:
            attributes.append((f"{word}_size", Pointer(Array(_INT, size))))
    members = [Member(name, ctype, 64 * i) for i, (name, ctype) in enumerate(attributes)]
    size = 8 * len(members)
    if each.inner is not None or each.values:
        held: CType = define_map(each.inner) if each.inner is not None else _PROTO
        members.append(Member("values", Array(Pointer(held), 0), 8 * size))
    return Struct("struct", "", size, tuple(members))

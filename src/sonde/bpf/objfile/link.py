"""Programs of an object with everything that they call: functions of .text are copied behind each program that reaches them.

What relocations mean follows libbpf (`bpf_program__record_reloc`, `bpf_object__reloc_code`): the instruction's own immediate is part of the
address, in instructions for a call and in bytes for a 64-bit load.
"""

from __future__ import annotations

from bisect import bisect_left
from struct import unpack_from

from ...debuginfo.ctype import FuncProto, Void, strip
from ...errors import FormatError
from ...record import Record
from .. import isa
from .model import KCONFIG, TEXT, Fill, Function, Line, Program, Question, SourceLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...debuginfo.elf import Symbol
    from .maps import Declared
    from .model import Extern, MapDef

_CALL, _PSEUDO_CALL, _PSEUDO_FUNC = 0x85, 1, 4
_CODE_LIMIT = 1 << 20  # instructions in one program: the kernel takes a million
_OBJECT_LIMIT = 1 << 23  # instructions of all programs together


class Code(Record):
    """A section of code: functions by first instruction, relocations (type, symbol) by instruction, lines in order, CO-RE questions.

    `marked` are the instructions with a relocation or a question, in order (twice, where they have both); `line_pcs` those that lines begin at.
    """

    section: str
    insns: bytes
    functions: dict[int, Symbol]
    relocations: dict[int, tuple[int, Symbol]]
    lines: list[tuple[int, SourceLine]]
    questions: dict[int, Question]
    marked: list[int]
    line_pcs: list[int]


class Unit(Record):
    """What relocations of code may point to: sections of code and data by number, maps by their offset in .maps (and their names), externs by name."""

    code: dict[int, Code]
    data: dict[int, MapDef]
    maps: dict[int, Declared]
    externs: dict[str, Extern]
    map_names: frozenset[str]


def link(unit: Unit, path: str = "") -> Iterator[Program]:
    """Yield the programs of an object, section by section, in the order of their code. Raises FormatError."""
    left = _OBJECT_LIMIT
    for number, code in unit.code.items():
        if code.section == TEXT:
            continue
        for start in sorted(code.functions):
            program = _Linker(unit, path, min(left, _CODE_LIMIT)).link(number, start)
            left -= len(program.insns) // 8
            yield program


class _Linker:
    """One program in the making. `places` says where functions (section number, first instruction) went."""

    def __init__(self, unit: Unit, path: str, limit: int) -> None:
        self.unit = unit
        self.path = path
        self.limit = limit
        self.places: dict[tuple[int, int], int] = {}
        self.waiting: list[tuple[int, int]] = []
        self.size = 0
        self.where = ""

    def error(self, pc: int, message: str, hint: str = "") -> FormatError:
        return FormatError(f"section {self.where}, instruction {pc}: {message}", path=self.path, hint=hint)

    def link(self, number: int, start: int) -> Program:
        """Return the program that starts there, and behind it what it calls."""
        insns = bytearray()
        fills: list[Fill] = []
        lines: list[Line] = []
        functions: list[Function] = []
        self.place(number, start)
        while self.waiting:
            section, first = self.waiting.pop(0)
            code = self.unit.code[section]
            symbol = code.functions[first]
            base = len(insns) // 8
            last = first + symbol.size // 8
            functions.append(Function(symbol.name, base))
            insns += code.insns[first * 8 : last * 8]
            fills += self.fills(section, code, first, last)
            inside = code.lines[bisect_left(code.line_pcs, first) : bisect_left(code.line_pcs, last)]
            lines += [Line(pc - first + base, line) for pc, line in inside]
        for each in fills:
            _mark(insns, each)
        name = self.unit.code[number].functions[start].name
        section_name = self.unit.code[number].section
        return Program(name, section_name, bytes(insns), tuple(fills), tuple(lines), tuple(functions))

    def place(self, section: int, first: int) -> int:
        """Return the instruction at which a function will start; the first to ask for it has it appended."""
        key = section, first
        if key not in self.places:
            self.places[key] = self.size
            self.size += self.unit.code[section].functions[first].size // 8
            if self.size > self.limit:
                raise FormatError(f"a program with all that it calls has {self.size} instructions", path=self.path)
            self.waiting.append(key)
        return self.places[key]

    def fills(self, section: int, code: Code, first: int, last: int) -> Iterator[Fill]:
        """Yield what has to be filled in between two instructions of a section."""
        self.where = code.section
        moved = self.places[section, first] - first
        due = bisect_left(code.marked, last) - bisect_left(code.marked, first)
        pc = first
        while pc < last:
            due -= (pc in code.relocations) + (pc in code.questions)
            opcode, registers, _, imm = unpack_from("<BBhi", code.insns, pc * 8)
            wide = opcode == isa.LDDW
            if wide and pc + 1 >= last:
                raise self.error(pc, "a 64-bit load is cut off")
            if pc in code.questions:
                yield Fill(pc + moved, "core", core=code.questions[pc])
            if pc in code.relocations:
                _, symbol = code.relocations[pc]
                yield self.fill(pc, pc + moved, opcode, imm, symbol)
            elif opcode == _CALL and registers >> 4 == _PSEUDO_CALL:
                yield self.call(section, pc, pc + moved, pc + 1 + imm)
            elif wide and registers >> 4:
                raise self.error(pc, f"a 64-bit load of kind {registers >> 4} without relocation")
            pc += 2 if wide else 1
        if due:
            raise self.error(first, "a relocation is about the second half of a 64-bit load")

    def fill(self, pc: int, at: int, opcode: int, imm: int, symbol: Symbol) -> Fill:
        """Say what a relocated instruction waits for."""
        number = symbol.section
        if opcode not in (_CALL, isa.LDDW):
            raise self.error(pc, f"an instruction with the opcode {opcode:#04x} cannot be relocated")
        if number == 0:
            return self.extern(pc, at, opcode, symbol)
        if number in self.unit.code:
            distance = symbol.vaddr + (imm + 1) * 8 if opcode == _CALL else symbol.vaddr + imm
            if distance % 8:
                raise self.error(pc, "the address of a function is no whole instruction")
            return self.call(number, pc, at, distance // 8)
        if opcode == _CALL:
            raise self.error(pc, f"{symbol.name or 'a section of data'} is called, but is no function")
        if number in self.unit.data:
            offset = symbol.vaddr + imm
            if not 0 <= offset <= self.unit.data[number].value_size:
                raise self.error(pc, f"byte {offset} lies outside section {self.unit.data[number].name}")
            return Fill(at, "map_value", self.unit.data[number].name, offset)
        found = self.unit.maps.get(symbol.vaddr + imm) if self._is_maps(symbol) else None
        if found is None:
            raise self.error(pc, f"{symbol.name or 'what is loaded'} is neither a map, data nor a function")
        return Fill(at, "map", found.spec.name)

    def _is_maps(self, symbol: Symbol) -> bool:
        return symbol.name in self.unit.map_names or (not symbol.name and symbol.type == 3)

    def call(self, section: int, pc: int, at: int, target: int) -> Fill:
        """A call, or the address, of the function that starts at instruction `target` of a section."""
        code = self.unit.code[section]
        if target not in code.functions:
            raise self.error(pc, f"no function starts at instruction {target} of section {code.section}")
        if code.section != TEXT and (section, target) not in self.places:
            raise self.error(pc, f"{code.functions[target].name} is a program, and cannot be called")
        return Fill(at, "subprogram", code.functions[target].name, self.place(section, target))

    def extern(self, pc: int, at: int, opcode: int, symbol: Symbol) -> Fill:
        """Something that the kernel has."""
        found = self.unit.externs.get(symbol.name)
        if found is None:
            hint = "say __ksym or __kconfig where it is declared, or link the object that defines it"
            raise self.error(pc, f"{symbol.name or 'a symbol without a name'} is declared, but defined nowhere", hint)
        function = isinstance(strip(found.ctype), FuncProto)
        if opcode == _CALL:
            if not function:
                raise self.error(pc, f"{symbol.name} is called, but is no function")
            return Fill(at, "kfunc", symbol.name, weak=found.weak)
        if found.section == KCONFIG:
            return Fill(at, "map_value", KCONFIG, found.offset)
        typed = not isinstance(strip(found.ctype), (Void, FuncProto))
        return Fill(at, "ksym", symbol.name, weak=found.weak, typed=typed)


def _mark(insns: bytearray, fill: Fill) -> None:
    """Say in the instruction itself what it calls or loads: compilers leave that to the loader."""
    at = fill.pc * 8
    if fill.kind == "subprogram":
        source = _PSEUDO_FUNC if insns[at] == isa.LDDW else _PSEUDO_CALL
    elif fill.kind == "kfunc":
        source = isa.BPF_PSEUDO_KFUNC_CALL
    elif fill.kind in ("map", "map_value", "ksym"):
        source = 0
    else:
        return
    insns[at + 1] = insns[at + 1] & 0x0F | source << 4
    insns[at + 4 : at + 8] = bytes(4)  # what was a part of the address is in `addend`

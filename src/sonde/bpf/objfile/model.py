"""What an object file says: programs with everything they call, maps, externs, and places that wait to be filled in."""

from __future__ import annotations

from ...errors import Span
from ...record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.btf import Btf
    from ...debuginfo.ctype import CType

EM_BPF = 247
R_BPF_64_64, R_BPF_64_ABS64, R_BPF_64_ABS32, R_BPF_64_NODYLD32, R_BPF_64_32 = 1, 2, 3, 4, 10
MAPS, TEXT, LICENSE, VERSION, KCONFIG, KSYMS = ".maps", ".text", "license", "version", ".kconfig", ".ksyms"
LINE_COLUMN_BITS = 10  # of the word of .BTF.ext that has line and column


class SourceLine(Span):
    """A place in a source text, with the text of its line as the compiler kept it."""

    __slots__ = ("text",)

    def __init__(self, file: str, line: int, column: int, text: str = "") -> None:
        super().__init__(file, line, column, line, max(len(text) + 1, column + 1))
        self.text = text

    @property
    def excerpt(self) -> str:
        """The line, "" where the compiler kept none."""
        return self.text


class Question(Record):
    """A CO-RE relocation: the fields are those of `spec.object.CoreAccess`."""

    kind: str
    type_name: str
    path: tuple[str | int, ...]
    value: int
    index: int
    local: CType | None


class Fill(Record):
    """A place in a program's code that is filled in when it is loaded.

    kind        meaning                                                                    uses
    map         64-bit load of a map                                                       symbol
    map_value   64-bit load of the address of byte `addend` of a section of data           symbol, addend
    subprogram  call or address of the function that starts at instruction `addend`         symbol, addend
    kfunc       call of a function of the kernel                                           symbol, weak
    ksym        64-bit load of the address of a symbol of the kernel; `typed`: by its BTF   symbol, weak, typed
    extern      64-bit load of a map, or of a byte of a variable, of another object         symbol, addend
    core        what a CO-RE relocation asks                                               core
    """

    pc: int
    kind: str
    symbol: str = ""
    addend: int = 0
    weak: bool = False
    typed: bool = False
    core: Question | None = None


class Line(Record):
    """Instruction `pc` and those after it come from `span`."""

    pc: int
    span: Span


class Function(Record):
    """A function in a program's code: where it starts, and its prototype where BTF has it."""

    name: str
    pc: int


class Program(Record):
    """One program: a global function of a section that is not .text, and behind it all that it calls."""

    name: str
    section: str
    insns: bytes
    fills: tuple[Fill, ...] = ()
    lines: tuple[Line, ...] = ()
    functions: tuple[Function, ...] = ()  # the program itself first


class DataAddress(Record):
    """An address in the data of a map, at `offset`: of something in the object ("data", "map", "function": `addend` bytes behind it), or of the kernel ("ksym").

    A weak symbol that nobody has is 0.
    """

    offset: int
    kind: str
    symbol: str
    addend: int = 0
    weak: bool = False


class MapDef(Record):
    """One map. `type` is the kernel's number. `section` says where it stands: .maps, or the section of data that it holds.

    `values` are the names of what its entries hold at the start (maps of a map of maps, programs of a program array; of struct_ops the programs
    by the offset of their pointer). `pinned` is libbpf's LIBBPF_PIN_BY_NAME.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    section: str = MAPS
    flags: int = 0
    extra: int = 0
    pinned: bool = False
    inner: MapDef | None = None
    key: CType | None = None
    value: CType | None = None
    initial: bytes = b""
    frozen: bool = False
    values: tuple[tuple[int, str], ...] = ()
    addresses: tuple[DataAddress, ...] = ()


class Extern(Record):
    """Something that the kernel has: of its configuration (section .kconfig, at `offset` of its map), or one of its symbols (.ksyms).

    In objects that are to be linked also what another one has: maps (.maps), variables and functions (no section).
    """

    name: str
    section: str
    ctype: CType
    weak: bool = False
    offset: int = 0


class ObjectFile(Record):
    """All of an object file. `kconfig_size` is how many bytes the externs of section .kconfig take together.

    `byte_order` is that of the data of maps: "little" or "big". Instructions and types have the machine's own here, whatever the file's was.
    """

    programs: tuple[Program, ...]
    maps: tuple[MapDef, ...] = ()
    externs: tuple[Extern, ...] = ()
    license: str = ""
    version: int = 0
    kconfig_size: int = 0
    btf: Btf | None = None
    warnings: tuple[str, ...] = ()
    byte_order: str = "little"

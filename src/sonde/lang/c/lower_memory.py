"""MemoryAccess: reading and writing memory by its address space; copies and clearing with few instructions."""

from __future__ import annotations

from ...compiler.access import COPY_LIMIT, align_at, extract_bits, insert_bits, load_context, store_bytes
from ...compiler.ir import I1, I8, I64, INT_OF_BYTES, WIDTH, Const, is_pointer
from ...debuginfo.ctype import Int, Pointer, Struct, sizeof
from .values import DIRECT, Place, Scalar, Wide, ir_type, is_signed, is_wide, loaded_space, pointer_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.builder import Builder
    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from .lower import Program
    from .values import Operand

_BYTE = Int("unsigned char", 1, False)
_WRITABLE = frozenset(["stack", "map", "mem", "own", "packet", "ctx", "btf"])


class MemoryAccess:
    """Reads and writes memory by means of a builder."""

    __slots__ = ("b", "program")

    def __init__(self, program: Program, builder: Builder) -> None:
        self.program = program
        self.b = builder

    def local(self, ctype: CType, name: str = "") -> Place:
        """Reserve memory for a value of `ctype` on the stack, contents undefined."""
        size = max(sizeof(ctype), 1)
        align = 8 if size > 4 else {3: 4}.get(size, size)
        return Place(self.b.alloca(size, align, name), 0, ctype, "stack")

    def address(self, place: Place) -> Value:
        """The address of a place: a typed pointer, or a number in external spaces."""
        if place.space in DIRECT:
            return self.b.ptradd(place.pointer, place.offset)
        return self.b.binary("add", place.pointer, place.offset) if place.offset else place.pointer

    def raw_address(self, place: Place) -> Value:
        """The address of a place as a number."""
        return self.as_number(self.address(place))

    def as_number(self, pointer: Value) -> Value:
        """A pointer as a number of 64 bits."""
        if isinstance(pointer, Const):
            return Const(pointer.imm)
        return self.b.convert("cast", pointer, I64) if is_pointer(pointer.type) else pointer

    def as_pointer(self, value: Value, space: str) -> Value:
        """An address as a pointer of the IR type that `space` has."""
        type_ = pointer_type(space)
        if isinstance(value, Const):
            return Const(value.imm, type_)
        return self.b.convert("cast", value, type_)

    # Reading ----------------------------------------------------------------------------------------------------

    def load(self, place: Place, space: str | None = None) -> Scalar | Wide:
        """Read a number or a pointer; `space` is where the pointer leads, if more is known of it than that it lies in this place."""
        ctype = place.ctype
        if place.bit_width:
            whole = self.load(Place(place.pointer, place.offset, ctype, place.space))
            assert isinstance(whole, Scalar)
            if _beyond(place):
                return Scalar(self._load_across(place, whole.value), ctype)
            value = extract_bits(self.b, whole.value, place.bit_offset, place.bit_width, is_signed(ctype))
            return Scalar(value, ctype)
        if space is None:
            space = loaded_space(ctype, place.space, self.program.external)
        if place.space not in DIRECT:
            place = self.fetched(place)
        if is_wide(ctype):
            low = self.b.load(I64, place.pointer, place.offset, volatile=place.volatile)
            return Wide(low, self.b.load(I64, place.pointer, place.offset + 8, volatile=place.volatile), ctype)
        if place.space.startswith("texts") and isinstance(ctype, Pointer):
            from .texts import load_text

            text, followed = load_text(self, place)
            return Scalar(text, ctype, "map", followed)
        type_ = ir_type(ctype, space)
        if place.space == "ctx":
            return Scalar(load_context(self.b, type_, place.pointer, place.offset), ctype, space)
        return Scalar(self.b.load(type_, place.pointer, place.offset, volatile=place.volatile), ctype, space)

    def fetched(self, place: Place) -> Place:
        """A copy on the stack of what lies in external memory."""
        copy = self.local(place.ctype, "read")
        self.read_into(copy.pointer, place, sizeof(place.ctype))
        return copy

    def read_into(self, dst: Value, place: Place, size: int) -> None:
        """Copy memory that loads do not reach to `dst`; zeros when it cannot be read."""
        self.b.call(self.program.reader(place.space), [dst, size, self.raw_address(place)])

    # Writing ----------------------------------------------------------------------------------------------------

    def store(self, place: Place, operand: Operand) -> None:
        """Store a number, which has been brought to the type of `place`; or copy a struct."""
        if isinstance(operand, Place):
            self.copy(place, operand, sizeof(place.ctype))
        elif isinstance(operand, Wide):
            self.b.store(place.pointer, operand.low, place.offset, volatile=place.volatile)
            self.b.store(place.pointer, operand.high, place.offset + 8, volatile=place.volatile)
        elif place.bit_width:
            self._store_bits(place, operand.value)
        else:
            self.store_value(place, operand.value)

    def store_value(self, place: Place, value: Value) -> None:
        """Store a register; its type gives the width."""
        if value.type == I1:
            value = Const(value.imm & 1, I8) if isinstance(value, Const) else self.b.convert("zext", value, I8)
        self.b.store(place.pointer, value, place.offset, volatile=place.volatile)

    def _store_bits(self, place: Place, value: Value) -> None:
        whole = self.b.load(ir_type(place.ctype), place.pointer, place.offset)
        if value.type == I1 and not isinstance(value, Const):
            value = self.b.convert("zext", value, whole.type)
        elif isinstance(value, Const):
            value = Const(value.imm, whole.type)
        beyond = _beyond(place)
        if beyond:
            self._store_last_byte(place, value, beyond)
            width = place.bit_width - beyond
            self.b.store(place.pointer, insert_bits(self.b, whole, value, place.bit_offset, width), place.offset)
            return
        self.b.store(place.pointer, insert_bits(self.b, whole, value, place.bit_offset, place.bit_width), place.offset)

    def _load_across(self, place: Place, whole: Value) -> Value:
        """Put a bit-field together whose last bits lie in the byte behind `whole`."""
        b, beyond, width = self.b, _beyond(place), WIDTH[whole.type]
        low = extract_bits(b, whole, place.bit_offset, place.bit_width - beyond, False)
        last = self.load(_byte_behind(place))
        assert isinstance(last, Scalar)
        high = last.value if whole.type == I8 else b.convert("zext", last.value, whole.type)
        value: Value = b.binary("or", low, b.binary("shl", high, place.bit_width - beyond))
        shift = width - place.bit_width
        if not shift:
            return value
        return b.binary("ashr" if is_signed(place.ctype) else "lshr", b.binary("shl", value, shift), shift)

    def _store_last_byte(self, place: Place, value: Value, bits: int) -> None:
        """Store the last `bits` bits of a bit-field into the byte behind its unit."""
        b, low_bits = self.b, place.bit_width - bits
        if isinstance(value, Const):
            part: Value = Const((value.imm >> low_bits) & 0xFF, I8)
        else:
            part = b.binary("lshr", value, low_bits)
            part = part if part.type == I8 else b.convert("trunc", part, I8)
        last = _byte_behind(place)
        old = b.load(I8, last.pointer, last.offset)
        b.store(last.pointer, insert_bits(b, old, part, 0, bits), last.offset)

    def clear(self, place: Place, size: int, offset: int = 0) -> None:
        """Fill own memory with zeros."""
        if size <= 0:
            return
        offset += place.offset
        if size <= COPY_LIMIT or not self.program.is_tracing:
            self.b.memset(place.pointer, size, 0, offset=offset, align=align_at(offset))
        else:  # a read of address 0 fails before it begins, and a failed read clears its destination
            self.b.call("probe_read_kernel", [self.b.ptradd(place.pointer, offset), size, 0])

    def copy(self, dst: Place, src: Place, size: int) -> None:
        """Copy `size` bytes to memory that may be written."""
        if size <= 0:
            return
        if src.space not in DIRECT:
            self.read_into(self.address(dst), src, size)
            return
        if src.space.startswith("texts"):
            from .texts import check_copy

            check_copy(self, src)
        whole = src.space == "btf" and isinstance(src.ctype, Struct)  # the verifier allows only single members
        aligned = src.space != "ctx" or (src.offset % 8 == 0 and size % 8 == 0)
        if aligned and not whole and (size <= COPY_LIMIT or not self.program.is_tracing):
            align = min(align_at(dst.offset), align_at(src.offset))
            self.b.memcpy(dst.pointer, src.pointer, size, offset=dst.offset, src_offset=src.offset, align=align)
        elif not whole and not self.program.is_tracing:
            self._copy_pieces(dst, src, size)
        else:
            self.b.call(self.program.reader("kernel"), [self.address(dst), size, self.raw_address(src)])

    def _copy_pieces(self, dst: Place, src: Place, size: int) -> None:
        """Copy from the context what is not aligned to 8 bytes."""
        at = 0
        while at < size:
            step = 8
            while step > size - at or (src.offset + at) % step or (dst.offset + at) % step:
                step //= 2
            self.b.store(dst.pointer, self.b.load(INT_OF_BYTES[step], src.pointer, src.offset + at), dst.offset + at)
            at += step

    def put_bytes(self, place: Place, data: bytes) -> None:
        """Store constant bytes."""
        store_bytes(self.b, place.pointer, place.offset, data)

    # Widths -----------------------------------------------------------------------------------------------------

    def resize(self, value: Value, signed: bool, type_: str) -> Value:
        """Bring an integer to another width: cut it, or extend it by its sign or zeros."""
        if isinstance(value, Const):
            return Const(_extended(value, signed), type_)
        have, want = WIDTH[value.type], WIDTH[type_]
        if have == want:
            return value
        if have > want:
            return self.b.convert("trunc", value, type_)
        return self.b.convert("sext" if signed and have > 1 else "zext", value, type_)


def _extended(value: Const, signed: bool) -> int:
    width = WIDTH.get(value.type, 64)
    number = value.imm & (1 << width) - 1
    return number - (1 << width) if signed and width > 1 and number >> width - 1 else number


def is_writable(space: str) -> bool:
    """Tell whether stores reach a space, as far as is known here."""
    return space in _WRITABLE


def _beyond(place: Place) -> int:
    """How many bits of a packed bit-field lie in the byte behind the unit of its type."""
    return max(place.bit_offset + place.bit_width - 8 * sizeof(place.ctype), 0)


def _byte_behind(place: Place) -> Place:
    return Place(place.pointer, place.offset + sizeof(place.ctype), _BYTE, place.space)

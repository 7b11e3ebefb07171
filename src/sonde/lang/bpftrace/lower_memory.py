"""MemoryAccess: the steps that all of lowering is made of. Memory is read and written by its address space, values are
brought to other types, copied and cleared.
"""

from __future__ import annotations

from ...compiler.access import COPY_LIMIT, align_at, extract_bits, load_context, store_bytes
from ...compiler.ir import BTF, I1, I8, I32, I64, WIDTH, Const, is_pointer
from ...debuginfo.ctype import INT64, Array, Enum, Int, Pointer, Struct, sizeof, strip
from .lower_values import DIRECT, Memory, Scalar, Text, ir_type, is_scalar
from .stype import Buffer, Str, Tuple, is_bool, is_signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.builder import Builder
    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from .lower_unit import Unit
    from .lower_values import Operand

_READERS = {"kernel": "probe_read_kernel", "user": "probe_read_user"}


class MemoryAccess:
    """Reads and writes memory by means of a builder."""

    __slots__ = ("b", "unit")

    def __init__(self, unit: Unit, builder: Builder) -> None:
        self.unit = unit
        self.b = builder

    # Memory -----------------------------------------------------------------------------------------------------

    def temp(self, ctype: CType, name: str = "") -> Memory:
        """Reserve memory of our own for a value of `ctype`, contents undefined."""
        size = max(sizeof(ctype), 1)
        return Memory(self.b.alloca(size, 8, name), 0, ctype)

    def address(self, memory: Memory) -> Value:
        """The address of memory, in its pointer type."""
        return self.b.ptradd(memory.pointer, memory.offset)

    def raw_address(self, memory: Memory) -> Value:
        """The address of memory as a number."""
        return (
            self.b.convert("cast", self.address(memory), I64)
            if is_pointer(memory.pointer.type)
            else self.address(memory)
        )

    def load(self, memory: Memory) -> Scalar:
        """Read a number or pointer."""
        ctype = memory.ctype
        if memory.route is not None and (value := self._load_relocated(memory)) is not None:
            return Scalar(value, ctype, memory.leads)
        if memory.bit_width:
            return Scalar(self._load_bits(memory), ctype)
        type_ = ir_type(ctype)
        if memory.space in DIRECT:
            if memory.leads == "btf" and memory.space and isinstance(ctype, Pointer):
                type_ = BTF
            value = self._load_direct(memory, type_)
        else:
            slot = self.b.alloca(sizeof(ctype), 8, "read")
            self.read_into(slot, memory, sizeof(ctype))
            value = self.b.load(type_, slot)
        return Scalar(value, ctype, memory.leads)

    def _load_relocated(self, memory: Memory) -> Value | None:
        from .lower_relocated import load_bits, reads_as_bits

        return self.resize(load_bits(self, memory), INT64, ir_type(memory.ctype)) if reads_as_bits(memory) else None

    def _load_direct(self, memory: Memory, type_: str) -> Value:
        if memory.space == "ctx":
            return load_context(self.b, type_, memory.pointer, memory.offset)
        return self.b.load(type_, memory.pointer, memory.offset)

    def _load_bits(self, memory: Memory) -> Value:
        whole = self.load(Memory(memory.pointer, memory.offset, memory.ctype, memory.space)).value
        return extract_bits(self.b, whole, memory.bit_offset, memory.bit_width, is_signed(memory.ctype))

    def read_into(self, dst: Value, memory: Memory, size: Value | int) -> None:
        """Copy foreign memory to `dst`; zeros when it cannot be read."""
        reader = _READERS.get(memory.space)
        if reader is not None:
            self.checked(reader, self.b.call(reader, [dst, size, self.raw_address(memory)]))
        else:
            self.read_anywhere("probe_read_user", "probe_read_kernel", dst, size, self.raw_address(memory))

    def read_anywhere(self, user: str, kernel: str, dst: Value, size: Value | int, address: Value) -> Value:
        """Read by the helper that suits the address: the upper half of the address space is the kernel's."""
        b = self.b
        in_kernel, in_user = b.new_block("kernel"), b.new_block("user")
        done = b.new_block("read", [I64])
        b.branch(b.binary("slt", address, 0), in_kernel, in_user)
        for block, helper in ((in_kernel, kernel), (in_user, user)):
            b.at(block)
            b.jump(done, self.checked(helper, b.call(helper, [dst, size, address])))
        b.at(done)
        return done.params[0]

    def read_string(self, dst: Value, size: Value | int, address: Value, space: str) -> Value:
        """Copy a string up to its NUL, at most `size` bytes with it; return how many there were."""
        space = "kernel" if space in DIRECT else space
        reader = _READERS.get(space)
        if reader is not None:
            return self.checked(reader + "_str", self.b.call(reader + "_str", [dst, size, address]))
        return self.read_anywhere("probe_read_user_str", "probe_read_kernel_str", dst, size, address)

    def checked(self, helper: str, code: Value) -> Value:
        """The result of a helper call; a frame reports its failure where the user wants to see each."""
        return code

    def clear_at_entry(self, place: Memory) -> None:
        """Fill a variable with zeros before anything else happens."""
        b = self.b
        here, b.current = b.current, b.entry
        front, b.entry.insts = b.entry.insts, []
        end, b.entry.end = b.entry.end, None
        self.clear(place.pointer, sizeof(place.ctype))
        slots = sum(1 for inst in front if inst.op == "alloca")  # they are all at the front
        b.entry.insts = front[:slots] + b.entry.insts + front[slots:]
        b.entry.end = end
        b.current = here

    def clear(self, dst: Value, size: int, offset: int = 0) -> None:
        """Fill own memory with zeros."""
        if size <= 0:
            return
        if size <= COPY_LIMIT:
            self.b.memset(dst, size, 0, offset=offset, align=align_at(offset))
        else:  # a read of address 0 fails before it begins, and a failed read clears its destination
            self.b.call("probe_read_kernel", [self.b.ptradd(dst, offset), size, 0])

    def copy(self, dst: Memory, src: Memory, size: int) -> None:
        """Copy `size` bytes to own memory."""
        if size <= 0:
            return
        plain = strip(src.ctype)
        if src.space and isinstance(plain, Struct) and plain.type_id:
            self.unit.fix(f"the whole of {plain.kind} {plain.name}")
        whole = src.space == "btf" and isinstance(strip(src.ctype), Struct)  # the verifier allows only single members
        direct = src.space == "" or (src.space in DIRECT and src.offset % 8 == 0 and size % 8 == 0 and not whole)
        if direct and size <= COPY_LIMIT:
            align = min(align_at(dst.offset), align_at(src.offset))
            self.b.memcpy(dst.pointer, src.pointer, size, offset=dst.offset, src_offset=src.offset, align=align)
            return
        where = Memory(src.pointer, src.offset, src.ctype, "kernel" if src.space in DIRECT else src.space)
        self.read_into(self.address(dst), where, size)

    def store(self, place: Memory, value: Value) -> None:
        """Store a number into own memory; its type gives the width."""
        if value.type == I1:
            value = self.b.convert("zext", value, I8)
        if is_pointer(value.type):
            value = self.b.convert("cast", value, I64)
        self.b.store(place.pointer, value, place.offset)

    # Conversions ------------------------------------------------------------------------------------------------

    def number(self, operand: Operand, ctype: CType) -> Value:
        """The operand as a number of `ctype`, in a register of its width."""
        scalar = self.scalar(operand)
        return self.resize(scalar.value, scalar.ctype, ir_type(ctype))

    def scalar(self, operand: Operand) -> Scalar:
        """The operand in a register."""
        if isinstance(operand, Scalar):
            return operand
        if isinstance(operand, Text):
            raise AssertionError(f"a string where a number is wanted: {operand.data!r}")
        if is_scalar(operand.ctype):
            return self.load(operand)
        if isinstance(operand.ctype, Array) and not isinstance(operand.ctype, Str):  # an array is its address
            return Scalar(self.raw_address(operand), operand.ctype, operand.space)
        raise AssertionError(f"no register holds a {operand.ctype!r}")

    def wide(self, operand: Operand) -> Value:
        """The operand as a 64-bit number, extended by its own sign."""
        scalar = self.scalar(operand)
        return self.resize(scalar.value, scalar.ctype, I64)

    def resize(self, value: Value, ctype: CType, type_: str) -> Value:
        """Bring a value of `ctype` to an IR type: cut it, or extend it by the sign of `ctype`."""
        if isinstance(value, Const):
            return Const(value.imm, type_)
        if is_pointer(value.type):
            value = self.b.convert("cast", value, I64)
        have, want = WIDTH[value.type], WIDTH[type_]
        if have == want:
            return value
        if have == 1:
            return self.b.convert("zext", value, type_)
        if have > want:
            if want == 1:
                return self.b.binary("ne", value, 0)
            return self.b.convert("trunc", value, type_)
        signed = is_signed(ctype) and not is_bool(ctype) and have > 1
        return self.b.convert("sext" if signed else "zext", value, type_)

    # Writing values ---------------------------------------------------------------------------------------------

    def put(self, operand: Operand, place: Memory, pad: bool = True) -> None:
        """Write a value into own memory, converted to the type of `place`.

        With `pad` every byte of it gets a defined content, as keys need: zeros behind the end of strings.
        """
        ctype = place.ctype
        if isinstance(operand, Text):
            self._put_text(operand.data, place, pad)
        elif is_scalar(ctype):
            self.store(place, self.number(operand, ctype))
        elif isinstance(operand, Scalar):
            raise AssertionError(f"a number of {operand.ctype!r} where a {ctype!r} is wanted")
        elif isinstance(ctype, Tuple) and isinstance(operand.ctype, Tuple):
            self._put_tuple(operand, place, pad)
        elif isinstance(ctype, Str):
            self._put_string(operand, place, pad)
        elif isinstance(ctype, Buffer):
            size = min(ctype.size, operand.ctype.size)
            self.copy(place, operand, size)
            if pad:
                self.clear(place.pointer, ctype.size - size, place.offset + size)
        else:
            self.copy(place, operand, min(sizeof(ctype), sizeof(operand.ctype) or sizeof(ctype)))

    def _put_text(self, data: bytes, place: Memory, pad: bool) -> None:
        ctype = place.ctype
        if isinstance(ctype, Buffer):
            size = min(len(data), ctype.capacity)
            self.b.store(place.pointer, Const(size, I32), place.offset)
            place, data, end = place.part(4, Str(ctype.capacity)), data[:size], ctype.capacity
        else:
            end = sizeof(ctype)
            data = data[: end - 1] + b"\0"
        self.put_bytes(data, place)
        if pad:
            self.clear(place.pointer, end - len(data), place.offset + len(data))

    def put_bytes(self, data: bytes, place: Memory) -> None:
        """Store constant bytes, as wide as the alignment allows."""
        store_bytes(self.b, place.pointer, place.offset, data)

    def _put_tuple(self, operand: Memory, place: Memory, pad: bool) -> None:
        to, of = place.ctype, operand.ctype
        assert isinstance(to, Tuple) and isinstance(of, Tuple)
        if all(a is b or same_bytes(a, b) for a, b in zip(to.items, of.items)) and len(to.items) == len(of.items):
            self.copy(place, operand, to.size)
            return
        if pad:
            self.clear_holes(place)
        order = _matching(to, of)
        for item, offset, index in zip(to.items, to.offsets, order):
            self.put(operand.part(of.offsets[index], of.items[index]), place.part(offset, item), pad)

    def clear_holes(self, place: Memory) -> None:
        """Clear the bytes between and behind the items of a tuple."""
        ctype = place.ctype
        assert isinstance(ctype, Tuple)
        end = 0
        for item, offset in zip(ctype.items, ctype.offsets):
            self.clear(place.pointer, offset - end, place.offset + end)
            end = offset + sizeof(item)
        self.clear(place.pointer, ctype.size - end, place.offset + end)

    def _put_string(self, operand: Memory, place: Memory, pad: bool) -> None:
        have, want = sizeof(operand.ctype), sizeof(place.ctype)
        size = min(have, want) if have else want
        if pad and operand.space:  # there may be anything behind the end of a string that is not ours
            self.clear(place.pointer, want, place.offset)
            self.read_string(self.address(place), size, self.raw_address(operand), operand.space)
            return
        self.copy(place, operand, size)
        if have > want:  # cut: keep the NUL
            self.b.store(place.pointer, Const(0, I8), place.offset + want - 1)
        elif pad:
            self.clear(place.pointer, want - size, place.offset + size)


def same_bytes(a: CType, b: CType) -> bool:
    """Tell whether values of two types lie in memory alike."""
    a, b = strip(a), strip(b)
    if isinstance(a, (Int, Enum, Pointer)) and isinstance(b, (Int, Enum, Pointer)):
        return sizeof(a) == sizeof(b)
    from .stype import same

    return same(a, b)


def _matching(to: Tuple, of: Tuple) -> list[int]:
    """For each item of `to` the index of the item of `of` that goes there: records by name."""
    from .stype import RecordType

    if isinstance(to, RecordType) and isinstance(of, RecordType):
        return [of.names.index(n) for n in to.names]
    return list(range(len(to.items)))

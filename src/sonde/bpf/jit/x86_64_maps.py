"""Look-ups of maps as x86-64 machine code: arrays in place, hashes by a routine that stands once behind the program for each layout.

The map's address is in rdi, the key's in rsi; the value's address, or 0, comes back in rax. rdi, rsi, rdx, rcx and r8 to r11 are free to use, as in
a call of a helper. The protocol is that of `maps.hash`: loads stay in order on this CPU, so none needs a barrier.
"""

from __future__ import annotations

from ..maps.hash import ENTRY_HEADER, LANES, LONG_BYTES, MULTIPLIER
from ..maps.ringbuf import BUSY, DISCARDED
from .x86_encoding import (
    ALU,
    R8,
    R9,
    R10,
    R11,
    RAX,
    RCX,
    RDI,
    RDX,
    RSI,
    alu_imm,
    imm,
    mem,
    mem_index,
    mov,
    mov_imm,
    over,
    rr,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..maps.layout import MapLayout

_EQUAL, _NOT_EQUAL, _BELOW, _ABOVE_EQUAL, _BELOW_EQUAL, _ALWAYS = 4, 5, 2, 3, 6, -1
_SEED = 96  # in the header


class _Labels:
    """Code with jumps to named places, all of them of the long form."""

    def __init__(self) -> None:
        self.code = bytearray()
        self.places: dict[str, int] = {}
        self.jumps: list[tuple[int, str]] = []

    def add(self, *parts: bytes) -> None:
        for part in parts:
            self.code += part

    def label(self, name: str) -> None:
        self.places[name] = len(self.code)

    def jump(self, condition: int, name: str) -> None:
        self.code += b"\xe9" if condition < 0 else bytes([0x0F, 0x80 | condition])
        self.jumps.append((len(self.code), name))
        self.code += bytes(4)

    def finish(self) -> bytes:
        for at, name in self.jumps:
            self.code[at : at + 4] = imm(self.places[name] - at - 4)
        return bytes(self.code)


def array_lookup(layout: MapLayout) -> bytes:
    """An array's look-up, in place. Per-CPU arrays take the CPU's number from r11."""
    found = _times(RAX, layout.entry_stride)
    if layout.per_cpu:
        found += scaled_cpu(layout)
    found += mem_index(b"\x8d", RAX, RDI, RAX, layout.entries, True)  # lea
    code = mem(b"\x8b", RAX, RSI, 0, False) + alu_imm(ALU["cmp"], RAX, layout.max_entries, False)
    none = mov_imm(RAX, 0)
    return code + over(_ABOVE_EQUAL, found + b"\xeb" + bytes([len(none)])) + none


def finish_record(discard: bool) -> bytes:
    """Submit or discard the record in rdi, in place: "busy" leaves its header, which nobody else changes until then; stores are in order on this CPU."""
    clear = mem(b"\x81", ALU["and"], RDI, -8, False) + imm(~BUSY)
    mark = mem(b"\x81", ALU["add"], RDI, -8, False) + imm(DISCARDED - BUSY)
    return (mark if discard else clear) + mov_imm(RAX, 0)


def scaled_cpu(layout: MapLayout) -> bytes:
    """rax += r11 * value_stride."""
    return _times(R11, layout.value_stride) + rr(b"\x01", R11, RAX, True)


def _times(register: int, number: int) -> bytes:
    """Multiply a register by a number of 31 bits."""
    if number & number - 1 == 0:
        return rr(b"\xc1", 4, register, True) + bytes([number.bit_length() - 1])
    return rr(b"\x69", register, register, True) + imm(number)


def hash_routine(layout: MapLayout) -> bytes:
    """A hash's look-up as a function, which ends with rax at the value of CPU 0; a return is to follow."""
    code = _Labels()
    _hash(code, layout.key_size)
    # rax: the hash; r8: its upper half; r9: sixteen times the cell; ecx: how many more slots there are to see
    code.add(mov(R8, RAX), rr(b"\xc1", 5, R8, True) + b"\x20")
    code.add(alu_imm(ALU["and"], RAX, layout.mask, False), mov(R9, RAX), rr(b"\xc1", 4, R9, True) + b"\x04")
    code.add(mem_index(b"\x8b", RCX, RDI, R9, layout.cells, False))
    clamp = mov_imm(RCX, layout.mask)
    code.add(alu_imm(ALU["cmp"], RCX, layout.mask, False), over(_BELOW_EQUAL, clamp))
    code.label("slot")
    code.add(mem_index(b"\x8b", RDX, RDI, R9, layout.cells + 8, True))
    code.label("again")
    code.add(mov(R11, RDX), rr(b"\xc1", 5, R11, True) + b"\x20", rr(b"\x39", R8, R11, False))
    code.jump(_NOT_EQUAL, "next")
    code.add(mem(b"\x8d", RAX, RDX, -1, False), alu_imm(ALU["cmp"], RAX, layout.places, False))
    code.jump(_ABOVE_EQUAL, "next")
    code.add(_times(RAX, layout.entry_stride))
    code.add(mem_index(b"\x8d", RAX, RDI, RAX, layout.entries, True))
    code.add(mem(b"\x8b", R11, RAX, 0, False), rr(b"\xf7", 0, R11, False) + imm(1))
    code.jump(_NOT_EQUAL, "retry")
    _compare(code, layout.key_size)
    code.add(mem(b"\x39", R11, RAX, 0, False))
    code.jump(_EQUAL, "found")
    code.jump(_ALWAYS, "retry")
    code.label("different")
    code.add(mem(b"\x39", R11, RAX, 0, False))
    code.jump(_NOT_EQUAL, "retry")
    code.add(mem_index(b"\x8b", R10, RDI, R9, layout.cells + 8, True), rr(b"\x39", R10, RDX, True))
    code.jump(_EQUAL, "next")
    code.add(mov(RDX, R10))  # the entry was another key's by the time it was looked at
    code.jump(_ALWAYS, "again")
    code.label("retry")  # the entry changed: see the slot again, unless nothing changed there and here, which is damage
    code.add(mov(R10, RDX), mem_index(b"\x8b", RDX, RDI, R9, layout.cells + 8, True), rr(b"\x39", R10, RDX, True))
    code.jump(_NOT_EQUAL, "again")
    code.add(mem(b"\x39", R11, RAX, 0, False))
    code.jump(_NOT_EQUAL, "again")
    code.label("next")
    code.add(alu_imm(ALU["sub"], RCX, 1, False))
    code.jump(_BELOW, "none")
    code.add(alu_imm(ALU["add"], R9, 16, False), alu_imm(ALU["and"], R9, layout.mask << 4, False))
    code.jump(_ALWAYS, "slot")
    code.label("none")
    code.add(mov_imm(RAX, 0), b"\xc3")
    code.label("found")
    if layout.lru:  # used: written only when it was not, so that readers share the cache line
        mark = mem(b"\xc6", 0, RAX, 12, False) + b"\x01"
        code.add(mem(b"\x80", ALU["cmp"], RAX, 12, False) + b"\x00", over(_NOT_EQUAL, mark))
    code.add(alu_imm(ALU["add"], RAX, layout.value_offset, True))
    return code.finish()


def _pieces(size: int, at: int) -> list[tuple[int, int]]:
    """Cut `size` bytes from `at` on into loads: (offset, bytes)."""
    found = []
    for step in (8, 4, 2, 1):
        while size >= step:
            found.append((at, step))
            at, size = at + step, size - step
    return found


def _load(register: int, base: int, at: int, size: int) -> bytes:
    """Load 1, 2, 4 or 8 bytes, with zeros above them."""
    if size >= 4:
        return mem(b"\x8b", register, base, at, size == 8)
    return mem(b"\x0f\xb7" if size == 2 else b"\x0f\xb6", register, base, at, False)


def _hash(code: _Labels, key_size: int) -> None:
    code.add(mem(b"\x8b", RAX, RDI, _SEED, True), mov_imm(R10, MULTIPLIER))
    if key_size >= LONG_BYTES:
        _gather(code, key_size)
        for lane in _LANES:
            code.add(rr(b"\x31", lane, RAX, True), _round())
    else:
        for start in range(0, key_size, 8):
            _load_word(code, start, key_size)
            code.add(rr(b"\x31", RDX, RAX, True), _round())
    code.add(_round())


_LANES = (RCX, R8, R9, R11)


def _gather(code: _Labels, key_size: int) -> None:
    """Make the four lanes of a long key, from the seed in rax, which is there again afterwards; see `maps.hash.gather`."""
    for first, lane in enumerate(_LANES):
        code.add(mem(b"\x8d", lane, RAX, first, True))
    for start in range(0, key_size, 8):
        lane = _LANES[start // 8 % LANES]
        if key_size - start >= 8:
            code.add(mem(b"\x33", lane, RSI, start, True))
        else:
            _load_word(code, start, key_size, RAX)
            code.add(rr(b"\x31", RDX, lane, True))
        code.add(rr(b"\x0f\xaf", lane, R10, True), rr(b"\xc1", 0, lane, True) + b"\x20")  # rol
    code.add(mem(b"\x8b", RAX, RDI, _SEED, True))


def _load_word(code: _Labels, start: int, key_size: int, scratch: int = R11) -> None:
    """rdx: the eight bytes of the key from `start` on, or what there is of them."""
    first, *rest = _pieces(min(8, key_size - start), start)
    code.add(_load(RDX, RSI, *first))
    for at, size in rest:
        code.add(_load(scratch, RSI, at, size), rr(b"\xc1", 4, scratch, True) + bytes([8 * (at - start)]))
        code.add(rr(b"\x09", scratch, RDX, True))


def _round() -> bytes:
    """h *= MULTIPLIER; h ^= h >> 32. The hash is in rax, the multiplier in r10."""
    code = rr(b"\x0f\xaf", RAX, R10, True) + mov(RDX, RAX)
    return code + rr(b"\xc1", 5, RDX, True) + b"\x20" + rr(b"\x31", RDX, RAX, True)


def _compare(code: _Labels, key_size: int) -> None:
    """Compare the key with that of the entry in rax; to "different" when they differ."""
    for at, size in _pieces(key_size, 0):
        code.add(_load(R10, RSI, at, size))
        opcode, prefix = (b"\x38", b"") if size == 1 else (b"\x39", b"\x66" if size == 2 else b"")
        code.add(mem(opcode, R10, RAX, ENTRY_HEADER + at, size == 8, prefix=prefix))
        code.jump(_NOT_EQUAL, "different")

"""What the kernel is told of a program's source: a name and static linkage for each function in the code, and lines.

A function whose address is taken (bpf_loop, bpf_for_each_map_elem, timers) must have a func_info record of a static
FUNC type. The records are made from the instructions alone: a function starts where a local call or address points.
Lines are told for programs of objects: the kernel's log and `bpftool prog dump` then show the source.
Formats: Documentation/bpf/btf.rst, struct bpf_func_info, struct bpf_line_info.
"""

from __future__ import annotations

from struct import Struct, pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..errors import Span
    from ..spec.object import LineInfo

FUNC_INFO_BYTES, LINE_INFO_BYTES = 8, 16
_FUNC_INFO = Struct("=II")  # insn_off, type_id
_TYPE = Struct("=III")  # name_off, info, size or type
_KIND_INT, _KIND_FUNC, _KIND_FUNC_PROTO = 1 << 24, 12 << 24, 13 << 24
_LDDW, _CALL = 0x18, 0x85
_PSEUDO_CALL, _PSEUDO_FUNC = 1, 4
_COLUMN_BITS = 10
_LINE_LIMIT = (1 << 32 - _COLUMN_BITS) - 1


def takes_function_address(insns: bytes | bytearray) -> bool:
    """Tell whether the code loads the address of one of its functions."""
    at = insns.find(b"\x18")
    while at >= 0:
        if at % 8 == 0 and insns[at + 1] >> 4 == _PSEUDO_FUNC:
            return True
        at = insns.find(b"\x18", at + 1)
    return False


def find_functions(insns: bytes | bytearray) -> list[int]:
    """Return the pcs at which functions start, in order; the first is 0."""
    starts = {0}
    pc, count = 0, len(insns) // 8
    while pc < count:
        opcode, registers, _, imm = unpack_from("<BBhi", insns, pc * 8)
        if (opcode, registers >> 4) in ((_LDDW, _PSEUDO_FUNC), (_CALL, _PSEUDO_CALL)):
            starts.add(pc + 1 + imm)
        pc += 2 if opcode == _LDDW else 1
    return sorted(starts)


def make_func_info(
    insns: bytes | bytearray, name: str, names: Mapping[int, str], lines: Sequence[LineInfo] = ()
) -> tuple[bytes, bytes, bytes]:
    """Return a BTF blob, and the func_info and line_info records for the code of program `name`. `names` knows functions by pc."""
    strings = _Strings()
    types = bytearray(_TYPE.pack(strings.add(b"int"), _KIND_INT, 4) + pack("=I", 1 << 24 | 32))
    types += _TYPE.pack(0, _KIND_FUNC_PROTO, 1)
    info = bytearray()
    starts = find_functions(insns)
    for ordinal, pc in enumerate(starts):
        label = names.get(pc, name if ordinal == 0 else f"{name}_{ordinal}")
        info += _FUNC_INFO.pack(pc, 3 + ordinal)
        types += _TYPE.pack(strings.add(_identifier(label)), _KIND_FUNC, 2)
    line_info = bytearray()
    coded = [line for line in lines if 0 <= line.pc < len(insns) // 8 and insns[8 * line.pc]]  # no second halves
    for pc, span in _complete(coded, starts, len(insns) // 8):
        text = span.excerpt.split("\n", 1)[0].replace("\0", "").encode("utf-8", "replace")
        where = min(span.line, _LINE_LIMIT) << _COLUMN_BITS | min(max(span.column, 0), (1 << _COLUMN_BITS) - 1)
        file = span.file.replace("\0", "").encode("utf-8", "replace")
        line_info += pack("=IIII", pc, strings.add(file), strings.add(text), where)
    header = pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings.data))
    return header + bytes(types) + bytes(strings.data), bytes(info), bytes(line_info)


def _complete(lines: Sequence[LineInfo], starts: Sequence[int], count: int) -> Iterator[tuple[int, Span]]:
    """The lines in order, one at the start of each function, which the kernel demands; none where there are none at all."""
    known = {line.pc: line.span for line in lines}
    if not known:
        return
    first = known[min(known)]
    for start, end in zip(starts, [*starts[1:], count]):
        if start not in known:
            inside = [pc for pc in known if start <= pc < end]
            known[start] = known[min(inside)] if inside else first
    yield from sorted(known.items(), key=lambda line: line[0])


class _Strings:
    """A string section; equal strings stand in it once."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._known = {b"": 0}

    def add(self, text: bytes) -> int:
        at = self._known.get(text)
        if at is None:
            at = self._known[text] = len(self.data)
            self.data += text + b"\0"
        return at


def _identifier(name: str) -> bytes:
    """A name that BTF takes: letters, digits and underscores, not starting with a digit."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return (text if text and not text[0].isdigit() else "_" + text)[:100].encode()

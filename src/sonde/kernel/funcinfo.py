"""The BTF that the kernel demands of programs with callbacks: a name and static linkage for each function in the code.

A function whose address is taken (bpf_loop, bpf_for_each_map_elem, timers) must have a func_info record of a static
FUNC type. The records are made from the instructions alone: a function starts where a local call or address points.
Formats: Documentation/bpf/btf.rst, struct bpf_func_info.
"""

from __future__ import annotations

from struct import Struct, pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FUNC_INFO_BYTES = 8
_FUNC_INFO = Struct("=II")  # insn_off, type_id
_TYPE = Struct("=III")  # name_off, info, size or type
_KIND_INT, _KIND_FUNC, _KIND_FUNC_PROTO = 1 << 24, 12 << 24, 13 << 24
_LDDW, _CALL = 0x18, 0x85
_PSEUDO_CALL, _PSEUDO_FUNC = 1, 4


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


def make_func_info(insns: bytes | bytearray, name: str, names: Mapping[int, str]) -> tuple[bytes, bytes]:
    """Return a BTF blob and the func_info records for the code of program `name`. `names` knows functions by pc."""
    strings = bytearray(b"\0int\0")
    types = bytearray(_TYPE.pack(1, _KIND_INT, 4) + pack("=I", 1 << 24 | 32))
    types += _TYPE.pack(0, _KIND_FUNC_PROTO, 1)
    info = bytearray()
    for ordinal, pc in enumerate(find_functions(insns)):
        label = names.get(pc, name if ordinal == 0 else f"{name}_{ordinal}")
        info += _FUNC_INFO.pack(pc, 3 + ordinal)
        types += _TYPE.pack(len(strings), _KIND_FUNC, 2)
        strings += _identifier(label) + b"\0"
    header = pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + bytes(types) + bytes(strings), bytes(info)


def _identifier(name: str) -> bytes:
    """A name that BTF takes: letters, digits and underscores, not starting with a digit."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return (text if text and not text[0].isdigit() else "_" + text)[:100].encode()

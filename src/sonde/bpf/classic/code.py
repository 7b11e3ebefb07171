"""Classic BPF instructions: `struct sock_filter` to `Filter` and back, and the three texts that tcpdump prints (-d, -dd, -ddd).

The table of operations follows linux/filter.h and bpf_common.h; the assembler reads the same texts.
"""

from __future__ import annotations

from struct import Struct

from ...errors import FormatError
from ...record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
W, H, B = 0x00, 0x08, 0x10
K, X, A = 0x00, 0x08, 0x10
TAX, TXA = 0x00, 0x80
SCRATCH = 16  # words M[0] to M[15]
MAX_INSNS = 4096

# Offsets from which on a load does not read the packet's own bytes (as signed numbers).
AD_OFF, NET_OFF, LL_OFF = -0x1000, -0x100000, -0x200000
ANCILLARY = ("protocol", "pkttype", "ifindex", "nlattr", "nlattr_nest", "mark", "queue", "hatype", "rxhash", "cpu", "alu_xor_x", "vlan_tag",
             "vlan_tag_present", "pay_offset", "random", "vlan_tpid")  # fmt: skip
ANCILLARY_TEXTS = (
    "proto",
    "type",
    "ifidx",
    "nla",
    "nlan",
    "mark",
    "queue",
    "hatype",
    "rxhash",
    "cpu",
    "xor_x",
    "vlan_tci",
    "vlanp",
    "poff",
    "random",
    "vlan_tpid",
)  # as tcpdump prints them, in the same order
ANCILLARY_STEP = 4  # from one of them to the next

_SLOT = Struct("=HBBI")


class Filter(Record):
    """One instruction. `k` is unsigned, 32 bits; `jt` and `jf` count instructions from the next one."""

    code: int
    jt: int = 0
    jf: int = 0
    k: int = 0


def encode(program: Sequence[Filter]) -> bytes:
    """Return the program as an array of struct sock_filter. Raises FormatError for a field that does not fit."""
    try:
        return b"".join(_SLOT.pack(f.code, f.jt, f.jf, f.k & 0xFFFFFFFF) for f in program)
    except Exception as error:
        raise FormatError(f"a field of the filter does not fit: {error}") from None


def decode(data: bytes) -> list[Filter]:
    """Return the instructions of an array of struct sock_filter. Raises FormatError."""
    if len(data) % 8:
        raise FormatError(f"a filter of {len(data)} bytes is not a multiple of 8", offset=len(data) & ~7)
    return [Filter(*fields) for fields in _SLOT.iter_unpack(data)]


# Operations: code → name and operand. {k} signed, {x} hexadecimal, {t} the target of a plain jump.
_SIZES = {W: "", H: "h", B: "b"}
_ALU_NAMES = {
    0x00: "add",
    0x10: "sub",
    0x20: "mul",
    0x30: "div",
    0x40: "or",
    0x50: "and",
    0x60: "lsh",
    0x70: "rsh",
    0x90: "mod",
    0xA0: "xor",
}
_JUMP_NAMES = {0x10: "jeq", 0x20: "jgt", 0x30: "jge", 0x40: "jset"}
_HEX = ("or", "and", "xor")


def _operations() -> dict[int, tuple[str, str]]:
    table = {
        LD | W | LEN: ("ld", "#pktlen"), LDX | W | LEN: ("ldx", "#pktlen"),
        LD | IMM: ("ld", "#{x}"), LDX | IMM: ("ldx", "#{x}"), LDX | MSH | B: ("ldxb", "4*([{k}]&0xf)"),
        LD | MEM: ("ld", "M[{k}]"), LDX | MEM: ("ldx", "M[{k}]"), ST: ("st", "M[{k}]"), STX: ("stx", "M[{k}]"),
        JMP: ("ja", "{t}"), ALU | 0x80: ("neg", ""), MISC | TAX: ("tax", ""), MISC | TXA: ("txa", ""),
        RET | K: ("ret", "#{k}"), RET | A: ("ret", ""), RET | X: ("ret", "x"),
    }  # fmt: skip
    for size, suffix in _SIZES.items():
        table[LD | size | ABS] = (f"ld{suffix}", "[{k}]")
        table[LD | size | IND] = (f"ld{suffix}", "[x + {k}]")
    for op, name in _ALU_NAMES.items():
        table[ALU | op | K] = (name, "#{x}" if name in _HEX else "#{k}")
        table[ALU | op | X] = (name, "x")
    for op, name in _JUMP_NAMES.items():
        table[JMP | op | K] = (name, "#{x}")
        table[JMP | op | X] = (name, "x")
    return table


OPERATIONS = _operations()


def signed(k: int) -> int:
    """The signed reading of a 32-bit number."""
    return (k & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def find_ancillary(insn: Filter) -> str:
    """The name of the ancillary data that a load asks for; "" for other instructions, and "?" for offsets among theirs that mean nothing."""
    if insn.code & 0xE7 != LD | ABS or signed(insn.k) >= 0 or signed(insn.k) < AD_OFF:
        return ""
    index, rest = divmod(signed(insn.k) - AD_OFF, ANCILLARY_STEP)
    return ANCILLARY[index] if not rest and index < len(ANCILLARY) else "?"


def format_text(program: Sequence[Filter]) -> str:
    """Return what `tcpdump -d` prints: one line an instruction, targets of jumps as numbers of instructions."""
    return "\n".join(_line(number, insn) for number, insn in enumerate(program))


def _line(number: int, insn: Filter) -> str:
    found = OPERATIONS.get(insn.code)
    if found is None:
        return f"({number:03d}) unimp    {insn.code:#x}"
    name, operand = found
    data = find_ancillary(insn)
    if data in ANCILLARY:
        return f"({number:03d}) {name:<8} [{ANCILLARY_TEXTS[ANCILLARY.index(data)]}]"
    text = operand.format(k=signed(insn.k), x=f"{insn.k & 0xFFFFFFFF:#x}", t=number + 1 + insn.k)
    if insn.code & 7 == JMP and insn.code & 0xF0:
        return f"({number:03d}) {name:<8} {text:<16} jt {number + 1 + insn.jt}\tjf {number + 1 + insn.jf}"
    return f"({number:03d}) {name:<8} {text}"


def format_c(program: Sequence[Filter]) -> str:
    """Return what `tcpdump -dd` prints: the inside of an array in C."""
    return "\n".join(f"{{ {f.code:#x}, {f.jt}, {f.jf}, {f.k & 0xFFFFFFFF:#010x} }}," for f in program)


def format_numbers(program: Sequence[Filter]) -> str:
    """Return what `tcpdump -ddd` prints: how many, then the fields of each in decimal. `iptables -m bpf` takes this."""
    return "\n".join([str(len(program)), *(f"{f.code} {f.jt} {f.jf} {f.k & 0xFFFFFFFF}" for f in program)])

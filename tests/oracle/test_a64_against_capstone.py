"""Our decoder and relocator of aarch64 beside capstone: a whole C library, random words, every instruction that names an address moved."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from sonde.debuginfo.elf import EM_AARCH64, Elf
from sonde.errors import ProbeError
from sonde.user.a64.decode import Instruction, decode
from sonde.user.a64.relocate import relocate

capstone = pytest.importorskip("capstone", reason="needs capstone (pip install -e '.[dev]')")
pytestmark = pytest.mark.oracle
FOLDERS = ("/usr/aarch64-linux-gnu/lib", "/lib/aarch64-linux-gnu")
M = (1 << 64) - 1

KINDS = {
    "b": "jump", "bl": "call", "adr": "adr", "adrp": "adrp", "svc": "syscall", "nop": "nop", "bti": "landing", "paciasp": "landing",
    "pacibsp": "landing", "udf": "undefined",
    **dict.fromkeys(["cbz", "cbnz", "tbz", "tbnz"], "branch"),
    **dict.fromkeys(["br", "braa", "brab", "braaz", "brabz"], "indirect_jump"),
    **dict.fromkeys(["blr", "blraa", "blrab", "blraaz", "blrabz"], "indirect_call"),
    **dict.fromkeys(["ret", "retaa", "retab"], "return"),
    **dict.fromkeys(["eret", "eretaa", "eretab", "drps"], "exception_return"),
    **dict.fromkeys(["brk", "hvc", "smc"], "trap"),
    **dict.fromkeys(["hlt", "dcps1", "dcps2", "dcps3"], "halt"),
    **{f"ld{a}x{what}": "load_exclusive" for a in ("", "a") for what in ("r", "rb", "rh", "p")},
    **{f"st{a}x{what}": "store_exclusive" for a in ("", "l") for what in ("r", "rb", "rh", "p")},
}  # fmt: skip
RELATIVE = {"jump", "call", "branch", "adr", "adrp", "literal"}


class Theirs:
    """What capstone says of one word: kind, and the address that it names."""

    reader = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)

    def __init__(self, code: bytes, address: int) -> None:
        found = list(self.reader.disasm_lite(code, address))
        self.valid = bool(found)
        if not found:
            return
        _, _, self.name, self.operands = found[0]
        self.kind = self._kind()
        self.target = int(self.operands.split("#")[-1], 0) & M if self.kind in RELATIVE else 0

    def _kind(self) -> str:
        if self.name.startswith(("b.", "bc.")):
            return "branch"
        memory = "[" in self.operands
        if self.name in ("ldr", "ldrsw", "prfm") and not memory and "#" in self.operands:
            return "literal"
        return "plain" if self.name == "adr" and memory else KINDS.get(self.name, "plain")  # SVE has an adr too


def named(ours: Instruction, address: int) -> int:
    if ours.kind not in RELATIVE:
        return 0
    return ((address & -4096 if ours.kind == "adrp" else address) + ours.target) & M


def difference(code: bytes, address: int) -> str:
    theirs, ours = Theirs(code, address), decode(code)
    if not theirs.valid:
        return ""
    same = (ours.kind, named(ours, address)) == (theirs.kind, theirs.target)
    return "" if same else f"{address:#x} {theirs.name} {theirs.operands}: {ours.kind} {named(ours, address):#x}"


def read_text(path: Path) -> tuple[bytes, int]:
    with Elf.open(str(path)) as elf:
        assert elf.machine == EM_AARCH64
        section = elf.get_section(".text")
        assert section is not None
        return bytes(elf.read_section(section)), section.addr


@pytest.fixture(scope="module")
def libc() -> tuple[bytes, int]:
    paths = [Path(folder) / "libc.so.6" for folder in FOLDERS]
    found = [path for path in paths if path.exists()]
    if not found:
        pytest.skip("needs a C library for aarch64 (Debian package libc6-arm64-cross)")
    return read_text(found[0])


def test_every_instruction_of_the_c_library(libc: tuple[bytes, int]) -> None:
    code, base = libc
    wrong = [text for at in range(0, len(code) - 3, 4) if (text := difference(code[at : at + 4], base + at))]
    assert wrong == []
    assert len(code) > 1 << 20


def test_random_words() -> None:
    chance = random.Random(9)
    heads = (0x05, 0x25, 0x15, 0x0D, 0x2D, 0x35, 0x02, 0x04, 0x24, 0x06, 0x16, 0x26, 0x36)  # of the upper six bits
    near = (0xD61F0000, 0xD63F0000, 0xD65F0000, 0xD69F0000, 0xD73F0000, 0xD4000000, 0xD5032000, 0x08000000, 0x88200000)
    wrong = []
    for _ in range(40_000):
        word = chance.getrandbits(32)
        pick = chance.random()
        if pick < 0.4:
            word = word & 0x03FFFFFF | chance.choice(heads) << 26
        elif pick < 0.7:
            word = chance.choice(near) | word & 0x1FFF | chance.getrandbits(32) & chance.choice((0, 0xE00000, 0x1F0000))
        wrong.append(difference(word.to_bytes(4, "little"), 1 << 32))
    assert [text for text in wrong if text] == []


def moved_meaning(code: bytes, new: int) -> list[tuple[str, str, int]]:
    """Return what moved code does: name, registers, and the address named or loaded from behind the code."""
    found = []
    at = 0
    while at < len(code):
        theirs = Theirs(code[at : at + 4], new + at)
        if not theirs.valid:
            break
        registers = theirs.operands.split("#")[0]
        target = theirs.target
        if theirs.kind == "literal" and new <= target < new + len(code):
            (target,) = struct.unpack_from("<Q", code, target - new)
            found.append(("address", registers, target))
        elif theirs.name == "add" and found and found[-1][0] == "adrp":  # the rest of the address
            _, first, page = found.pop()
            assert theirs.operands.startswith(first * 2)
            found.append(("address", first, page + int(theirs.operands.split("#")[1], 0)))
        else:
            found.append(("address" if theirs.name == "adr" else theirs.name, registers, target))
        at += 4
        if theirs.kind == "jump":
            break
    return [("address" if name == "adrp" else name, registers, target) for name, registers, target in found]


def meaning(code: bytes, old: int) -> list[tuple[str, str, int]]:
    """Return what the original does, in the same words, for the forms that are kept when moved nearby."""
    theirs = Theirs(code, old)
    registers = theirs.operands.split("#")[0]
    if theirs.kind == "call":
        return [("address", "x30, ", old + 4), ("b", "", theirs.target)]
    if theirs.kind == "jump":
        return [("b", "", theirs.target)]
    name = "address" if theirs.kind in ("adr", "adrp") else theirs.name
    return [(name, registers, theirs.target), ("b", "", old + 4)]


@pytest.mark.parametrize("distance", [0x80000, -0x4000000], ids=["near", "far"])
def test_every_instruction_with_an_address_moved(libc: tuple[bytes, int], distance: int) -> None:
    code, base = libc
    wrong, count = [], 0
    for at in range(0, len(code) - 3, 4):
        own, old = code[at : at + 4], base + at + 0x40000000
        ours = decode(own)
        if ours.kind not in RELATIVE or ours.kind == "branch":
            continue
        new = old + distance
        found, want = moved_meaning(relocate(own, old, new).code, new), meaning(own, old)
        if ours.kind == "literal" and found[0][0] == "address":
            want[0] = ("address", *want[0][1:])
            del found[1]  # the load from there
        count += 1
        if found != want:
            wrong.append((hex(old), want, found))
    assert wrong == []
    assert count > 20_000


def test_every_branch_moved(libc: tuple[bytes, int]) -> None:
    code, base = libc
    count = 0
    for at in range(0, len(code) - 3, 4):
        own, old = code[at : at + 4], base + at
        if decode(own).kind != "branch":
            continue
        new = old + 0x2000000
        moved = relocate(own, old, new).code
        theirs, (first, on, away) = Theirs(own, old), (Theirs(moved[n : n + 4], new + n) for n in (0, 4, 8))
        assert (first.name, first.operands.rsplit("#", 1)[0]) == (theirs.name, theirs.operands.rsplit("#", 1)[0])
        assert (first.target, on.target, away.target) == (new + 8, old + 4, theirs.target)
        count += 1
    assert count > 10_000


def test_out_of_reach(libc: tuple[bytes, int]) -> None:
    code, base = libc
    with pytest.raises(ProbeError, match="does not reach"):
        relocate(code[:4], base, base + (1 << 28))

"""Our decoder and relocator of x86-64 beside iced-x86: whole libraries, random bytes, every function's window moved."""

from __future__ import annotations

import platform
import random
import re
from pathlib import Path

import pytest
from x86_libraries import Library, find_libraries, read_library

from sonde.errors import ProbeError
from sonde.user.x86.decode import Instruction, decode
from sonde.user.x86.relocate import relocate
from sonde.user.x86.window import Window

iced = pytest.importorskip("iced_x86", reason="needs iced-x86 (pip install -e '.[dev]')")
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the libraries here are not for x86-64"),
]
LIBRARIES = find_libraries(("libc.so.6", "ld-linux-x86-64.so.2", "libstdc++.so.6", "libcrypto.so.3"))
by_library = pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.name)

KINDS = {
    "NEXT": "plain", "UNCONDITIONAL_BRANCH": "jump", "INDIRECT_BRANCH": "indirect_jump", "CONDITIONAL_BRANCH": "branch",
    "RETURN": "return", "CALL": "call", "INDIRECT_CALL": "indirect_call", "INTERRUPT": "trap", "EXCEPTION": "undefined",
    "XBEGIN_XABORT_XEND": "xbegin",
}  # fmt: skip
FLOWS = {getattr(iced.FlowControl, name): kind for name, kind in KINDS.items()}
MNEMONICS = {
    "NOP": "nop", "RESERVEDNOP": "nop", "ENDBR64": "endbr", "SYSCALL": "syscall", "HLT": "halt", "RSM": "far",
    **dict.fromkeys(["SYSENTER", "SYSEXIT", "SYSEXITQ", "SYSRET", "SYSRETQ"], "far"),
    **dict.fromkeys(["LOOP", "LOOPE", "LOOPNE", "JRCXZ", "JECXZ"], "loop"),
    # Of these iced says more than moving them needs.
    **dict.fromkeys(["XEND", "XABORT", "VMCALL", "VMLAUNCH", "VMRESUME", "VMMCALL", "VMRUN", "SKINIT", "ENCLU"], "plain"),
}  # fmt: skip
NAMED = {getattr(iced.Mnemonic, name): kind for name, kind in MNEMONICS.items()}
FAR = {
    getattr(iced.Code, f"{what}_M16{size}") for what in ("JMP", "CALL") for size in (16, 32, 64)
}  # through memory, to another segment
M = (1 << 64) - 1


def kind_of(theirs: iced.Instruction, code: bytes) -> str:
    if theirs.code in FAR:
        return "far"
    if theirs.mnemonic == iced.Mnemonic.INT and theirs.immediate8 == 0x80:
        return "syscall"
    if theirs.mnemonic == iced.Mnemonic.RESERVEDNOP and b"\x0f\x1f" not in code:
        return "plain"  # hints that are no nop to us
    return NAMED.get(theirs.mnemonic) or FLOWS[theirs.flow_control]


def difference(ours: Instruction, theirs: iced.Instruction, code: bytes) -> str:
    """Return what the two decoders do not agree on, "" for nothing."""
    if (ours.length, ours.kind) != (theirs.len, kind_of(theirs, code)):
        return f"{ours.length} {ours.kind} / {theirs.len} {kind_of(theirs, code)}"
    if ours.stack != theirs.is_stack_instruction:
        return f"stack {ours.stack}"
    near = theirs.op0_kind == iced.OpKind.NEAR_BRANCH64
    if near != (ours.target_at >= 0) or (near and (theirs.ip + ours.target) & M != theirs.near_branch_target):
        return f"target {ours.target}"
    relative = theirs.is_ip_rel_memory_operand and 0x67 not in code[: ours.opcode_at]
    if relative and (ours.rip_at < 0 or (theirs.ip + ours.rip) & M != theirs.ip_rel_memory_address):
        return f"rip {ours.rip}"
    return "" if theirs.is_ip_rel_memory_operand == (ours.rip_at >= 0) else f"rip at {ours.rip_at}"


@by_library
def test_every_instruction_of_a_library(path: Path) -> None:
    library = read_library(path)
    decoder = iced.Decoder(64, library.code, ip=library.base)
    wrong, count = [], 0
    for theirs in decoder:  # a linear sweep, through data too: what iced calls invalid has no right answer
        if theirs.code == iced.Code.INVALID:
            continue
        at = theirs.ip - library.base
        count += 1
        found = difference(decode(library.code, at), theirs, library.code[at : at + theirs.len])
        if found:
            wrong.append((hex(theirs.ip), str(theirs), found))
    assert wrong == []
    assert count > 30_000


def test_random_bytes() -> None:
    chance = random.Random(7)
    first = [
        b"",
        b"",
        b"\x0f",
        b"\x62",
        b"\xc4",
        b"\xc5",
        b"\x66",
        b"\x48",
        b"\xf2",
        b"\xf3",
        b"\x8f",
        b"\xff",
        b"\xc7",
        b"\x67",
    ]
    wrong, count = [], 0
    for _ in range(60_000):
        code = chance.choice(first) + chance.randbytes(20)
        ours, theirs = decode(code), iced.Decoder(64, code, ip=1 << 40).decode()
        if theirs.code != iced.Code.INVALID:
            count += 1
            found = difference(ours, theirs, code[: theirs.len])
            if found:
                wrong.append((code.hex(), str(theirs), found))
    assert wrong == []
    assert count > 30_000


def expected(window: Window) -> list[tuple[str, int]]:
    """Return what the moved code has to do: text of each instruction without its own address, target of jumps."""
    found = []
    for theirs in iced.Decoder(64, window.code, ip=window.addr):
        kind = kind_of(theirs, window.code)
        behind = theirs.ip + theirs.len
        if kind in ("nop", "endbr"):
            continue
        if kind in ("call", "indirect_call"):
            found.append(("push", behind))
        found += [jump_of(theirs)] if kind in ("jump", "branch", "call", "loop") else [text_of(theirs)]
        if kind == "indirect_call":
            found[-1] = (found[-1][0].replace("call ", "jmp "), found[-1][1])
    if kind not in ("jump", "indirect_jump", "return"):
        found.append(("jmp", window.addr + window.length))
    return found


def jump_of(theirs: iced.Instruction) -> tuple[str, int]:
    name = str(theirs).split()[0] if kind_of(theirs, b"") in ("branch", "loop") else "jmp"
    return name, theirs.near_branch_target


def text_of(theirs: iced.Instruction) -> tuple[str, int]:
    return str(theirs).replace("notrack ", ""), 0


def actual(code: bytes, new: int, count: int) -> list[tuple[str, int]]:
    """Return the same of moved code."""
    found: list[tuple[str, int]] = []
    decoder = iced.Decoder(64, code, ip=new)
    while len(found) < count:
        theirs = decoder.decode()
        if (
            code[theirs.ip - new :][:2] == b"\xff\x35" and theirs.ip_rel_memory_address >= decoder.ip
        ):  # push of an address kept behind
            at = theirs.ip_rel_memory_address - new
            if 0 <= at <= len(code) - 8:
                found.append(("push", int.from_bytes(code[at : at + 8], "little")))
                continue
        if kind_of(theirs, b"") == "loop":
            decoder.decode()  # over the jump
            found.append((str(theirs).split()[0], decoder.decode().near_branch_target))
        else:
            found.append(jump_of(theirs) if theirs.op0_kind == iced.OpKind.NEAR_BRANCH64 else text_of(theirs))
    return found


@by_library
def test_every_functions_window_moved(path: Path) -> None:
    library = read_library(path)
    wrong, count = [], 0
    for window in library.windows():
        new = window.addr + 0x1234567
        moved = relocate(window.code, window.addr, new)
        want = expected(window)
        if actual(moved.code, new, len(want)) != want:
            wrong.append((library.names[window.addr] if window.addr in library.names else hex(window.addr), want))
        count += 1
    assert wrong == []
    assert count > 200


def with_base_bit(code: bytes, ours: Instruction) -> bytes:
    """Return the same instruction with the bit of the base register set, which means nothing to rip."""
    changed = bytearray(code)
    if ours.map < 4:
        if not ours.rex:
            return code
        changed[ours.opcode_at - (1, 2, 3, 3)[ours.map]] |= 1
    elif ours.map & 0x60 == 0x40:
        changed[ours.opcode_at - 3] &= ~0x20
    elif changed[ours.opcode_at - 2] != 0xC5:
        changed[ours.opcode_at - 2] &= ~0x20
    return bytes(changed)


VECTORS = (
    "62f17d48fe0510000000", "62f14d40fe3510000000", "62e1fd48280d10000000", "62f37d481f050800000001", "c4e27d580510000000", "c4e249f73d10000000",
    "c4e2fbf63d10000000", "c5f96f3d10000000", "c5cdfe3510000000", "62f1fe486f3d10000000", "c4e37d063d1000000020",
)  # fmt: skip


def test_operands_that_are_far_away() -> None:
    """Each different instruction with an operand relative to rip, in the words of iced: the same with a register for the address."""
    forms = {bytes.fromhex(text) for text in VECTORS}
    seen = set()
    for path in LIBRARIES:
        library = read_library(path)
        for theirs in iced.Decoder(64, library.code, ip=library.base):
            if (
                theirs.is_ip_rel_memory_operand
                and theirs.code != iced.Code.INVALID
                and (theirs.code, theirs.op0_register) not in seen
            ):
                seen.add((theirs.code, theirs.op0_register))
                forms.add(library.code[theirs.ip - library.base :][: theirs.len])
    old, new = 1 << 40, 1 << 45
    count = 0
    for form in sorted(forms):
        for code in (form, with_base_bit(form, decode(form))):
            original = iced.Decoder(64, code, ip=old).decode()
            assert original.is_ip_rel_memory_operand, (code.hex(), str(original))
            try:
                moved = relocate(code, old, new).code
            except ProbeError as error:
                assert "too far" in str(error) or "moved" in str(error)
                continue
            if original.mnemonic == iced.Mnemonic.LEA and code[0] & 0xF8 == 0x48:
                continue
            _, push, load, found, pop, _ = list(iced.Decoder(64, moved, ip=new))[:6]
            text = re.sub(r"\[[0-9A-F]+h\]", "[*]", str(original))
            register = str(push).split()[1]
            assert (load.op0_register, load.immediate(1)) == (push.op0_register, original.ip_rel_memory_address)
            assert str(pop) == f"pop {register}"
            assert str(found).replace(f"[{register}]", "[*]") == text
            used = iced.InstructionInfoFactory().info(original).used_registers()
            family = {iced.RegisterExt.full_register(one.register) for one in used}
            assert iced.RegisterExt.full_register(push.op0_register) not in family, text
            count += 1
    assert count > 300


def branches_of(library: Library) -> dict[int, list[int]]:
    """Return who jumps where in all functions, as iced reads them: target to sources."""
    found: dict[int, list[int]] = {}
    for start, size in library.functions.items():
        body = library.code[start - library.base : start - library.base + size]
        for theirs in iced.Decoder(64, body, ip=start):
            if theirs.op0_kind == iced.OpKind.NEAR_BRANCH64 and theirs.code != iced.Code.INVALID:
                found.setdefault(theirs.near_branch_target, []).append(theirs.ip)
    return found


@by_library
def test_nothing_jumps_into_a_window_and_what_is_refused_is_jumped_into(path: Path) -> None:
    library = read_library(path)
    branches = branches_of(library)
    into, unfounded = [], 0
    for window in library.windows():
        inside = range(window.addr + 1, window.addr + window.patch)
        for target in inside:
            sources = [s for s in branches.get(target, []) if not window.addr <= s < window.addr + window.length]
            into += [(hex(window.addr), window.kind, hex(s)) for s in sources]
        if window.reason.startswith("a jump at"):
            target = int(window.reason.split()[-1], 16)
            unfounded += not branches.get(target)
    assert into == []
    # Tables between the functions of libcrypto, written in assembler, look like jumps to us twice: better a pun too many.
    assert unfounded <= (2 if "crypto" in path.name else 0)

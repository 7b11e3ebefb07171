"""get_stack by unwind tables: the user stack of code that keeps no frame pointer, as a routine of eBPF (the way of perf's --call-graph=dwarf, in the process).

The process has an index of what code it has mapped where, and for each file a table of rows (see `debuginfo.cfa`); `unwindtables` puts them there:

    index   u64 number of entries, for each: u64 start, u64 end, u64 address that the table counts from, u64 table
    table   u64 number of rows, for each: u32 address; then, at a multiple of eight bytes, for each: u64 entry

In the place of a table BY_FRAME_POINTER says that there is none, OURS that the code is sonde's: who returns there came from where the table of returns says. Code that the
index does not have, as that of a JIT compiler, is taken to keep frame pointers. Nothing is read before its page was asked for; the last page is remembered.
"""

from __future__ import annotations

from errno import EOPNOTSUPP

from ..debuginfo import cfa
from . import frame
from .helpers import USER_STACK, call, load, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.ptregs import PtRegs

BY_FRAME_POINTER, OURS = 0, 1
_FRAME_POINTER = cfa.FP << cfa.CFA_SHIFT | 16 | cfa.AT_CFA << cfa.FP_SHIFT | (-16 & 0xFFFF) << cfa.FP_OFFSET_SHIFT

# On the routine's stack, where `helpers.take` and `helpers.load` have -24 to -40. CALL: 1 where the program counter is behind a call, which is what was going on.
_BYTES, _SKIP, _PAGE, _INDEX, _PLACE, _PC, _CALL, _ENTRY, _CFA = -8, -24, -32, -48, -56, -64, -72, -80, -88


def _get(register: str, slot: int) -> str:
    return f"{register} = *(u64 *)(r10 {slot})"


def _set(slot: int, what: str | int) -> str:
    return f"*(u64 *)(r10 {slot}) = {what}"


def _search(name: str, value: list[str], otherwise: str) -> list[str]:
    """r2: how many of r3 ascending numbers are not above r1; `value` makes r0 that of number r4. Goes to `otherwise` where it is none."""
    return [
        "r2 = 0", f"{name}: if r2 >= r3 goto {name}_end", "r4 = r2", "r4 += r3", "r4 >>= 1", "r0 = r4", *value,
        f"if r0 > r1 goto {name}_below", "r2 = r4", "r2 += 1", f"goto {name}", f"{name}_below: r3 = r4", f"goto {name}",
        f"{name}_end: if r2 == 0x0 goto {otherwise}",
    ]  # fmt: skip


# r1: the entry for the program counter.
_LOOK = [
    _get("r1", _PC), _get("r2", _CALL), "r1 -= r2", _get("r5", _INDEX), "if r5 == 0x0 goto unknown", "r3 = *(u64 *)(r5 +0)",
    *_search("file", ["r0 <<= 5", "r0 += r5", "r0 = *(u64 *)(r0 +8)"], "unknown"),
    "r2 <<= 5", "r5 += r2", "r0 = *(u64 *)(r5 -16)", "if r1 >= r0 goto unknown", "r0 = *(u64 *)(r5 -8)", "r5 = *(u64 *)(r5 +0)",
    f"if r5 == {BY_FRAME_POINTER} goto unknown", f"if r5 == {OURS} goto ours", "if r1 < r0 goto stop", "r1 -= r0",
    "r3 = *(u64 *)(r5 +0)", "r5 += 8",
    *_search("row", ["r0 <<= 2", "r0 += r5", "r0 = *(u32 *)(r0 +0)"], "stop"),
    "r3 = *(u64 *)(r5 -8)", "r3 += 1", "r3 &= -2", "r3 <<= 2", "r5 += r3", "r2 <<= 3", "r5 += r2", "r1 = *(u64 *)(r5 -8)", "goto known",
    "stop: r1 = 0", "goto known",
    f"unknown: r1 = {_FRAME_POINTER} ll", "known:", _set(_ENTRY, "r1"),
]  # fmt: skip


def _true_address(private: int) -> list[str]:
    """The program counter is in sonde's code: find what the return address was. It has no place of its own, so that this is done once."""
    return [
        "ours:", _get("r3", _PLACE), "if r3 == 0x0 goto done", _set(_PLACE, 0),
        f"r2 = {frame.HASH} ll", "r2 *= r3", f"r2 >>= {64 - frame.RETURN_BITS}", f"r2 <<= {frame.RETURN_SHIFT}",
        f"r4 = {private + frame.RETURNS} ll", f"r1 = {frame.PROBES}",
        "look: r5 = r4", "r5 += r2", "r0 = *(u64 *)(r5 +0)", "if r0 == r3 goto found",
        f"r2 += {1 << frame.RETURN_SHIFT}", f"r2 &= {frame.RETURNS_BYTES - 1}", "r1 += -1", "if r1 != 0x0 goto look", "goto done",
        f"found: r1 = *(u64 *)(r5 +{frame.RETURN_ADDRESS})", _set(_PC, "r1"), "goto next",
    ]  # fmt: skip


# From the entry to the CFA, in r3. r6 is the stack pointer, r9 the frame pointer.
_ADDED = [_get("r1", _ENTRY), f"r1 >>= {cfa.ADD_SHIFT}", "r1 &= 255"]
_FIND_CFA = [
    _get("r1", _ENTRY), "r2 = r1", f"r2 >>= {cfa.CFA_SHIFT}", "r2 &= 15", "r3 = r1", "r3 <<= 32", "r3 s>>= 32",
    f"if r2 == {cfa.SP} goto by_sp", f"if r2 == {cfa.FP} goto by_fp", f"if r2 == {cfa.SIGNAL} goto signal", f"if r2 == {cfa.PLT} goto plt",
    f"if r2 == {cfa.DEREF_FP} goto deref_fp", f"if r2 != {cfa.DEREF_SP} goto done",
    "r3 += r6", "goto deref", "deref_fp: r3 += r9",
    "deref: r1 = r3", *load("beginning"), "r3 = r1", *_ADDED, "r3 += r1", "goto cfa",
    "plt: r3 += r6", *_ADDED, _get("r2", _PC), "r2 &= 15", "if r2 < r1 goto cfa", "r3 += 8", "goto cfa",
    "by_fp: r3 += r9", "goto cfa",
    "by_sp: r3 += r6",
    "cfa: if r3 <= r6 goto done", _set(_CFA, "r3"),
]  # fmt: skip

_FIND_FP = [
    _get("r1", _ENTRY), "r2 = r1", f"r2 >>= {cfa.FP_SHIFT}", f"if r2 == {cfa.SAME} goto up", f"r1 <<= {48 - cfa.FP_OFFSET_SHIFT}", "r1 s>>= 48",
    f"if r2 == {cfa.AT_CFA} goto at_cfa", f"if r2 == {cfa.AT_FP} goto at_fp", "r9 = 0", "goto up",
    "at_fp: r1 += r9", "goto saved", "at_cfa: r1 += r3", "saved:", *load("pointer"), "r9 = r1",
]  # fmt: skip

_UP = [
    "up:", _get("r6", _CFA), "r1 = r6", "r1 += -8", _set(_PLACE, "r1"), *load("caller"),
    "if r1 == 0x0 goto done", _set(_PC, "r1"), _set(_CALL, 1), "goto next",
]  # fmt: skip

_INTERRUPTED = [
    "signal: r1 = r6", f"r1 += {cfa.SIGNAL_PC}", *load("counter"), "if r1 == 0x0 goto done", _set(_PC, "r1"), _set(_CALL, 0), _set(_PLACE, 0),
    "r1 = r6", f"r1 += {cfa.SIGNAL_FP}", *load("base"), "r9 = r1",
    "r1 = r6", f"r1 += {cfa.SIGNAL_SP}", *load("top"), "r6 = r1", "goto next",
]  # fmt: skip


def walk(registers: PtRegs, private: int) -> list[str]:
    """get_stack(ctx, buffer, bytes, flags) by unwind tables. Where a function begins, its caller is at the top of the stack, whatever the tables know.

    `private`: the address of sonde's own memory in the process (see `frame`).
    """
    ip, sp, fp = (registers.get_offset(name) for name in (registers.ip, registers.sp, registers.fp))
    return [
        _set(_BYTES, "r3"), "r5 = r4", "r5 &= 255", _set(_SKIP, "r5"), "r4 &= -256",
        f"if r4 == {USER_STACK} goto user", f"r0 = {-EOPNOTSUPP}", "exit",
        "user: r7 = r2", "r8 = r3", f"r1 = {private + frame.UNWIND} ll", "r1 = *(u64 *)(r1 +0)", _set(_INDEX, "r1"),
        _set(_PAGE, 1), _set(_PLACE, 0), _set(_CALL, 0), call("registers"),
        f"r1 = *(u64 *)(r0 +{ip})", _set(_PC, "r1"), f"r6 = *(u64 *)(r0 +{sp})", f"r9 = *(u64 *)(r0 +{fp})",
        f"r2 = *(u64 *)(r0 {frame.KIND - frame.REGS:+d})", f"if r2 != {frame.ENTRY} goto next",
        *take("entry"), "r6 += 8", _set(_CFA, "r6"), "goto up",
        "next:", *_LOOK, _get("r1", _PC), *take("frame"),
        *_FIND_CFA, *_FIND_FP, *_UP, *_INTERRUPTED, *_true_address(private),
        "done:", _get("r0", _BYTES), "r0 -= r8", "r0 &= -8", "exit",
    ]  # fmt: skip

"""A probe's address on aarch64 to its window: the one instruction that a jump to the trampoline replaces.

Every instruction has four bytes, as many as a jump, so that nothing can jump into a window, and the ladder is short:

    nop         an existing nop, a patchable entry
    relocated   any instruction that can be moved
    trap        brk, and a signal handler: where the trampoline cannot be within 128 MiB (the caller asks for it by `rungs`)
    none        `reason` says why

What is in the way of a probe here is what lies around it: between an exclusive load and its store, any store of the trampoline's makes the loop
fail forever; where indirect jumps land (bti, paciasp), a page that guards its landing places lets nothing else stand.
"""

from __future__ import annotations

from ...errors import FormatError
from ...record import Record
from .decode import WORD_BYTES, Instruction, decode, kind_of
from .relocate import unmovable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

RUNGS = ("nop", "relocated", "trap")
# Code that the process knows by its bytes or its addresses, and how much before these bytes belongs to it.
_KNOWN_CODE = (
    (bytes.fromhex("681180d2 010000d4"), 0),  # mov x8, #139; svc #0: libgcc and gdb know a signal's frame by these
    # mov x8, x1; mov x0, x2 … mov x5, x7; svc #0: system calls that pthread_cancel may interrupt, in glibc since 2.41 and in musl. Its signal handler
    # asks whether the thread is between the look at the flag, two instructions before, and the system call.
    (bytes.fromhex("e80301aa e00302aa e10303aa e20304aa e30305aa e40306aa e50307aa 010000d4"), 8),
)
_LOOK_BYTES = 64
_PACIASP, _KEY_B = 0xD503233F, 0x40  # pacibsp has the bit
_EXCLUSIVE_WORDS = 32  # of the longest loop with exclusive instructions that is looked for, as in the kernel's kprobes


class Window(Record):
    """What a probe at one address displaces. The fields are those of the window of x86-64."""

    kind: str  # a word of RUNGS, or "none"
    addr: int  # of the instruction that is replaced: behind the landing place that the probe's address may be
    length: int  # 4
    patch: int  # 4
    code: bytes
    instructions: tuple[Instruction, ...]
    keep: int = WORD_BYTES
    reason: str = ""  # why no better kind
    signs: bool = False  # a function begins here that signs its return address


def plan_window(
    code: bytes,
    at: int,
    *,
    start: int,
    end: int,
    base: int = 0,
    guarded: bool = False,
    reserved: Sequence[tuple[int, int]] = (),
    calls: bool = True,
    rungs: Collection[str] = RUNGS,
) -> Window:
    """Return the best window of the allowed `rungs` for a probe at address `at` of the function from `start` to `end` - 1.

    `code` is loaded at `base` and holds the function. `guarded`: its pages are mapped with PROT_BTI. `reserved`: ranges whose addresses mean something to
    the process (restartable sequences). `calls`: False keeps calls where they are, for processes with a guarded control stack.
    """
    if not start <= at < end:
        return _none(at, f"the address is outside the function ({start:#x} to {end:#x})")
    if start < base or end > base + len(code):
        return _none(at, "the function is outside the code that was read")
    if at % WORD_BYTES:
        return _none(at, "instructions begin at multiples of 4")
    begins = at == start
    try:
        instruction = decode(code, at - base)
        if guarded and instruction.kind == "landing" and at + WORD_BYTES < end:
            at += WORD_BYTES
            instruction = decode(code, at - base)
    except FormatError as error:
        return _none(at, error.message)
    own = code[at - base : at - base + WORD_BYTES]
    reason = _refusal(code[start - base : end - base], at - start, instruction)
    if any(low < at + WORD_BYTES and at < high for low, high in (*reserved, *_known_code(code, base, at))):
        reason = "the process compares or looks up the address of this instruction"
    if not calls and instruction.kind in ("call", "indirect_call"):
        reason = "a call cannot be moved in a process with a guarded control stack"
    if reason:
        return _none(at, reason)
    kind = "nop" if instruction.kind == "nop" and "nop" in rungs else "relocated"
    signs = begins and _signs(code[at - base : end - base])
    if kind in rungs:
        return Window(kind, at, WORD_BYTES, WORD_BYTES, own, (instruction,), signs=signs)
    reason = "another kind was asked for"
    if "trap" in rungs:
        return Window("trap", at, WORD_BYTES, WORD_BYTES, own, (instruction,), reason=reason, signs=signs)
    return _none(at, reason)


def _none(at: int, reason: str) -> Window:
    return Window("none", at, 0, 0, b"", (), 0, reason)


def _known_code(code: bytes, base: int, at: int) -> list[tuple[int, int]]:
    """Return the address ranges of code around `at` that must not move."""
    first = max(at - base - _LOOK_BYTES, 0)
    near = code[first : at - base + _LOOK_BYTES]
    found = [
        (base + first + near.find(pattern), len(pattern), more) for pattern, more in _KNOWN_CODE if pattern in near
    ]
    return [(addr - more, addr + size) for addr, size, more in found]


def _refusal(body: bytes, at: int, instruction: Instruction) -> str:
    """Return why the instruction at an offset of a function cannot be displaced, "" if it can."""
    if instruction.kind == "trap":
        return "a breakpoint stands there: another tracer's, or the program's own"
    if _is_exclusive(body, at):
        return "it is between an exclusive load and its store, which would never succeed"
    return unmovable(instruction)


def _signs(body: bytes) -> bool:
    """Tell whether a function signs its return address: it does so before it calls others, but not always first of all."""
    for at in range(0, len(body) - WORD_BYTES + 1, WORD_BYTES):
        word = int.from_bytes(body[at : at + WORD_BYTES], "little")
        if word & ~_KEY_B == _PACIASP:
            return True
        if kind_of(word) in ("call", "indirect_call"):
            return False
    return False


def _is_exclusive(body: bytes, at: int) -> bool:
    """Tell whether the last exclusive instruction before `at` is a load: then its store is still to come."""
    for before in range(at - WORD_BYTES, max(at - (_EXCLUSIVE_WORDS + 1) * WORD_BYTES, -1), -WORD_BYTES):
        kind = kind_of(int.from_bytes(body[before : before + WORD_BYTES], "little"))
        if kind in ("load_exclusive", "store_exclusive"):
            return kind == "load_exclusive"
    return False

"""Which registers and stack slots matter from an instruction on, and of which of them the number matters.

A register matters while it may be read before it is written. Its *number* matters while it may flow into an address, a size or a condition: only
then two paths with other numbers in it must be followed apart. Found by one backward analysis of each function, over all its paths, so that it
holds for any of them. Slots are those below r10 by fixed offsets; where it cannot be told what a function does with addresses of its stack (`stackuse`), all slots count as read.
"""

from __future__ import annotations

from ..flow import callee, split_blocks
from ..helpers import HELPERS
from ..isa import ACCESS_BYTES, CALL, EXIT, FRAME_POINTER, Insn
from .stackuse import ALL_SLOTS, StackUse, slots_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Masks = tuple[int, int, int, int]  # registers, registers by number, slots, slots by number

_ARGS, _CLOBBERED = 0b111110, 0b111111


def analyse_all(
    bodies: dict[int, list[tuple[int, Insn]]],
    uses: Mapping[int, StackUse | None],
    decided: frozenset[int] | None = None,
) -> dict[int, Masks]:
    """Return for each pc of a program, whose functions do not call themselves, what matters before its instruction.

    `uses` tell how each function uses its stack (None: nobody knows). `decided` are the conditional jumps that may be found to go one way only (None: all). At the others both ways are followed, whatever the
    numbers are.
    """
    shared = any(use is None for use in uses.values())
    results = {0: (1, 1)}  # of a function's result: whether it matters, and by its number
    masks: dict[int, Masks] = {}
    for entry in _callers_first(bodies):
        masks |= _analyse(bodies[entry], uses[entry], shared and entry != 0, results.get(entry, (0, 0)), decided)
        for pc, insn in bodies[entry]:
            target = callee(pc, insn)
            if target is not None:
                wanted = masks.get(pc + 1, (0, 0, 0, 0)) if insn.opcode == CALL else (1, 1, 0, 0)
                before = results.get(target, (0, 0))
                results[target] = (before[0] | wanted[0] & 1, before[1] | wanted[1] & 1)
    return masks


def _callers_first(bodies: dict[int, list[tuple[int, Insn]]]) -> list[int]:
    """The functions, each behind all that call it."""
    order: list[int] = []

    def visit(entry: int) -> None:
        for pc, insn in bodies[entry]:
            target = callee(pc, insn)
            if target is not None and target not in order:
                visit(target)
        if entry not in order:
            order.append(entry)

    for entry in sorted(bodies):
        visit(entry)
    return order[::-1]


def _analyse(
    body: list[tuple[int, Insn]],
    use: StackUse | None,
    outer: bool,
    result: tuple[int, int],
    decided: frozenset[int] | None,
) -> dict[int, Masks]:
    """The same for one function. `outer`: it may be given addresses of its callers' stacks."""
    blocks = split_blocks(body)
    start: dict[int, Masks] = dict.fromkeys(blocks, (0, 0, 0, 0))
    before: dict[int, Masks] = {}
    order = sorted(blocks, reverse=True)
    changed = True
    while changed:
        changed = False
        for pc in order:
            block = blocks[pc]
            masks = (0, 0, 0, 0)
            for following in (block.target, block.next):
                if following in start:
                    masks = _join(masks, start[following])
            insns = block.insns + ([block.end] if block.end else [])
            for at, insn in reversed(insns):
                after, masks = masks, (*result, 0, 0) if insn.opcode == EXIT else _step(at, insn, masks, use, outer)
                if decided is not None and at not in decided and _is_comparison(insn):
                    masks = masks[0], after[1], masks[2], masks[3]
                before[at] = masks
            if masks != start[pc]:
                start[pc] = masks
                changed = True
    return before


def _join(a: Masks, b: Masks) -> Masks:
    return a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]


def _step(pc: int, insn: Insn, after: Masks, use: StackUse | None, outer: bool) -> Masks:
    """What matters before an instruction, given what does after it."""
    regs, precise, slots, exact = after
    class_ = insn.opcode & 7
    dst, src = 1 << insn.dst, 1 << insn.src
    if class_ in (4, 7):
        return _arithmetic(insn, after)
    if class_ == 1:
        return _load(pc, insn, after, use)
    if class_ in (2, 3):
        return _store(pc, insn, after, use, outer)
    if class_ == 0:
        if insn.opcode == 0x18:
            return regs & ~dst, precise & ~dst, slots, exact
        return regs & ~_CLOBBERED | 1 << 6 | src, precise & ~_CLOBBERED | src | 1 << 6, slots, exact
    if insn.opcode & ~8 == CALL:
        args = _arguments(insn) | (dst if insn.opcode != CALL else 0)
        runs_code = insn.src == 1 or _calls_back(insn)  # which may look at numbers on the stack; helpers only copy them
        return (
            regs & ~_CLOBBERED | args,
            precise & ~_CLOBBERED | args & ~_any_numbers(insn),
            ALL_SLOTS if use is None else slots | use.reads.get(pc, 0),
            ALL_SLOTS if use is None and runs_code else exact,
        )
    if insn.opcode in (0x05, 0x06, 0xE5):
        return after
    both = dst | (src if insn.opcode & 8 else 0)
    return regs | both, precise | both, slots, exact


def _any_numbers(insn: Insn) -> int:
    """The registers of a call of a helper that may hold any number."""
    helper = HELPERS.get(insn.imm) if insn.src == 0 and insn.opcode == CALL else None
    if helper is None or "func" in helper.args:
        return 0
    return sum(2 << index for index, kind in enumerate(helper.args) if kind == "scalar")


def _is_comparison(insn: Insn) -> bool:
    """Whether it is a conditional jump on a constant. Where two registers are compared, one limits the other, so that both always matter."""
    return insn.opcode & 7 in (5, 6) and not insn.opcode & 8 and insn.opcode not in (CALL, EXIT, 0x05, 0x06, 0xE5)


def _calls_back(insn: Insn) -> bool:
    helper = HELPERS.get(insn.imm) if insn.src == 0 else None
    return helper is not None and "func" in helper.args


def _arguments(insn: Insn) -> int:
    """The registers that a call hands over."""
    helper = HELPERS.get(insn.imm) if insn.src == 0 and insn.opcode == CALL else None
    if helper is None or helper.variadic:
        return _ARGS
    return (1 << len(helper.args) + 1) - 2


def _arithmetic(insn: Insn, after: Masks) -> Masks:
    regs, precise, slots, exact = after
    dst, src = 1 << insn.dst, 1 << insn.src
    uses = src if insn.opcode & 8 and insn.opcode & 0xF0 != 0xD0 else 0
    is_mov = insn.opcode & 0xF0 == 0xB0
    wanted, wanted_exact = bool(regs & dst), bool(precise & dst)
    if is_mov:
        regs, precise = regs & ~dst, precise & ~dst
        return regs | (uses if wanted else 0), precise | (uses if wanted_exact else 0), slots, exact
    # Even an unwanted result must be computed from what may be read.
    return regs | dst | uses, precise | (dst | uses if wanted_exact else 0), slots, exact


def _touched(pc: int, insn: Insn, register: int, use: StackUse | None) -> tuple[int, bool]:
    """The slots that a load or store by the address in a register may be of, and whether it can be of no other bytes."""
    if use is not None:
        return use.reads.get(pc, 0), pc in use.certain
    if register == FRAME_POINTER:
        return slots_of(insn.off, ACCESS_BYTES[insn.opcode & 0x18]), True
    return ALL_SLOTS, False


def _load(pc: int, insn: Insn, after: Masks, use: StackUse | None) -> Masks:
    regs, precise, slots, exact = after
    dst, src = 1 << insn.dst, 1 << insn.src
    wanted_exact = bool(precise & dst)
    regs, precise = regs & ~dst | src, precise & ~dst | src
    touched, _ = _touched(pc, insn, insn.src, use)
    return regs, precise, slots | touched, exact | (touched if wanted_exact else 0)


def _store(pc: int, insn: Insn, after: Masks, use: StackUse | None, outer: bool) -> Masks:
    regs, precise, slots, exact = after
    dst, src = 1 << insn.dst, 1 << insn.src
    atomic = insn.opcode & 0xE7 == 0xC3
    if atomic and insn.imm == 0x100:  # load-acquire
        return _load(pc, insn, after, use)
    regs, precise = regs | dst, precise | dst
    if insn.opcode & 7 == 3:
        regs |= src
    touched, is_certain = _touched(pc, insn, insn.dst, use)
    if atomic:
        return regs | 1, precise | src | 1, slots | touched, exact | touched
    if exact & touched or (outer and not is_certain):  # what a caller does with its stack is not seen here
        precise |= src if insn.opcode & 7 == 3 else 0
    is_whole = insn.opcode & 0x18 == 0x18 and touched & (touched - 1) == 0  # eight bytes of one slot
    if use is not None and is_certain and is_whole:
        slots, exact = slots & ~touched, exact & ~touched
    return regs, precise, slots, exact

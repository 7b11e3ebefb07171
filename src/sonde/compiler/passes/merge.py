"""Stores of constants side by side become fewer, wider ones.

Runs last: a cleared record of several fields is one idea before, and machine words after. Between the stores of a run nothing
reads memory, so the order in which they happen does not matter.
"""

from __future__ import annotations

from ..ir import INT_OF_BYTES, MAP, MEM, NONE, Const, Inst, bytes_of
from .memory import place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ir import Block, Function, Value
    from .memory import Root

_LONGEST = 64  # bytes of a memset that is taken apart
_QUIET = frozenset(["load", "memcpy", "call", "callsub", "kfunc", "atomic", "tailcall", "percpu_value"])  # end a run


def merge_stores(function: Function) -> None:
    """Rewrite `function` in place."""
    for block in function.blocks:
        if sum(inst.op in ("store", "memset") for inst in block.insts) > 1:
            _merge(block)


class _Run:
    """Constant stores to one root, not yet emitted."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.insts: list[Inst] = []
        self.bytes: dict[int, int] = {}


def _merge(block: Block) -> None:
    kept: list[Inst] = []
    run: _Run | None = None
    for inst in block.insts:
        op = inst.op
        if op in _QUIET:
            _flush(run, kept)
            run = None
        elif op in ("store", "memset"):
            root, at = place_of(inst.args[0])
            if run is not None and (root != run.root if isinstance(root, tuple) else root is not run.root):
                _flush(run, kept)
                run = None
            if at is not None and _is_constant(inst) and _may_be_wide(root):
                run = run or _Run(root)
                run.insts.append(inst)
                data = _data(inst)
                run.bytes.update((at + inst.offset + i, byte) for i, byte in enumerate(data))
                continue
            if run is not None and (at is None or not _apart(inst, at, run)):
                _flush(run, kept)
                run = None
        kept.append(inst)
    _flush(run, kept)
    block.insts = kept


def _is_constant(inst: Inst) -> bool:
    if inst.op == "memset":
        return inst.size <= _LONGEST
    return isinstance(inst.args[1], Const) and not inst.volatile


def _may_be_wide(root: Root) -> bool:
    """Tell whether it is known how a root is aligned: 8 bytes, or what a slot says."""
    return isinstance(root, tuple) or root.type in (MAP, MEM) or (isinstance(root, Inst) and root.op == "alloca")


def _apart(inst: Inst, at: int, run: _Run) -> bool:
    size = inst.size if inst.op == "memset" else bytes_of(inst.args[1].type)
    start = at + inst.offset
    return not any(i in run.bytes for i in range(start, start + size))


def _data(inst: Inst) -> bytes:
    if inst.op == "memset":
        return bytes([inst.imm & 255]) * inst.size
    value = inst.args[1]
    assert isinstance(value, Const)
    size = bytes_of(value.type)
    mask = 1 if value.type == "i1" else (1 << 8 * size) - 1
    return (value.imm & mask).to_bytes(size, "little")


def _flush(run: _Run | None, kept: list[Inst]) -> None:
    """Emit a run: as it was when it has one store, else anew."""
    if run is None:
        return
    if len(run.insts) == 1:
        kept.append(run.insts[0])
        return
    first = run.insts[0]
    base, back = _base(first)
    left = dict(run.bytes)
    limit = min(_align_of(run.root), 8)
    while left:
        at = min(left)
        size, number = _widest(left, at, limit)
        value: Value = Const(number, INT_OF_BYTES[size])
        kept.append(Inst("store", NONE, [base, value], offset=at - back, span=first.span))
        for i in range(at, at + size):
            del left[i]


def _align_of(root: Root) -> int:
    """Return the alignment of a root in bytes."""
    return root.align or 1 if isinstance(root, Inst) and root.op == "alloca" else 8


def _base(inst: Inst) -> tuple[Value, int]:
    """Return a pointer to store through, and how far it is from the root."""
    _, at = place_of(inst.args[0])
    assert at is not None
    return inst.args[0], at


def _widest(left: dict[int, int], at: int, limit: int) -> tuple[int, int]:
    """Return size and number of the widest single store at an offset that one instruction can do."""
    for size in (8, 4, 2):
        if size > limit or at % size or any(at + i not in left for i in range(size)):
            continue
        number = int.from_bytes(bytes(left[at + i] for i in range(size)), "little")
        signed = number - (1 << 64) if number >> 63 else number
        if size < 8 or -0x80000000 <= signed <= 0x7FFFFFFF:
            return size, number
    return 1, left[at]

"""Memory to values: pieces of slots that are only loaded and stored whole become SSA values with block parameters.

After Braun et al., "Simple and Efficient Construction of Static Single Assignment Form" (2013), with all blocks known.
A load of a piece that was never stored reads 0.
"""

from __future__ import annotations

from ..ir import I1, INT_OF_BYTES, NONE, Const, Inst, Param, bytes_of, is_pointer
from .graph import predecessors, substitute
from .memory import place_of
from .pieces import find_pieces, is_word_copy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ir import Block, Function, Value
    from .memory import Root
    from .pieces import Piece


def promote(function: Function) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    pieces = find_pieces(function)
    if not pieces:
        return False
    state = _Promotion(function, pieces)
    for block in function.blocks:
        state.rewrite(block)
    state.add_arguments()
    substitute(function, state.changes)
    return True


class _Promotion:
    def __init__(self, function: Function, pieces: dict[Root, list[Piece]]) -> None:
        self.pieces = pieces
        self.before = predecessors(function.blocks)
        self.at_end: dict[tuple[Piece, Block], Value] = {}
        self.at_start: dict[tuple[Piece, Block], Value] = {}
        self.changes: dict[Value, Value] = {}
        self.made: list[tuple[Piece, Block, Param]] = []
        self.kept: list[Inst] = []

    def rewrite(self, block: Block) -> None:
        """Take the accesses to the pieces out of a block."""
        kept = self.kept = []
        for inst in block.insts:
            op = inst.op
            if op in ("load", "store", "memset", "memcpy") and _REWRITE[op](self, inst, block):
                continue
            kept.append(inst)
        block.insts = kept

    def piece(self, p: Value, offset: int, size: int) -> Piece | None:
        """Return the piece that an access touches."""
        root, at = place_of(p)
        if at is not None:
            for piece in self.pieces.get(root, ()):
                if piece.offset == at + offset and piece.size == size:
                    return piece
        return None

    def load(self, inst: Inst, block: Block) -> bool:
        piece = self.piece(inst.args[0], inst.offset, bytes_of(inst.type))
        if piece is None or inst.volatile:
            return False
        self.changes[inst] = self.converted(self.read(piece, block), inst.type, inst)
        return True

    def store(self, inst: Inst, block: Block) -> bool:
        piece = self.piece(inst.args[0], inst.offset, bytes_of(inst.args[1].type))
        if piece is None or inst.volatile:
            return False
        self.at_end[piece, block] = self.converted(inst.args[1], piece.type, inst)
        return True

    def clear(self, inst: Inst, block: Block) -> bool:
        root, at = place_of(inst.args[0])
        pieces = self.pieces.get(root)
        if not pieces or at is None:
            return False
        start, left = at + inst.offset, inst.size
        for piece in pieces:
            if start <= piece.offset and piece.offset + piece.size <= start + inst.size:
                number = int.from_bytes(bytes([inst.imm & 255]) * piece.size, "little")
                self.at_end[piece, block] = Const(number & 1 if piece.type == I1 else number, piece.type)
                left -= piece.size
        return not left

    def copy(self, inst: Inst, block: Block) -> bool:
        if not is_word_copy(inst):
            return False
        to = self.piece(inst.args[0], inst.offset, inst.size)
        source = self.piece(inst.args[1], inst.src_offset, inst.size)
        if to is None and source is None:
            return False
        if source is not None:
            value = self.read(source, block)
        else:
            value = Inst(
                "load", INT_OF_BYTES[inst.size], [inst.args[1]], offset=inst.src_offset, span=inst.span, name="word"
            )
            self.kept.append(value)
        if to is not None:
            self.at_end[to, block] = self.converted(value, to.type, inst)
        else:
            value = self.converted(value, INT_OF_BYTES[inst.size], inst)
            self.kept.append(Inst("store", NONE, [inst.args[0], value], offset=inst.offset, span=inst.span))
        return True

    def converted(self, value: Value, type_: str, inst: Inst) -> Value:
        """Return `value` as another type of the same size."""
        if value.type == type_:
            return value
        if isinstance(value, Const):
            return Const(value.imm & 1 if I1 in (type_, value.type) else value.imm, type_)
        op = "cast" if is_pointer(value.type) or is_pointer(type_) else ("zext" if value.type == I1 else "trunc")
        made = Inst(op, type_, [value], span=inst.span, name=op)
        self.kept.append(made)
        return made

    def read(self, piece: Piece, block: Block) -> Value:
        """Return the value of a piece at the current point of `block` (its end, once the block was rewritten)."""
        value = self.at_end.get((piece, block))
        if value is None:
            value = self.at_end[piece, block] = self.read_start(piece, block)
        return value

    def read_start(self, piece: Piece, block: Block) -> Value:
        """Return the value of a piece at the start of a block: a parameter where several ways lead in."""
        chain = []
        while True:
            known = self.at_start.get((piece, block))
            if known is not None:
                value: Value = known
                break
            before = self.before[block]
            if not before:
                value = Const(0, piece.type)
                break
            if len(before) > 1:
                param = Param(piece.type, f"{piece.name}.{block.name}")
                self.at_start[piece, block] = value = param
                self.made.append((piece, block, param))
                break
            chain.append(block)
            block = before[0]
            known = self.at_end.get((piece, block))
            if known is not None:
                value = known
                break
        for passed in chain:
            self.at_start[piece, passed] = value
        return value

    def add_arguments(self) -> None:
        """Give each new parameter its arguments; reading them may make more parameters."""
        done = 0
        while done < len(self.made):
            piece, block, param = self.made[done]
            done += 1
            block.params.append(param)
            for p in dict.fromkeys(self.before[block]):
                assert p.end is not None
                value = self.at_end.get((piece, p)) or self.read_start(piece, p)
                for target, arguments in p.end.targets:
                    if target is block:
                        arguments.append(value)


_REWRITE = {
    "load": _Promotion.load,
    "store": _Promotion.store,
    "memset": _Promotion.clear,
    "memcpy": _Promotion.copy,
}

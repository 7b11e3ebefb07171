"""Global pointers to texts: `static const char *const names[] = { "a", "b" };`.

The memory of maps has no address before it is made, and then none that its own content could hold. So such a pointer is kept as the place of its
text within one map of texts (the place plus 1; NULL is 0), and becomes an address where it is loaded. Whatever holds one lies in the address space
"texts" ("texts?" where NULL may be among them), which is read like a map's value and cannot be written.
"""

from __future__ import annotations

from ...compiler.ir import I64, MAP, Const, Inst
from ...debuginfo.ctype import Array, Pointer, Struct, strip
from . import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from .analysis import Initialiser, Variable
    from .lower_memory import MemoryAccess
    from .values import Place

TEXTS = ".rodata.texts"
ROOM_BYTES = 256  # behind the last text: indices that a program has bounded by less reach nothing else


def text_of(part: Initialiser) -> bytes | None:
    """Return the text that an initialiser of a pointer is, without its NUL; None for others."""
    value = part.value
    while isinstance(value, ast.Cast):
        value = value.operand
    return value.value if isinstance(value, ast.String) and isinstance(strip(part.ctype), Pointer) else None


def space_of(variable: Variable) -> str:
    """Return the space of a global variable: "texts" if it begins with pointers to texts, "texts?" if NULL is among them, else "map"."""
    places = {part.offset for part in variable.init or () if text_of(part) is not None}
    if not places:
        return "map"
    pointers = sum(isinstance(part, Pointer) for part in _scalars(variable.ctype))
    return "texts" if len(places) == pointers else "texts?"


def check_copy(memory: MemoryAccess, place: Place) -> None:
    """Refuse to copy as a whole what holds pointers to texts: the copy would hold their places. Raises CompileError."""
    if any(isinstance(part, Pointer) for part in _scalars(place.ctype)):
        from .lower_frame import failure

        assert memory.b.span is not None
        message = "a copy of a struct with pointers to texts, which are addresses only where they are loaded"
        raise failure(memory.b.span, message, "take a pointer to the struct: const struct … *p = &table[i];")


def _scalars(ctype: CType) -> Iterator[CType]:
    inner = strip(ctype)
    if isinstance(inner, Array):
        for _ in range(inner.count):
            yield from _scalars(inner.element)
    elif isinstance(inner, Struct):
        for member in inner.members:
            yield from _scalars(member.ctype)
    else:
        yield inner


def load_text(memory: MemoryAccess, place: Place) -> tuple[Value, Value]:
    """Load a pointer from a variable that holds texts: the address of its text, or NULL; and what it is where it cannot be NULL."""
    b, data = memory.b, memory.program.globals.data
    memory.program.module.add_map(data.map(TEXTS))
    if isinstance(place.pointer, Inst) and place.pointer.op == "map_value":
        known = data.word(place.pointer.symbol, place.offset)
        text: Value = b.map_value(TEXTS, known - 1) if known else Const(0, MAP)
        return text, text
    number = b.load(I64, place.pointer, place.offset)
    last = data.size_of(TEXTS) - ROOM_BYTES - 1
    text = b.ptradd(b.map_value(TEXTS), b.bound(b.binary("sub", number, 1), last))
    if place.space == "texts":
        return text, text
    some, done = b.new_block("text"), b.new_block("loaded", [MAP])
    b.branch(b.binary("ne", number, 0), some, done, [], [Const(0, MAP)])
    b.at(some)
    b.jump(done, text)
    b.at(done)
    return done.params[0], text

"""Searching a string in another one: a loop over the places, in it the bytes of what is sought."""

from __future__ import annotations

from ...compiler.ir import I8, I64, Const
from ...debuginfo.ctype import sizeof
from ...errors import FeatureError
from .lower_strings import string_address
from .lower_values import Memory
from .stype import Str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Block, Value
    from .ast import Node
    from .lower_frame import Frame

ABSENT = -2
_MOST_STEPS = 60_000  # of the two nested loops: each step costs the verifier some ten instructions, of a million


def find(f: Frame, haystack: Node, needle: Node) -> Value:
    """Where the second string begins in the first one; -2 when it does not occur."""
    constant = f.constants.get(needle)
    hay = _own_string(f, haystack)
    if isinstance(constant, str):
        return _find_text(f, hay, constant.encode("utf-8", "surrogateescape"))
    return _find_string(f, hay, _own_string(f, needle))


def _own_string(f: Frame, node: Node) -> Memory:
    """A string in own memory, zeros behind its end."""
    from .lower_expr import in_memory

    if isinstance(f.ctype(node), Str):
        memory = in_memory(f, node)
        if isinstance(memory.ctype, Str):
            return memory
    address, space, size = string_address(f, node)
    limit = min(size or f.unit.config.max_strlen, f.unit.config.max_strlen)
    place = Memory(f.b.alloca(limit, 8, "text"), 0, Str(limit))
    f.clear(place.pointer, limit)
    f.read_string(place.pointer, limit, address, space)
    return place


def _find_text(f: Frame, hay: Memory, text: bytes) -> Value:
    """The bytes sought are constants: one comparison each."""
    places = sizeof(hay.ctype) - len(text)
    if not text:
        return Const(0)
    if places < 0:
        return Const(ABSENT)

    def compare(at: Value, differs: Block, found: Block) -> None:
        b = f.b
        for index, byte in enumerate(text):
            here = b.load(I8, b.ptradd(hay.pointer, at), hay.offset + index)
            if index == len(text) - 1:
                b.branch(b.binary("eq", here, byte), found, differs)
            else:
                next_ = b.new_block("same")
                b.branch(b.binary("eq", here, byte), next_, differs)
                b.at(next_)

    return _loop(f, hay, places + 1, compare)


def _find_string(f: Frame, hay: Memory, needle: Memory) -> Value:
    """The bytes sought are in memory, up to a NUL."""
    size, limit = sizeof(hay.ctype), sizeof(needle.ctype)
    if size * limit > _MOST_STEPS:
        raise FeatureError(
            f"searching a string of up to {limit} bytes in one of up to {size} is too much for one program",
            hint="make them shorter by the second argument of str(), or by max_strlen in the config block",
        )

    def compare(at: Value, differs: Block, found: Block) -> None:
        b = f.b
        loop, more, same = b.new_block("bytes", [I64]), b.new_block("more"), b.new_block("same")
        inside, next_ = b.new_block("inside"), b.new_block("next")
        b.jump(loop, Const(0))
        b.at(loop)
        index = loop.params[0]
        wanted = b.load(I8, b.ptradd(needle.pointer, index), needle.offset)
        b.branch(b.binary("ne", wanted, 0), more, found)
        b.at(more)
        where = b.binary("add", at, index)
        b.branch(b.binary("ult", where, size), inside, differs)
        b.at(inside)
        here = b.load(I8, b.ptradd(hay.pointer, where), hay.offset)
        b.branch(b.binary("eq", here, wanted), same, differs)
        b.at(same)
        b.jump(next_)
        b.at(next_)
        following = b.binary("add", index, 1)
        b.branch(b.binary("ult", following, limit), loop, found, [following])

    return _loop(f, hay, size, compare)


def _loop(f: Frame, hay: Memory, places: int, compare: object) -> Value:
    """Try the places in turn until the string that is searched ends."""
    b = f.b
    loop, there, differs = b.new_block("places", [I64]), b.new_block("there"), b.new_block("differs")
    found, done = b.new_block("found"), b.new_block("place", [I64])
    b.jump(loop, Const(0))
    b.at(loop)
    at = loop.params[0]
    compare(at, differs, found)  # type: ignore[operator]
    b.at(differs)
    here = b.load(I8, b.ptradd(hay.pointer, at), hay.offset)
    b.branch(b.binary("ne", here, 0), there, done, [], [Const(ABSENT)])
    b.at(there)
    following = b.binary("add", at, 1)
    b.branch(b.binary("ult", following, places), loop, done, [following], [Const(ABSENT)])
    b.at(found)
    b.jump(done, at)
    b.at(done)
    return done.params[0]

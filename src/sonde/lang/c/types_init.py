"""Initialisers to flat lists: designators, nested braces and braces left out, strings, unions, ranges. C11 6.7.9."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from ...debuginfo.ctype import Array, CType, Int, Member, Struct, sizeof, strip
from ...probes.close import close_names
from . import ast
from .analysis import Initialiser
from .arithmetic import compatible, decayed, is_scalar, shown, unqualified
from .checker import Silent
from .constants import constant_value
from .conversions import convert, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .checker import Checker

MAX_ENTRIES = 65536


def initialise(
    ck: Checker, node: ast.Init, ctype: CType, *, static: bool, flexible: bool = False
) -> tuple[CType, tuple[Initialiser, ...]]:
    """Check the initialiser of an object; return its type, which an array without a size gets from it, and the entries.

    `static`: the object lives as long as the program, so that every value must be constant. `flexible`: the array without a size at
    the end of a struct may have elements. Raises CompileError.
    """
    if isinstance(node, ast.InitList):
        return initialise_list(ck, node, ctype, static=static, flexible=flexible)
    builder = _Builder(ck, static)
    inner = strip(ctype)
    if isinstance(inner, Array):
        if not isinstance(node, ast.String) or not _is_text(inner):
            raise ck.fail(node, f"an array needs a list in braces{' or a string' if _is_text(inner) else ''}")
        ctype = _complete(ctype, len(node.value) + 1)
        builder.put_string(node, ctype, 0)
    else:
        builder.put_value(node, ctype, 0)
    return ctype, builder.finish()


def initialise_list(
    ck: Checker, node: ast.InitList, ctype: CType, *, static: bool, flexible: bool = False
) -> tuple[CType, tuple[Initialiser, ...]]:
    """The same for a list in braces."""
    builder = _Builder(ck, static)
    builder.size = 0 if flexible else sizeof(ctype)
    used = builder.fill(node, ctype, 0)
    inner = strip(ctype)
    if isinstance(inner, Array) and not inner.count:
        ctype = _complete(ctype, used)
    return ctype, builder.finish()


def _complete(ctype: CType, count: int) -> CType:
    """Give an array without a size as many elements."""
    inner = strip(ctype)
    if isinstance(inner, Array) and not inner.count:
        return Array(inner.element, count)
    return ctype


def _is_text(array: Array) -> bool:
    element = strip(array.element)
    return isinstance(element, Int) and element.size == 1 and element.encoding != "bool"


class _Slot:
    """A place to initialise: a subobject and where it is. `width_bits` is that of a bit-field."""

    __slots__ = ("bit_offset", "ctype", "offset", "width_bits")

    def __init__(self, ctype: CType, offset: int, bit_offset: int = 0, width_bits: int = 0) -> None:
        self.ctype = ctype
        self.offset = offset
        self.bit_offset = bit_offset
        self.width_bits = width_bits


def slot_of(member: Member, base: int) -> _Slot:
    """Return the place of a member of a struct at `base` (bytes). A bit-field counts from the unit of its type that it starts in."""
    if not member.width_bits:
        return _Slot(member.ctype, base + member.offset)
    unit = sizeof(member.ctype)
    start = member.offset_bits // (8 * unit) * unit
    if member.offset_bits + member.width_bits > 8 * (start + unit):
        start = member.offset_bits >> 3  # packed: it crosses the boundary of a unit
    return _Slot(member.ctype, base + start, member.offset_bits - 8 * start, member.width_bits)


class _Cursor:
    """Walks over the parts of one aggregate in order; `index` is the next one."""

    def __init__(self, ctype: CType, base: int) -> None:
        self.ctype = ctype
        self.inner = strip(ctype)
        self.base = base
        self.index = 0
        self.used = 0
        self.members: tuple[Member, ...] = ()
        if isinstance(self.inner, Struct):
            members = [m for m in self.inner.members if m.name or not m.width_bits]
            self.members = tuple(members[:1] if self.inner.kind == "union" else members)

    def next(self) -> _Slot | None:
        """Return the next part, or None behind the last one."""
        at = self.index
        slot: _Slot | None = None
        if isinstance(self.inner, Array):
            if at < self.inner.count or not self.inner.count:
                slot = _Slot(self.inner.element, self.base + at * sizeof(self.inner.element))
        elif at < len(self.members):
            slot = slot_of(self.members[at], self.base)
        self.index = at + 1
        self.used = max(self.used, self.index)
        return slot

    def go_behind(self, member: Member) -> None:
        """Move behind a member of a struct, to the end of a union."""
        self.index = len(self.members)
        if member in self.members and isinstance(self.inner, Struct) and self.inner.kind == "struct":
            self.index = self.members.index(member) + 1


class _Builder:
    """Collects the entries of one object."""

    def __init__(self, ck: Checker, static: bool) -> None:
        self.ck = ck
        self.static = static
        self.entries: list[Initialiser] = []
        self.size = 0  # of the whole object in bytes, where that is given
        self.end_bits = 0  # behind the last entry
        self.overlaps = False  # a designator went back: entries may have to give way
        self.chosen: dict[
            int, Member
        ] = {}  # which member of the union at an offset was initialised last, if not the first

    def finish(self) -> tuple[Initialiser, ...]:
        """Return the entries, without those that a later one covers wholly."""
        if not self.overlaps:
            return tuple(self.entries)
        kept: list[Initialiser] = []
        covered = _Covered()
        for entry in reversed(self.entries):
            if covered.add(*_bits(entry)):
                kept.append(entry)
        return tuple(reversed(kept))

    def _add(self, entry: Initialiser) -> None:
        self.entries.append(entry)
        self.end_bits = max(self.end_bits, _bits(entry)[1])
        if self.size and self.end_bits > 8 * self.size:
            raise self.ck.fail(entry.value, "an array without a size at the end of a struct cannot be initialised")
        if len(self.entries) > MAX_ENTRIES:
            raise self.ck.fail(entry.value, f"an initialiser of more than {MAX_ENTRIES} values")

    # values ---------------------------------------------------------------------------------------------------

    def put_value(self, node: ast.Expr, ctype: CType, offset: int, bit_offset: int = 0, width: int = 0) -> None:
        """Put an expression at a place; of a type that is no array."""
        known = self.ck.types.get(node)  # of an item that was looked at as a struct before
        found = value(self.ck, node) if known is None else decayed(known)
        self.put_typed(node, found, ctype, offset, bit_offset, width)

    def put_typed(
        self, node: ast.Expr, found: CType, ctype: CType, offset: int, bit_offset: int = 0, width: int = 0
    ) -> None:
        """The same for an expression whose type is known already."""
        target = unqualified(ctype)
        convert(self.ck, node, found, target, "initializing")
        if self.static and not is_static(self.ck, node):
            raise self.ck.fail(node, "the initialiser of a variable that is not local must be constant")
        self._add(Initialiser(offset, target, node, bit_offset, width))

    def put_string(self, node: ast.String, ctype: CType, offset: int) -> None:
        """Put a string into an array of characters."""
        self.ck.expr(node)
        array = strip(ctype)
        assert isinstance(array, Array)
        if len(node.value) > array.count:
            self.ck.warn(node, f"a string of {len(node.value)} characters is too long for {shown(ctype)}")
        self._add(Initialiser(offset, unqualified(ctype), node))

    # lists ----------------------------------------------------------------------------------------------------

    def fill(self, node: ast.InitList, ctype: CType, base: int) -> int:
        """Initialise an object from a list in braces; return how many elements of an array it takes."""
        inner = strip(ctype)
        items = node.items
        if not isinstance(inner, (Array, Struct)):
            return self._fill_scalar(node, _Slot(ctype, base))
        first = items[0].init if items else None
        if isinstance(inner, Array) and len(items) == 1 and isinstance(first, ast.String) and _is_text(inner):
            count = inner.count or len(first.value) + 1
            self.put_string(first, _complete(ctype, count), base)
            return count
        whole = _Cursor(ctype, base)
        inside = [whole]  # the aggregates that designators led into, innermost last
        source = _Items(items)
        while not source.done:
            item = source.item
            if item.designators:
                inside = self._designated(whole, source)
                continue
            slot = _next_of(inside)
            if slot is None:
                if not isinstance(item.init, ast.InitList):
                    self.ck.expr(item.init)
                self.ck.warn(item, f"excess element in the initialiser of {shown(ctype)}")
                source.advance()
                continue
            self._take(source, slot)
        return whole.used

    def _fill_scalar(self, node: ast.InitList, slot: _Slot) -> int:
        """`int x = { 5 };` and `= {}`."""
        ctype = slot.ctype
        if not is_scalar(ctype):
            raise self.ck.fail(node, f"{shown(ctype)} cannot be initialised")
        if node.items:
            if node.items[0].designators:
                raise self.ck.fail(node.items[0], f"a designator in the initialiser of {shown(ctype)}")
            if len(node.items) > 1:
                self.ck.warn(node.items[1], f"excess elements in the initialiser of {shown(ctype)}")
            self._put(node.items[0].init, slot)
        return 1

    def _put(self, init: ast.Init, slot: _Slot) -> None:
        """Initialise a place that is named, or that a whole item is meant for."""
        inner = strip(slot.ctype)
        if isinstance(init, ast.InitList):
            if isinstance(inner, (Array, Struct)):
                if self.overlaps:
                    self._drop(slot)
                self.fill(init, slot.ctype, slot.offset)
            else:
                self._fill_scalar(init, slot)
            return
        if isinstance(inner, Array) and isinstance(init, ast.String) and _is_text(inner):
            self.put_string(init, slot.ctype, slot.offset)
        elif isinstance(inner, (Array, Struct)):
            self._take(_Items((ast.InitItem(init.span, (), init),)), slot)
        else:
            self.put_value(init, slot.ctype, slot.offset, slot.bit_offset, slot.width_bits)

    def _take(self, source: _Items, slot: _Slot) -> None:
        """Initialise a place from the next items; an aggregate without braces takes as many as it has parts."""
        init = source.item.init
        inner = strip(slot.ctype)
        if isinstance(init, ast.InitList) or not isinstance(inner, (Array, Struct)):
            self._put(init, slot)
            source.advance()
            return
        if isinstance(init, ast.String) and isinstance(inner, Array) and _is_text(inner):
            self._put(init, slot)
            source.advance()
            return
        if isinstance(inner, Struct):
            found = source.type_of(self.ck)
            if compatible(found, inner):
                self.put_typed(init, decayed(found), slot.ctype, slot.offset)
                source.advance()
                return
        cursor = _Cursor(slot.ctype, slot.offset)
        first = source.at  # this item may have designators: they led here
        while not source.done and (source.at == first or not source.item.designators):
            part = cursor.next()
            if part is None:
                return
            self._take(source, part)

    # designators ----------------------------------------------------------------------------------------------

    def _designated(self, whole: _Cursor, source: _Items) -> list[_Cursor]:
        """Initialise what designators name; return the aggregates around it, each positioned behind it."""
        self.overlaps = True
        inside = [whole]
        slots = [_Slot(whole.ctype, whole.base)]
        for designator in source.item.designators:
            if inside[-1].base != slots[-1].offset or inside[-1].ctype is not slots[-1].ctype:
                inside.append(_Cursor(slots[-1].ctype, slots[-1].offset))
            if isinstance(designator, ast.MemberDesignator):
                slots = self._step_member(designator, slots, inside)
            else:
                slots = self._step_index(designator, slots, inside[-1])
        for slot in slots[:-1]:
            self._put(source.item.init, slot)
        self._take(source, slots[-1])
        return inside

    def _step_member(self, node: ast.MemberDesignator, slots: list[_Slot], inside: list[_Cursor]) -> list[_Slot]:
        """Go on to a member, through anonymous ones."""
        ctype = slots[0].ctype
        inner = strip(ctype)
        field = inner.get_member(node.name) if isinstance(inner, Struct) else None
        if field is None:
            if getattr(inner, "broken", False):
                raise Silent
            from .types_decl import did_you_mean

            close = close_names(node.name, inner.iter_names()) if isinstance(inner, Struct) else []
            raise self.ck.fail(node, f"{shown(ctype)} has no member '{node.name}'", hint=did_you_mean(close))
        for member in field.path:
            for slot in slots:
                self._choose(member, slot)
            inside[-1].go_behind(member)
            slots = [slot_of(member, slot.offset) for slot in slots]
            if member is not field.member:
                inside.append(_Cursor(member.ctype, slots[-1].offset))
        return slots

    def _choose(self, member: Member, whole: _Slot) -> None:
        """Let another member of a union take the place of the one that was initialised before."""
        inner = strip(whole.ctype)
        if isinstance(inner, Struct) and inner.kind == "union" and inner.members:
            if self.chosen.get(whole.offset, inner.members[0]) is not member:
                self._drop(whole)
            self.chosen[whole.offset] = member

    def _drop(self, slot: _Slot) -> None:
        """Forget what a place was initialised with: it begins anew, from zero."""
        first, last = 8 * slot.offset, 8 * (slot.offset + sizeof(slot.ctype))
        if first >= self.end_bits:
            return
        self.entries = [e for e in self.entries if not (first <= _bits(e)[0] and _bits(e)[1] <= last)]
        self.chosen = {o: m for o, m in self.chosen.items() if not slot.offset <= o < slot.offset + sizeof(slot.ctype)}

    def _step_index(self, node: ast.IndexDesignator, slots: list[_Slot], cursor: _Cursor) -> list[_Slot]:
        """Go on to an element, or to each of a range."""
        inner = strip(slots[0].ctype)
        if not isinstance(inner, Array):
            raise self.ck.fail(node, f"an index into {shown(slots[0].ctype)}, which is no array")
        low = constant_value(self.ck, node.low, "an index")
        high = low if node.high is None else constant_value(self.ck, node.high, "an index")
        if not 0 <= low <= high or (inner.count and high >= inner.count) or high - low >= MAX_ENTRIES:
            raise self.ck.fail(node, f"index {high if low <= high else low} is outside of {shown(slots[0].ctype)}")
        cursor.index = high + 1
        cursor.used = max(cursor.used, cursor.index)
        size = sizeof(inner.element)
        return [_Slot(inner.element, slot.offset + i * size) for slot in slots for i in range(low, high + 1)]


def _next_of(inside: list[_Cursor]) -> _Slot | None:
    """Return the next part of the innermost aggregate that has one left."""
    while True:
        slot = inside[-1].next()
        if slot is not None or len(inside) == 1:
            return slot
        inside.pop()


class _Items:
    """The items of a list in their order, which aggregates without braces share."""

    def __init__(self, items: tuple[ast.InitItem, ...]) -> None:
        self.items = items
        self.at = 0
        self._type: CType | None = None

    @property
    def item(self) -> ast.InitItem:
        return self.items[self.at]

    @property
    def done(self) -> bool:
        return self.at >= len(self.items)

    def advance(self) -> None:
        self.at += 1
        self._type = None

    def type_of(self, ck: Checker) -> CType:
        """The type of the item's expression, checked once."""
        if self._type is None:
            init = self.item.init
            assert not isinstance(init, ast.InitList)
            self._type = ck.expr(init)
        return self._type


class _Covered:
    """The bits that some entries cover, as ranges that do not touch, in order."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, start: int, end: int) -> bool:
        """Add a range; tell whether some of its bits were not covered before."""
        first = bisect_left(self.ends, start)
        last = bisect_right(self.starts, end)
        if first < last and self.starts[first] <= start and end <= self.ends[first]:
            return False
        if first < last:
            start, end = min(start, self.starts[first]), max(end, self.ends[last - 1])
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]
        return True


def _bits(entry: Initialiser) -> tuple[int, int]:
    start = 8 * entry.offset + entry.bit_offset
    return start, start + (entry.bit_width or 8 * sizeof(entry.ctype))


def is_static(ck: Checker, node: ast.Expr) -> bool:
    """Tell whether an expression is known before the program runs: a number, an address, a string, or a literal of such."""
    from .analysis import FunctionSymbol, Table, Variable

    if node in ck.constants or isinstance(node, ast.String):
        return True
    if isinstance(node, ast.Cast):
        return is_static(ck, node.operand)
    if isinstance(node, ast.CompoundLiteral):
        return all(is_static(ck, entry.value) for entry in ck.literals[node])
    if isinstance(node, ast.Conditional):
        known = ck.constants.get(node.condition)
        return known is not None and is_static(ck, (node.yes or node.condition) if known else node.no)
    if isinstance(node, ast.Binary) and node.op in ("+", "-"):
        return is_static(ck, node.left) and is_static(ck, node.right)
    if isinstance(node, ast.Unary) and node.op == "&":
        return _is_static_place(ck, node.operand)
    symbol = ck.symbols.get(node)
    if isinstance(symbol, Variable):
        return isinstance(strip(symbol.ctype), Array) and symbol.storage not in ("auto", "param")
    return isinstance(symbol, (FunctionSymbol, Table))


def _is_static_place(ck: Checker, node: ast.Expr) -> bool:
    """Whether an object stands at an address that is known."""
    from .analysis import FunctionSymbol, Table, Variable

    while isinstance(node, (ast.Member, ast.Index)):
        if isinstance(node, ast.Member) and node.arrow:
            return is_static(ck, node.operand)
        if isinstance(node, ast.Index) and node.index not in ck.constants:
            return False
        node = node.operand
    if isinstance(node, ast.CompoundLiteral):
        return is_static(ck, node)
    symbol = ck.symbols.get(node)
    if isinstance(symbol, Variable):
        return symbol.storage not in ("auto", "param")
    return isinstance(symbol, (FunctionSymbol, Table))

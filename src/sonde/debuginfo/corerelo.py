"""CO-RE: what a program was compiled to know of a type, asked again of another kernel's types.

A program holds values that depend on how types are laid out: the offset of a member, the size of a struct, the number of an
enumerator. With each goes the question that it answers: a kind, a type, a path into it. `resolve` answers the question from the
BTF of the kernel that the program is loaded on, by libbpf's rules (src/relo_core.c):

* A type is found by name and kind; "name___anything" is a flavour of "name", on both sides. Several may be found: all that fit must
  give the same answer.
* A path is followed by names, through anonymous members, and by indices within an array's bounds (a flexible array has none).
  Each member must be of a kind that the program's own may stand for.
* Where nothing fits, questions for existence and about types answer 0. The others have no answer: the instruction must not be reached.

Three things are kinder than in libbpf: an enumerator of an enumeration without a name is found by its own; names of integers are compared in one spelling (GCC says "long unsigned int", clang
"unsigned long"), and bit-fields in the old encoding, hidden in the type of a member, are bit-fields.
"""

from __future__ import annotations

from ..errors import FormatError
from ..record import Record
from .coretypes import fields_compatible, types_compatible, types_match
from .ctype import Array, Enum, Float, Forward, Int, Pointer, Struct, Typedef, declare, essential_name, sizeof, strip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol, Union

    from .btf import Btf
    from .ctype import CType, Member

    class Access(Protocol):
        """A question about a type; `spec.object.CoreAccess` is one."""

        @property
        def kind(self) -> str: ...
        @property
        def type_name(self) -> str: ...
        @property
        def path(self) -> tuple[str | int, ...]: ...
        @property
        def value(self) -> int: ...
        @property
        def index(self) -> int: ...
        @property
        def local(self) -> CType | None: ...

    Fit = Union["Place", int]

# By libbpf's numbers (enum bpf_core_relo_kind), which .BTF.ext has.
KINDS = (
    "field_byte_offset", "field_byte_size", "field_exists", "field_signed", "field_lshift_u64", "field_rshift_u64",
    "type_id_local", "type_id_target", "type_exists", "type_size", "enumval_exists", "enumval_value", "type_matches",
)  # fmt: skip

_STEP_LIMIT = 64  # of a path
_BIT_FIELD_LIMIT_BYTES = 8
_CLOSE_NAMES = 3


class Answer(Record):
    """What the target says. `value` None: nothing there fits; see `explain`.

    `checked` says that the instruction must hold the compiler's own value; what compilers make of a bit-field is up to
    them. `local_bytes` and `target_bytes` are the sizes of the member in the program and on the target (0: it is not about
    one, or not known); `resizable` says that a load or store of the one may be made one of the other.
    """

    value: int | None
    checked: bool = True
    local_bytes: int = 0
    target_bytes: int = 0
    resizable: bool = False


class Place:
    """Where a path has led: a type, its offset from the start, and the member (of `struct`) that the last step went to."""

    __slots__ = ("ctype", "member", "offset_bits", "struct")

    def __init__(
        self, ctype: CType, offset_bits: int, struct: Struct | None = None, member: Member | None = None
    ) -> None:
        self.ctype = ctype
        self.offset_bits = offset_bits
        self.struct = struct
        self.member = member

    @property
    def width_bits(self) -> int:
        """The width of a bit-field; 0 for anything else."""
        return self.member.width_bits if self.member else 0


class Miss(Record):
    """Why a type does not fit. `names` are those that it has in place of the `wanted` one."""

    why: str
    wanted: str = ""
    names: tuple[str, ...] = ()


def resolve(access: Access, target: Btf, modules: Iterable[Btf] = ()) -> Answer:
    """Answer `access` from `target`, the kernel's types; from those of `modules` where the kernel has no type of that name.

    Raises FormatError when the types that fit contradict each other, when the access does not fit the program's own
    type, and for corrupt BTF.
    """
    if access.kind not in KINDS:
        raise FormatError(f"there is no CO-RE relocation {access.kind!r}, only {', '.join(KINDS)}")
    if access.kind == "type_id_local":
        return Answer(access.value, checked=False)
    if access.type_name == "enum" and access.kind in _ENUMERATORS:
        return _answer_by_name(access, target)
    own = _own_place(access)
    found: Answer | None = None
    bits = -1
    for btf, ident in _candidates(access, target, modules):
        fit = _match(access, btf.type_by_id(ident))
        if isinstance(fit, Miss):
            continue
        answer = _answer(access, own, fit, ident, btf)
        offset_bits = fit.offset_bits if isinstance(fit, Place) else 0
        if found is None:
            found, bits = answer, offset_bits
        elif (found.value, bits) != (answer.value, offset_bits):
            raise _ambiguous(access, found, answer)
    return found or Answer(0 if access.kind in _ANSWERED_BY_ABSENCE else None)


def iter_fits(access: Access, target: Btf) -> Iterator[CType]:
    """Yield the types of `target` that fit `access`. Raises FormatError as `resolve`."""
    if access.type_name == "enum" and access.kind in _ENUMERATORS:
        found = target.get_enumerator(str(access.path[0])) if len(access.path) == 1 else None
        yield from (found[1],) if found else ()
        return
    for btf, ident in _candidates(access, target, ()):
        if not isinstance(_match(access, btf.type_by_id(ident)), Miss):
            yield btf.type_by_id(ident)


def explain(access: Access, target: Btf, modules: Iterable[Btf] = ()) -> tuple[str, list[str]]:
    """Say why nothing fits `access` ("struct file has no member f_x"; "" when something does), with names close to the missing one."""
    from difflib import get_close_matches

    if access.type_name == "enum" and access.kind in _ENUMERATORS:
        return f"there is no enumerator {access.path[0]}", []
    miss: Miss | None = None
    for btf, ident in _candidates(access, target, modules):
        fit = _match(access, btf.type_by_id(ident))
        if not isinstance(fit, Miss):
            return "", []
        miss = fit
    if miss is None:
        name, kind = _wanted(access)
        names = sorted({n for _, n in target.iter_names((kind,))})
        miss = Miss(f"there is no {show_type(access)}", name, tuple(names))
    return miss.why, get_close_matches(miss.wanted, miss.names, _CLOSE_NAMES, 0.7) if miss.wanted else []


def show_type(access: Access) -> str:
    """Return the type's name without its flavour ("struct task_struct")."""
    keyword, space, name = access.type_name.rpartition(" ")
    return f"{keyword}{space}{essential_name(name)}"


def show(access: Access) -> str:
    """Return an access in the words of C: "struct task_struct.comm[3]", "enum pid_type::PIDTYPE_PID"."""
    text = show_type(access)
    if access.kind in _ENUMERATORS:
        return "::".join([text, *map(str, access.path)])
    if access.index:
        text += f"[{access.index}]"
    return text + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in access.path)


def local_answer(access: Access) -> int:
    """Return what `access` comes to in the program's own type: what the instruction should hold. Raises FormatError."""
    if access.kind in ("type_id_local", "type_id_target") or access.local is None:
        return access.value
    fit = _match(access, access.local)
    if isinstance(fit, Miss):
        raise _misfit(access, fit)
    return _value(access.kind, fit, access.value, access.local)


def read_access(kind: str, root: CType, text: str) -> tuple[int, tuple[str | int, ...]]:
    """Turn an access string of .BTF.ext ("0:3:1") into an index and a path from `root`, the program's own type.

    Its numbers are members, anonymous ones included, elements of arrays, or one enumerator. Raises FormatError.
    """
    numbers = text.split(":")
    if not all(n.isdecimal() and n.isascii() for n in numbers) or len(numbers) > _STEP_LIMIT:
        raise FormatError(f"{text[:80]!r} is no access string of a CO-RE relocation")
    first, *rest = map(int, numbers)
    try:
        if kind in _ENUMERATORS:
            enum = strip(root)
            return 0, (list(enum.values)[first],) if isinstance(enum, Enum) and not rest else (_refuse(),)
        if kind not in _FIELDS:
            return 0, () if not first and not rest else (_refuse(),)
        return first, tuple(_read_steps(root, rest))
    except LookupError:
        raise FormatError(f"the access string {text} does not fit {declare(root)}") from None


def _read_steps(root: CType, numbers: list[int]) -> Iterator[str | int]:
    ctype = root
    for number in numbers:
        ctype = strip(ctype)
        if isinstance(ctype, Struct):
            member = ctype.members[number]
            ctype = member.ctype
            if member.name:
                yield member.name
        elif isinstance(ctype, Array):
            ctype = ctype.element
            yield number
        else:
            _refuse()


def write_access(kind: str, root: CType, index: int, path: tuple[str | int, ...]) -> str:
    """Turn an index and a path into the access string that `read_access` reads. Raises FormatError for a path that `root` does not have."""
    ctype = strip(root)
    if kind in _ENUMERATORS:
        names = list(ctype.values) if isinstance(ctype, Enum) else []
        if len(path) != 1 or path[0] not in names:
            raise FormatError(f"{declare(root)} has no enumerator {path}")
        return str(names.index(str(path[0])))
    numbers = [index]
    for step in path if kind in _FIELDS else ():
        ctype = strip(ctype)
        if isinstance(step, int) and isinstance(ctype, Array):
            numbers.append(step)
            ctype = ctype.element
            continue
        field = ctype.get_member(step) if isinstance(ctype, Struct) and isinstance(step, str) else None
        if field is None:
            raise FormatError(f"{declare(ctype)} has no member {step}")
        for member in field.path:
            assert isinstance(ctype, Struct)
            numbers.append(ctype.members.index(member))
            ctype = strip(member.ctype)
    return ":".join(map(str, numbers))


def _refuse() -> int:
    raise LookupError


# Candidates -------------------------------------------------------------------------------------------------------


def _wanted(access: Access) -> tuple[str, str]:
    """The essential name and the kind (of btf.KINDS) of the types that may answer."""
    if access.local is None:
        keyword, _, name = access.type_name.rpartition(" ")
        kind = keyword if keyword in ("struct", "union", "enum") else "typedef"
        name = name if keyword == kind else access.type_name
    else:
        kind, name = _KIND_OF.get(type(access.local), ""), access.local.name
        kind = access.local.kind if isinstance(access.local, Struct) else kind
    if not name or not kind:
        raise FormatError(f"a CO-RE relocation is about {access.type_name!r}, which has no name to find it by")
    return essential_name(name), kind


def _candidates(access: Access, target: Btf, modules: Iterable[Btf]) -> Iterator[tuple[Btf, int]]:
    name, kind = _wanted(access)
    kinds = (kind,) if access.local is not None or kind != "typedef" else ("typedef", "int", "float")
    here = [ident for each in kinds for ident in target.find_namesakes(name, each)]
    for ident in here:
        yield target, ident
    if not here:
        for module in modules:
            for each in kinds:
                for ident in module.find_namesakes(name, each):
                    yield module, ident


# Matching ---------------------------------------------------------------------------------------------------------


def _match(access: Access, candidate: CType) -> Fit | Miss:
    """Return what fits the access in one candidate: a place, the number of an enumerator, 1 for a type that fits."""
    if access.kind in _FIELDS:
        return _match_path(access, candidate)
    if access.kind in _ENUMERATORS:
        return _match_enumerator(access, candidate)
    if access.kind == "type_matches":
        if access.local is None:
            raise FormatError(f"whether {access.type_name} matches cannot be told: the program's own type is not known")
        return 1 if types_match(access.local, candidate) else Miss(f"{show_type(access)} is another")
    if access.local is not None and not types_compatible(access.local, candidate):
        return Miss(f"{show_type(access)} is another")
    return 1


def _match_path(access: Access, candidate: CType) -> Place | Miss:
    if len(access.path) >= _STEP_LIMIT:
        raise FormatError(f"the path of a CO-RE relocation has {len(access.path)} steps")
    here = _start(candidate, access.index)
    own = _start(access.local, access.index) if access.local is not None else None
    for step in access.path:
        there = _step(here, step)
        if isinstance(there, Miss):
            return there
        if own is not None:
            next_own = _step(own, step)
            if isinstance(next_own, Miss):
                raise _misfit(access, next_own)
            own = next_own
            if isinstance(step, str) and not fields_compatible(own.ctype, there.ctype):
                return Miss(
                    f"{_show_struct(there.struct)} has a member {step} of another kind "
                    f"({declare(there.ctype)}, not {declare(own.ctype)})"
                )
        here = there
    return here


def _start(root: CType, index: int) -> Place:
    return Place(root, index * sizeof(root) * 8 if index else 0)


def _step(place: Place, step: str | int) -> Place | Miss:
    ctype = strip(place.ctype)
    if isinstance(step, str):
        if not isinstance(ctype, Struct):
            return Miss(f"{declare(ctype)} has no members: {step} is not to be found")
        field = ctype.get_member(step)
        if field is None:
            return Miss(f"{_show_struct(ctype)} has no member {step}", step, tuple(ctype.iter_names()))
        struct = ctype if len(field.path) == 1 else strip(field.path[-2].ctype)
        assert isinstance(struct, Struct)
        return Place(field.member.ctype, place.offset_bits + field.offset_bits, struct, field.member)
    if not isinstance(ctype, Array):
        return Miss(f"{declare(ctype)} is no array: element {step} is not to be found")
    flexible = not ctype.count and place.struct is not None and place.struct.members[-1] is place.member
    if step < 0 or (step >= ctype.count and not flexible):
        return Miss(
            f"the array {place.member.name if place.member else ''} has {ctype.count} elements, none number {step}"
        )
    return Place(ctype.element, place.offset_bits + step * sizeof(ctype.element) * 8)


def _show_struct(struct: Struct | None) -> str:
    return declare(struct) if struct is not None and struct.name else "an anonymous struct"


def _match_enumerator(access: Access, candidate: CType) -> int | Miss:
    enum = strip(candidate)
    name = access.path[0] if len(access.path) == 1 else None
    if not isinstance(name, str):
        raise FormatError(f"the path of {access.kind} is the name of an enumerator, not {access.path!r}")
    if not isinstance(enum, Enum):
        return Miss(f"{show_type(access)} is no enumeration")
    wanted = essential_name(name)
    for label, number in enum.values.items():
        if essential_name(label) == wanted:
            return number
    return Miss(f"{show_type(access)} has no {wanted}", wanted, tuple(enum.values))


# Answers ----------------------------------------------------------------------------------------------------------


def _own_place(access: Access) -> Place | None:
    """The place of the access in the program's own type."""
    if access.local is None or access.kind not in _FIELDS:
        return None
    own = _match_path(access, access.local)
    if isinstance(own, Miss):
        raise _misfit(access, own)
    return own


def _answer_by_name(access: Access, target: Btf) -> Answer:
    """The answer about an enumerator whose enumeration has no name: the type is called "enum"."""
    found = target.get_enumerator(str(access.path[0])) if len(access.path) == 1 else None
    if access.kind == "enumval_exists":
        return Answer(int(found is not None))
    return Answer(found[0] if found else None)


def _answer(access: Access, own: Place | None, fit: Fit, ident: int, btf: Btf) -> Answer:
    root = btf.type_by_id(ident)
    value = _value(access.kind, fit, ident, root)
    if not isinstance(fit, Place):
        return Answer(value, checked=access.kind != "type_id_target")
    known = own or fit
    certain = not known.width_bits or access.kind in ("field_signed", "field_rshift_u64", "field_exists")
    if access.kind != "field_byte_offset" or fit.width_bits:
        return Answer(value, certain)
    return Answer(
        value,
        certain,
        sizeof(own.ctype) if own and not own.width_bits else 0,
        sizeof(fit.ctype),
        own is not None and _resizable(strip(own.ctype), strip(fit.ctype)),
    )


def _resizable(own: CType, there: CType) -> bool:
    """Whether what is loaded is extended by zeros on both sides, so that another size gives the same number."""
    if isinstance(own, Pointer) and isinstance(there, Pointer):
        return True
    return isinstance(own, Int) and isinstance(there, Int) and not own.signed and not there.signed


def _value(kind: str, fit: Fit, ident: int, root: CType) -> int:
    if isinstance(fit, Place):
        return _place_value(kind, fit)
    if kind == "type_id_target":
        return ident
    return sizeof(root) if kind == "type_size" else fit if kind == "enumval_value" else 1


def _place_value(kind: str, place: Place) -> int:
    if kind == "field_exists":
        return 1
    if place.member is None and kind not in ("field_byte_offset", "field_byte_size"):
        raise FormatError(f"{kind} is asked of an array's element, which has no such property")
    start, size_bytes, width_bits = _container(place)
    if kind == "field_byte_offset":
        return start
    if kind == "field_byte_size":
        return size_bytes
    if kind == "field_signed":
        ctype = strip(place.ctype)
        return int(isinstance(ctype, (Int, Enum)) and ctype.signed)
    end_bit = place.offset_bits + width_bits - 8 * start
    if end_bit > 64:
        raise FormatError(f"{kind} is asked of a member of {size_bytes} bytes, which is no integer")
    return 64 - (end_bit if kind == "field_lshift_u64" else width_bits)


def _container(place: Place) -> tuple[int, int, int]:
    """The bytes that hold a member: (offset, size, bits of the member). Of a bit-field: the smallest aligned integer with all of it."""
    size = sizeof(place.ctype)
    width = place.width_bits
    if not width:
        return place.offset_bits // 8, size, 8 * size
    while True:
        if not 0 < size <= _BIT_FIELD_LIMIT_BYTES:
            raise FormatError(f"bit-field {place.member.name if place.member else ''} cannot be read as one integer")
        start = place.offset_bits // 8 // size * size
        if place.offset_bits + width <= 8 * (start + size):
            return start, size, width
        size *= 2


def _ambiguous(access: Access, one: Answer, other: Answer) -> FormatError:
    return FormatError(
        f"several types called {show_type(access)} fit {show(access)} and contradict each other: "
        f"{access.kind} is {one.value} or {other.value}",
        hint="a more complete local definition, or one under another flavour (name___flavour), may fit only one of them",
    )


def _misfit(access: Access, miss: Miss) -> FormatError:
    return FormatError(f"the CO-RE relocation {show(access)} does not fit the program's own type: {miss.why}")


_FIELDS = frozenset(KINDS[:6])
_ENUMERATORS = frozenset(["enumval_exists", "enumval_value"])
_ANSWERED_BY_ABSENCE = frozenset(
    ["field_exists", "enumval_exists", "type_exists", "type_matches", "type_size", "type_id_target"]
)
_KIND_OF: dict[type, str] = {
    Enum: "enum", Int: "int", Float: "float", Typedef: "typedef", Forward: "fwd", Struct: "struct",
}  # fmt: skip

"""Frozen data classes that cost nothing at start-up.

`dataclasses` writes and compiles source text for every class: 0.45 ms each on our reference machine, and 5 ms for
the import. A tracer whose first event is due 40 ms after exec cannot pay that for a hundred node types. `Record`
gives the same declaration form and the same checks by mypy for 6 µs a class. Frozen is a promise that mypy
keeps, not the interpreter.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, TypeVar

    from typing_extensions import dataclass_transform

    R = TypeVar("R", bound="Record")
else:

    def dataclass_transform(**_: object):
        return lambda cls: cls


@dataclass_transform(frozen_default=True, eq_default=True)
class RecordType(type):
    """Turns the annotations of a class body into slots; values in the body become defaults."""

    _fields: tuple[str, ...]
    _defaults: dict[str, Any]

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], eq: bool = True) -> RecordType:
        own = tuple(f for f, note in body.get("__annotations__", {}).items() if not str(note).startswith("ClassVar"))
        inherited: tuple[str, ...] = ()
        defaults: dict[str, Any] = {}
        for base in bases:
            inherited += getattr(base, "_fields", ())
            defaults.update(getattr(base, "_defaults", {}))
        for field in own:
            if field in body:
                defaults[field] = body.pop(field)
        extra = tuple(body.get("__slots__", ()))
        body["__slots__"] = tuple(f for f in own if f not in inherited) + extra
        fields = inherited + tuple(f for f in own if f not in inherited)
        body["_fields"] = body["__match_args__"] = fields
        body["_defaults"] = defaults
        if not eq:
            body.setdefault("__eq__", object.__eq__)
            body.setdefault("__hash__", object.__hash__)
        return type.__new__(mcs, name, bases, body)


class Record(metaclass=RecordType):
    """Base of all plain data in sonde. Declare fields by annotation, defaults by assignment.

    `class Node(Record, eq=False)` compares and hashes by identity. A mutable default is shared between instances:
    use a tuple. Slots beyond the fields (caches) go into `__slots__` of the class body.
    """

    _fields: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **named: Any) -> None:
        cls = type(self)
        fields = cls._fields
        if len(args) > len(fields):
            raise TypeError(f"{cls.__name__} takes {len(fields)} values, {len(args)} given")
        for field, value in zip(fields, args):
            setattr(self, field, value)
        if len(args) == len(fields) and not named:
            return
        defaults = cls._defaults
        for field in fields[len(args) :]:
            if field in named:
                setattr(self, field, named.pop(field))
            elif field in defaults:
                setattr(self, field, defaults[field])
            else:
                raise TypeError(f"{cls.__name__} needs a value for {field!r}")
        if named:
            raise TypeError(f"{cls.__name__} has no field {next(iter(named))!r}")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, f) == getattr(other, f) for f in self._fields)

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, f) for f in self._fields)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{f}={getattr(self, f)!r}' for f in self._fields)})"


def replace(record: R, **changes: Any) -> R:
    """Return a copy of `record` with some fields changed; unknown names raise TypeError."""
    return type(record)(**{f: getattr(record, f) for f in record._fields} | changes)

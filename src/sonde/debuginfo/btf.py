"""BTF, the kernel's own type information: bytes to the types of `ctype`, decoded only where somebody looks.

The kernel's BTF is 5 MB and 130,000 types; decoding it all takes Python seconds. So the file is mapped, a name is found by
a byte search in the string section and then as a word in the type section, and members, targets and parameters are decoded
on first use. Record sizes vary, so that the number of a type follows only from walking over all records before it (80 ns each):
the walk goes as far as it is asked to, and marks where every block of types starts. Core types mostly stand at the front.

Follows Documentation/bpf/btf.rst and include/uapi/linux/btf.h of the kernel (all kinds up to ENUM64).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from struct import Struct as Layout

from ..errors import FeatureError, FormatError, PrivilegeError
from .ctype import (
    VOID,
    Array,
    CType,
    Enum,
    Float,
    Forward,
    FuncProto,
    Int,
    Member,
    Param,
    Pointer,
    Qualified,
    Struct,
    Typedef,
    essential_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from mmap import mmap
    from typing import Any, Union

    Buffer = Union[bytes, mmap]
    Words = Union[memoryview[int], array[int]]

VMLINUX_PATH = "/sys/kernel/btf/vmlinux"

# The names of the kinds, by number; "enum" stands for both kinds of enumeration where names are asked for.
KINDS = ("void", "int", "ptr", "array", "struct", "union", "enum", "fwd", "typedef", "volatile", "const", "restrict",
         "func", "func_proto", "var", "datasec", "float", "decl_tag", "type_tag", "enum64")  # fmt: skip
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(12, 20)

# Words (u32) of a record by kind: before the entries, and in each entry.
_FIXED_WORDS = (0, 4, 3, 6, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 3, 3)
_ENTRY_WORDS = (0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3)
_NOT_TYPES = frozenset([_FUNC, _VAR, _DATASEC, _DECL_TAG])  # records that no other record may use as a type

_NAMED_BY_PROGRAMS = sum(
    1 << k for k in (_INT, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _FLOAT, _ENUM64)
)  # a set of bits

_HEADER = Layout("<HBBIIIII")
_WORD = Layout("<I")
_MAGIC = 0xEB9F
_NAME_LIMIT_BYTES = 4096  # no compiler emits a longer name; a hostile file could make every name megabytes long
_BLOCK = 32  # types; a table of every single one takes three times as long to make
_SAME_STRING_LIMIT = 4  # strings are unique in honest files
_POINTER_BYTES = 8


class _Steps(dict[int, int]):
    """Words of a record by its info word: most of 130,000 records share some 300 info words."""

    def __missing__(self, info: int) -> int:
        kind = info >> 24 & 31
        step = _FIXED_WORDS[kind] + _ENTRY_WORDS[kind] * (info & 0xFFFF)  # IndexError: unknown kind
        if not step:
            raise IndexError
        self[info] = step
        return step


class Btf:
    """The types of one kernel or module. Made by `Btf.open` or `Btf.from_bytes`; `close` unmaps the file.

    Names are given and returned as `str`. Types that were handed out keep a reference to their Btf, and stay equal by
    identity: the same id gives the same object. Every method raises FormatError when it meets corrupt bytes.
    """

    def __init__(self, data: Buffer, *, base: Btf | None = None, path: str = "", mapping: mmap | None = None) -> None:
        self.path = path
        self.base = base
        self._mapping = mapping
        self._data = data
        self._read_header()
        view = memoryview(self._data)
        self._words: Words = view[self._types : self._types_end].cast("I")
        self._marks = array("I")  # the info word of the first type in each block, as far as the walk has come
        self._next = 1  # the info word at which it goes on
        self._count = -1  # of all types, once it has come to the end
        self._places: dict[int, int] = {}  # the first word of types that were asked for
        self._steps = _Steps()
        self._cache: dict[int, CType] = {}
        self._ids: dict[tuple[str, tuple[int, ...]], int] = {}
        self._namesakes: dict[tuple[str, str], tuple[int, ...]] = {}
        self._by_name: dict[int, list[int]] | None = None
        self._first_id: int = 1
        self._first_string: int = 0
        if base:
            self._first_id = base.count_types() + 1
            self._first_string = base.strings_end

    @classmethod
    def open(cls, path: str = VMLINUX_PATH, *, base: Btf | None = None) -> Btf:
        """Map the BTF file `path`; a module's (/sys/kernel/btf/NAME) needs the kernel's as `base`.

        Raises FeatureError when the file does not exist, PrivilegeError when it may not be read.
        """
        import os

        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise FeatureError(
                f"{path} does not exist: this kernel has no BTF",
                feature="btf",
                hint="the kernel must be built with CONFIG_DEBUG_INFO_BTF=y",
            ) from None
        except PermissionError:
            raise PrivilegeError(f"{path} may not be read by this user") from None
        try:
            return cls._map(fd, os.fstat(fd).st_size, path, base)
        finally:
            os.close(fd)

    @classmethod
    def _map(cls, fd: int, size: int, path: str, base: Btf | None) -> Btf:
        import mmap

        try:
            # A shared mapping is refused by sysfs, and kernels before 6.16 cannot map the file at all.
            mapping = mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ)
        except (OSError, ValueError):
            import os

            with os.fdopen(os.dup(fd), "rb") as file:
                return cls(file.read(), base=base, path=path)
        return cls(mapping, base=base, path=path, mapping=mapping)

    @classmethod
    def from_bytes(cls, data: bytes, base: Btf | None = None) -> Btf:
        """Use the BTF in `data`; split BTF (of a module, or of an object that extends the kernel's) needs its `base`."""
        return cls(data, base=base)

    def close(self) -> None:
        """Unmap the file. Types that were not decoded yet can no longer be."""
        if isinstance(self._words, memoryview):
            self._words.release()
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None

    def __enter__(self) -> Btf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # bytes ----------------------------------------------------------------------------------------------------

    def _corrupt(self, message: str, offset: int = -1) -> FormatError:
        return FormatError(f"corrupt BTF: {message}", path=self.path, offset=offset)

    def _read_header(self) -> None:
        size = len(self._data)
        if size < _HEADER.size:
            raise self._corrupt(f"{size} bytes are too few for a header")
        if self._data[:2] == b"\xeb\x9f":
            self._data = _swap_bytes(self._data)
        magic, version, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(self._data)
        if magic != _MAGIC:
            raise self._corrupt(f"the magic number is {magic:#06x}, not {_MAGIC:#06x}", 0)
        if version != 1 or header < _HEADER.size:
            raise self._corrupt(f"version {version} with a header of {header} bytes is not known", 2)
        self._types, self._types_end = header + type_off, header + type_off + type_len
        self._strings, self._strings_end = header + str_off, header + str_off + str_len
        if max(self._types_end, self._strings_end) > size or type_len % 4:
            raise self._corrupt(f"its sections reach beyond its {size} bytes", 8)
        if str_len and self._data[self._strings_end - 1] != 0:
            raise self._corrupt("the string section does not end with a NUL", self._strings_end)

    def _name(self, offset: int) -> str:
        """Return the string at `offset` of the string section."""
        if offset < self._first_string and self.base:
            return self.base._name(offset)
        start = self._strings + offset - self._first_string
        end = self._data.find(b"\0", start, min(start + _NAME_LIMIT_BYTES, self._strings_end))
        if end < 0:
            raise self._corrupt(f"no string at offset {offset} of the string section", start)
        return self._data[start:end].decode("utf-8", "replace")

    def _iter_string_offsets(self, name: str) -> Iterator[int]:
        """Yield where the string `name` stands; more than once only in odd files."""
        if self.base:
            yield from self.base._iter_string_offsets(name)
        needle = name.encode("utf-8", "replace") + b"\0"
        find = self._data.find
        start, end = self._strings, self._strings_end
        if self.base and self._data[start : start + len(needle)] == needle:
            yield self._first_string  # the first string of split BTF has no NUL before it
        for _ in range(_SAME_STRING_LIMIT):
            start = find(b"\0" + needle, start, end)
            if start < 0:
                return
            start += 1
            yield start - self._strings + self._first_string

    # ids and places -------------------------------------------------------------------------------------------

    def _walk(self, blocks: int, word: int) -> None:
        """Mark blocks until there are `blocks` of them, or until `word` lies before the end of the last one."""
        if self._count >= 0:
            return
        marks, words, steps = self._marks, self._words, self._steps
        at = self._next
        block = range(_BLOCK)
        try:
            while len(marks) < blocks and at <= word + 1:
                start = at
                for _ in block:
                    at += steps[words[at]]
                if at > len(words) + 1:
                    break
                marks.append(start)
                self._next = at
            else:
                return
        except IndexError:
            pass
        self._finish()

    def _finish(self) -> None:
        """Mark the last block, which is shorter than the others, and check that the section ends with it."""
        words, steps = self._words, self._steps
        at, count = self._next, 0
        while at < len(words):
            try:
                at += steps[words[at]]
            except IndexError:
                raise self._corrupt("an unknown kind of type", self._types + 4 * at) from None
            count += 1
        if at != len(words) + 1:
            raise self._corrupt("the last type is cut off", self._types_end)
        self._count = len(self._marks) * _BLOCK + count
        if count:
            self._marks.append(self._next)

    def count_types(self) -> int:
        """Return the number of types, those of the base included, void excluded. Walks over all of them."""
        self._walk(1 << 32, 1 << 32)
        return self._first_id - 1 + self._count

    def _start(self, ident: int) -> int:
        """Return the first word of type `ident`, which is not one of the base."""
        place = self._places.get(ident)
        if place is None:
            index = ident - self._first_id
            block, rest = divmod(index, _BLOCK)
            self._walk(block + 1, 1 << 32)
            if index < 0 or (0 <= self._count <= index):
                raise self._corrupt(f"no type has the number {ident}")
            words, steps = self._words, self._steps
            at = self._marks[block]
            for _ in range(rest):
                at += steps[words[at]]
            place = self._places[ident] = at - 1
        return place

    def _record_at(self, word: int) -> tuple[int, int]:
        """Return the id and the first word of the type whose record holds `word`."""
        self._walk(1 << 32, word)
        block = bisect_right(self._marks, word + 1) - 1
        words, steps = self._words, self._steps
        at = self._marks[block]
        ident = self._first_id + block * _BLOCK
        while (after := at + steps[words[at]]) <= word + 1:
            at = after
            ident += 1
        return ident, at - 1

    def _word(self, ident: int, index: int) -> int:
        """Return word `index` of the record of type `ident`."""
        if ident < self._first_id:
            return self.base._word(ident, index) if self.base and ident else 0
        return self._words[self._start(ident) + index]

    def _kind(self, ident: int) -> int:
        return self._word(ident, 1) >> 24 & 31

    def _old_bit_field(self, ident: int) -> tuple[int, int]:
        """Return the shift and width in bits that an integer type itself has, as bit-fields once were encoded."""
        if self._kind(ident) != _INT:
            return 0, 0
        data, size = self._word(ident, 3), self._word(ident, 2)
        shift, width = data >> 16 & 0xFF, data & 0xFF
        return (shift, width) if width != size * 8 else (0, 0)

    def _find(self, name: str, *kinds: int) -> int:
        """Return the id of the first type `name` of one of these kinds, 0 when there is none."""
        key = (name, kinds)
        found = self._ids.get(key)
        if found is None:
            found = self._search(name, kinds) if name else 0
            if not found and self.base:
                found = self.base._find(name, *kinds)
            self._ids[key] = found
        return found

    def _search(self, name: str, kinds: tuple[int, ...]) -> int:
        for offset in self._iter_string_offsets(name):
            for ident in self._iter_ids(offset, kinds):
                return ident
        return 0

    def _iter_ids(self, offset: int, kinds: tuple[int, ...]) -> Iterator[int]:
        """Yield the ids of types of these kinds whose name stands at `offset` of the string section."""
        # Functions come last in the kernel's BTF: a search from the end finds them 20 times sooner.
        for word in self._iter_words(offset, backwards=kinds == (_FUNC,)):
            if word + 1 < len(self._words) and self._words[word + 1] >> 24 & 31 in kinds:
                ident, start = self._record_at(word)
                if start == word:
                    yield ident

    def _iter_words(self, value: int, backwards: bool = False) -> Iterator[int]:
        """Yield the index of every word of the type section that is `value`."""
        needle = _WORD.pack(value & 0xFFFFFFFF)
        start, end = self._types, self._types_end
        find = self._data.rfind if backwards else self._data.find
        while (at := find(needle, start, end)) >= 0:
            if backwards:
                end = at + 3
            else:
                start = at + 1
            word, odd = divmod(at - self._types, 4)
            if not odd:
                yield word

    # questions ------------------------------------------------------------------------------------------------

    def type_by_id(self, ident: int) -> CType:
        """Return type `ident`. Of a function this is its prototype, of a variable or tag the type of what it names."""
        found = self._cache.get(ident)
        if found is None:
            if ident == 0:
                return VOID
            if ident < self._first_id and self.base:
                return self.base.type_by_id(ident)
            start = self._start(ident)
            info = self._words[start + 1]
            found = self._cache[ident] = _DECODERS[info >> 24 & 31](self, ident, start, info)
        return found

    def _ref(self, ident: int) -> CType:
        """Return type `ident` as something that a declaration may use."""
        if self._kind(ident) in _NOT_TYPES:
            raise self._corrupt(f"type {ident} is used as a type, but is a {KINDS[self._kind(ident)]}")
        return self.type_by_id(ident)

    def get_struct(self, name: str) -> Struct | None:
        """Return the struct or union `name` ("foo", "struct foo", "union foo"); None when there is no definition."""
        keyword, _, rest = name.rpartition(" ")
        kinds = {"": (_STRUCT, _UNION), "struct": (_STRUCT,), "union": (_UNION,)}.get(keyword, ())
        ident = self._find(rest, *kinds)
        found = self.type_by_id(ident) if ident else None
        return found if isinstance(found, Struct) else None

    def get_typedef(self, name: str) -> Typedef | None:
        """Return the typedef `name`, or None."""
        found = self.type_by_id(self._find(name, _TYPEDEF))
        return found if isinstance(found, Typedef) else None

    def get_type(self, name: str) -> CType | None:
        """Return a type by its C spelling: "struct x", "union x", "enum x", a typedef, a base type; None when absent.

        Base types may be spelled in any order of words ("unsigned long" and "long unsigned int").
        """
        words = name.split()
        if len(words) == 2 and words[0] in ("struct", "union"):
            return self.get_struct(name)
        if len(words) == 2 and words[0] == "enum":
            ident = self._find(words[1], _ENUM, _ENUM64)
            return self.type_by_id(ident) if ident else None
        if name == "void":
            return VOID
        for spelling in _base_spellings(words):
            ident = self._find(spelling, _TYPEDEF, _INT, _FLOAT)
            if ident:
                return self.type_by_id(ident)
        return None

    def get_func(self, name: str) -> FuncProto | None:
        """Return the prototype of the kernel function `name`, or None."""
        found = self.type_by_id(self._find(name, _FUNC))
        return found if isinstance(found, FuncProto) else None

    def get_func_id(self, name: str) -> int:
        """Return the type id of function `name`, which attaching to it needs; 0 when there is none."""
        return self._find(name, _FUNC)

    def get_own_func_id(self, name: str) -> int:
        """Return the type id of function `name` of this module, its base's left out; 0 when there is none."""
        return self._search(name, (_FUNC,)) if name else 0

    def get_var(self, name: str) -> CType | None:
        """Return the type of the kernel variable `name`, or None."""
        ident = self._find(name, _VAR)
        return self.type_by_id(ident) if ident else None

    def get_type_id(self, name: str, kind: str) -> int:
        """Return the id of the type `name` of this kind (see KINDS); 0 when there is none."""
        kinds = (_ENUM, _ENUM64) if kind == "enum" else (KINDS.index(kind),)
        return self._find(name, *kinds)

    def string_at(self, offset: int) -> str:
        """Return the string at `offset` of the string section, which .BTF.ext refers to as well. Raises FormatError."""
        return self._name(offset)

    def kind_of(self, ident: int) -> str:
        """Return the kind of type `ident` (see KINDS). Raises FormatError where there is none."""
        return KINDS[self._kind(ident)]

    def iter_section_vars(self, name: str) -> Iterator[tuple[str, CType]]:
        """Yield name and type of each variable, and each function, that section `name` (".maps", ".ksyms") lists. Raises FormatError."""
        ident = self._find(name, _DATASEC)
        start = self._start(ident) if ident else 0
        for at in range(start + 3, start + 3 + 3 * (self._words[start + 1] & 0xFFFF), 3) if ident else ():
            inner = self._words[at]
            if self._kind(inner) not in (_VAR, _FUNC):
                raise self._corrupt(f"section {name} holds something that is no variable", self._types + 4 * at)
            yield self.get_name(inner), self.type_by_id(inner)

    def section_places(self, name: str) -> list[int]:
        """Return the offsets in bytes of what section `name` lists; none as long as no linker has laid it out: compilers write zeros."""
        ident = self._find(name, _DATASEC)
        words = self.record(ident) if ident else ()
        return [int(word) for word in words[4::3]] if words and words[2] else []

    def record(self, ident: int) -> tuple[int, ...]:
        """Return the words of the record of type `ident`, of the base too: name, info, size or type, entries. Raises FormatError."""
        if ident < self._first_id:
            if self.base is None or ident < 1:
                raise self._corrupt(f"no type has the number {ident}")
            return self.base.record(ident)
        start = self._start(ident)
        return tuple(self._words[start : start + self._steps[self._words[start + 1]]])

    @property
    def first_id(self) -> int:
        """The number of the first type that is not the base's."""
        return self._first_id

    @property
    def strings_end(self) -> int:
        """The offset at which strings of BTF that is split from this one begin."""
        end: int = self._first_string + self._strings_end - self._strings
        return end

    def find_string(self, text: str) -> int:
        """Return the offset of a string, -1 where there is none."""
        if not text:
            return 0
        return next(self._iter_string_offsets(text), -1)

    def get_name(self, ident: int) -> str:
        """Return the name of type `ident`, "" for one without a name."""
        if ident < self._first_id:
            return self.base.get_name(ident) if self.base and ident else ""
        return self._name(self._words[self._start(ident)])

    def find_namesakes(self, name: str, kind: str) -> tuple[int, ...]:
        """Return the ids of all types of this kind (see KINDS) called `name`, or a flavour of it ("name___old"), in their order.

        Those of the base are left out. The first question goes over all types (25 ms for the kernel's), others take about 1 ms.
        """
        key = name, kind
        found = self._namesakes.get(key)
        if found is None:
            kinds = (_ENUM, _ENUM64) if kind == "enum" else (KINDS.index(kind),)
            offsets = {*self._iter_string_offsets(name), *self._iter_flavours(name)} if name else set()
            ids = [ident for offset in offsets for ident in self._named().get(offset, ()) if self._kind(ident) in kinds]
            found = self._namesakes[key] = tuple(sorted(ids))
        return found

    def _named(self) -> dict[int, list[int]]:
        """Return the ids of types that programs name, by the place of their names: a search for each costs as much as all of them."""
        if self._by_name is None:
            self.count_types()
            by_name = self._by_name = {}
            words, steps = self._words, self._steps
            at, ident = 1, self._first_id
            while at < len(words):
                info = words[at]
                name = words[at - 1]
                if name and _NAMED_BY_PROGRAMS >> (info >> 24 & 31) & 1:
                    by_name.setdefault(name, []).append(ident)
                at += steps[info]
                ident += 1
        return self._by_name

    def _iter_flavours(self, name: str) -> Iterator[int]:
        """Yield where strings stand that are `name` and a suffix behind three underscores, the base's included."""
        if self.base:
            yield from self.base._iter_flavours(name)
        needle = b"\0" + name.encode("utf-8", "replace") + b"___"
        at = self._data.find(needle, self._strings, self._strings_end)
        while at >= 0:
            offset = at + 1 - self._strings + self._first_string
            if essential_name(self._name(offset)) == name:
                yield offset
            at = self._data.find(needle, at + 1, self._strings_end)

    def get_enumerator(self, name: str) -> tuple[int, Enum] | None:
        """Find an enumeration constant by its name, in any enumeration: its value and its type, or None."""
        for offset in self._iter_string_offsets(name):
            for word in self._iter_words(offset):
                found = self._enumerator_at(word, name)
                if found:
                    return found
        return self.base.get_enumerator(name) if self.base else None

    def _enumerator_at(self, word: int, name: str) -> tuple[int, Enum] | None:
        ident, _ = self._record_at(word)
        enum = self.type_by_id(ident) if self._kind(ident) in (_ENUM, _ENUM64) else None
        if not isinstance(enum, Enum) or name not in enum.values:
            return None
        return enum.values[name], enum

    def iter_names(self, kinds: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield (kind, name) of every named type of these kinds, in the order of their ids, the base's excluded."""
        wanted = {number: "enum" if kind == "enum64" else kind for number, kind in enumerate(KINDS) if kind in kinds}
        if _ENUM in wanted:
            wanted[_ENUM64] = "enum"
        self.count_types()
        words, steps = self._words, self._steps
        at = 1
        while at < len(words):
            info = words[at]
            kind = wanted.get(info >> 24 & 31)
            if kind and words[at - 1]:
                yield kind, self._name(words[at - 1])
            at += steps[info]

    def iter_func_names(self) -> Iterator[str]:
        """Yield the name of every function, in the order of their ids, those of the base excluded."""
        return (name for _, name in self.iter_names(("func",)))


def _swap_bytes(data: Buffer) -> bytes:
    """Return BTF of the other byte order in this one: all but the strings (and 4 bytes of the header) are words."""
    head = array("I", data[: _HEADER.size])
    head.byteswap()
    _, header, type_off, type_len, _, _ = head
    start = header + type_off
    if type_len % 4 or start + type_len > len(data):
        raise FormatError("corrupt BTF: the type section reaches beyond the end")
    types = array("I", data[start : start + type_len])
    types.byteswap()
    swapped = bytearray(data)
    swapped[: _HEADER.size] = head.tobytes()
    swapped[:4] = _MAGIC.to_bytes(2, "little") + bytes(data[2:4])
    swapped[start : start + type_len] = types.tobytes()
    return bytes(swapped)


_BASE_WORDS = frozenset(["signed", "unsigned", "char", "short", "int", "long", "double", "bool"])


def _base_spellings(words: list[str]) -> list[str]:
    """Return the names under which compilers list a base type (GCC: "long unsigned int", clang: "unsigned long")."""
    if len(words) < 2 and not _BASE_WORDS.issuperset(words[:1] or [""]):
        return words
    width = " ".join(sorted((w for w in words if w not in ("signed", "unsigned", "int")), reverse=True))
    sign = "unsigned " if "unsigned" in words else ""
    if width == "char":
        return [f"{sign}char"] if sign else [" ".join(words), "char"]
    if width not in ("", "short", "long", "long long"):
        return [" ".join(words), *(["_Bool"] if words == ["bool"] else [])]
    return [f"{width} {sign}int".lstrip(), f"{sign}{width or 'int'}"]


# Decoders: one for each kind --------------------------------------------------------------------------------------


class _LazyMember(Member, eq=False):
    """A member whose type, and whose place (old bit-fields hide it in the type), are decoded when first asked for."""

    __slots__ = ("_btf", "_flagged", "_word")

    def __init__(self, btf: Btf, name: str, word: int, flagged: bool) -> None:
        setattr(self, self._fields[0], name)
        self._btf = btf
        self._word = word
        self._flagged = flagged

    def __getattr__(self, field: str) -> Any:
        if field not in ("ctype", "offset_bits", "width_bits"):
            raise AttributeError(field)
        btf, words = self._btf, self._btf._words
        type_id, place = words[self._word + 1], words[self._word + 2]
        if self._flagged:
            offset, width = place & 0xFFFFFF, place >> 24
        else:
            shift, width = btf._old_bit_field(type_id)
            offset = place + shift
        for name, value in zip(("ctype", "offset_bits", "width_bits"), (btf._ref(type_id), offset, width)):
            setattr(self, name, value)
        return getattr(self, field)


def _decode_int(btf: Btf, ident: int, start: int, info: int) -> CType:
    name = btf._name(btf._words[start])
    size, data = btf._words[start + 2], btf._words[start + 3]
    if size not in (1, 2, 4, 8, 16):
        raise btf._corrupt(f"integer {name!r} of {size} bytes", btf._types + 4 * start)
    flags = data >> 24 & 15
    encoding = "bool" if flags & 4 else "char" if flags & 2 or name == "char" else "int"
    return Int(name, size, bool(flags & 1), encoding)


def _decode_pointer(btf: Btf, ident: int, start: int, info: int) -> CType:
    target = btf._words[start + 2]
    return Pointer(lambda: _skip_tags(btf, target)[1], _POINTER_BYTES, lambda: _skip_tags(btf, target)[0])


def _skip_tags(btf: Btf, ident: int) -> tuple[str, CType]:
    """Return the first type tag at `ident`, or "", and the type below all tags."""
    tag = ""
    ctype = btf._ref(ident)
    for _ in range(64):
        if btf._kind(ident) != _TYPE_TAG:
            return tag, ctype
        tag = tag or ctype.name
        ident = btf._word(ident, 2)
        ctype = btf._ref(ident)
    raise btf._corrupt("type tags form a loop")


def _decode_array(btf: Btf, ident: int, start: int, info: int) -> CType:
    element, count = btf._words[start + 3], btf._words[start + 5]
    return Array(lambda: btf._ref(element), count)


def _decode_struct(btf: Btf, ident: int, start: int, info: int) -> CType:
    name, size = btf._name(btf._words[start]), btf._words[start + 2]

    def members() -> tuple[Member, ...]:
        words, flagged = btf._words, info >> 31 == 1
        first = start + 3
        return tuple(
            _LazyMember(btf, btf._name(words[at]), at, flagged) for at in range(first, first + 3 * (info & 0xFFFF), 3)
        )

    return Struct("struct" if info >> 24 & 31 == _STRUCT else "union", name, size, members, ident)


def _decode_enum(btf: Btf, ident: int, start: int, info: int) -> CType:
    words, signed = btf._words, info >> 31 == 1
    values = {}
    for at in range(start + 3, start + 3 + 2 * (info & 0xFFFF), 2):
        value = words[at + 1]
        values[btf._name(words[at])] = value - (value >> 31 << 32) if signed else value
    return Enum(btf._name(words[start]), words[start + 2], signed, values)


def _decode_enum64(btf: Btf, ident: int, start: int, info: int) -> CType:
    words, signed = btf._words, info >> 31 == 1
    values = {}
    for at in range(start + 3, start + 3 + 3 * (info & 0xFFFF), 3):
        value = words[at + 1] | words[at + 2] << 32
        values[btf._name(words[at])] = value - (value >> 63 << 64) if signed else value
    return Enum(btf._name(words[start]), words[start + 2], signed, values)


def _decode_forward(btf: Btf, ident: int, start: int, info: int) -> CType:
    return Forward("union" if info >> 31 else "struct", btf._name(btf._words[start]))


def _decode_typedef(btf: Btf, ident: int, start: int, info: int) -> CType:
    target = btf._words[start + 2]
    return Typedef(btf._name(btf._words[start]), lambda: btf._ref(target))


def _decode_qualified(btf: Btf, ident: int, start: int, info: int) -> CType:
    kind, target = info >> 24 & 31, btf._words[start + 2]
    name = btf._name(btf._words[start]) if kind == _TYPE_TAG else KINDS[kind]
    return Qualified(name, lambda: btf._ref(target))


def _decode_func(btf: Btf, ident: int, start: int, info: int) -> CType:
    proto = btf.type_by_id(target) if btf._kind(target := btf._words[start + 2]) == _FUNC_PROTO else VOID
    if not isinstance(proto, FuncProto):
        raise btf._corrupt(f"function {ident} has no prototype", btf._types + 4 * start)
    return proto


def _decode_func_proto(btf: Btf, ident: int, start: int, info: int) -> CType:
    words = btf._words
    result = words[start + 2]
    places = range(start + 3, start + 3 + 2 * (info & 0xFFFF), 2)
    variadic = len(places) > 0 and words[places[-1]] == words[places[-1] + 1] == 0
    if variadic:
        places = places[:-1]

    def params() -> tuple[Param, ...]:
        return tuple(Param(btf._name(words[at]), btf._ref(words[at + 1])) for at in places)

    return FuncProto(lambda: btf._ref(result), params, variadic)


def _decode_named(btf: Btf, ident: int, start: int, info: int) -> CType:
    """A variable or a declaration tag: the type of what it names."""
    target = btf._words[start + 2]
    if info >> 24 & 31 == _DECL_TAG and btf._kind(target) in (_FUNC, _VAR):
        return btf.type_by_id(target)
    return btf._ref(target)


def _decode_datasec(btf: Btf, ident: int, start: int, info: int) -> CType:
    """A section of variables, as a struct of kind "datasec"."""
    words = btf._words

    def members() -> tuple[Member, ...]:
        made = []
        for at in range(start + 3, start + 3 + 3 * (info & 0xFFFF), 3):
            if btf._kind(words[at]) != _VAR:
                raise btf._corrupt(f"section {ident} holds something that is no variable", btf._types + 4 * at)
            made.append(Member(btf._name(btf._word(words[at], 0)), btf.type_by_id(words[at]), words[at + 1] * 8))
        return tuple(made)

    return Struct("datasec", btf._name(words[start]), words[start + 2], members, ident)


def _decode_float(btf: Btf, ident: int, start: int, info: int) -> CType:
    return Float(btf._name(btf._words[start]), btf._words[start + 2])


def _decode_void(btf: Btf, ident: int, start: int, info: int) -> CType:
    return VOID


_DECODERS: tuple[Callable[[Btf, int, int, int], CType], ...] = (
    _decode_void, _decode_int, _decode_pointer, _decode_array, _decode_struct, _decode_struct, _decode_enum,
    _decode_forward, _decode_typedef, _decode_qualified, _decode_qualified, _decode_qualified, _decode_func,
    _decode_func_proto, _decode_named, _decode_datasec, _decode_float, _decode_named, _decode_qualified,
    _decode_enum64,
)  # fmt: skip

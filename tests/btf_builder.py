"""A small BTF encoder: tests build the types they need, and damage them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from sonde.debuginfo.btf import KINDS

_KINDS = {name: number for number, name in enumerate(KINDS)}


class BtfBuilder:
    """Each method adds one type and returns its id. `first_id` and `first_string` are those of split BTF."""

    def __init__(self, first_id: int = 1, first_string: int = 0) -> None:
        self._next_id = first_id
        self._first_string = first_string
        self._strings = b"" if first_string else b"\0"
        self._offsets: dict[str, int] = {} if first_string else {"": 0}
        self._types: list[int] = []

    def string(self, text: str) -> int:
        """Return the offset of `text` in the string section."""
        if not text:
            return 0
        if text not in self._offsets:
            self._offsets[text] = self._first_string + len(self._strings)
            self._strings += text.encode() + b"\0"
        return self._offsets[text]

    def add(self, kind: str, name: str, third: int, *words: int, vlen: int = 0, flag: bool = False) -> int:
        """Add a record of any kind, words as given."""
        info = _KINDS[kind] << 24 | vlen | flag << 31
        self._types += [w & 0xFFFFFFFF for w in (self.string(name), info, third, *words)]
        self._next_id += 1
        return self._next_id - 1

    def int(
        self, name: str, size: int, signed: bool = False, *, bits: int = 0, shift: int = 0, bool_: bool = False
    ) -> int:
        encoding = (1 if signed else 0) | (4 if bool_ else 0)
        return self.add("int", name, size, encoding << 24 | shift << 16 | (bits or size * 8))

    def float(self, name: str, size: int) -> int:
        return self.add("float", name, size)

    def ptr(self, target: int) -> int:
        return self.add("ptr", "", target)

    def array(self, element: int, count: int, index: int = 1) -> int:
        return self.add("array", "", 0, element, index, count)

    def struct(
        self, name: str, size: int, members: Sequence[tuple[int | str, ...]], *, union: bool = False, flag: bool = False
    ) -> int:
        """Members are (name, type, offset in bits), and with `flag` the width in bits (0: no bit-field)."""
        words: list[int] = []
        for member in members:
            label, ctype, offset, *width = member
            assert isinstance(label, str) and isinstance(ctype, int) and isinstance(offset, int)
            words += [self.string(label), ctype, offset | (int(width[0]) << 24 if width else 0)]
        kind = "union" if union else "struct"
        return self.add(kind, name, size, *words, vlen=len(members), flag=flag)

    def enum(self, name: str, values: dict[str, int], size: int = 4, signed: bool = False) -> int:
        words = [w for label, value in values.items() for w in (self.string(label), value)]
        return self.add("enum", name, size, *words, vlen=len(values), flag=signed)

    def enum64(self, name: str, values: dict[str, int], signed: bool = False) -> int:
        words = [w for label, value in values.items() for w in (self.string(label), value, value >> 32)]
        return self.add("enum64", name, 8, *words, vlen=len(values), flag=signed)

    def fwd(self, name: str, union: bool = False) -> int:
        return self.add("fwd", name, 0, flag=union)

    def typedef(self, name: str, target: int) -> int:
        return self.add("typedef", name, target)

    def qualified(self, qualifier: str, target: int) -> int:
        return self.add(qualifier, "", target)

    def type_tag(self, tag: str, target: int) -> int:
        return self.add("type_tag", tag, target)

    def decl_tag(self, tag: str, target: int, component: int = -1) -> int:
        return self.add("decl_tag", tag, target, component)

    def func_proto(self, result: int, params: Sequence[tuple[str, int]], variadic: bool = False) -> int:
        pairs = [*params, *([("", 0)] if variadic else [])]
        words = [w for label, ctype in pairs for w in (self.string(label), ctype)]
        return self.add("func_proto", "", result, *words, vlen=len(pairs))

    def func(self, name: str, proto: int, linkage: int = 1) -> int:
        return self.add("func", name, proto, vlen=linkage)

    def var(self, name: str, ctype: int, linkage: int = 1) -> int:
        return self.add("var", name, ctype, linkage)

    def datasec(self, name: str, size: int, variables: Sequence[tuple[int, int, int]]) -> int:
        words = [w for variable in variables for w in variable]
        return self.add("datasec", name, size, *words, vlen=len(variables))

    def build(self, order: str = "<") -> bytes:
        """Return the BTF, in little-endian (`<`) or big-endian (`>`) byte order."""
        types = struct.pack(f"{order}{len(self._types)}I", *self._types)
        header = struct.pack(f"{order}HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self._strings))
        return header + types + self._strings

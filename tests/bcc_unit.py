"""BCC units without the C front end: programs from IR text, tables from C types. And maps without a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from sonde.compiler.pipeline import compile_module
from sonde.compiler.text import parse_module
from sonde.debuginfo.ctype import CType
from sonde.errors import CompileError, Diagnostic, Span
from sonde.lang.c.analysis import Table
from sonde.lang.c.options import Compiled, Entry
from sonde.spec.object import MapSpec

HERE = Span("test.c", 1, 1, 1, 1)


class UnitOfIr:
    """Stands for what compile_c returns. `texts` maps a function's name to IR, or to a function that makes it for an entry.

    In the text, the word KIND becomes the program type that the function is loaded as.
    """

    def __init__(
        self,
        texts: Mapping[str, str | Callable[[Entry], str]],
        tables: Sequence[tuple[MapSpec, CType | None, CType | None]] = (),
        events: Mapping[str, CType] | None = None,
        public: Sequence[str] = (),
        extern: Sequence[str] = (),
    ) -> None:
        self.texts = dict(texts)
        self.maps = tuple(spec for spec, _, _ in tables)
        self.tables = {
            s.name: Table(
                s.name, s.type, key, leaf, s.max_entries, s.flags, HERE,
                bcc_kind="extern" if s.name in extern else s.type, public=s.name in public,
            )
            for s, key, leaf in tables
        }  # fmt: skip
        self.events = dict(events or {})
        self.warnings: tuple[Diagnostic, ...] = ()
        self.compiled: list[tuple[str, Entry]] = []

    @property
    def programs(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def compile_program(self, name: str, entry: Entry, *, trace: Callable[[str, str], None] | None = None) -> Compiled:
        self.compiled.append((name, entry))
        text = self.texts[name]
        body = text if isinstance(text, str) else text(entry)
        if not body:
            raise CompileError([Diagnostic("ERROR", f"{name} cannot be compiled for {entry.type}", HERE)])
        kind = f"program={entry.type}"
        if entry.attach_type:
            kind += f" attach_type={entry.attach_type}"
        if entry.attach_btf:
            kind += f" attach_btf={entry.attach_btf}"
        declared = "\n".join(
            f"map @{m.name} {m.type} key={m.key_size} value={m.value_size} max_entries={m.max_entries}"
            for m in self.maps
        )
        from sonde.kernel.target import live_target

        module = parse_module(declared + "\n" + re.sub(r"\bKIND\b", kind, body))
        compiled = compile_module(module, live_target(), trace=trace)
        known = {m.name for m in self.maps}
        extra = tuple(m for m in compiled.maps if m.name not in known)
        return Compiled(compiled.programs[0], extra)


class FakeMap:
    """A map in a dictionary, with the methods of KernelMap that tables call."""

    def __init__(self, spec: MapSpec, copies: int = 1) -> None:
        self.spec = spec
        self.copies = copies
        self.fd = 77
        self.data: dict[bytes, list[bytes]] = {}
        if spec.type in ("array", "percpu_array"):
            zero = [bytes(spec.value_size)] * copies
            self.data = {i.to_bytes(4, "little"): zero for i in range(spec.max_entries)}

    @property
    def name(self) -> str:
        return self.spec.name

    def lookup(self, key: bytes) -> list[bytes] | None:
        assert len(key) == self.spec.key_size
        return self.data.get(key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        assert (len(key), len(value)) == (self.spec.key_size, self.spec.value_size)
        self.data[key] = [value] * self.copies

    def update_each(self, key: bytes, values: Sequence[bytes]) -> None:
        assert len(values) == self.copies
        self.data[key] = list(values)

    def delete(self, key: bytes) -> bool:
        return self.data.pop(key, None) is not None

    def items(self) -> Iterator[tuple[bytes, list[bytes]]]:
        return iter(list(self.data.items()))

    def next_key(self, key: bytes | None) -> bytes | None:
        keys = list(self.data)
        at = keys.index(key) + 1 if key in keys else 0
        return keys[at] if at < len(keys) else None

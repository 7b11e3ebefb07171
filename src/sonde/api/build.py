"""build(): a script, or C in libbpf's style, to an ELF object that sonde, libbpf and bpftool load.

Programs keep their CO-RE relocations, so that the object runs on other kernels than this one. What a session does with a script's events (printf formats,
maps shown at exit) has no place in an object: it holds what runs in the kernel.
"""

from __future__ import annotations

from struct import unpack_from

from ..debuginfo.btfmin import flatten
from ..errors import FormatError, ProbeError
from ..lang.c.options import EXTERN
from ..record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..bpf.objfile.model import Extern, Fill, Function, MapDef, ObjectFile, Program
    from ..debuginfo.ctype import CType
    from ..lang.source import Source
    from ..spec.object import CoreAccess, MapSpec, ObjectSpec, ProbeSpec, ProgramSpec, Reloc
    from ..spec.target import Target
    from .trace import TraceOptions

_LINK = 1 << 13  # BPF_F_LINK, of a set of programs
_COPIES_LIMIT = 512  # of one program: an object has one section for each place


def build(
    program: str | Source,
    options: TraceOptions | None = None,
    *,
    target: Target | None = None,
    warn: Callable[[str], None] | None = None,
) -> bytes:
    """Compile a program text for any kernel like `target`'s (the running machine when None); return the object file.

    Raises CompileError, ProbeError; FormatError for what an object cannot hold.
    """
    from .trace import TraceOptions, compile, live_target

    options = replace(options or TraceOptions(), relocatable=True)
    target = target or live_target(options)
    spec = compile(program, target, options, warn=warn)
    if spec.fixed and warn is not None:
        warn(f"WARNING: this object is for kernel {target.release} only: it takes {spec.fixed} as it is there")
    return write_object(spec, target, warn)


def build_tool(path: str, arguments: Sequence[str] = (), warn: Callable[[str], None] | None = None) -> bytes:
    """Run a BCC tool in Python up to the end of its set-up, loading nothing; return the object of what it would have loaded and attached.

    `warn` hears what the tool does in Python only, which an object cannot hold. Raises UsageError, FeatureError, ProgramError, FormatError.
    """
    from .bcc.recording import iter_unused, record_tool
    from .trace import live_target

    found = record_tool(path, arguments)
    for text in found.left_out if warn is not None else ():
        warn(f"WARNING: not in the object: {text}")  # type: ignore[misc]
    for name in iter_unused(found) if warn is not None else ():
        warn(f"WARNING: program {name} is attached nowhere")  # type: ignore[misc]
    return write_object(found.spec, live_target(), warn)


def write_object(spec: ObjectSpec, target: Target, warn: Callable[[str], None] | None = None) -> bytes:
    """Return an ObjectSpec as an ELF object. `target` tells the types that CO-RE relocations are about. Raises FormatError, ProbeError.

    libbpf cannot look up enumerators of an enumeration without a name: they become what they are on `target`, and `warn` is told.
    """
    from ..bpf.objfile.write import write_object as write

    if not spec.programs:
        raise ProbeError("there is no program to put into an object", hint="sonde list shows what there is here")
    unbinder = _Unbinder(spec, target)
    data = write(unbinder.object_file())
    for name, value in unbinder.fixed.items() if warn is not None else ():
        warn(  # type: ignore[misc]
            f"WARNING: {name} is taken as {value}, as on kernel {target.release}: its enumeration has no name by which an object could look it up"
        )
    return data


class _Unbinder:
    """An ObjectSpec on its way to the records of an object file."""

    def __init__(self, spec: ObjectSpec, target: Target) -> None:
        self.spec = spec
        self.target = target
        self.taken: set[str] = set()
        by_address = {r.symbol for p in spec.programs for r in p.relocs if r.kind == "map_value"}
        self.elsewhere = {e.name for e in spec.maps if e.name.startswith(EXTERN) or e.pinning == EXTERN}
        self.data = {e.name for e in spec.maps if e.name in by_address or e.name.startswith(".")} - self.elsewhere
        self.names = {each.name: self.name_map(each) for each in spec.maps}
        self.externs: dict[str, Extern] = {}
        self.fixed: dict[str, int] = {}  # enumerators that are taken as they are on the target

    def name_map(self, spec: MapSpec) -> str:
        """Return the name of a map, or of the section of data that it becomes: one whose entry programs know by address."""
        if spec.name in self.elsewhere:
            name = spec.name.removeprefix(EXTERN)
            self.taken.add(name)
            return name
        if spec.name not in self.data:
            if any(spec.initial) and spec.type != "struct_ops":
                raise FormatError(
                    f"map {spec.name} has a first content, which only a section of data can have in an object"
                )
            return self.identifier(spec.name)
        if spec.type != "array" or spec.max_entries != 1:
            raise FormatError(
                f"programs know the address of an entry of map {spec.name}, a {spec.type} of {spec.max_entries} entries"
            )
        name = section = _data_section(spec)
        number = 1
        while name in self.taken:
            name, number = f"{section}{'' if section.count('.') > 1 else '.'}_{number}", number + 1
        self.taken.add(name)
        return name

    def identifier(self, name: str) -> str:
        """Return a name that C and BTF take, and that no other map or program has."""
        text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name).strip("_") or "unnamed"
        text = "_" + text if text[0].isdigit() else text
        made, number = text, 1
        while made in self.taken:
            made, number = f"{text}_{number}", number + 1
        self.taken.add(made)
        return made

    def object_file(self) -> ObjectFile:
        """Return the records."""
        from ..bpf.objfile.model import ObjectFile

        programs = tuple(copy for program in self.spec.programs for copy in self.programs(program))
        license = self.spec.programs[0].license
        maps = tuple(self.map(each) for each in self.spec.maps if each.name not in self.elsewhere)
        return ObjectFile(programs, maps, tuple(self.externs.values()), license)

    def programs(self, spec: ProgramSpec) -> Iterator[Program]:
        """A program for each place that it is attached to."""
        from ..bpf.objfile.model import Line, Program
        from ..probes.sections import section_name

        probes: list[ProbeSpec | None] = [probe for probe in self.spec.probes if probe.program == spec.name]
        sections = list(
            dict.fromkeys(
                section_name(spec.type, spec.attach_type, spec.sleepable, probe, spec.flags)
                for probe in probes or [None]
            )
        )
        if len(sections) > _COPIES_LIMIT:
            raise FormatError(
                f"program {spec.name} is attached to {len(sections)} places, and an object has a copy of it for each",
                hint=f"name fewer of them: {_COPIES_LIMIT} at most",
            )
        calls = tuple(_local_calls(spec))
        spec = self.fix_nameless(spec)
        fills = tuple(self.fill(spec, reloc) for reloc in (*spec.relocs, *calls))
        lines = tuple(Line(line.pc, line.span) for line in spec.lines)
        functions = tuple(_functions(spec, calls))
        for section in sections:
            yield Program(self.identifier(spec.name), section, spec.insns, fills, lines, functions)

    def fix_nameless(self, spec: ProgramSpec) -> ProgramSpec:
        """Answer questions about enumerations without a name for the target, once for all."""
        nameless = [r for r in spec.relocs if r.core is not None and r.core.type_name.strip() == "enum"]
        if not nameless:
            return spec
        from ..debuginfo.corerelo import resolve
        from ..kernel.coreload import patch

        insns = bytearray(spec.insns)
        for reloc in nameless:
            assert reloc.core is not None
            answer = resolve(reloc.core, self.target.btf())
            if answer.value is None:
                raise FormatError(f"program {spec.name} asks for {reloc.core.path}, which the target does not know")
            patch(insns, reloc.pc, reloc.core, answer)
            self.fixed[str(reloc.core.path[0])] = answer.value
        return replace(spec, insns=bytes(insns), relocs=tuple(r for r in spec.relocs if r not in nameless))

    def fill(self, spec: ProgramSpec, reloc: Reloc) -> Fill:
        """What one relocation is in an object."""
        from ..bpf.objfile.model import Fill

        if reloc.kind in ("map", "map_value"):
            if reloc.symbol not in self.names:
                raise FormatError(f"program {spec.name} uses map {reloc.symbol!r}, which the object does not have")
            if reloc.symbol in self.elsewhere:
                self.extern_map(next(each for each in self.spec.maps if each.name == reloc.symbol))
                return Fill(reloc.pc, "extern", self.names[reloc.symbol], reloc.addend)
            if reloc.kind == "map" and reloc.symbol in self.data:
                raise FormatError(
                    f"map {reloc.symbol} is used both as a map and by address: an object can only have one"
                )
            return Fill(reloc.pc, reloc.kind, self.names[reloc.symbol], reloc.addend)
        if reloc.kind == "core" and reloc.core is not None:
            return Fill(reloc.pc, "core", core=self.question(spec, reloc.core))
        if reloc.kind == "kfunc" and reloc.symbol.startswith(EXTERN):
            return Fill(reloc.pc, "kfunc", self.extern_function(reloc.symbol.removeprefix(EXTERN)))
        if reloc.kind in ("kfunc", "ksym", "ksym_btf"):
            self.extern(reloc)
            kind = "ksym" if reloc.kind == "ksym_btf" else reloc.kind
            return Fill(reloc.pc, kind, reloc.symbol, weak=reloc.weak, typed=reloc.kind == "ksym_btf")
        return Fill(reloc.pc, reloc.kind, reloc.symbol, reloc.addend)

    def question(self, spec: ProgramSpec, access: CoreAccess):  # type: ignore[no-untyped-def]
        """A CO-RE access with the type that it is about: the program's own, or the target's of that name."""
        from ..bpf.objfile.model import Question

        local = access.local or self.target.btf().get_type(access.type_name)
        if local is None and access.type_name == "enum" and access.path:
            found = self.target.btf().get_enumerator(str(access.path[0]))
            local = found[1] if found else None
        if local is None:
            raise FormatError(
                f"program {spec.name} asks for {access.type_name}, of which neither it nor the target knows more than the name"
            )
        return Question(access.kind, access.type_name, access.path, access.value, access.index, local)

    def extern(self, reloc: Reloc) -> None:
        """Declare a symbol of the kernel as the target's BTF has it."""
        from ..bpf.objfile.model import KSYMS, Extern
        from ..debuginfo.ctype import VOID, FuncProto, Qualified

        found: CType | None = None
        if reloc.kind == "kfunc":
            found = self.target.btf().get_func(reloc.symbol) or FuncProto(VOID, ())
        elif reloc.kind == "ksym_btf":
            found = self.target.btf().get_var(reloc.symbol)
        self.externs[reloc.symbol] = Extern(reloc.symbol, KSYMS, found or Qualified("const", VOID), reloc.weak)

    def extern_function(self, name: str) -> str:
        """Declare a function of another object."""
        from ..bpf.objfile.model import Extern

        self.externs[name] = Extern(name, "", flatten(dict(self.spec.externs)[name]))
        return name

    def extern_map(self, spec: MapSpec) -> None:
        """Declare a variable, or a map, of another object."""
        from ..bpf.objfile.model import MAPS, Extern
        from ..bpf.objfile.write import define_map
        from ..debuginfo.ctype import VOID

        name = self.names[spec.name]
        if spec.pinning == EXTERN:
            self.externs[name] = Extern(name, MAPS, define_map(self.map(replace(spec, pinning=""))))
        else:
            self.externs[name] = Extern(name, "", flatten(spec.value_type or VOID))

    def map(self, spec: MapSpec) -> MapDef:
        """One map."""
        from ..bpf.objfile.maps import is_data
        from ..bpf.objfile.model import MAPS, MapDef
        from ..debuginfo.ctype import Struct
        from ..kernel.abi import map_type
        from ..kernel.maps import entries_of

        name = self.names.get(spec.name, spec.name)
        value = spec.value_type
        section = name if is_data(name) else MAPS
        if isinstance(value, Struct) and (value.kind == "datasec" or spec.type == "struct_ops"):
            value = flatten(value)
        if spec.type == "struct_ops":
            section = ".struct_ops.link" if spec.flags & _LINK else ".struct_ops"
            spec = replace(spec, flags=0)
        entries = entries_of(spec) if spec.type in ("ringbuf", "user_ringbuf") else spec.max_entries
        return MapDef(
            name,
            map_type(spec.type),
            spec.key_size,
            spec.value_size,
            entries,
            section,
            spec.flags,
            spec.extra,
            bool(spec.pinning),
            self.map(spec.inner) if spec.inner is not None else None,
            spec.key_type,
            value,
            spec.initial,
            spec.frozen,
            tuple((number, self.names.get(held, held)) for number, held in spec.values),
        )


def _data_section(spec: MapSpec) -> str:
    from ..bpf.objfile.maps import is_data

    if is_data(spec.name) and spec.frozen == spec.name.startswith(".rodata"):
        return spec.name
    kind = ".rodata" if spec.frozen else ".data"
    return f"{kind}.{''.join(c if c.isalnum() else '_' for c in spec.name).strip('_')}"


def _local_calls(spec: ProgramSpec) -> Iterator[Reloc]:
    """What the compiler has resolved already within the program, as relocations: in an object, functions part."""
    from ..bpf import isa
    from ..spec.object import Reloc

    known = {reloc.pc for reloc in spec.relocs}
    pc = 0
    while pc < len(spec.insns) // 8:
        opcode, registers, _, imm = unpack_from("<BBhi", spec.insns, pc * 8)
        wide = opcode == isa.LDDW
        source = registers >> 4
        local = source == isa.BPF_PSEUDO_FUNC if wide else opcode == isa.CALL and source == isa.BPF_PSEUDO_CALL
        if local and pc not in known:
            yield Reloc(pc, "subprogram", f"{spec.name}_at_{pc + 1 + imm}", pc + 1 + imm)
        pc += 2 if wide else 1


def _functions(spec: ProgramSpec, calls: tuple[Reloc, ...]) -> Iterator[Function]:
    """The functions in the code of a program, by the relocations that lead to them."""
    from ..bpf.objfile.model import Function

    starts = {reloc.addend: reloc.symbol for reloc in (*calls, *spec.relocs) if reloc.kind == "subprogram"}
    starts[0] = spec.name
    used: set[str] = set()
    for pc in sorted(starts):
        name = "".join(c if c.isascii() and c.isalnum() else "_" for c in starts[pc]) or "function"
        while name in used:
            name += "_"
        used.add(name)
        yield Function(name, pc)

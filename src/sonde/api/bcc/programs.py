"""The functions and tables of a BPF object: a function becomes a program when somebody loads it, and of the type that he asks for."""

from __future__ import annotations

import os
import sys

from ...errors import FeatureError, UsageError
from ...lang.c.options import Entry
from ...record import replace
from ...spec.object import ObjectSpec
from .enums import Constants
from .utils import to_bytes, to_str
from .values import ValueClasses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from ...kernel.engine import KernelObject
    from ...kernel.links import KernelLink
    from ...kernel.maps import KernelMap
    from ...kernel.programs import Program
    from ...lang.c.options import Unit
    from ...spec.object import ProbeSpec
    from .debug import Shower
    from .inprocess import ProcessObject

# The prefix of a function's name to what it attaches to: type, attach type.
TRACING = {
    b"kfunc__": ("tracing", "trace_fentry"),
    b"kretfunc__": ("tracing", "trace_fexit"),
    b"kmod_ret__": ("tracing", "modify_return"),
    b"lsm__": ("lsm", "lsm_mac"),
    b"bpf_iter__": ("tracing", "trace_iter"),
}
_shared: dict[str, KernelMap] = {}  # tables that are public in this process, by name


def make_object() -> KernelObject | ProcessObject:
    """Return an empty object: in the kernel, or where that is wanted in a process; `recording` puts something else in its place."""
    from .inprocess import ProcessObject, find_pid, is_wanted

    if is_wanted():
        return ProcessObject(find_pid())
    from ...kernel.engine import KernelEngine

    return KernelEngine().load(ObjectSpec(()))


class Function:
    """A loaded function. `fd` is the program's descriptor, for whoever attaches it by other means (pyroute2)."""

    def __init__(self, bpf: Any, name: bytes, program: Program) -> None:
        self.bpf = bpf
        self.name = name
        self.program = program
        self.sock = -1  # of attach_raw_socket

    @property
    def fd(self) -> int:
        """The program's descriptor."""
        return self.program.fd_as()

    def __repr__(self) -> str:
        return f"<Function {self.name.decode(errors='replace')}: {self.program.spec.type}>"


class Programs(Constants):
    """Base of class BPF: what was compiled, what is loaded, and who owns it."""

    def __init__(self, unit: Unit, debug: int = 0, verbose: bool = False) -> None:
        self.unit = unit
        self.debug = debug
        self.verbose = verbose
        self.funcs: dict[bytes, Function] = {}
        self.tables: dict[Any, Any] = {}
        self._classes = ValueClasses()
        self._loaded: dict[tuple[bytes, Entry], Function] = {}
        self._borrowed: set[str] = set()
        self.object: Any = make_object()
        try:
            self._create_maps()
        except BaseException:
            self._close_object()
            raise

    @property
    def in_process(self) -> bool:
        """Whether programs run in a process, and not in the kernel."""
        return hasattr(self.object, "grown")

    def _create_maps(self) -> None:
        for spec in self.unit.maps:
            table = self.unit.tables.get(spec.name)
            if table is not None and table.bcc_kind == "extern" and self.in_process:
                raise FeatureError(
                    f"table {spec.name} of another program cannot be shared with a process", feature="user:extern table"
                )
            if table is not None and table.bcc_kind == "extern":
                if spec.name not in _shared or _shared[spec.name].closed:
                    raise UsageError(f"no program of this process has a public table {spec.name}")
                self.object.maps[spec.name] = _shared[spec.name]
                self._borrowed.add(spec.name)
                continue
            live = self.object.add_map(spec)
            if table is not None and table.public:
                _shared[spec.name] = live

    def _close_object(self) -> None:
        for name in self._borrowed:
            self.object.maps.pop(name, None)
        for name, live in list(_shared.items()):
            if self.object.maps.get(name) is live:
                del _shared[name]
        self.object.close()

    def say(self, text: str) -> None:
        """Tell on stderr how something was done, when that was asked for (BPF(debug=…), SONDE_BCC_VERBOSE)."""
        if self.verbose:
            print(f"sonde: {text}", file=sys.stderr)

    # functions ------------------------------------------------------------------------------------------------

    def load_func(self, func_name: str | bytes, prog_type: int, device: Any = None, attach_type: int = -1) -> Function:
        """Make a function into a program of a type (BPF.KPROBE …) and load it, once. Raises UsageError, ProgramError, SondeError."""
        from ...kernel.abi import ATTACH_TYPES, PROGRAM_TYPES

        name = to_bytes(func_name)
        if name in self.funcs:
            return self.funcs[name]
        if device is not None:
            raise FeatureError("programs cannot be offloaded to a device here", feature="offload")
        if not 0 < prog_type < len(PROGRAM_TYPES):
            raise UsageError(f"there is no program type {prog_type}")
        entry, module = self.find_entry(name, PROGRAM_TYPES[prog_type])
        if self.in_process and entry.type == "kprobe":  # there are no others
            entry = replace(entry, user=True)
        if attach_type >= 0:
            entry = replace(entry, attach_type=ATTACH_TYPES[attach_type])
        elif entry.type in _EXPECTED:
            entry = replace(entry, attach_type=_EXPECTED[entry.type])
        return self.load_entry(name, entry, module=module)

    def load_funcs(self, prog_type: int = Constants.KPROBE) -> list[Function]:
        """Load all functions as programs of one type; return them."""
        return [self.load_func(name.encode(), prog_type) for name in self.unit.programs]

    def find_entry(self, name: bytes, kind: str) -> tuple[Entry, str]:
        """Return what a function of this name is compiled for as a program of type `kind`, and the module of the function traced."""
        for prefix, (type_, attach_type) in TRACING.items():
            if name.startswith(prefix) and kind in ("tracing", "lsm"):
                function, module = split_module(name[len(prefix) :].decode())
                return Entry(type_, attach_type, function), module
        return Entry(kind), ""

    def load_entry(self, name: bytes, entry: Entry, probes: Sequence[ProbeSpec] = (), module: str = "") -> Function:
        """Compile and load a function for one kind of entry, once. `probes` are where it will be attached first."""
        known = self._loaded.get((name, entry))
        if known is not None:
            return known
        shower = self._shower()
        compiled = self._compile(name, entry, shower)
        program = compiled.program
        if any(loaded.program.name == program.name for loaded in self._loaded.values()):
            program = replace(program, name=f"{program.name}@{len(self._loaded)}")
        own = {spec.name: self.object.add_map(spec, f"{program.name}/{spec.name}") for spec in compiled.maps}
        if module and not probes:
            probes = [_module_probe(program.name, module)]
        live = self.object.add_program(program, [replace(p, program=program.name) for p in probes], own)
        function = self._loaded[name, entry] = Function(self, name, live)
        if shower is not None and not self.in_process:
            shower.show_verdict(live)
        self.funcs.setdefault(name, function)
        return function

    def _shower(self) -> Shower | None:
        if not self.debug:
            return None
        from .debug import Shower

        return Shower(self.debug)

    def _compile(self, name: bytes, entry: Entry, shower: Shower | None = None) -> Any:
        from ...errors import CompileError
        from .unit import ProgramError

        text = name.decode(errors="replace")
        if text not in self.unit.programs:
            close = [other for other in self.unit.programs if other[:3] == text[:3]]
            raise UsageError(f"Unknown program {text}", hint=f"did you mean {', '.join(close)}?" if close else "")
        try:
            compiled = self.unit.compile_program(text, entry, trace=shower.trace if shower else None)
        except CompileError as error:
            raise ProgramError(error, text) from None
        if shower is not None:
            shower.show_program(compiled.program)
        return compiled

    def attach_probe(self, name: bytes, entry: Entry, probe: ProbeSpec) -> KernelLink:
        """Load a function for `entry` and attach it to one place. Raises SondeError."""
        return self.attach_probes(name, entry, [probe])[0]

    def attach_probes(self, name: bytes, entry: Entry, probes: Sequence[ProbeSpec]) -> list[KernelLink]:
        """Load a function for `entry` and attach it to several places at once. Raises SondeError."""
        function = self.load_entry(name, entry, probes)
        links: list[KernelLink] = self.object.attach([replace(p, program=function.program.name) for p in probes])
        for link in links:
            names = ", ".join(p.name for p in link.probes[:4]) + (" …" if len(link.probes) > 4 else "")
            self.say(f"{function.name.decode()}: {names}: {link.how}")
        return links

    def detach_from(self, links: dict[bytes, KernelLink], name: bytes, what: str) -> None:
        """Detach what is attached under a name in one of the tables of links. Raises UsageError when there is nothing."""
        link = links.pop(name, None)
        if link is None:
            raise UsageError(f"{what} {to_str(name)} is not attached")
        self.object.drop(link)

    def dump_func(self, func_name: str | bytes) -> bytes:
        """Return the code of a function as bytes, 8 for each instruction."""
        from ...kernel.engine import KernelEngine
        from ...kernel.programs import relocate

        name = to_bytes(func_name)
        if self.in_process:
            known = self.funcs.get(name)
            spec = (
                known.program.spec if known else self._compile(name, self.find_entry(name, _kind_of(name))[0]).program
            )
            return bytes(self.object.dump(spec))
        if name in self.funcs:
            spec = self.funcs[name].program.spec
            return bytes(relocate(spec, self.object.maps))
        compiled = self._compile(name, self.find_entry(name, _kind_of(name))[0])
        with KernelEngine().load(ObjectSpec((), compiled.maps)) as own:  # maps that only its code needs
            return bytes(relocate(compiled.program, {**self.object.maps, **own.maps}))

    def disassemble_func(self, func_name: str | bytes) -> str:
        """Return the code of a function as text."""
        from .disassembler import disassemble_prog

        return disassemble_prog(to_bytes(func_name), self.dump_func(func_name))

    # tables ---------------------------------------------------------------------------------------------------

    def get_table(
        self,
        name: str | bytes,
        keytype: Any = None,
        leaftype: Any = None,
        reducer: Callable[[Any, Any], Any] | None = None,
    ) -> Any:
        """Return a table by name. The classes of keys and leaves are made from the C types, unless given. Raises KeyError."""
        from .tables import Table

        text = to_bytes(name)
        table = self.unit.tables.get(text.decode(errors="replace"))
        if table is None:
            raise KeyError(name)
        live = self.object.maps[table.name]
        if keytype is None and table.key is not None:
            keytype = self._classes.find(table.key)
        if leaftype is None and table.leaf is not None:
            leaftype = self._classes.find(table.leaf)
        return Table(
            self,
            live,
            keytype or _number(live.spec.key_size),
            leaftype or _number(live.spec.value_size),
            text,
            reducer=reducer,
        )

    def __getitem__(self, key: Any) -> Any:
        if key not in self.tables:
            self.tables[key] = self.get_table(key)
        return self.tables[key]

    def __setitem__(self, key: Any, leaf: Any) -> None:
        self.tables[key] = leaf

    def __delitem__(self, key: Any) -> None:
        del self.tables[key]

    def __len__(self) -> int:
        return len(self.tables)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tables)

    def decode_table(self, table_name: str | bytes, sizeinfo: bool = False) -> str:
        """Return the layout of a table's keys and leaves as text."""
        from .disassembler import decode_map

        table = self[table_name]
        return decode_map(table_name, table, table.ttype, sizeinfo=sizeinfo)

    def find_event_class(self, name: bytes) -> Any:
        """Return the ctypes class of the events of a perf or ring buffer. Raises UsageError when the programs do not agree on it."""
        ctype = self.unit.events.get(name.decode(errors="replace"))
        if ctype is None:
            raise UsageError(
                f"what programs send to {name.decode(errors='replace')} has no single C type",
                hint="define the data with ctypes, and use ctypes.cast(data, ctypes.POINTER(Data)).contents",
            )
        return self._classes.find(ctype)


# What a program type must be loaded as when nobody says it.
_EXPECTED = {"sk_lookup": "sk_lookup", "netfilter": "netfilter"}


def have(feature: str) -> bool:
    """Whether the kernel has a feature, found by trying; False also where that cannot be told, or programs run in a process."""
    from ...errors import SondeError
    from ...kernel.features import ask
    from .inprocess import is_wanted

    if is_wanted():
        return False

    try:
        return ask(feature)
    except SondeError:
        return False


def _kind_of(name: bytes) -> str:
    for prefix, (kind, _) in TRACING.items():
        if name.startswith(prefix):
            return kind
    for prefix, kind in ((b"tracepoint__", "tracepoint"), (b"raw_tracepoint__", "raw_tracepoint")):
        if name.startswith(prefix):
            return kind
    return "kprobe"


def _number(size: int) -> Any:
    """The class for a key or leaf without a C type."""
    import ctypes as ct

    plain = {1: ct.c_ubyte, 2: ct.c_ushort, 4: ct.c_uint, 8: ct.c_ulonglong}
    return plain.get(size) or ct.c_ubyte * size


def split_module(text: str) -> tuple[str, str]:
    """Take "vmlinux__vfs_read" or "xfs__xfs_file_read" apart: function and module; both parts may hold underscores."""
    if text.startswith("vmlinux__"):
        return text[len("vmlinux__") :], ""
    head, _, tail = text.partition("__")
    if head and tail and os.path.isdir(f"/sys/module/{head}"):
        from ...kernel.btf import kernel_btf

        if not kernel_btf().get_func_id(text):
            return tail, head
    return text, ""


def _module_probe(program: str, module: str) -> ProbeSpec:
    from ...spec.object import ProbeSpec

    return ProbeSpec(program, "fentry", program, module=module)

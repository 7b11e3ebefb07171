"""The kernel engine: an ObjectSpec becomes live maps, verified programs, links and a ring reader.

Everything hangs on descriptors. `KernelObject.close` drops them in reverse order; when sonde is killed, the kernel
does the same.
"""

from __future__ import annotations

from ..errors import FeatureError, FormatError, ProbeError, UsageError
from .descriptor import warn_forgotten
from .maps import KernelMap, create_map
from .programs import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..debuginfo.btf import Btf
    from ..spec.engine import Reader
    from ..spec.object import MapSpec, ObjectSpec, ProbeSpec, ProgramSpec
    from .coreload import CoreLoader
    from .links import KernelLink
    from .mappings import MappingRecorder

_UPROBES = frozenset(["uprobe", "uretprobe", "usdt"])
_KPROBES = frozenset(["kprobe", "kretprobe"])


class KernelEngine:
    """Runs programs in the kernel. `without` names attach methods not to use: "kprobe_multi", "uprobe_multi".

    CO-RE relocations are answered from `types`; from the kernel's own BTF when None.
    """

    name = "kernel"

    def __init__(self, without: Sequence[str] = (), types: Btf | None = None) -> None:
        self.without = frozenset(without)
        self.types = types

    def load(self, spec: ObjectSpec) -> KernelObject:
        """Create the maps and load the programs of `spec`. The caller closes the result.

        Raises VerifierError, PrivilegeError, FeatureError, FormatError or KernelError; then nothing is left behind.
        """
        return KernelObject(spec, self.without, self.types)

    def record_mappings(self) -> MappingRecorder:
        """Have the kernel tell what processes map from now on. The caller closes the result. Raises SondeError."""
        from .mappings import MappingRecorder

        return MappingRecorder()


class KernelObject:
    """A loaded object (see spec.engine.LoadedObject). A context manager."""

    def __init__(self, spec: ObjectSpec, without: frozenset[str] = frozenset(), types: Btf | None = None) -> None:
        self.spec = spec
        tails = any(each.type == "prog_array" and each.values for each in spec.maps)
        self.without = without | _MULTI if tails else without  # an array's programs must all be of one attach type
        self._types = types
        self.maps: dict[str, KernelMap] = {}
        self.programs: dict[str, Program] = {}
        self._links: list[KernelLink] = []
        self._readers: list[Reader] = []
        self._core: CoreLoader | None = None
        check_kernel(spec)
        try:
            for map_spec in spec.maps:
                self.add_map(map_spec)
            for program_spec in spec.programs:
                self.add_program(program_spec, [p for p in spec.probes if p.program == program_spec.name])
            for map_spec in spec.maps:
                self._fill_map(map_spec)
        except BaseException:
            self.close()
            raise

    def add_map(self, spec: MapSpec, name: str = "") -> KernelMap:
        """Create one more map, or open the pinned one that `spec.pinning` names; the object owns it, as `name`.

        The name is that of the spec where none is given. Raises what `load` raises.
        """
        if spec.type == "struct_ops":
            from .structops import create_struct_ops

            live: KernelMap = create_struct_ops(spec)
        elif spec.pinning:
            from .pins import open_pinned

            live = open_pinned(spec)
        else:
            live = create_map(spec)
        self.maps[name or spec.name] = live
        return live

    def _fill_map(self, spec: MapSpec) -> None:
        """Put maps or programs of the object into a map that is to hold them from the start."""
        if spec.type == "struct_ops":
            self.maps[spec.name].prepare(self.programs)  # type: ignore[attr-defined]
            return
        for number, name in spec.values:
            held = self.maps.get(name) or self.programs.get(name)
            if held is None:
                raise FormatError(f"map {spec.name} is to hold {name!r}, which the object does not have")
            fd = held.fd if isinstance(held, KernelMap) else held.fd_as()
            self.maps[spec.name].update(number.to_bytes(spec.key_size, "little"), fd.to_bytes(4, "little"))

    def add_program(
        self, spec: ProgramSpec, probes: Sequence[ProbeSpec] = (), maps: Mapping[str, KernelMap] | None = None
    ) -> Program:
        """Load one more program, which the object owns; `probes` are those that it will be attached to.

        `maps` goes before the object's own. Raises what `load` raises; then there is no such program.
        """
        module = probes[0].module if probes and spec.type in ("tracing", "lsm") else ""
        program = Program(spec, {**self.maps, **maps} if maps else self.maps, module, self._core_loader(spec))
        program.fd_as(preferred_attach_type(spec, probes, self.without))
        self.programs[spec.name] = program
        return program

    def _core_loader(self, spec: ProgramSpec) -> CoreLoader | None:
        """What fits a program to this kernel's types; None where there is nothing to do."""
        if not any(reloc.kind == "core" for reloc in spec.relocs) or is_from_here(self.spec):
            return None
        if self._core is None:
            from .coreload import CoreLoader

            self._core = CoreLoader(self._types)
        return self._core

    def own(self, link: KernelLink) -> None:
        """Take over a link that was made elsewhere: it is closed with the object."""
        self._links.append(link)

    def drop(self, link: KernelLink) -> None:
        """Detach one link and forget it. Dropping twice is harmless."""
        self._links = [each for each in self._links if each is not link]
        link.close()

    def attach(self, probes: Sequence[ProbeSpec]) -> list[KernelLink]:
        """Attach several probes of one program: by one multi link where the kernel has it, else one after the other.

        All or none: when one fails, those before it are detached again. Raises AttachError, ProbeError, PrivilegeError,
        FeatureError, VerifierError (a fallback may have to verify the program anew). The object owns the links.
        """
        if not probes:
            return []
        from .attach import attach

        links: list[KernelLink] = []
        try:
            for group in _by_type(probes):
                program = self._find_program(group[0])
                links += attach(program, group, self.without)
        except BaseException:
            for link in reversed(links):
                link.close()
            raise
        self._links += links
        return links

    def _find_program(self, probe: ProbeSpec) -> Program:
        try:
            return self.programs[probe.program]
        except KeyError:
            raise ProbeError(
                f"{probe.name} asks for program {probe.program!r}, which the object does not have"
            ) from None

    def run(self, program: str) -> int:
        """Run a begin, end or self program once, now; return its return code."""
        if program not in self.programs:
            raise UsageError(f"the object has no program {program!r}")
        return self.programs[program].run()

    def reader(self, name: str = "") -> Reader:
        """Open the reader of a map, `spec.ringbuf` by default: a ring buffer, or a perf event array. It is closed with the object."""
        ring = self.maps.get(name or self.spec.ringbuf)
        if ring is None:
            raise UsageError(f"the object has no map {name or self.spec.ringbuf!r} to read events from")
        reader: Reader
        if ring.spec.type == "perf_event_array":
            from .perfbuf import PerfReader

            reader = PerfReader(ring)
        else:
            from .ringbuf import RingReader

            reader = RingReader(ring)
        self._readers.append(reader)
        return reader

    def iterate(self, link: KernelLink) -> Iterator[bytes]:
        """Run the iterator that `link` attached, once over; yield what its program wrote, piece by piece."""
        from .attach.iter import read_iterator

        return read_iterator(link)

    def detach(self) -> None:
        """Stop all attached programs at once. The links stay to be closed, which takes the kernel longer.

        So that a session can show what its maps hold as soon as nothing changes them any more.
        """
        from .links import stop_programs

        stop_programs(self._links)

    def close(self) -> None:
        """Detach, unmap and unload all of it. Closing twice is harmless."""
        if len(self._links) > 1:
            self.detach()
        links, self._links = self._links, []
        for link in reversed(links):
            link.close()
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.close()
        for program in self.programs.values():
            program.close()
        for live in self.maps.values():
            live.close()

    @property
    def closed(self) -> bool:
        """Whether nothing of it is open."""
        return all(m.closed for m in self.maps.values()) and all(p.closed for p in self.programs.values())

    def __enter__(self) -> KernelObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "maps", None) is not None and not self.closed:
            warn_forgotten(self)
            self.close()


def is_from_here(spec: ObjectSpec) -> bool:
    """Whether an object was compiled for this very kernel."""
    from .btf import kernel_id

    return bool(spec.kernel_id) and spec.kernel_id == kernel_id()


def check_kernel(spec: ObjectSpec) -> None:
    """Raise FeatureError when an object was compiled for another kernel, and cannot run on this one."""
    if not (spec.fixed or spec.assumed) or is_from_here(spec):
        return
    if spec.fixed:
        raise FeatureError(
            f"this object was compiled for another kernel ({spec.kernel_id or 'unknown'}), and takes {spec.fixed} as it is there",
            feature="btf",
            hint="compile it on this machine, or as relocatable",
        )
    from .assumptions import check

    for each in spec.assumed:
        check(each)


_MULTI = frozenset(["kprobe_multi", "kprobe_session", "uprobe_multi"])


def preferred_attach_type(spec: ProgramSpec, probes: Sequence[ProbeSpec], without: frozenset[str]) -> str:
    """Choose what the verifier is asked for first, from the probes that will use the program.

    The type must be known at load time. A kernel without multi links loads the program all the same and refuses the
    link; the program is then loaded once more in the plain type.
    """
    if spec.type != "kprobe" or spec.attach_type or not probes:
        return spec.attach_type
    types = {p.type for p in probes}
    if types <= _UPROBES and "uprobe_multi" not in without:
        return "trace_uprobe_multi"
    if (
        types <= _KPROBES
        and "kprobe_multi" not in without
        and len(probes) > 1
        and not any(_is_inside(p) for p in probes)
    ):
        return "trace_kprobe_multi"
    return ""


def _is_inside(probe: ProbeSpec) -> bool:
    """Whether a kprobe is not at the entry of a function, where a multi link cannot go."""
    return bool(probe.offset or probe.address)


def _by_type(probes: Sequence[ProbeSpec]) -> Iterator[list[ProbeSpec]]:
    """Neighbours of the same program and type, in the order given."""
    group: list[ProbeSpec] = []
    for probe in probes:
        if group and (probe.type, probe.program) != (group[0].type, group[0].program):
            yield group
            group = []
        group.append(probe)
    if group:
        yield group

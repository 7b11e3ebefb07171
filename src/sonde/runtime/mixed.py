"""An engine over two: the half of a script that happens in a process runs there, the other half in the kernel, and the session sees one object.

It knows its engines by `spec.engine` only. Which program is where: `sides`; how maps and rings become one: `merged`.
"""

from __future__ import annotations

from ..errors import UsageError
from .merged import MergedReader, merge_maps
from .session import attach_groups
from .sides import KERNEL, USER, divide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from ..spec.engine import Engine, Link, LoadedObject, Map, Reader, SharingEngine, Worker
    from ..spec.object import ObjectSpec, ProbeSpec
    from .sides import Sides


class MixedEngine:
    """Runs programs in a process by the engine `user`, and in the kernel by the engine `kernel`."""

    name = "mixed"

    def __init__(self, user: SharingEngine, kernel: Engine) -> None:
        self._user = user
        self._kernel = kernel

    def load(self, spec: ObjectSpec) -> MixedObject:
        """Load both halves. The caller closes the result. Raises ProbeError where they cannot be told apart, and what the engines raise; then nothing is left behind."""
        sides = divide(spec)
        kernel = self._kernel.load(sides.halves[KERNEL])  # the process is not stopped for what the kernel refuses
        try:
            user = self._user.load_sharing(sides.halves[USER], {name: kernel.maps[name] for name in sides.shared})
        except BaseException:
            kernel.close()
            raise
        return MixedObject(spec, sides, user, kernel)

    def record_mappings(self) -> Any:
        """Have the kernel tell what processes map from now on. The caller closes the result. Raises SondeError."""
        return self._kernel.record_mappings()  # type: ignore[attr-defined]


class MixedObject:
    """A loaded object of two halves (see spec.engine.LoadedObject). A context manager."""

    def __init__(self, spec: ObjectSpec, sides: Sides, user: LoadedObject, kernel: LoadedObject) -> None:
        self.spec = spec
        self._sides = sides
        self._halves = {USER: user, KERNEL: kernel}
        alone = frozenset(view for view, users in sides.users.items() if users == {USER})
        merged = merge_maps(spec, kernel.maps, user.maps, alone)
        self.maps: Mapping[str, Map] = {**merged, **{name: kernel.maps[name] for name in sides.shared}}
        self._readers: list[MergedReader] = []
        self._links: dict[ProbeSpec, Link] = {}  # of those in the process

    @property
    def worker(self) -> Worker | None:
        """What the engine of the process has to do itself."""
        return getattr(self._halves[USER], "worker", None)

    @property
    def notes(self) -> Sequence[str]:
        """What the engine of the process has to tell."""
        return getattr(self._halves[USER], "notes", ())

    @property
    def missing(self) -> Sequence[str]:
        """Probes that could not be had in the process, with the reason."""
        return getattr(self._halves[USER], "missing", ())

    def attach(self, probes: Sequence[ProbeSpec]) -> list[Link]:
        """Attach several probes of one program, each on its side. Raises what the engines raise.

        The first call attaches all that are in the process: stopping it makes system calls and more that the others would see.
        """
        if not self._links:
            for group in attach_groups(self._sides.halves[USER].probes):
                self._links.update(zip(group, self._halves[USER].attach(group)))
        mine = [probe for probe in probes if self._sides.of(probe) == KERNEL]
        links = iter(self._halves[KERNEL].attach(mine) if mine else ())
        return [self._links[probe] if self._sides.of(probe) == USER else next(links) for probe in probes]

    def run(self, program: str) -> int:
        """Run a begin, end or self program once, now; return its return code."""
        return self._halves[self._sides.of_program(program)].run(program)

    def reader(self, name: str = "") -> Reader:
        """Open the reader of a ring, in order of time where both halves have one."""
        ring = name or self.spec.ringbuf
        having = [half for half in self._halves.values() if ring in half.maps]
        if not ring or not having:
            raise UsageError(f"the object has no map {ring!r} to read events from")
        readers = [half.reader(name) for half in having]
        if len(readers) == 1:
            return readers[0]
        if not self.spec.stamped:
            raise UsageError(f"records of {ring!r} do not say when they were made: two rings cannot be read as one")
        self._readers.append(MergedReader(readers))
        return self._readers[-1]

    def iterate(self, link: Any) -> Iterator[bytes]:
        """Run the iterator that `link` attached, once over; yield what its program wrote, piece by piece."""
        return self._halves[KERNEL].iterate(link)

    def detach(self) -> None:
        """Stop all attached programs; the links stay to be closed."""
        self._both(lambda half: half.detach())

    def close(self) -> None:
        """Take out and free everything. Twice is harmless."""
        for reader in self._readers:
            reader.close()
        self._both(lambda half: half.close())

    def _both(self, step: Callable[[LoadedObject], object]) -> None:
        """Do something with the half in the kernel, and then with the other one, whatever happened to the first."""
        try:
            step(self._halves[KERNEL])
        finally:
            step(self._halves[USER])

    def __enter__(self) -> MixedObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

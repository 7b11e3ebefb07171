"""struct_ops in objects: which program stands in which member of which struct, and what registers the whole."""

from __future__ import annotations

from ..debuginfo.ctype import Struct
from ..errors import FormatError
from ..spec.object import ProbeSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..bpf.objfile.model import ObjectFile

_STRUCT_OPS = 26  # the type of map


class StructOps:
    """The sets of programs of an object. `warnings` name programs that no set has."""

    def __init__(self, found: ObjectFile) -> None:
        self.warnings: list[str] = []
        self.maps = [each for each in found.maps if each.type == _STRUCT_OPS and not each.section.startswith("?")]
        self.waiting = {name for each in found.maps if each.section.startswith("?") for _, name in each.values}
        self.members: dict[str, set[str]] = {}
        for each in self.maps:
            names = {m.offset: m.name for m in each.value.members} if isinstance(each.value, Struct) else {}
            for offset, program in each.values:
                if offset not in names or each.value is None:
                    raise FormatError(f"{each.name} holds a program at byte {offset}, where no member begins")
                self.members.setdefault(program, set()).add(f"{each.value.name}.{names[offset]}")

    def find_member(self, program: str) -> str:
        """Return "STRUCT.MEMBER" that a program stands in; "" for one that no set has. Raises FormatError."""
        members = self.members.get(program, set())
        if len(members) > 1:
            raise FormatError(
                f"program {program} stands in several members: {', '.join(sorted(members))}",
                hint="the kernel verifies a program for one of them: write one for each",
            )
        if not members and program not in self.waiting:
            self.warnings.append(f"program {program} stands in no set of programs, and is left out")
        return next(iter(members), "")

    def probes(self) -> Iterator[ProbeSpec]:
        """Yield what registers the sets."""
        for each in self.maps:
            if not each.values:
                raise FormatError(f"{each.name} in section {each.section} has no programs")
            yield ProbeSpec(f"struct_ops:{each.name}", "struct_ops", each.values[0][1], symbol=each.name)

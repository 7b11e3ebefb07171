"""Functions and variables of the kernel that an object declares: by which name they are found here, and whether they are what the object takes them for.

As in libbpf: a function's name may have a flavour (`bpf_task_acquire___v2`); one whose prototype is another here is refused, or, when it is weak, not there.
"""

from __future__ import annotations

from ..debuginfo.coretypes import types_compatible
from ..debuginfo.ctype import FuncProto, Void, declare, essential_name, strip
from ..errors import FeatureError, SondeError
from ..record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..bpf.objfile.model import ObjectFile
    from ..debuginfo.btf import Btf
    from ..debuginfo.ctype import CType
    from ..spec.object import ProgramSpec
    from ..spec.target import Target

_OTHER = " (of another type)"  # behind the name of what counts as missing: no symbol is called so


def find_names(found: ObjectFile, target: Target) -> dict[str, str]:
    """Return the kernel's names of an object's typed externs, where they differ from the object's. Raises FeatureError for one of another type."""
    names: dict[str, str] = {}
    types: Btf | None = None
    for each in found.externs:
        own = strip(each.ctype)
        if each.section != ".ksyms" or isinstance(own, Void):
            continue
        if types is None:
            try:
                types = target.btf()
            except SondeError:
                return names  # whoever loads the object says so
        name = essential_name(each.name) if isinstance(own, FuncProto) else each.name
        there = types.get_func(name) if isinstance(own, FuncProto) else types.get_var(name)
        if there is not None and not types_compatible(own, there):
            if not each.weak:
                raise _other_type(each.name, own, there)
            name += _OTHER
        if name != each.name:
            names[each.name] = name
    return names


def _other_type(name: str, own: CType, there: CType) -> FeatureError:
    return FeatureError(
        f"{name} is declared as {declare(own, name)}; in this kernel it is {declare(there, essential_name(name))}",
        feature=f"ksym:{name}",
        hint="declare it __weak to do without it, and another one under a flavour (name___flavour)",
    )


def rename(spec: ProgramSpec, names: dict[str, str]) -> ProgramSpec:
    """Return a program that asks for the kernel's names."""
    if not any(reloc.symbol in names for reloc in spec.relocs):
        return spec
    relocs = tuple(
        replace(r, symbol=names.get(r.symbol, r.symbol)) if r.kind in ("kfunc", "ksym", "ksym_btf") else r
        for r in spec.relocs
    )
    return replace(spec, relocs=relocs)

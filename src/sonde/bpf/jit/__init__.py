"""The JIT's door: eBPF to machine code of a CPU, position-independent, with relocations for whatever lies outside of it.

    code = translate(insns, "x86_64")        pure: the same input gives the same bytes
    with here.Placed(code, …) as placed:     in this process; the user engine places the same code into another
        placed.run(context)

What goes in must have been verified: machine code has no bounds checks.
"""

from __future__ import annotations

from ...errors import FeatureError
from ..isa import MAX_STACK_BYTES, Insn, encode
from .code import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .code import MachineCode
    from .maps import MapPlan


def translate(
    insns: Sequence[Insn],
    arch: str,
    *,
    features: frozenset[str] = frozenset(),
    stack_bytes: int = MAX_STACK_BYTES,
    plan: MapPlan | None = None,
    alone: frozenset[int] = frozenset(),
) -> MachineCode:
    """Translate a verified program. `features` are of the CPU ("bmi2", "lse"); `stack_bytes` what a function uses at most.

    Helpers of the maps of `plan` (see `maps.make_plan`) become machine code as well. Equal arguments give the same object again (the last 256 are kept).
    `alone` are pcs of atomic operations that only interruptions could disturb, no other CPU.

    Raises FormatError for code without form (a jump to nowhere), FeatureError for an arch or operation that has no translation.
    """
    if arch == "x86_64":
        from . import x86_64 as backend
    elif arch == "aarch64":
        from . import aarch64 as backend  # type: ignore[no-redef]
    else:
        raise FeatureError(f"there is no JIT for {arch}", feature=f"jit:{arch}", hint="the interpreter runs everywhere")
    key = (encode(insns), arch, features, stack_bytes, plan and plan.key, alone)
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= _KEEP:
            del _kept[next(iter(_kept))]
        found = _kept[key] = backend.emit(split(insns, stack_bytes), features, plan, alone)
    return found


_KEEP = 256
_kept: dict[object, MachineCode] = {}

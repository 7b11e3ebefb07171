"""What an object from elsewhere assumes about the machine that it is loaded on: checked, or refused with both values."""

from __future__ import annotations

from ..debuginfo.ctype import sizeof
from ..debuginfo.tracefs import find_root, read_format
from ..errors import FeatureError
from .cpus import possible_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..spec.object import Assumption

_HINT = "compile it on this machine"


def check(assumed: Assumption) -> None:
    """Raise FeatureError when this machine is another in this respect, ProbeError when it lacks the tracepoint."""
    _CHECKS[assumed.kind](assumed)


def _tracepoint_field(assumed: Assumption) -> None:
    event, _, name = assumed.name.partition(".")
    category, _, event = event.partition(":")
    member = read_format(category, event, find_root()).struct.get_member(name)
    found = (member.offset, sizeof(member.member.ctype)) if member is not None else ()
    if found != assumed.value:
        offset, size = assumed.value
        here = f"has it at {found[0]}, {found[1]} bytes" if found else "does not have it"
        raise FeatureError(
            f"this object has field {name} of tracepoint {category}:{event} at {offset}, {size} bytes, and this kernel {here}",
            feature=f"tracepoint:{category}:{event}",
            hint=_HINT,
        )


def _possible_cpus(assumed: Assumption) -> None:
    here = possible_cpus()
    if here > assumed.value[0]:
        raise FeatureError(
            f"this object looks at {assumed.value[0]} CPUs, and this machine may have {here}",
            feature="cpus",
            hint=_HINT,
        )


_CHECKS: dict[str, Callable[[Assumption], None]] = {
    "tracepoint_field": _tracepoint_field,
    "possible_cpus": _possible_cpus,
}

"""aarch64 behind the door that `user.machine` describes."""

from __future__ import annotations

from ...bpf.jit.a64_encoding import SYSCALL, word
from ...errors import FeatureError
from . import relocate as moving
from .calls import assemble_calls
from .callsites import find_calls
from .code import READ_COUNTER, RET, jump_to
from .primitives import map_door, primitive
from .registers import LAYOUT, RECORD
from .trampoline import claim_routine, cpu_code, entry, returning, system_calls
from .unwinding import restorer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..relocated import Relocated

__all__ = [
    "BREAKPOINT", "CLOCK_SOURCE", "COUNTER", "GUARDS", "HALTS", "NAME", "REACH", "RECORD", "REGISTERS", "SYSCALL", "UNWINDS",
    "assemble_calls", "claim_routine", "cpu_code", "entry", "find_calls", "jump_to", "map_door", "primitive", "relocate", "restorer", "returning", "signal_handler", "system_calls",
]  # fmt: skip

NAME = "aarch64"
CLOCK_SOURCE = "arch_sys_counter"
COUNTER = word(READ_COUNTER) + RET
GUARDS = None
HALTS = None
UNWINDS = False
BREAKPOINT = b""  # brk would do, but a jump fits wherever one may stand
REACH = (1 << 27) - (1 << 23)
REGISTERS = LAYOUT


def signal_handler(signal: int, old: int, default: int, table: int, flag: int) -> tuple[bytes, int]:
    """There is none here."""
    raise FeatureError("the user engine handles no signals on aarch64", feature="user:handlers")


def relocate(code: bytes, old: int, new: int, *, patch: int, falls: bool = False) -> Relocated:
    """See `user.machine`. A window is one instruction here, so that none is moved in two parts."""
    assert not falls and patch <= len(code)
    return moving.relocate(code, old, new)

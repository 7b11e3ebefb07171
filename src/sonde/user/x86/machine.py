"""x86-64 behind the door that `user.machine` describes."""

from __future__ import annotations

from ...bpf.jit.x86_encoding import SYSCALL
from ...debuginfo.ptregs import get_ptregs
from . import guards as GUARDS
from . import halts as HALTS
from .calls import assemble_calls
from .callsites import find_calls
from .code import jump_to
from .handler import BREAKPOINT, signal_handler
from .primitives import map_door, primitive
from .registers import RECORD
from .relocate import relocate
from .trampoline import claim_routine, cpu_code, entry, returning, system_calls
from .unwinding import restorer

__all__ = [
    "BREAKPOINT", "CLOCK_SOURCE", "COUNTER", "GUARDS", "HALTS", "NAME", "REACH", "RECORD", "REGISTERS", "SYSCALL", "UNWINDS",
    "assemble_calls", "claim_routine", "cpu_code", "entry", "find_calls", "jump_to", "map_door", "primitive", "relocate", "restorer", "returning", "signal_handler", "system_calls",
]  # fmt: skip

NAME = "x86_64"
CLOCK_SOURCE = "tsc"
COUNTER = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3"  # rdtsc; shl rdx, 32; or rax, rdx; ret
REACH = (1 << 31) - (1 << 26)
UNWINDS = True
_REGISTERS = get_ptregs(NAME)
assert _REGISTERS is not None
REGISTERS = _REGISTERS

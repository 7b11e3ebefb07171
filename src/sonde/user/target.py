"""What the user engine can do, as a feature table: compiling for it is compiling for one more kind of machine."""

from __future__ import annotations

from ..record import replace
from .helpers import NAMES, UNSAFE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.tracefs import TracepointFormat
    from ..spec.target import Target

_MAPS = frozenset([
    "hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "array", "percpu_array", "queue", "stack", "bloom_filter", "lpm_trie", "ringbuf",
    "prog_array",
])  # fmt: skip
_OTHERS = frozenset(["isa:v4", "cookie:perf_event"])
_OF_SONDE = frozenset(["get_current_cgroup_id"])  # for programs that sonde runs itself
_MOST_CPUS = 1 << 12
_SPARE = 6


class UserFeatures:
    """Answers by name (see spec.target.Features): helpers, map types, what probes can be told apart by. `helpers` and `maps` are had besides."""

    def __init__(self, helpers: frozenset[str] = frozenset(), maps: frozenset[str] = frozenset()) -> None:
        self._helpers = NAMES | helpers
        self._maps = _MAPS | maps

    def have(self, name: str) -> bool:
        """Tell whether the engine has feature `name`; what the kernel alone can have, it has not."""
        group, _, rest = name.partition(":")
        if group == "helper":
            return rest.partition(":")[0] in self._helpers | _OF_SONDE
        if group == "map":
            return rest in self._maps
        return name in _OTHERS


def slots_for(cpus: int) -> int:
    """How many copies per-CPU values have: one for each CPU, spare ones for runs that were interrupted, and the last for sonde itself."""
    return min(cpus + max(_SPARE, cpus), _MOST_CPUS)


def user_target(
    machine: Target, *, unsafe: bool = False, helpers: frozenset[str] = frozenset(), maps: frozenset[str] = frozenset()
) -> Target:
    """Return `machine` as this engine makes it look; `unsafe`: to programs that may change what the process does. `helpers` and `maps` are what BCC's
    programs have besides."""
    from ..debuginfo.syscallargs import syscall_format

    def tracepoint(category: str, event: str) -> TracepointFormat:
        if category in ("syscalls", "raw_syscalls"):  # their records are made here; nobody needs tracefs for them
            return syscall_format(category, event)
        return machine.tracepoint(category, event)

    return replace(
        machine,
        tracepoint=tracepoint,
        features=UserFeatures(helpers | UNSAFE if unsafe else helpers, maps),
        in_process=True,
        copies=slots_for(machine.possible_cpus),
        kernel_id="",
        bpf_programs=None,
    )

"""Breakpoints of the kernel's and jumps of ours in one process: where they would meet.

The kernel's uprobes keep the first instruction as the file has it, carry it out elsewhere, and go on behind it: in the middle of a jump, if one of ours is there. So a
place that has a jump gets no breakpoint. (The other way round memory differs from the file, and the user engine refuses the place.)
"""

from __future__ import annotations

from ..errors import FormatError, ProbeError, SondeError
from .agent import find_agents
from .sites import Files, find_sites

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..spec.object import ProbeSpec
    from .sites import Site

_BREAKPOINTS = frozenset(["uprobe", "uretprobe", "usdt"])
_REACH = 12  # bytes that a jump consists of, at most, those that it shares with the code behind it included


def check_breakpoints(pid: int, probes: Iterable[ProbeSpec]) -> None:
    """Raise ProbeError where a probe of the kernel engine would stand in a jump that a sonde has put into process `pid`."""
    wanted = [probe for probe in probes if probe.type in _BREAKPOINTS]
    try:
        agents = [agent for agent in find_agents(pid) if agent.sites] if wanted else []
    except SondeError:  # it is gone, or nobody's business: who attaches will say so
        return
    if not agents:
        return
    files = Files(pid)
    try:
        for probe in wanted:
            places = [site.address for site in _sites(probe, files)]
            for agent in agents:
                if any(0 <= place - site.address < _REACH for place in places for site in agent.sites):
                    hint = f"end sonde {agent.owner_pid} first" if agent.alive else f"sonde clean -p {pid} takes it out"
                    raise ProbeError(
                        f"{probe.name}: sonde {agent.owner_pid} has a jump there in process {pid}, "
                        "into which the kernel's breakpoint would send the process",
                        hint=hint,
                    )
    finally:
        files.close()


def _sites(probe: ProbeSpec, files: Files) -> list[Site]:
    try:
        return find_sites(probe, files)
    except (FormatError, OSError):
        return []

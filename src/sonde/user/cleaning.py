"""What a sonde that was killed has left in a process, taken out again: from its table to original bytes and unmapped memory."""

from __future__ import annotations

from ..record import Record
from .agent import find_agents
from .memory import unmap
from .patches import Patch, take_out, when_left
from .stopped import StoppedProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .agent import AgentInfo


class Cleaned(Record):
    """What has become of one agent: sites put back, addresses that somebody else has changed since, and why its memory is still there ([]: it is gone)."""

    agent: AgentInfo
    sites: int
    foreign: tuple[int, ...]
    reasons: tuple[str, ...]


def remove_agents(pid: int, *, living: bool = False, limit_s: float = 1.0) -> list[Cleaned]:
    """Take out what sondes that have ended left in process `pid`; with `living`, also what belongs to one that runs.

    Sites get their original bytes back where the bytes are still those that sonde put there. Memory is unmapped when no thread is in it and no stack leads to it, which
    is waited for `limit_s` seconds at most. Raises TargetError, PrivilegeError.
    """
    return [_remove(pid, agent, limit_s) for agent in find_agents(pid) if living or not agent.alive]


def _remove(pid: int, agent: AgentInfo, limit_s: float) -> Cleaned:
    patches = [Patch(site.address, site.original, site.in_place, {}) for site in agent.sites]
    with StoppedProcess(pid) as stopped:
        foreign = tuple(patch.address for patch in take_out(stopped, (), patches))
    if foreign:
        reasons = [f"the code at {address:#x} was changed by somebody else, and may lead to it" for address in foreign]
    else:
        spans = agent.memories[::-1]  # the table goes last
        reasons = when_left(
            pid, agent.memories[:1], lambda stopped: unmap(stopped, spans), returns=None, limit_s=limit_s
        )
    return Cleaned(agent, len(patches) - len(foreign), foreign, tuple(reasons))

"""What sonde has left in processes, taken out again: by the table of one that was killed, and in the children of a traced process."""

from __future__ import annotations

import os

from ..debuginfo.procmaps import read_maps
from ..errors import PrivilegeError, TargetError
from ..record import Record
from .agent import find_agents, start_time
from .handlers import find_handlers, give_back, restore
from .memory import unmap
from .patches import Patch, take_out, when_left
from .ptrace import read_exactly
from .slack import find_leftovers
from .stopped import StoppedProcess
from .unwinding import put_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from .agent import Agent, AgentInfo


class Cleaned(Record):
    """What has become of one agent: sites put back, addresses that somebody else has changed since, and why its memory is still there ((): it is gone)."""

    agent: AgentInfo
    sites: int
    foreign: tuple[int, ...]
    reasons: tuple[str, ...]


def remove_agents(pid: int, *, living: bool = False, limit_s: float = 1.0) -> list[Cleaned]:
    """Take out what sondes that have ended left in process `pid`; with `living`, also what belongs to one that runs.

    Sites get their original bytes back where the bytes are still those that sonde put there. Memory is unmapped when no thread is in it and no stack leads to it, which
    is waited for `limit_s` seconds at most. Raises TargetError, PrivilegeError.
    """
    if _has_leftovers(pid):
        with StoppedProcess(pid) as stopped:
            stopped.settle()
    agents = [agent for agent in find_agents(pid) if living or not agent.alive]
    return [_remove(agent, _patches_of(agent), None, None, limit_s) for agent in agents]


def _has_leftovers(pid: int) -> bool:
    """Whether a sonde was killed in the middle of its system calls in a process: their code is still there, and a thread may be in it."""
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            fd = memory.fileno()
            return bool(find_leftovers(read_maps(pid), lambda address, size: read_exactly(fd, address, size, pid), pid))
    except (OSError, TargetError, PrivilegeError):
        return False  # who may not look at it is told so when it matters


def clean_children(
    pid: int,
    patches: Sequence[Patch],
    *,
    carried: Sequence[Agent] = (),
    returns: Collection[int] | None = None,
    also: Callable[[StoppedProcess], None] | None = None,
    limit_s: float = 1.0,
) -> list[Cleaned]:
    """Take `patches` and the memory `carried` out of the processes that `pid`, which has been cleaned already, forked while they were in it.

    What else this sonde traces is not touched; without `carried`, all that has memory of it is taken for a child. `also` is called with each of them, stopped and with its sites put back. What may not be traced, or ends meanwhile, is passed over. `returns`: see
    `patches.find_inside`.
    """
    done: list[Cleaned] = []
    seen = {pid}
    owner = os.getpid(), start_time(os.getpid())
    inodes = frozenset(agent.inode for agent in carried)
    within = [span for agent in carried for span in agent.memories] if carried else None
    while True:  # a child may fork before it is reached
        new = [child for child in find_carriers(owner, inodes) if child not in seen]
        if not new:
            return done
        for child in new:
            seen.add(child)
            try:
                agents = [
                    agent for agent in find_agents(child, within) if agent.owner_pid == os.getpid() and agent.alive
                ]
                done += [_remove(agent, patches, returns, also, limit_s) for agent in agents]
            except (TargetError, PrivilegeError):
                pass


def find_carriers(owner: tuple[int, int] | None = None, inodes: Collection[int] = ()) -> list[int]:
    """Return the processes, of those that may be looked at, that have code memory of the sonde `owner` (pid, start time), or of any; if given, one of `inodes`."""
    wanted = b"/memfd:sonde-agent:" + (b"%d:%d " % owner if owner else b"")
    since = owner[1] if owner else 0
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and start_time(int(name)) >= since:
            try:
                with open(f"/proc/{name}/maps", "rb") as file:
                    lines = [line for line in file if wanted in line and b" r-xs " in line]  # sonde itself has it rw-s
                if any(not inodes or int(line.split()[4]) in inodes for line in lines):
                    found.append(int(name))
            except OSError:
                pass
    return found


def _patches_of(agent: AgentInfo) -> list[Patch]:
    return [Patch(site.address, site.original, site.in_place, {}) for site in agent.sites]


def _remove(
    agent: AgentInfo,
    patches: Sequence[Patch],
    returns: Collection[int] | None,
    also: Callable[[StoppedProcess], None] | None,
    limit_s: float,
) -> Cleaned:
    def leave(stopped: StoppedProcess) -> None:
        if also is not None:
            also(stopped)
        for table in agent.tables:
            put_back(stopped, table)

    def remove(stopped: StoppedProcess) -> None:
        give_back(stopped, agent.code)
        unmap(stopped, [*data, *agent.code])  # the tables go last

    data = [span for span in agent.memories if span not in agent.code]
    with StoppedProcess(agent.pid) as stopped:
        foreign = tuple(patch.address for patch in take_out(stopped, (), patches))
        leave(stopped)
        handlers = find_handlers(stopped, agent.code)
    harmless = restore(agent.pid, agent.code) if not foreign else frozenset()
    if harmless is None:
        reasons = ["a thread has run into a breakpoint of sonde's and does not go on"]
    elif foreign:
        reasons = [f"the code at {address:#x} was changed by somebody else, and may lead to it" for address in foreign]
    else:
        reasons = when_left(
            agent.pid,
            agent.code,
            remove,
            returns=returns,
            first=leave,
            harmless=harmless | handlers,
            limit_s=limit_s,
        )
    return Cleaned(agent, len(patches) - len(foreign), foreign, tuple(reasons))

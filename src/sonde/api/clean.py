"""clean(): what sondes that were killed have left in processes, taken out again."""

from __future__ import annotations

from ..errors import SondeError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Left(Record):
    """What became of one process: at how many places its code was put back (`probes`: those of probes, and of halts before exec), and what could not be ("": all of it was)."""

    pid: int
    probes: int
    failure: str = ""


def clean(pid: int = 0, *, living: bool = False) -> Iterator[Left]:
    """Take out what ended sondes have left in process `pid` (0: in every process that may be looked at); yield what was done.

    `living`: also what belongs to sondes that run, which lose their probes then. Processes without anything left are passed over. Raises TargetError,
    PrivilegeError for a `pid` that is not there or not ours.
    """
    from ..user.cleaning import find_carriers, remove_agents

    for each in [pid] if pid else find_carriers():
        try:
            done = remove_agents(each, living=living)
        except SondeError as failure:
            if pid:
                raise
            yield Left(each, 0, failure.message)
            continue
        for cleaned in done:
            foreign = [f"the code at {address:#x} was changed by somebody else" for address in cleaned.foreign]
            yield Left(each, cleaned.sites, "; ".join([*foreign, *cleaned.reasons]))

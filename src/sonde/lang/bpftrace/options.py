"""Options: what the command line says that changes the meaning of a bpftrace script."""

from __future__ import annotations

from ...record import Record


class Options(Record):
    """Options of one compilation. `filter_probes` is a regular expression on full probe names, "" for all."""

    pid: int = 0  # -p: fills in probes without a target, and restricts all of them
    command_path: str = ""  # the program that -c starts
    unsafe: bool = False
    filter_probes: str = ""
    missing_probes: str = "error"  # or "warn", "ignore"
    verbose: bool = False

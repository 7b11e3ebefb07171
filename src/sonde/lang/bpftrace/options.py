"""Options: what the command line says that changes the meaning of a bpftrace script."""

from __future__ import annotations

from ...record import Record


class Options(Record):
    """Options of one compilation. `filter_probes` is a regular expression on full probe names, "" for all."""

    pid: int = 0  # -p: fills in probes without a target, and restricts all of them
    command_path: str = ""  # the program that -c starts
    unsafe: bool = False
    filter_probes: str = ""
    child_pid: int = 0  # of the command that -c starts; 0: none
    pid_namespace: tuple[int, int] | None = None  # (device, inode) of the tracer's, when that is not the first one
    helper_errors: bool = False  # -k: report each failed call of a helper
    relocatable: bool = False  # the object may go to another kernel: look up each struct member when it is loaded
    stamped: bool = False  # events say when they were made
    traceable_functions: str = ""  # a file that lists the kernel functions that may be traced
    directories: tuple[str, ...] = ()  # -I: where C headers are looked for
    headers: tuple[str, ...] = ()  # --include: C headers before the script
    params: tuple[str, ...] = ()  # $1, $2 …
    named: tuple[tuple[str, str | None], ...] = ()  # what getopt() finds

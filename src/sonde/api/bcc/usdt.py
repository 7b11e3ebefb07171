"""BCC's `usdt`: the static probes of a process or a file, which functions are enabled for, and where their arguments are.

Notes are read by `debuginfo.usdt`. No C text is generated: `bpf_usdt_readarg` is compiled for each location by what the notes say.
"""

from __future__ import annotations

import os
import sys

from ...debuginfo.elf import Elf
from ...debuginfo.usdt import UsdtArg, parse_args, read_notes
from ...errors import SondeError
from ...record import Record
from . import binaries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MISSING = """Failed to enable USDT probe '{0}':
the specified pid might not contain the given language's runtime,
or the runtime was not built with the required USDT probes. Look
for a configure flag similar to --with-dtrace or --enable-dtrace.
To check which probes are present in the process, use the tplist tool.
"""


class USDTException(SondeError):
    """A process or file without USDT probes, or a probe that is not there."""


class ActiveProbe(Record):
    """One location of a probe that a function was enabled for."""

    path: str
    fn_name: bytes
    offset: int  # in the file
    address: int
    pid: int  # -1: every process
    provider: str
    name: str
    semaphore_offset: int
    args: tuple[UsdtArg, ...]


class Location(Record):
    """One location of a probe as it was found."""

    path: str  # as the process knows it
    address: int
    offset: int
    semaphore_offset: int
    args: tuple[UsdtArg, ...]


class USDTProbeArgument:
    """An argument of a probe at one location."""

    def __init__(self, arg: UsdtArg) -> None:
        self.arg = arg
        self.size = arg.size
        self.signed = arg.signed

    def __str__(self) -> str:
        sign = "signed  " if self.signed else "unsigned"
        return f"{self.size} {sign} bytes @ {_operand(self.arg)}"


class USDTProbeLocation:
    """A place where a probe is hit."""

    def __init__(self, probe: USDTProbe, index: int, location: Location) -> None:
        self.probe = probe
        self.index = index
        self.location = location
        self.num_arguments = len(location.args)
        self.address = location.address
        self.bin_path = os.fsencode(location.path)

    def get_argument(self, index: int) -> USDTProbeArgument:
        """Return an argument by its number from 0. Raises USDTException."""
        if not 0 <= index < self.num_arguments:
            raise USDTException(f"error retrieving probe argument {index} location {self.index}")
        return USDTProbeArgument(self.location.args[index])

    def __str__(self) -> str:
        return f"{self.location.path} {self.address:#x}"


class USDTProbe:
    """A probe with all its locations in one file."""

    def __init__(self, provider: str, name: str, path: str, semaphore: int, locations: list[Location]) -> None:
        self.provider = provider.encode()
        self.name = name.encode()
        self.bin_path = os.fsencode(path)
        self.semaphore = semaphore
        self.locations = locations

    @property
    def num_locations(self) -> int:
        """How many locations it has."""
        return len(self.locations)

    @property
    def num_arguments(self) -> int:
        """How many arguments it has (at its first location)."""
        return len(self.locations[0].args)

    def short_name(self) -> str:
        """Return "provider:name"."""
        return f"{self.provider.decode()}:{self.name.decode()}"

    def get_location(self, index: int) -> USDTProbeLocation:
        """Return a location by its number from 0. Raises USDTException."""
        if not 0 <= index < len(self.locations):
            raise USDTException(f"error retrieving probe location {index}")
        return USDTProbeLocation(self, index, self.locations[index])

    def __str__(self) -> str:
        return f"{self.short_name()} [sema {self.semaphore:#x}]"


class USDT:
    """The probes of process `pid` (in its program and libraries, or in `path` only), or of a file. Raises USDTException."""

    def __init__(self, pid: int | None = None, path: str | bytes | None = None) -> None:
        self.pid = pid if pid and pid != -1 else -1
        self.path = os.fsdecode(path) if path else ""
        if self.pid < 0 and not self.path:
            raise USDTException("either a pid or a binary path must be specified")
        self._enabled: list[tuple[USDTProbe, bytes]] = []
        try:
            self._probes = [probe for name in self._files() for probe in _read_probes(name, self.pid)]
        except SondeError as error:
            what = f"instrument PID {self.pid}" if self.pid > 0 else f"instrument path {self.path}"
            raise USDTException(f"USDT failed to {what}: {error.message}") from None

    def _files(self) -> list[str]:
        if self.path:
            return [binaries.find_binary(self.path, self.pid)]
        return [binaries.through_process(path, self.pid) for path in binaries.mapped_files(self.pid)]

    def enable_probe(self, probe: str, fn_name: str | bytes) -> None:
        """Have `fn_name` run at a probe ("name" or "provider:name") once a BPF object gets this context. Raises USDTException."""
        found = self._find(probe)
        if not found:
            raise USDTException(_MISSING.format(probe))
        for each in found:
            self._enabled.append((each, os.fsencode(fn_name)))

    def enable_probe_or_bail(self, probe: str, fn_name: str | bytes) -> None:
        """Like `enable_probe`, but say on stderr what is wrong and exit with status 1."""
        try:
            self.enable_probe(probe, fn_name)
        except USDTException as error:
            print(error, file=sys.stderr)
            sys.exit(1)

    def _find(self, name: str) -> list[USDTProbe]:
        provider, colon, short = name.partition(":")
        if not colon:
            provider, short = "", name
        return [p for p in self._probes if p.name.decode() == short and provider in ("", p.provider.decode())]

    def get_context(self) -> USDT:
        """Return what BPF(usdt_contexts=…) works with: this."""
        return self

    def get_text(self) -> str:
        """Return C comments that say where the arguments of the enabled probes are: what is compiled in needs no text."""
        lines = []
        for probe, fn_name in self._enabled:
            for location in probe.locations:
                args = ", ".join(f"arg{n} {_c_type(a)} @ {_operand(a)}" for n, a in enumerate(location.args, 1))
                lines.append(
                    f"/* {fn_name.decode()}: {probe.short_name()} at {location.address:#x}: {args or 'no arguments'} */"
                )
        return "".join(line + "\n" for line in lines)

    def get_probe_arg_ctype(self, probe_name: str, arg_index: int) -> str:
        """Return the C type of an argument (from 0) that holds it at each location ("int32_t"). Raises USDTException."""
        args = [location.args[arg_index] for probe in self._find(probe_name) for location in probe.locations
                if 0 <= arg_index < len(location.args)]  # fmt: skip
        if not args:
            raise USDTException(f"probe {probe_name} has no argument {arg_index}")
        return _c_type(max(args, key=lambda arg: arg.size))

    def enumerate_probes(self) -> list[USDTProbe]:
        """Return all probes."""
        return list(self._probes)

    def enumerate_active_probes(self) -> list[tuple[bytes, bytes, int, int]]:
        """Return (file, function, address, pid) of each location that a function was enabled for."""
        return [(os.fsencode(p.path), p.fn_name, p.address, p.pid) for p in self.active()]

    def active(self, ignore_pid: bool = False) -> list[ActiveProbe]:
        """Return the locations that functions were enabled for."""
        return [
            ActiveProbe(
                at.path, fn_name, at.offset, at.address, -1 if ignore_pid else self.pid,
                probe.provider.decode(), probe.name.decode(), at.semaphore_offset, at.args,
            )
            for probe, fn_name in self._enabled
            for at in probe.locations
        ]  # fmt: skip

    def attach_uprobes(self, bpf: Any, attach_usdt_ignore_pid: bool = False) -> None:
        """Attach all enabled probes of a BPF object. Raises SondeError."""
        bpf.attach_usdt(self.active(attach_usdt_ignore_pid))


def _read_probes(path: str, pid: int) -> list[USDTProbe]:
    """Read the probes of one file; none from a file that is no ELF file or has gone."""
    found: dict[tuple[str, str], USDTProbe] = {}
    try:
        with Elf.open(path) as elf:
            for note in read_notes(elf):
                place = Location(path, note.vaddr, note.offset, note.semaphore_offset, parse_args(note, elf))
                probe = found.setdefault(
                    (note.provider, note.name),
                    USDTProbe(note.provider, note.name, path, note.semaphore_offset, []),
                )
                probe.locations.append(place)
    except OSError as error:
        if not pid > 0:
            raise USDTException(f"{path} cannot be read: {error.strerror}") from None
    except SondeError:
        if not pid > 0:
            raise
    return list(found.values())


def _c_type(arg: UsdtArg) -> str:
    return f"{'' if arg.signed else 'u'}int{arg.size * 8}_t"


def _operand(arg: UsdtArg) -> str:
    """Write where an argument is, in BCC's form: 5, ax, *(bp - 8), *(bx + 4 + cx * 8)."""
    if arg.kind == "const":
        return str(arg.value)
    if arg.kind not in ("reg", "mem"):
        return arg.text
    from ...debuginfo.ptregs import get_ptregs

    regs = get_ptregs(os.uname().machine)
    names = regs.names if regs else ()

    def name(offset: int) -> str:
        return names[offset // 8] if 0 <= offset // 8 < len(names) else "?"

    if arg.kind == "reg":
        return name(arg.base)
    index = f" + {name(arg.index)} * {arg.scale}" if arg.index >= 0 else ""
    return f"*({name(arg.base)} {'-' if arg.value < 0 else '+'} {abs(arg.value)}{index})"

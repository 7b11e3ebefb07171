"""User probes of a BPF object: entries and returns of functions in programs and libraries, and USDT probes."""

from __future__ import annotations

import os

from ...errors import UsageError
from ...lang.c.options import Entry
from ...spec.object import ProbeSpec
from . import binaries, quota
from .programs import Programs
from .utils import to_bytes, to_str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ...kernel.links import KernelLink
    from .usdt import ActiveProbe

_USER = Entry("kprobe", user=True)


class UserProbes(Programs):
    """Attaching to functions of user space."""

    def _init_user_probes(self) -> None:
        self.uprobe_fds: dict[bytes, KernelLink] = {}

    def attach_uprobe(
        self,
        name: str | bytes = b"",
        sym: str | bytes = b"",
        sym_re: str | bytes = b"",
        addr: int | None = None,
        fn_name: str | bytes = b"",
        pid: int = -1,
        sym_off: int = 0,
    ) -> Any:
        """Run `fn_name` at the entry of a function of a program or library.

        `name` is a path, or a library without "lib" and ".so" ("c", "ssl"). The function is `sym` (`sym_off` bytes into it), all that match
        `sym_re`, or what lies at the file's address `addr`. `pid` -1 is every process. Raises SondeError.
        """
        if addr is not None and sym_off:
            raise UsageError("offset with addr is not supported")
        return self._attach_user("uprobe", name, sym, to_bytes(sym_re), addr, fn_name, pid, sym_off)

    def attach_uretprobe(
        self,
        name: str | bytes = b"",
        sym: str | bytes = b"",
        sym_re: str | bytes = b"",
        addr: int | None = None,
        fn_name: str | bytes = b"",
        pid: int = -1,
    ) -> Any:
        """Run `fn_name` when a function of a program or library returns; see `attach_uprobe`."""
        return self._attach_user("uretprobe", name, sym, to_bytes(sym_re), addr, fn_name, pid, 0)

    def _attach_user(
        self,
        kind: str,
        name: Any,
        sym: Any,
        sym_re: bytes,
        addr: int | None,
        fn_name: Any,
        pid: int,
        offset: int,
    ) -> Any:
        path = binaries.find_binary(to_str(name), pid)
        if sym_re:
            places = binaries.find_places(path, self.get_user_addresses(path, sym_re))
        else:
            places = [binaries.find_place(path, to_str(sym), addr, offset)]
        quota.check(len(places))
        if not places:
            return self
        owner = pid if pid > 0 else 0
        probes = [
            ProbeSpec(f"{kind}:{path}:{place:#x}", kind, "", symbol=to_str(sym), path=path, offset=place, pid=owner)
            for place in places
        ]
        links = self.attach_probes(to_bytes(fn_name), _USER, probes)
        owners = {probe.offset: link for link in links for probe in link.probes}
        for place in places:
            self._add_uprobe(_event_name(kind, path, place, pid), owners[place])
        return self

    def _add_uprobe(self, ev_name: bytes, link: KernelLink) -> None:
        old = self.uprobe_fds.get(ev_name)
        if old is not None:  # BCC forgets the first one; we keep both until the event is detached
            ev_name += b"_" + str(len(self.uprobe_fds)).encode()
        self.uprobe_fds[ev_name] = link
        quota.add(1)

    def detach_uprobe_event(self, ev_name: str | bytes) -> None:
        """Detach from a place by its event's name. Raises UsageError when nothing is attached there."""
        name = to_bytes(ev_name)
        link = self.uprobe_fds.pop(name, None)
        if link is None:
            raise UsageError(f"Uprobe {to_str(name)} is not attached")
        quota.add(-1)
        if not any(link is other for other in self.uprobe_fds.values()):
            self.object.drop(link)

    def detach_uprobe(
        self,
        name: str | bytes = b"",
        sym: str | bytes = b"",
        addr: int | None = None,
        pid: int = -1,
        sym_off: int = 0,
    ) -> None:
        """Detach from the entry of a function; the arguments are those that it was attached with. Raises UsageError, ProbeError."""
        path = binaries.find_binary(to_str(name), pid)
        place = binaries.find_place(path, to_str(sym), addr, sym_off)
        self.detach_uprobe_event(_event_name("uprobe", path, place, pid))

    def detach_uretprobe(
        self, name: str | bytes = b"", sym: str | bytes = b"", addr: int | None = None, pid: int = -1
    ) -> None:
        """Detach from the return of a function; see `detach_uprobe`."""
        path = binaries.find_binary(to_str(name), pid)
        self.detach_uprobe_event(_event_name("uretprobe", path, binaries.find_place(path, to_str(sym), addr), pid))

    def num_open_uprobes(self) -> int:
        """Return the number of places in user space that something is attached to."""
        return len(self.uprobe_fds)

    def attach_usdt(self, probes: Sequence[ActiveProbe]) -> None:
        """Attach the enabled probes of a USDT context. A function is compiled once for each way in which arguments are passed."""
        groups: dict[tuple[bytes, Entry], list[ProbeSpec]] = {}
        for active in probes:
            entry = Entry("kprobe", user=True, usdt=active.args)
            spec = ProbeSpec(
                f"usdt:{active.path}:{active.provider}:{active.name}",
                "usdt",
                "",
                category=active.provider,
                event=active.name,
                path=active.path,
                offset=active.offset,
                semaphore_offset=active.semaphore_offset,
                pid=active.pid if active.pid > 0 else 0,
            )
            groups.setdefault((active.fn_name, entry), []).append(spec)
        for (fn_name, entry), specs in groups.items():
            quota.check(len(specs))
            links = self.attach_probes(fn_name, entry, specs)
            owners = {(p.path, p.offset): link for link in links for p in link.probes}
            for spec in specs:
                name = _event_name("uprobe", spec.path, spec.offset, spec.pid or -1)
                self._add_uprobe(name, owners[spec.path, spec.offset])

    # names ----------------------------------------------------------------------------------------------------

    @staticmethod
    def get_user_functions_and_addresses(name: str | bytes, sym_re: str | bytes) -> list[tuple[bytes, int]]:
        """Return (name, address in the file) of a binary's functions that match a regular expression from their start."""
        import re

        matches = re.compile(to_bytes(sym_re)).match
        return [entry for entry in binaries.list_functions(binaries.find_binary(to_str(name))) if matches(entry[0])]

    @staticmethod
    def get_user_functions(name: str | bytes, sym_re: str | bytes) -> set[bytes]:
        """Return the names of a binary's functions that match; see `get_user_functions_and_addresses`."""
        return {found for found, _ in UserProbes.get_user_functions_and_addresses(name, sym_re)}

    @staticmethod
    def get_user_addresses(name: str | bytes, sym_re: str | bytes) -> set[int]:
        """Return the addresses of a binary's functions that match, each once however many names it has."""
        return {address for _, address in UserProbes.get_user_functions_and_addresses(name, sym_re)}

    @staticmethod
    def find_library(libname: str | bytes) -> bytes | None:
        """Return the path of a library by its name without "lib" and ".so", or None."""
        found = binaries.find_library(to_str(libname))
        return os.fsencode(found) if found else None

    @staticmethod
    def find_exe(bin_path: str | bytes) -> bytes | None:
        """Return the path of a program on PATH, or None; a path is returned as it is if a program is there."""
        found = binaries.find_exe(to_str(bin_path))
        return os.fsencode(found) if found else None


def _event_name(kind: str, path: str, place: int, pid: int) -> bytes:
    """BCC's name of an event, by which it is detached."""
    text = "".join(c if (c.isascii() and c.isalnum()) or c == "_" else "_" for c in path)
    owner = f"_{pid}" if pid > 0 else ""
    return f"{'p' if kind == 'uprobe' else 'r'}_{text}_{place:#x}{owner}".encode()

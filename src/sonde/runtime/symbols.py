"""Addresses to names: the kernel's by kallsyms, a process's by its mappings and the symbol tables of its files."""

from __future__ import annotations

from ..errors import SondeError
from ..spec.layout import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.kallsyms import Kallsyms


class LiveSymbolizer:
    """Names addresses of this machine. Nothing is read before the first question."""

    def __init__(self) -> None:
        self._kernel: Kallsyms | None = None

    def resolve(self, space: str, pid: int, addr: int) -> Frame:
        """Return what is known about `addr` of the kernel or of process `pid`; never raises."""
        if space == "kernel":
            return self._resolve_kernel(addr)
        return Frame(addr, "", 0, "")

    def _resolve_kernel(self, addr: int) -> Frame:
        if self._kernel is None:
            from ..debuginfo.kallsyms import Kallsyms

            self._kernel = Kallsyms()
        try:
            found = self._kernel.resolve(addr)
        except SondeError:
            found = None
        if found is None:
            return Frame(addr, "", 0, "")
        return Frame(addr, *found)

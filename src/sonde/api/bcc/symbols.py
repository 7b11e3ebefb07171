"""Addresses to names and back, for the kernel and for processes, in BCC's forms; also by build id and offset."""

from __future__ import annotations

import ctypes as ct
import os

from ...errors import SondeError
from .utils import to_str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...debuginfo.elf import Elf
    from ...debuginfo.kallsyms import Kallsyms
    from ...runtime.symbols import LiveSymbolizer

_kernel: list[Kallsyms] = []
_resolvers: dict[bool, LiveSymbolizer] = {}
_modules: dict[bytes, Elf] = {}  # by build id: what add_module() named


def _kallsyms() -> Kallsyms:
    if not _kernel:
        from ...debuginfo.kallsyms import Kallsyms

        _kernel.append(Kallsyms())
    return _kernel[0]


def kernel_address(name: str) -> int:
    """Return the address of a kernel symbol; -1 when there is none, or when the kernel does not say."""
    try:
        return _kallsyms().address(name) or -1
    except SondeError:
        return -1


def _resolver(demangle: bool) -> LiveSymbolizer:
    found = _resolvers.get(demangle)
    if found is None:
        from ...runtime.symbols import LiveSymbolizer

        found = _resolvers[demangle] = LiveSymbolizer(demangle=demangle)
    return found


class SymbolCache:
    """The symbols of a process; of the kernel for a negative pid."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def resolve(self, addr: int, demangle: bool = True) -> tuple[bytes | None, int, bytes | None]:
        """Return (name, offset in it, module). Without a name the offset is that in the module; without a module, the address."""
        if self.pid < 0:
            frame = _resolver(False).resolve("kernel", 0, addr)
            if not frame.symbol:
                return None, addr, None
            return frame.symbol.encode(), frame.offset, (frame.module or "kernel").encode()
        frame = _resolver(demangle).resolve("user", self.pid, addr)
        module = os.fsencode(frame.module) if frame.module else None
        if frame.symbol:
            return frame.symbol.encode("utf-8", "surrogateescape"), frame.offset, module
        if module is None:
            return None, addr, None
        return None, _module_offset(self.pid, addr), module

    def resolve_name(self, module: str | bytes | None, name: str | bytes) -> int:
        """Return the address of a symbol; of a process, in the file `module` that it maps. -1 when there is none."""
        if self.pid < 0:
            return kernel_address(to_str(name))
        return _user_address(self.pid, to_str(module), to_str(name))


def _module_offset(pid: int, addr: int) -> int:
    from ...debuginfo.procmaps import find_mapping, read_maps

    try:
        mapping = find_mapping(read_maps(pid), addr)
    except SondeError:
        mapping = None
    return addr - mapping.start + mapping.offset if mapping else addr


def _user_address(pid: int, module: str, name: str) -> int:
    from ...debuginfo.elf import Elf
    from ...debuginfo.procmaps import read_maps

    try:
        for mapping in read_maps(pid):
            if not mapping.executable or not mapping.is_file or not _is_same(module, mapping.path):
                continue
            with Elf.open(f"/proc/{pid}/root{mapping.path}") as elf:
                symbol = elf.get_function(name)
                place = elf.get_offset(symbol.vaddr) if symbol else -1
            if mapping.offset <= place < mapping.offset + mapping.end - mapping.start:
                return mapping.start + place - mapping.offset
    except (SondeError, OSError):
        pass
    return -1


def _is_same(module: str, path: str) -> bool:
    """Whether `module` means the file that is mapped as `path`: by its name, or another name of the same file; "" means any."""
    return module in ("", path) or os.path.realpath(module) == os.path.realpath(path)


class Symbols:
    """Methods of class BPF that name addresses."""

    @staticmethod
    def sym(addr: Any, pid: int, show_module: bool = False, show_offset: bool = False, demangle: bool = True) -> bytes:
        """Return the name of an address of process `pid`: b"start_thread+0x202 [libpthread-2.24.so]" with all that may be shown.

        A negative pid is the kernel. An item of a stack with build ids is taken, too, if add_module() named its file.
        """
        if isinstance(addr, ct.Structure):
            name, offset, module = _resolve_build_id(addr)
        else:
            name, offset, module = SymbolCache(pid).resolve(addr, demangle)
        text = name or b"[unknown]"
        if show_offset and name is not None:
            text += b"+0x%x" % offset
        if show_module and module is not None:
            text += b" [%s]" % os.path.basename(module)
        return text

    @staticmethod
    def ksym(addr: int, show_module: bool = False, show_offset: bool = False) -> bytes:
        """Return the name of a kernel address; see `sym`."""
        return Symbols.sym(addr, -1, show_module, show_offset, False)

    @staticmethod
    def _sym_cache(pid: int) -> SymbolCache:
        """Return the symbols of a process, or of the kernel."""
        return SymbolCache(pid)

    @staticmethod
    def add_module(modname: str | bytes) -> None:
        """Read a program or library, whose build id stacks may name."""
        from ...debuginfo.elf import Elf

        try:
            elf = Elf.open(to_str(modname))
            _modules[bytes.fromhex(elf.build_id())] = elf
        except (SondeError, OSError, ValueError) as error:
            print("Error adding module to build sym cache" + str(error))

    @staticmethod
    def free_bcc_memory() -> int:
        """Return 0: there is no compiler whose memory could be given back."""
        return 0


def _resolve_build_id(item: Any) -> tuple[bytes | None, int, bytes | None]:
    """Name an item of struct bpf_stack_build_id."""
    ident = bytes(item.build_id)
    elf = _modules.get(ident) or next((e for known, e in _modules.items() if ident.startswith(known)), None)
    if elf is None:
        return None, item.offset, None
    module = os.fsencode(elf.path)
    vaddr = elf.get_vaddr(item.offset)
    symbol = elf.get_function_at(vaddr) if vaddr >= 0 else None
    if symbol is None:
        return None, item.offset, module
    return symbol.name.encode(), vaddr - symbol.vaddr, module

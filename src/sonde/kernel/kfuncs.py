"""Calls of kernel functions (kfuncs), by name: their BTF ids on this kernel, and the BTF objects of the modules that have them.

A call names its function by an id in the kernel's own BTF, or in that of a module: then the instruction's offset says which entry of
the array of descriptors `fd_array`, given when the program is loaded, is that module's (Linux 5.16). Entry 0 is not used.
"""

from __future__ import annotations

from struct import pack, pack_into

from ..bpf import isa
from ..errors import FeatureError
from .btf import iter_module_btf, kernel_btf, open_module_btf
from .descriptor import close_fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.object import Reloc


class KernelFunctions:
    """The functions that one program calls. A context manager: the descriptors are needed until the program is loaded."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._places: dict[str, int] = {}  # of modules in the array
        self._found: dict[str, tuple[int, int]] = {}

    def fill(self, insns: bytearray, reloc: Reloc) -> None:
        """Make the instruction at `reloc.pc` a call of the function `reloc.symbol`. Raises FeatureError where there is none."""
        ident, place = self._find(reloc.symbol)
        at = reloc.pc * 8
        insns[at + 1] = insns[at + 1] & 0x0F | isa.BPF_PSEUDO_KFUNC_CALL << 4
        pack_into("<hi", insns, at + 2, place, ident)

    @property
    def fd_array(self) -> bytes:
        """The descriptors of modules' BTF as the kernel takes them; nothing where only the kernel's own functions are called."""
        return pack(f"={len(self._fds) + 1}i", 0, *self._fds) if self._fds else b""

    def _find(self, name: str) -> tuple[int, int]:
        if name not in self._found:
            ident = kernel_btf().get_func_id(name)
            self._found[name] = (ident, 0) if ident else self._find_in_modules(name)
        return self._found[name]

    def _find_in_modules(self, name: str) -> tuple[int, int]:
        for types in iter_module_btf():
            with types:
                ident = types.get_own_func_id(name)
            if ident:
                module = types.path.rpartition("/")[2]
                if module not in self._places:
                    self._fds.append(open_module_btf(module))
                    self._places[module] = len(self._fds)
                return ident, self._places[module]
        raise FeatureError(
            f"neither this kernel nor one of its modules has a function {name} that programs may call",
            feature=f"kfunc:{name}",
            hint="the module that has it may not be loaded",
        )

    def close(self) -> None:
        """Close the descriptors. Twice is harmless."""
        fds, self._fds = self._fds, []
        for fd in fds:
            close_fd(fd)

    def __enter__(self) -> KernelFunctions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

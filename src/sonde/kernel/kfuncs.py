"""What programs have from the kernel by name: calls of its functions (kfuncs), by their BTF ids, and addresses of its symbols.

A call names its function by an id in the kernel's own BTF, or in that of a module: then the instruction's offset says which entry of
the array of descriptors `fd_array`, given when the program is loaded, is that module's (Linux 5.16). Entry 0 is not used.
"""

from __future__ import annotations

from struct import pack, pack_into

from ..bpf import isa
from ..errors import FeatureError, FormatError
from .btf import iter_module_btf, kernel_btf, open_module_btf
from .descriptor import close_fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.kallsyms import Kallsyms
    from ..spec.object import Reloc

_PSEUDO_BTF_ID = 3
_MISSING = 2002000000  # libbpf's number of a helper that no program may reach: a weak function that is not there


class KernelFunctions:
    """The functions that one program calls. A context manager: the descriptors are needed until the program is loaded."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._places: dict[str, int] = {}  # of modules in the array
        self._found: dict[str, tuple[int, int]] = {}
        self._symbols: Kallsyms | None = None

    def fill(self, insns: bytearray, reloc: Reloc) -> None:
        """Fill in what `reloc` is about: a call ("kfunc") or an address ("ksym", "ksym_btf"). Raises FeatureError where the kernel has none."""
        if reloc.kind == "kfunc":
            self._fill_call(insns, reloc)
            return
        if insns[reloc.pc * 8] != isa.LDDW:
            raise FormatError(f"instruction {reloc.pc} cannot hold the address of {reloc.symbol}")
        if reloc.kind == "ksym_btf":
            self._fill_variable(insns, reloc)
        else:
            self._put(insns, reloc, 0, self._address(reloc))

    def _put(self, insns: bytearray, reloc: Reloc, source: int, value: int) -> None:
        at = reloc.pc * 8
        insns[at + 1] = insns[at + 1] & 0x0F | source << 4
        pack_into("<I", insns, at + 4, value & 0xFFFFFFFF)
        pack_into("<I", insns, at + 12, value >> 32)

    def _address(self, reloc: Reloc) -> int:
        if self._symbols is None:
            from ..debuginfo.kallsyms import Kallsyms

            self._symbols = Kallsyms()
        address = self._symbols.address(reloc.symbol)
        if not address and not reloc.weak:
            raise FeatureError(
                f"this kernel has no symbol {reloc.symbol}", hint="declare it __weak to get 0 in its place"
            )
        return address

    def _fill_variable(self, insns: bytearray, reloc: Reloc) -> None:
        """A variable, or a function's address, by its id in the kernel's BTF: the verifier then knows its type."""
        types = kernel_btf()
        ident = types.get_type_id(reloc.symbol, "var") or types.get_func_id(reloc.symbol)
        if not ident and not reloc.weak:
            raise FeatureError(
                f"this kernel's BTF has no variable {reloc.symbol}", hint="declare it as const void, or __weak"
            )
        self._put(insns, reloc, _PSEUDO_BTF_ID if ident else 0, ident)

    def _fill_call(self, insns: bytearray, reloc: Reloc) -> None:
        at = reloc.pc * 8
        try:
            ident, place = self._find(reloc.symbol)
        except FeatureError:
            if not reloc.weak:
                raise
            pack_into("<BBhi", insns, at, isa.CALL, 0, 0, _MISSING)
            return
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

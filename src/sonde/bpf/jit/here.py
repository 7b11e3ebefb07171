"""Machine code in this very process: placed into memory of its own, bound to helpers and maps, and called."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache

from ...errors import RunError
from .code import bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .code import CodeReloc, MachineCode

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)
_HELPER = ctypes.CFUNCTYPE(*[ctypes.c_uint64] * 6)


class Placed:
    """A program in executable memory. A context manager; closing frees the memory.

    `helpers`, by number, are addresses of C functions or Python functions of five numbers; `maps` are the addresses that stand for maps, and
    `values` those of the values of maps with one entry; `cpu` that of a u32 with the CPU's number, `owner` that of a u32 that claims of maps are made with,
    `rseq` the offset of the CPU's number from the thread pointer (see `find_rseq`). Raises RunError for what the code needs and nobody gave.
    """

    def __init__(
        self,
        code: MachineCode,
        *,
        helpers: Mapping[int, int | Callable[[int, int, int, int, int], int]] | None = None,
        maps: Mapping[int, int] | None = None,
        values: Mapping[int, int] | None = None,
        cpu: int | None = None,
        owner: int | None = None,
        rseq: int | None = None,
    ) -> None:
        self._keep: list[object] = []
        self._raised: BaseException | None = None
        self._memory: mmap.mmap | None = mmap.mmap(-1, len(code.text), prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        try:
            tables: dict[str, Mapping[int, object]]
            tables = {"helper": helpers or {}, "map": maps or {}, "map_value": values or {}}
            for kind, number in (("cpu", cpu), ("owner", owner), ("rseq", rseq)):
                tables[kind] = {} if number is None else {0: number}
            text = self._memory[:] = bind(code, self.address, lambda reloc: self._find(reloc, tables))
            self._protect(len(text))
        except BaseException:
            self.close()
            raise
        self._entry = _ENTRY(self.address)

    def _find(self, reloc: CodeReloc, tables: Mapping[str, Mapping[int, object]]) -> int:
        found = tables.get(reloc.kind, {}).get(reloc.value)
        if found is None:
            raise RunError(f"the code needs {reloc.kind} {reloc.value}, which nobody gave")
        if isinstance(found, int):
            return found + reloc.addend
        assert callable(found)
        callback = _HELPER(self._guard(found))
        self._keep.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p).value or 0

    def _guard(self, helper: Callable[..., int]) -> Callable[..., int]:
        """A helper whose exceptions wait until the program has ended: they cannot pass through machine code."""

        def guarded(*args: int) -> int:
            try:
                return helper(*args)
            except BaseException as error:
                self._raised = self._raised or error
                return 0

        return guarded

    def _protect(self, size: int) -> None:
        """Make the memory executable, and no longer writable."""
        libc = ctypes.CDLL(None, use_errno=True)
        protect = libc.mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if protect(self.address, size, mmap.PROT_READ | mmap.PROT_EXEC):
            import os

            reason = os.strerror(ctypes.get_errno())
            raise RunError(f"this process may not have executable memory: {reason}", hint="use the interpreter")

    def run(self, context: int = 0) -> int:
        """Call the program with `context` in r1 and return r0; raises what a Python helper raised.

        The code must have been verified: a wrong access ends this process.
        """
        if self._memory is None:
            raise RunError("the code has been freed")
        result: int = self._entry(context)
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        return result

    def close(self) -> None:
        """Free the memory. Twice is harmless."""
        self._memory, self._entry = None, _ENTRY(0)
        self._keep.clear()

    def __enter__(self) -> Placed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_rseq() -> int | None:
    """Return what relocation "rseq" takes in this process; None where the C library has registered no rseq area (glibc does so since 2.35)."""
    libc = ctypes.CDLL(None)
    try:
        offset = ctypes.c_ssize_t.in_dll(libc, "__rseq_offset").value
        size = ctypes.c_uint.in_dll(libc, "__rseq_size").value
    except ValueError:
        return None
    return offset + 4 if size else None  # struct rseq: u32 cpu_id_start, u32 cpu_id


@cache
def cpu_features() -> frozenset[str]:
    """Return what this CPU has beyond the base of its architecture, of what the JIT can use."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return features_of(file)
    except OSError:
        return frozenset()


def features_of(lines: Iterable[str]) -> frozenset[str]:
    """The same from the lines of a /proc/cpuinfo."""
    words = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return frozenset(_FEATURES[word] for word in words if word in _FEATURES)


_FEATURES = {"bmi2": "bmi2", "atomics": "lse"}  # the kernel's words to ours

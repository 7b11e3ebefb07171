"""Return probes and those who look at the stack: exceptions, backtraces, and sonde's own leaving.

A function with a return probe has an address of ours as its return address. Whoever unwinds the stack would be lost there. So before libgcc's unwinder begins, the addresses of the
thread's stack are put back to what they were: these calls end without being seen, nothing else changes. `longjmp` needs nothing: what it skips, later calls write over.

Some functions need their true return address all the time (`find_bound`): who returns to it again when other calls have used the place, who looks at who has called it, and
what is not called at all, so that something else stands there.
"""

from __future__ import annotations

from . import frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.elf import Elf
    from .stopped import StoppedProcess

# Each processor's `unwinding` has the program for this. Where unwinding begins: of exceptions (C++, Rust), of pthread_exit and pthread_cancel, of backtrace().
UNWINDERS = (
    "_Unwind_RaiseException", "_Unwind_Resume", "_Unwind_Resume_or_Rethrow", "_Unwind_ForcedUnwind", "_Unwind_Backtrace",
)  # fmt: skip
_BOUND = {
    "it returns more than once": (
        "setjmp", "_setjmp", "__sigsetjmp", "sigsetjmp", "__sigsetjmp_cancel", "getcontext", "__getcontext", "vfork", "__vfork", "__libc_vfork",
        "swapcontext", "__swapcontext",
    ),
    "it looks at who has called it": ("dlopen", "dlmopen", "dlsym", "dlvsym", *UNWINDERS),
    "it is not called": ("__restore_rt", "__restore", "_dl_runtime_resolve", "_dl_runtime_resolve_fxsave", "_dl_runtime_resolve_xsave", "_dl_runtime_resolve_xsavec", "_dl_start_user"),
}  # fmt: skip
MOST_PAGES = 2048  # of a stack that are looked through: 8 MiB
_HIGHEST, _PAGE = 1 << 48, 4096  # addresses of stacks are below; above are the keys of functions that were jumped to


def find_bound(elf: Elf) -> dict[int, str]:
    """Return the functions of a file whose return address must stay, by address, with the reason."""
    found = {elf.entry: "it is not called"} if elf.entry else {}
    for reason, names in _BOUND.items():
        symbols = (elf.get_function(name) for name in names)
        found.update((symbol.vaddr, reason) for symbol in symbols if symbol is not None and symbol.section)
    return found


def is_moved(elf: Elf) -> bool:
    """True for code whose stacks are moved, and whose return addresses are looked at when they are: Go's."""
    return any(elf.get_section(name) is not None for name in _GO_SECTIONS)


_GO_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo")


def put_back(stopped: StoppedProcess, table: int) -> int:
    """Put return addresses back wherever one of ours stands in their stead, so that nobody comes to our code any more; return how many there were.

    `table` is that of returns, whose places tell: they are on the stacks of threads, and on those of coroutines that nobody runs just now.
    """
    words = memoryview(stopped.read_some(table, frame.RETURNS_BYTES)).cast("Q")
    step = 1 << frame.RETURN_SHIFT - 3
    count, page, held = 0, -1, b""
    for place, at in sorted((place, at) for at, place in enumerate(words[::step]) if 0 < place < _HIGHEST):
        address, tail = words[at * step + 1], words[at * step + 2]
        if place & -_PAGE != page:
            page = place & -_PAGE
            held = stopped.read_some(page, _PAGE + 8)
        if held[place - page : place - page + 8] == tail.to_bytes(8, "little"):
            stopped.write(place, address.to_bytes(8, "little"))
            count += 1
    return count

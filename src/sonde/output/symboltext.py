"""Stacks and symbols as text, in the modes of bpftrace's kstack() and ustack()."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..spec.layout import Frame, Stack, Symbol

INDENT = " " * 8


def stack_text(stack: Stack, indent: str = INDENT) -> str:
    """Return a stack: a newline, then each frame on a line of its own."""
    write = _MODES.get(stack.mode, _frame_plain)
    if stack.mode == "raw":
        return "\n" + "".join([f"{pc:x}\n" for pc in stack.pcs])
    prefix = indent if write is _frame_plain else ""
    return "\n" + "".join([f"{prefix}{write(frame, stack.space)}\n" for frame in stack.frames()])


def symbol_text(symbol: Symbol) -> str:
    """Return the name of an address without the offset in it, or the address."""
    frame = symbol.frame()
    return frame.symbol or address_text(symbol.addr)


def address_text(addr: int) -> str:
    """Return a nameless address: hexadecimal, but "0" for none."""
    return f"{addr:#x}" if addr else "0"


def _frame_plain(frame: Frame, space: str) -> str:
    return f"{frame.symbol}+{frame.offset}" if frame.symbol else address_text(frame.pc)


def _frame_perf(frame: Frame, space: str) -> str:
    """As `perf script` shows it: the address, the symbol, and of user code the file."""
    text = f"\t{frame.pc:x} {_frame_plain(frame, space)}"
    return text if space == "kernel" else f"{text} ({frame.module or '[unknown]'})"


def _frame_build_id(frame: Frame, space: str) -> str:
    """The build id (in `module`) and the offset in the file."""
    return f"{frame.module} 0x{frame.offset:x}" if frame.module else f"{frame.pc:x}"


_MODES: dict[str, Callable[[Frame, str], str]] = {
    "bpftrace": _frame_plain,
    "perf": _frame_perf,
    "build_id": _frame_build_id,
}

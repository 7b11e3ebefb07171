"""Records of a program's own ring and perf buffers to rows: by the type of what the program submits, told apart by size.

A record may be shorter than its type (a program that submits the part which it has filled) and, where the type ends in an array without a size,
longer. Bytes whose type nobody knows are shown as they are, with a word why, once for each size.
"""

from __future__ import annotations

from ..record import replace
from ..spec.engine import Row
from ..spec.layout import Layout
from ..spec.object import EventSpec
from .decode import event_decoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..spec.engine import Printer
    from ..spec.object import StreamSpec
    from .decode import Surroundings

    Handler = Callable[[memoryview, int, int], object]


class Stream:
    """The handler of one buffer's records. `padded`: records come with up to 7 bytes behind them, as perf buffers have them."""

    def __init__(self, spec: StreamSpec, padded: bool, around: Surroundings, printer: Printer) -> None:
        self.spec = spec
        self.padded = padded
        self.around = around
        self.printer = printer
        self._handlers: dict[int, Handler] = {}

    def handle(self, buffer: memoryview, start: int, size: int) -> None:
        """Print the record of `size` bytes at `start`."""
        handler = self._handlers.get(size)
        if handler is None:
            handler = self._handlers[size] = self._make_handler(size)
        handler(buffer, start, size)

    def _make_handler(self, size: int) -> Handler:
        layout = self._find_layout(size)
        write = self.printer.row
        if layout is None:
            event = self._event(Layout("dump", size))
            return lambda buffer, start, size: write(Row(event, (bytes(buffer[start : start + size]),)))
        event = self._event(layout)
        decode = event_decoder(event, self.around)
        return lambda buffer, start, size: write(Row(event, decode(buffer, start, size)))

    def _event(self, layout: Layout) -> EventSpec:
        from ..spec.layout import LayoutField

        return EventSpec(-1, "record", layout.size, (LayoutField(self.spec.map, 0, layout),))

    def _find_layout(self, size: int) -> Layout | None:
        """The layout of records of `size` bytes; None, and a message, where there is none or more than one."""
        layouts = self.spec.layouts
        fitting = [layout for layout in layouts if self._sent_size(layout.size) == size]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting and len(layouts) == 1:
            fitted = fit(layouts[0], size)
            if fitted is not None:
                return fitted
        self.printer.message(
            "WARNING", f"{self.spec.map}: records of {size} bytes are shown as bytes: {self._reason(fitting)}"
        )
        return None

    def _sent_size(self, size: int) -> int:
        return (size + 4 + 7) // 8 * 8 - 4 if self.padded else size

    def _reason(self, fitting: list[Layout]) -> str:
        if fitting:
            names = " or ".join(_name(layout) for layout in fitting)
            return f"they may be {names}. Give the types different sizes, or use a buffer for each"
        if not self.spec.layouts:
            return "no call tells their type. Submit a pointer to a struct, not to void"
        known = ", ".join(f"{_name(layout)} has {layout.size}" for layout in self.spec.layouts)
        return f"no type that the program submits has that size ({known})"


def _name(layout: Layout) -> str:
    return f"struct {layout.name or '{…}'}" if layout.kind == "struct" else layout.name or layout.kind


def fit(layout: Layout, size: int) -> Layout | None:
    """Return the layout of a record of another size than its type's: without what it lacks, with more of what has no size. None: not to be told."""
    if layout.kind == "struct":
        return _fit_struct(layout, size)
    if layout.kind == "string":
        return replace(layout, size=size)
    element = layout.element if layout.kind == "array" else layout
    if element is None or not element.size:
        return None
    count = size // element.size
    return Layout("array", count * element.size, element=element, count=count)


def _fit_struct(layout: Layout, size: int) -> Layout | None:
    """The members that a record of `size` bytes has; a last array or text as far as it goes."""
    fields = list(layout.fields)
    grows = bool(fields) and fields[-1].layout.kind in ("array", "string") and not fields[-1].layout.size
    if size > layout.size and not grows:
        return None
    there = [field for field in fields if field.offset + field.layout.size <= size]
    cut = fields[len(there)] if len(there) < len(fields) else fields[-1] if grows else None
    if cut is not None and cut.offset < size and cut.layout.kind in ("array", "string"):
        there = [field for field in there if field is not cut]
        rest = size - cut.offset
        element = cut.layout.element
        if cut.layout.kind == "string":
            there.append(replace(cut, layout=replace(cut.layout, size=rest)))
        elif element is not None and element.size:
            count = rest // element.size
            there.append(replace(cut, layout=replace(cut.layout, size=count * element.size, count=count)))
    return replace(layout, size=size, fields=tuple(there)) if there else None

"""Records that find no room in a ring buffer: the kernel counts none of them, so a program that sonde runs does it itself.

What bpf_ringbuf_reserve and bpf_ringbuf_output return goes to an atomic addition in a map of sonde's own.
"""

from __future__ import annotations

from ...compiler.ir import I64
from ...spec.object import MapSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from .lower_frame import Frame

LOST = "sonde_lost"
COUNTED = frozenset(["ringbuf_reserve", "ringbuf_output"])


def count_loss(f: Frame, name: str, result: Value) -> None:
    """Add one to the count of losses when the helper `name` has returned that there was no room."""
    b = f.b
    f.program.module.add_map(MapSpec(LOST, "array", 4, 8, 1))
    failed, after = b.new_block("no_room"), b.new_block("room")
    condition = b.binary("eq", result, 0) if name == "ringbuf_reserve" else b.binary("slt", result, 0)
    b.branch(condition, failed, after)
    b.at(failed)
    b.atomic("add", b.map_value(LOST), b.const(1, I64))
    b.jump(after)
    b.at(after)

"""Records that find no room in a ring buffer: the kernel counts none of them, so a program that sonde runs does it itself.

Counted is what is begun (calls of bpf_ringbuf_reserve and bpf_ringbuf_output) and what is finished (submitted, discarded, put out); the difference is
lost, once no program is on its way. All of it without a branch: what the verifier concludes from the program's own tests stays as it is.
"""

from __future__ import annotations

from ...compiler.ir import I64
from ...spec.object import MapSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from .lower_frame import Frame

ATTEMPTS = "sonde_attempts"
_BEGUN, _FINISHED = 0, 8  # bytes into the map's one entry
_BEGIN = frozenset(["ringbuf_reserve", "ringbuf_output"])
_FINISH = frozenset(["ringbuf_submit", "ringbuf_discard"])


def count_begun(f: Frame, name: str) -> None:
    """Before a call of the helper `name`: count an attempt, if it is one."""
    if name in _BEGIN and f.program.text.options.count_losses:
        _add(f, _BEGUN, f.b.const(1, I64))


def count_finished(f: Frame, name: str, result: Value | None) -> None:
    """Behind a call of the helper `name`: count a record that is finished, of bpf_ringbuf_output if its result is no error."""
    if not f.program.text.options.count_losses:
        return
    if name in _FINISH:
        _add(f, _FINISHED, f.b.const(1, I64))
    elif name == "ringbuf_reserve_dynptr" and result is not None:  # discarded even when it failed: only that is counted
        _add(f, _BEGUN, f.b.binary("lshr", result, 63))
    elif name == "ringbuf_output" and result is not None:
        _add(f, _FINISHED, f.b.binary("lshr", f.b.binary("xor", result, -1), 63))


def _add(f: Frame, offset: int, number: Value) -> None:
    f.program.module.add_map(MapSpec(ATTEMPTS, "array", 4, 16, 1))
    f.b.atomic("add", f.b.map_value(ATTEMPTS), number, offset=offset)

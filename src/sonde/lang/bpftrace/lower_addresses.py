"""uaddr(): the address of a symbol in the process that hit the probe."""

from __future__ import annotations

from ...compiler.ir import I64, Const
from ...errors import FeatureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...compiler.ir import Value
    from .lower_frame import Frame


def user_address(f: Frame, info: Any) -> Value:
    """A position-independent file lies anywhere: how far from its own addresses tells the place of the probe in both."""
    from ...debuginfo.elf import Elf

    probe = f.probe.probes[0]
    with Elf.open(info.params["path"]) as elf:
        symbol = elf.get_symbol(info.params["symbol"])
        assert symbol is not None
        if elf.is_exec:
            return Const(symbol.vaddr)
        here = elf.get_vaddr(probe.spec.offset)
    if here < 0:
        raise FeatureError(f"{probe.name}: no segment holds the place of the probe, so uaddr() cannot tell an address")
    b = f.b
    if probe.type == "uretprobe":
        f.unit.need_helper("get_func_ip", "uaddr() in a uretprobe")
        now: Value = b.call("get_func_ip", [f.ctx])
    else:
        now = b.load(I64, f.ctx, f.probe.context.ip_offset)
    return b.binary("add", now, symbol.vaddr - here)

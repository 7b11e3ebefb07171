"""tseries(): per-CPU slots of a ring of intervals to (epoch, value) points."""

from __future__ import annotations

from ..errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.layout import Layout, TimeSeries


def reduce_series(layout: Layout, values: Sequence[bytes]) -> TimeSeries | None:
    """Combine the slots of all CPUs."""
    raise FormatError("time series cannot be decoded yet")

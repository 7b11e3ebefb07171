"""iter_features(): the feature table of the running kernel."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def iter_features() -> Iterator[tuple[str, bool, str]]:
    """Yield (name, available, note) for each feature sonde may use; asks the kernel by trying."""
    from ..kernel.features import iter_features as features

    yield from features()

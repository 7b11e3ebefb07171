"""What a case may require of the machine (REQUIRES), and how to find out whether it is there."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

# Names of cases -> names in the feature table.
FEATURES = {
    "iter": "program:tracing:iter",
    "fentry": "program:tracing:fentry",
    "fexit": "program:tracing:fexit",
}


def missing_need(needs: tuple[str, ...]) -> str:
    """Return the first need that this machine does not meet, "" when it meets all."""
    return next((need for need in needs if not _have(need)), "")


@functools.cache
def _have(need: str) -> bool:
    kind, _, rest = need.partition(":")
    if kind == "command":
        return shutil.which(rest) is not None
    if kind == "file":
        return Path(rest).exists()
    if kind == "tracepoint":
        return any(
            (Path(root) / "events" / rest).exists() for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
        )
    if need == "tracefs":
        return any(
            os.access(f"{root}/events", os.R_OK) for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
        )
    if need == "kprobe":
        return Path("/sys/bus/event_source/devices/kprobe").exists()
    if need == "uprobe":
        return Path("/sys/bus/event_source/devices/uprobe").exists()
    from sonde.kernel.features import FeatureTable

    return FeatureTable().have(FEATURES.get(need, need))

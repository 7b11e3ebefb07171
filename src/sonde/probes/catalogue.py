"""From an attach point to concrete probes and their contexts: the one interface of this room to the front ends."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.target import Target
    from .model import Context, Pattern, Probe


def parse_attach_point(parts: tuple[str, ...]) -> list[Pattern]:
    """Parse an attach point that was split at ':' outside quotes; a wildcard provider gives several patterns.

    Raises ProbeError with bpftrace's words where the form is wrong.
    """
    raise NotImplementedError


def expand(
    pattern: Pattern,
    target: Target,
    *,
    pid: int = 0,
    command_path: str = "",
    missing: str = "error",
) -> list[Probe]:
    """Return the concrete probes that `pattern` stands for on `target`, in the order in which they are attached.

    `pid` and `command_path` (the program that -p or -c names) fill in a target that was left out. Raises ProbeError with
    close names when nothing matches, unless `missing` is "warn" or "ignore": then the result is empty.
    """
    raise NotImplementedError


def context_of(probe: Probe, target: Target) -> Context:
    """Describe what a program attached to `probe` can reach. Raises ProbeError where the types are unknown."""
    raise NotImplementedError

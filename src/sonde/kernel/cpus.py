"""How many CPUs there may be (per-CPU maps have a value for each), and which are online (perf events go there)."""

from __future__ import annotations

from ..errors import FormatError

_possible = 0


def possible_cpus() -> int:
    """Return the number of CPUs that the kernel may ever bring up; per-CPU values come in that number."""
    global _possible
    if not _possible:
        _possible = parse_cpu_list(_read("/sys/devices/system/cpu/possible"))[-1] + 1
    return _possible


def online_cpus() -> list[int]:
    """Return the numbers of the CPUs that are online now."""
    return parse_cpu_list(_read("/sys/devices/system/cpu/online"))


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=path, hint="is /sys mounted?") from None


def parse_cpu_list(text: str) -> list[int]:
    """Turn the kernel's list form ("0-3,8") into numbers. Raises FormatError."""
    cpus: list[int] = []
    try:
        for part in text.strip().split(","):
            first, dash, last = part.partition("-")
            end = int(last) if dash else int(first)
            if end >= 1 << 16:
                raise ValueError
            cpus.extend(range(int(first), end + 1))
    except ValueError:
        raise FormatError(f"{text.strip()!r} is not a list of CPUs") from None
    if not cpus:
        raise FormatError(f"{text.strip()!r} names no CPU")
    return cpus

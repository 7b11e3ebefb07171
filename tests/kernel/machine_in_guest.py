"""The machine beside the kernels of guests: the same comparisons as on the host, by functions of the tests there. Prints what was compared; started inside of a guest.

What a kernel lacks is left out and said: instructions of version 4 came with Linux 6.6.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from functools import partial


class _NoPytest(types.ModuleType):
    """What the tests' modules need of pytest to be imported: marks that do nothing."""

    def __getattr__(self, name: str) -> object:
        if name == "mark":
            return self
        return lambda *args, **named: args[0] if args and callable(args[0]) else (lambda function: function)


def main() -> int:
    """Run what this kernel has the means for."""
    try:
        import pytest as pytest
    except ImportError:
        sys.modules["pytest"] = _NoPytest("pytest")
    os.environ.setdefault("SONDE_FUZZ_PROGRAMS", "8")
    from kernel import test_classic_in_kernel as classic
    from kernel import test_interp_differential as interpreter
    from kernel import test_map_helpers_differential as maps

    from sonde.kernel.target import live_target

    have = live_target().features.have
    checks: list[tuple[str, str, Callable[[], object]]] = [
        ("classic filters: verdicts", "", classic.test_the_kernel_refuses_what_is_refused_here),
        ("classic filters: packets", "", classic.test_random_filters_keep_what_the_kernel_keeps),
        ("filters of system calls: verdicts", "", classic.test_seccomp_refuses_what_is_refused_here),
        ("the interpreter", "isa:v4", interpreter.test_the_kernel_agrees),
        ("maps and local functions", "isa:v4", interpreter.test_the_kernel_agrees_about_maps_and_local_functions),
    ]
    # Before 6.4, the errno that a helper of a map returns has zeros in its upper half.
    checks += [(f"helpers of {spec.type} maps", "isa:v4", partial(maps.test_helpers, spec)) for spec in maps.MAPS]
    for name, feature, check in checks:
        if feature and not have(feature):
            print(f"left out: {name}, for want of {feature}")
            continue
        check()
        print(f"the same: {name}", flush=True)
    return 0

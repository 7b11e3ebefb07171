"""Objects of clang's that the running kernel takes: accepted by our verifier, each program; their spoilt twins by neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonde.api.objects import read_object
from sonde.api.trace import live_target
from sonde.api.verify import verify
from sonde.errors import SondeError
from sonde.kernel.engine import KernelEngine
from sonde.record import replace

pytestmark = pytest.mark.kernel
OBJECT = Path(__file__).parents[1] / "verifier_objects" / "tracing.o"


def test_objects_of_clang() -> None:
    spec = read_object(str(OBJECT), find_places=False)
    target, refused, taken = live_target(), [], 0
    for program in spec.programs:
        try:
            with KernelEngine().load(replace(spec, programs=(program,))):
                taken += 1
        except SondeError:
            continue
        refused += [found.text for found in verify(replace(spec, programs=(program,)), target) if found.text]
    assert taken, "this kernel takes none of them"
    assert not refused, "\n\n".join(refused)

"""Our verifier beside the kernel's: what the kernel accepts of random programs and of compiled scripts, ours accepts but for a few."""

from __future__ import annotations

import pytest
from bpf_pointer_programs import make_program
from bpf_programs import IO, MAP_FD, VALUE_BYTES, kernel_program
from corpus_cases import load_cases

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.api.verify import verify as verify_object
from sonde.bpf.verifier import MapInfo, verify
from sonde.errors import FormatError, SondeError
from sonde.kernel.engine import KernelEngine
from sonde.spec.object import ObjectSpec

pytestmark = pytest.mark.kernel


def test_random_programs() -> None:
    maps = {MAP_FD: MapInfo("io", "array", 4, VALUE_BYTES, 1)}
    accepted = agreed = 0
    for seed in range(200):
        insns = make_program(seed)
        try:
            with KernelEngine().load(ObjectSpec((kernel_program(insns),), (IO,))):
                accepted += 1
        except SondeError:
            continue
        try:
            agreed += verify(insns, "raw_tracepoint", maps, max_insns=20_000).safe
        except FormatError:
            continue
    assert accepted > 20
    assert agreed >= 0.9 * accepted


def test_compiled_scripts() -> None:
    """Every seventh case of the corpus: what the compiler makes passes the kernel's verifier, and ours."""
    target = live_target()
    refused, count = [], 0
    for case in load_cases()[::7]:
        words = case.words
        if "-e" not in words[:-1]:
            continue
        try:
            spec = compile(words[words.index("-e") + 1], target, TraceOptions(unsafe=True), environ={})
        except SondeError:
            continue
        for found in verify_object(spec, target):
            count += 1
            if found.text:
                refused.append(f"{case.name}: {found.text}")
    assert count > 100
    assert len(refused) <= count // 20, "\n\n".join(refused)

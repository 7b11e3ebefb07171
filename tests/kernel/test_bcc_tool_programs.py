"""The programs of every BCC tool that Debian packages: compiled as they are, and accepted by the running kernel's verifier, each as the
type that the tool makes of it. What the tool hands to BPF() is recorded by running it.
"""

from __future__ import annotations

import pytest
from bcc_entries import entry_of
from bcc_texts import record, tool_names

from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.lang.c.compile import Text, compile_c
from sonde.lang.c.options import Compiled, Entry, Options
from sonde.lang.source import Source
from sonde.spec.object import ObjectSpec

pytestmark = pytest.mark.kernel
TOOLS = tool_names()
# What a tool needs that not every kernel has; asked for before it counts as missing.
STRUCTS = {"nfsslower": "nfs_commit_data"}
HELPERS = {"inject": "override_return"}
EVENTS = {"criticalstat": ("preemptirq", "preempt_disable")}
BY_FENTRY = ("bashreadline", "bindsnoop", "cachestat", "opensnoop", "vfsstat")


def compile_tool(tool: str, text: dict) -> tuple[Text, list[Compiled]]:  # type: ignore[type-arg]
    unit = compile_c(Source(f"{tool}.c", text["text"]), live_target(), Options(flags=tuple(text["cflags"])))
    entries = {name: entry_of(tool, name, text["programs"]) for name in unit.programs}
    missing = [name for name in text["programs"] if name not in entries]
    assert not missing, f"the text has no function {missing}"
    programs = [unit.compile_program(name, entry) for name, entry in entries.items() if entry is not None]
    for name, entry in entries.items():
        if entry is None:
            unit.compile_program(name, Entry("kprobe"))
    return unit, programs


def skip_what_the_kernel_lacks(tool: str) -> None:
    target = live_target()
    if tool in STRUCTS and target.btf().get_type(f"struct {STRUCTS[tool]}") is None:
        pytest.skip(f"this kernel has no struct {STRUCTS[tool]}: it is in a module that is not here")
    if tool in HELPERS and not target.features.have(f"helper:{HELPERS[tool]}:kprobe"):
        pytest.skip(f"this kernel has no helper bpf_{HELPERS[tool]}")
    if tool in EVENTS:
        from sonde.errors import ProbeError

        try:
            target.tracepoint(*EVENTS[tool])
        except ProbeError:
            pytest.skip(f"this kernel has no event {':'.join(EVENTS[tool])}")


@pytest.mark.skipif(not TOOLS, reason="bpfcc-tools is not installed")
@pytest.mark.parametrize("tool", TOOLS)
def test_programs_of_a_tool_are_accepted(tool: str) -> None:
    skip_what_the_kernel_lacks(tool)
    recorded = record(tool)
    assert recorded["texts"], recorded
    loaded = 0
    for text in recorded["texts"]:
        unit, programs = compile_tool(tool, text)
        for compiled in programs:
            with KernelEngine().load(ObjectSpec((compiled.program,), (*unit.maps, *compiled.maps))):
                loaded += 1
    assert loaded, "nothing of it was ever attached"


@pytest.mark.skipif(not TOOLS, reason="bpfcc-tools is not installed")
@pytest.mark.parametrize("tool", [tool for tool in BY_FENTRY if tool in TOOLS])
def test_programs_for_fentry_compile(tool: str) -> None:
    """Loading them needs a kernel that lets functions be traced: in the guests."""
    programs = [compiled for text in record(tool, kfunc=True)["texts"] for compiled in compile_tool(tool, text)[1]]
    assert programs

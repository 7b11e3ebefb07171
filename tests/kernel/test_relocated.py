"""CO-RE on live kernels: scripts compiled with the types of any kernel in the cache, on the running one and in the guests."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from kernel.relocated import check_own_state, compile_for
from vm.guest import Guest
from vm.kernels import DEFAULT_SERIES, KernelUnavailable, get_kernel

from sonde.compiler.pipeline import compile_module
from sonde.compiler.text import parse_module
from sonde.errors import FeatureError, VerifierError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.spec.object import CoreAccess, ObjectSpec, ProgramSpec, Reloc

ROOT = Path(__file__).resolve().parents[2]


def types_of(series: str) -> str:
    try:
        return str(get_kernel(series).btf)
    except KernelUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.kernel
@pytest.mark.parametrize("series", [*DEFAULT_SERIES[:3], "7.2"])
def test_on_the_running_kernel(series: str) -> None:
    check_own_state(types_of(series))


def unresolvable(name: str, path: tuple[str, ...]) -> ObjectSpec:
    """A program that reads the current task's member `path`, or nothing at all where there is no such member."""
    source = f"""
func @p(%ctx: ptr.ctx) -> i64 program=raw_tracepoint {{
entry:
  %found = core core=field_exists|{name}|{".".join(path)}|1|0
  %yes = ne.i1 %found, 0
  branch %yes, read(), leave()
read():
  %task = call.i64 @get_current_task
  %offset = core core=field_byte_offset|{name}|{".".join(path)}|8|0
  %place = add.i64 %task, %offset
  ret %place
leave():
  ret 77
}}
"""
    module = parse_module(source)
    return ObjectSpec(compile_module(module, live_target()).programs)


@pytest.mark.kernel
def test_what_is_asked_for_first_may_be_missing() -> None:
    with KernelEngine().load(unresolvable("struct~task_struct", ("no_such_member",))) as loaded:
        assert loaded.run("p") == 77
    with KernelEngine().load(unresolvable("struct~task_struct", ("comm",))) as loaded:
        assert loaded.run("p") != 77


@pytest.mark.kernel
def test_what_is_missing_is_named() -> None:
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 8, 0x95, 0, 0, 0)
    for path, why, hint in (
        (("real_parents",), "struct task_struct has no member real_parents", "real_parent"),
        (("comm", 99), "the array comm has 16 elements, none number 99", ""),
    ):
        access = CoreAccess("field_byte_offset", "struct task_struct", path, 8)
        program = ProgramSpec("p", "raw_tracepoint", code, (Reloc(0, "core", core=access),))
        with pytest.raises(VerifierError, match="refused to load program p") as caught:
            KernelEngine().load(ObjectSpec((program,)))
        assert why in caught.value.render()
        assert hint in caught.value.hint


@pytest.mark.kernel
def test_scripts_that_depend_on_their_kernel_in_other_ways_are_not_run_elsewhere() -> None:
    spec = compile_for("begin { print(*curtask.mm.exe_file); exit() }", types_of("6.1"))
    with pytest.raises(FeatureError, match="takes the whole of struct file"):
        KernelEngine().load(spec)


def test_in_guests(guest: Guest) -> None:
    others = [types_of(series) for series in ("5.10", "6.1", "6.12", "7.2") if series != guest.kernel.series]
    result = guest.python(
        "import sys; from kernel.relocated import main; sys.exit(main())",
        path=[str(ROOT / "src"), str(ROOT / "tests")],
        args=others,
        timeout_s=400,
    )
    assert result.status == 0, f"{result.out}\n{result.err}"
    assert result.out.count("agrees: ") == len(others), result.out


def test_functions_of_modules_in_guests(guest: Guest) -> None:
    modules = [find_module(guest.kernel.modules, name) for name in _CONNECTION_TRACKER]
    if guest.kernel.series == "5.10" or not modules[-1]:
        pytest.skip(f"Linux {guest.kernel.release} has no module with functions for programs")
    result = guest.python(
        "import sys; from kernel.kfuncs_in_guest import main; sys.exit(main())",
        path=[str(ROOT / "src"), str(ROOT / "tests")],
        args=[m for m in modules if m],
        timeout_s=120,
    )
    assert result.status == 0, f"{result.out}\n{result.err}"
    assert "may not be loaded" in result.out


_CONNECTION_TRACKER = ("libcrc32c", "nf_defrag_ipv4", "nf_defrag_ipv6", "nf_conntrack")


def find_module(folder: Path, name: str) -> str:
    """Return the file of a module, "" when there is none (it is built in, or configured out)."""
    return next((str(path) for path in folder.rglob(f"{name}.ko*")), "")

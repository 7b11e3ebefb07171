"""BTF, helper numbers, tracefs, kallsyms and maps of the running kernel: our readers against its own answers."""

from __future__ import annotations

import os

import pytest

from sonde.bpf.helpers import HELPERS
from sonde.debuginfo.btf import VMLINUX_PATH, Btf
from sonde.debuginfo.btfdump import definition
from sonde.debuginfo.ctype import Int, Pointer, Struct, sizeof, strip
from sonde.debuginfo.kallsyms import Kallsyms
from sonde.debuginfo.procmaps import find_mapping, read_maps
from sonde.debuginfo.tracefs import find_root, iter_events, read_format
from sonde.errors import PrivilegeError, SondeError


@pytest.fixture(scope="module")
def btf():  # type: ignore[no-untyped-def]
    if not os.access(VMLINUX_PATH, os.R_OK):
        pytest.skip(f"needs {VMLINUX_PATH}")
    with Btf.open() as opened:
        yield opened


@pytest.fixture(scope="module")
def root() -> str:
    try:
        return find_root()
    except SondeError as error:
        pytest.skip(f"needs tracefs: {error}")


def test_helper_numbers_are_those_of_the_kernel(btf: Btf) -> None:
    found = btf.get_enumerator("BPF_FUNC_map_lookup_elem")
    assert found is not None
    theirs = {n.removeprefix("BPF_FUNC_"): v for n, v in found[1].values.items() if v}
    theirs = {n: v for n, v in theirs.items() if not n.startswith("__") and n != "C_MAX_ID"}
    ours = {h.name: h.ident for h in HELPERS if h.ident <= max(theirs.values())}
    assert ours == theirs


def test_task_struct(btf: Btf) -> None:
    task = btf.get_struct("task_struct")
    assert task is not None and task.size > 1000
    comm, mm = task.get_member("comm"), task.get_member("mm")
    assert comm is not None and sizeof(comm.member.ctype) == 16
    assert mm is not None and isinstance(mm.member.ctype, Pointer)
    pointee = strip(mm.member.ctype.target)
    assert isinstance(pointee, Struct) and pointee.get_member("mmap_base") is not None
    assert definition(task).startswith("struct task_struct {\n")


def test_every_type_decodes_and_sizes_hold(btf: Btf) -> None:
    for ident in range(1, btf.count_types() + 1):
        ctype = btf.type_by_id(ident)
        if isinstance(ctype, Struct) and ctype.kind == "struct":
            for member in ctype.members:
                end = member.offset_bits + (member.width_bits or sizeof(member.ctype) * 8)
                assert end <= ctype.size * 8 or not sizeof(member.ctype), (ctype, member.name)


def test_function_ids_are_those_of_their_records(btf: Btf) -> None:
    for name in ("vfs_read", "do_exit", "schedule", "tcp_sendmsg", "ksys_read"):
        ident = Btf.open().get_func_id(name)  # cold: the id must not depend on what was walked before
        if ident:
            assert btf.type_by_id(ident) is btf.get_func(name)
    names = list(btf.iter_func_names())
    assert len(names) > 1000
    for name in names[:: len(names) // 50]:
        assert btf.type_by_id(btf.get_func_id(name)) is btf.get_func(name)


def test_formats_of_all_events(btf: Btf, root: str) -> None:
    events = list(iter_events(root))
    assert ("sched", "sched_switch") in events
    for category, event in events[::20]:
        found = read_format(category, event, root, btf=btf)
        assert found.ident > 0 and found.fields[0].name == "common_type"
        for field in found.fields:
            ctype = strip(field.ctype)
            assert field.dynamic or sizeof(ctype) == field.size or isinstance(ctype, Int) or sizeof(ctype) == 4, (
                event,
                field,
            )


def test_kallsyms_both_ways() -> None:
    symbols = Kallsyms()
    try:
        address = symbols.address("vfs_read")
    except PrivilegeError as error:
        pytest.skip(str(error))
    assert address
    assert symbols.resolve(address + 3) == ("vfs_read", 3, "")
    listed: dict[int, tuple[str, int, str]] = {}
    for start, _, name, module in symbols.iter_symbols():
        listed.setdefault(start, (name, 0, module))
    for start in list(listed)[::500]:
        assert symbols.resolve(start) == listed[start]


def test_own_maps_hold_our_code() -> None:
    import ctypes

    function = ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p).value
    assert function
    found = find_mapping(read_maps(os.getpid()), function)
    assert found is not None and found.executable and found.is_file

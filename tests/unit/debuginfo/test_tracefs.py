"""Tracepoint formats: declarations become C types; finding tracefs; garbage is refused."""

from __future__ import annotations

import contextlib
import os

import pytest
from btf_builder import BtfBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.debuginfo import tracefs
from sonde.debuginfo.btf import Btf
from sonde.debuginfo.ctype import Array, Enum, Int, Pointer, Struct, Typedef, declare, sizeof, strip
from sonde.debuginfo.tracefs import find_root, iter_events, parse_declaration, parse_format, read_format
from sonde.errors import FeatureError, FormatError, PrivilegeError, ProbeError

OPENAT = """\
name: sys_enter_openat
ID: 782
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;
\tfield:int dfd;\toffset:16;\tsize:8;\tsigned:0;
\tfield:const char * filename;\toffset:24;\tsize:8;\tsigned:0;
\tfield:int flags;\toffset:32;\tsize:8;\tsigned:0;
\tfield:umode_t mode;\toffset:40;\tsize:8;\tsigned:0;

print fmt: "dfd: 0x%08lx, filename: 0x%08lx", ((unsigned long)(REC->dfd)), ((unsigned long)(REC->filename))
"""


def test_a_syscall_format() -> None:
    f = parse_format(OPENAT, path="p", category="syscalls")
    assert (f.name, f.ident, f.category) == ("sys_enter_openat", 782, "syscalls")
    assert [x.name for x in f.fields if not x.common] == ["__syscall_nr", "dfd", "filename", "flags", "mode"]
    assert [x.name for x in f.fields if x.common] == [
        "common_type",
        "common_flags",
        "common_preempt_count",
        "common_pid",
    ]
    assert f.print_fmt.startswith('"dfd: 0x%08lx') and f.print_fmt.endswith("(REC->filename))")
    filename = f.get_field("filename")
    assert filename is not None
    assert (filename.offset, filename.size, filename.text) == (24, 8, "const char * filename")
    assert declare(filename.ctype, "filename") == "const char *filename"
    assert f.get_field("nosuch") is None
    assert f.struct.size == 48 and f.struct.name == "syscalls_sys_enter_openat"
    mode = f.struct.get_member("mode")
    assert mode is not None and mode.offset == 40 and isinstance(mode.member.ctype, Typedef)


def test_integers_take_the_width_of_their_field() -> None:
    """Syscall arguments are kept in 8 bytes each, whatever their type."""
    dfd = parse_format(OPENAT).get_field("dfd")
    assert dfd is not None and isinstance(dfd.ctype, Int)
    assert (dfd.ctype.size, dfd.ctype.signed, dfd.signed) == (8, True, False)


@pytest.mark.parametrize(
    ("text", "size", "name", "declared", "dynamic"),
    [
        ("char comm[16]", 16, "comm", "char x[16]", ""),
        ("char comm[TASK_COMM_LEN]", 16, "comm", "char x[16]", ""),
        ("__data_loc char[] name", 4, "name", "char x[]", "data_loc"),
        ("__rel_loc u32[] list", 4, "list", "u32 x[]", "rel_loc"),
        ("__data_loc cpumask_t cpumask", 4, "cpumask", "cpumask_t x", "data_loc"),
        ("unsigned long args[6]", 48, "args", "unsigned long x[6]", ""),
        ("u32 buf[]", 0, "buf", "u32 x[]", ""),
        ("__u8 matrix[2][4]", 8, "matrix", "__u8 x[2][4]", ""),
        ("struct file * file", 8, "file", "struct file *x", ""),
        ("struct iocb * * iocbpp", 8, "iocbpp", "struct iocb **x", ""),
        ("const char *const * argv", 8, "argv", "const char *const *x", ""),
        ("const void* ip", 8, "ip", "const void *x", ""),
        ("void __seg_gs * ptr", 8, "ptr", "void *x", ""),
        ("unsigned long long used", 8, "used", "unsigned long long x", ""),
        ("unsigned int[] lengths", 12, "lengths", "unsigned int x[3]", ""),
        ("bool success", 1, "success", "bool x", ""),
        ("enum pid_type type", 4, "type", "enum pid_type x", ""),
        ("xfs_ino_t ino", 8, "ino", "xfs_ino_t x", ""),
    ],
)
def test_declarations(text: str, size: int, name: str, declared: str, dynamic: str) -> None:
    found, ctype, kind = parse_declaration(text, size, False)
    assert (found, kind) == (name, dynamic)
    assert declare(ctype, "x") == declared
    if not dynamic:
        assert sizeof(ctype) == size


def test_named_types_come_from_btf() -> None:
    b = BtfBuilder()
    int_ = b.int("int", 4, signed=True)
    file = b.struct("file", 8, [("count", int_, 0)])
    b.enum("pid_type", {"PIDTYPE_PID": 0})
    b.typedef("file_t", file)
    btf = Btf.from_bytes(b.build())
    asked = []

    def source() -> Btf:
        asked.append(1)
        return btf

    _, pointer, _ = parse_declaration("struct file * f", 8, False, btf=source)
    _, enum, _ = parse_declaration("enum pid_type t", 4, False, btf=source)
    _, typedef, _ = parse_declaration("file_t v", 8, False, btf=btf)
    assert not asked  # nothing is looked up before it is needed
    assert isinstance(pointer, Pointer) and pointer.target is btf.get_struct("file")
    found = strip(enum)
    assert isinstance(found, Enum) and found.values == {"PIDTYPE_PID": 0}
    assert strip(typedef) is btf.get_struct("file")
    _, value, _ = parse_declaration("struct file f", 8, False, btf=btf)
    assert value is btf.get_struct("file")


def test_without_btf_unknown_types_have_the_size_of_the_field() -> None:
    def nothing() -> Btf:
        raise FeatureError("no BTF")

    for btf in (None, nothing):
        _, number, _ = parse_declaration("xfs_ino_t ino", 8, True, btf=btf)
        plain = strip(number)
        assert isinstance(plain, Int) and (plain.size, plain.signed) == (8, True)
        _, blob, _ = parse_declaration("struct foo bar", 24, False, btf=btf)
        assert isinstance(blob, Struct) and blob.size == 24
        _, pointer, _ = parse_declaration("struct foo * bar", 8, False, btf=btf)
        assert isinstance(pointer, Pointer) and isinstance(pointer.target, Struct) and pointer.target.name == "foo"


def test_dynamic_fields_are_a_word_in_the_record() -> None:
    text = OPENAT.replace("int flags;\toffset:32;\tsize:8", "__data_loc char[] who;\toffset:32;\tsize:4")
    f = parse_format(text)
    who, member = f.get_field("who"), f.struct.get_member("who")
    assert who is not None and member is not None
    assert (who.dynamic, who.size) == ("data_loc", 4)
    assert isinstance(who.ctype, Array) and who.ctype.count == 0
    assert sizeof(member.member.ctype) == 4


@pytest.mark.parametrize(
    "text",
    ["", "name: x\n", "name: x\nID: 1\n", OPENAT.replace("ID: 782", "ID: abc"), OPENAT.replace("offset:24", "offset:-24"),
     OPENAT.replace("offset:24;", ""), OPENAT.replace("const char * filename", "const char *"),
     OPENAT.replace("const char * filename", "char filename[16"), OPENAT.replace("int dfd", "dfd"),
     OPENAT.replace("size:8", "size:99999999999999999999"), OPENAT.replace("int dfd", "a b c d"),
     OPENAT.replace("int dfd", "int " + "*" * 99 + "dfd"), OPENAT.replace("int dfd", "int dfd" + "[1]" * 99)],
)  # fmt: skip
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_format(text)


@given(st.text(alphabet="abc _*[]()0123;:\tconst struct unsigned char __data_loc", max_size=40), st.integers(0, 64))
@settings(max_examples=300, deadline=None)
def test_any_declaration_parses_or_is_refused(text: str, size: int) -> None:
    with contextlib.suppress(FormatError):
        name, ctype, _ = parse_declaration(text, size, False)
        assert name and declare(ctype, name) and sizeof(ctype) >= 0


@given(st.integers(0, len(OPENAT)), st.text(max_size=8))
@settings(max_examples=300, deadline=None)
def test_damaged_formats_parse_or_are_refused(place: int, extra: str) -> None:
    with contextlib.suppress(FormatError):
        parse_format(OPENAT[:place] + extra + OPENAT[place + len(extra) :])


# The file system --------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path) -> str:  # type: ignore[no-untyped-def]
    folder = tmp_path / "tracing"
    for name in ("syscalls/sys_enter_openat", "sched/sched_switch"):
        (folder / "events" / name).mkdir(parents=True)
        (folder / "events" / name / "format").write_text(OPENAT)
    return str(folder)


def test_events_from_the_list_or_from_the_folders(root: str) -> None:
    assert list(iter_events(root)) == [("sched", "sched_switch"), ("syscalls", "sys_enter_openat")]
    with open(root + "/available_events", "w") as file:
        file.write("a:b\nc:d\n")
    assert list(iter_events(root)) == [("a", "b"), ("c", "d")]


def test_reading_a_format(root: str) -> None:
    assert read_format("syscalls", "sys_enter_openat", root).category == "syscalls"
    with pytest.raises(ProbeError) as caught:
        read_format("syscalls", "sys_enter_opnat", root)
    assert caught.value.close == ("syscalls:sys_enter_openat",)
    for category, event in (("..", "x"), ("syscalls", "../sched/sched_switch"), ("a\0", "b")):
        with pytest.raises(ProbeError):
            read_format(category, event, root)


def test_missing_events_folder(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FeatureError):
        list(iter_events(str(tmp_path)))


def test_find_root(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracefs, "ROOTS", ("/nonexistent", root))
    assert find_root() == root
    monkeypatch.setattr(tracefs, "ROOTS", ("/nonexistent",))
    monkeypatch.setattr(tracefs, "_detached", [])
    monkeypatch.setattr(tracefs, "_iter_mounts", lambda: iter([root]))
    assert find_root() == root


def test_find_root_mounts_one_of_its_own_as_the_last_resort(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracefs, "ROOTS", ())
    monkeypatch.setattr(tracefs, "_detached", [])
    monkeypatch.setattr(tracefs, "_iter_mounts", lambda: iter([]))
    monkeypatch.setattr(tracefs, "_mount_detached", lambda: root)
    assert find_root() == root
    monkeypatch.setattr(tracefs, "_mount_detached", lambda: pytest.fail("mounted twice"))
    assert find_root() == root


def test_find_root_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(PrivilegeError, match="may not be read") as caught:
        find_root()
    assert "mount -o remount" in caught.value.hint


@pytest.mark.parametrize(("number", "kind"), [(1, PrivilegeError), (19, FeatureError), (22, FeatureError)])
def test_a_refused_mount_is_explained(number: int, kind: type[Exception]) -> None:
    assert isinstance(tracefs._no_tracefs(OSError(number, os.strerror(number))), kind)

"""Externs of objects that clang made, on the running kernel: its functions, its variables by their types, its configuration, and weak ones that it lacks."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from oracle.test_linking_against_bpftool import compile_text, needs_clang

from sonde.api.objects import bind, load_object, open_object, read_object
from sonde.errors import FeatureError, ProbeError
from sonde.kernel.target import live_target

pytestmark = [pytest.mark.kernel, needs_clang]
TEXT = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct task_struct { int pid; } __attribute__((preserve_access_index));
extern const int no_such_number __ksym WEAK;
extern const void no_such_symbol __ksym __weak;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern int bpf_no_such_function(int x) __ksym __weak;
extern int CONFIG_HZ __kconfig __weak;
extern char CONFIG_DEFAULT_HOSTNAME[32] __kconfig __weak;
extern enum libbpf_tristate CONFIG_BPF_SYSCALL __kconfig;
long none = -1, number = -1, hz = -1, on = -1, missing = -1;
char host[8];
int wanted;
SEC("syscall") int run(void *ctx)
{
	struct task_struct *task = bpf_task_from_pid(wanted);
	none = &no_such_number ? 1 : 0;
	missing = bpf_no_such_function || &no_such_symbol ? 1 : 0;
	if (task) { number = task->pid; bpf_task_release(task); }
	hz = CONFIG_HZ; on = CONFIG_BPF_SYSCALL;
	__builtin_memcpy(host, CONFIG_DEFAULT_HOSTNAME, 8);
	return 0;
}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compile_text(TEXT.replace("WEAK", "__weak"), tmp_path_factory.mktemp("object") / "x.o")


def test_externs(made: str) -> None:
    found = open_object(made)
    assert {(e.name, e.section, e.weak) for e in found.externs if not e.weak} == {
        ("bpf_task_from_pid", ".ksyms", False),
        ("bpf_task_release", ".ksyms", False), ("CONFIG_BPF_SYSCALL", ".kconfig", False),
    }  # fmt: skip
    spec = bind(found)
    with load_object(spec).object as live:
        wanted = next(m for m in live.maps.values() if m.name == ".bss")
        ctype = wanted.spec.value_type
        places = {m.name: m.offset for m in ctype.members}  # type: ignore[union-attr]
        content = bytearray((wanted.lookup(bytes(4)) or [b""])[0])
        struct.pack_into("<i", content, places["wanted"], os.getpid())
        wanted.update(bytes(4), bytes(content))
        assert live.run("run") == 0
        data = live.maps[".data"]
        values = (data.lookup(bytes(4)) or [b""])[0]
        got = {
            m.name: struct.unpack_from("<q", values, m.offset)[0]
            for m in data.spec.value_type.members  # type: ignore[union-attr]
        }
        host = bytes((wanted.lookup(bytes(4)) or [b""])[0][places["host"] :][:8])
    target = live_target()
    name = (target.kconfig("CONFIG_DEFAULT_HOSTNAME") or "").strip('"').encode()
    assert got == {
        "none": 0, "number": os.getpid(), "missing": 0,
        "hz": int(target.kconfig("CONFIG_HZ") or 0), "on": 1,
    }  # fmt: skip
    assert host.rstrip(b"\0") == name[:8]


@pytest.mark.parametrize(
    ("declared", "used", "error", "words"),
    [
        ("extern const int no_such_number __ksym;", "*(int *)bpf_this_cpu_ptr(&no_such_number)", FeatureError, "no variable no_such_number"),
        ("extern const void no_such_symbol __ksym;", "(long)&no_such_symbol", FeatureError, "no symbol no_such_symbol"),
        ("extern int bpf_no_such_function(int x) __ksym;", "bpf_no_such_function(1)", FeatureError, "bpf_no_such_function"),
        ("extern int CONFIG_NO_SUCH __kconfig;", "CONFIG_NO_SUCH", ProbeError, "CONFIG_NO_SUCH"),
    ],
)  # fmt: skip
def test_strong_ones_that_the_kernel_lacks(
    declared: str, used: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    text = f'{TEXT.split("struct task")[0]}\n{declared}\nlong x;\nSEC("syscall") int run(void *ctx) {{ x = {used}; return 0; }}'
    path = compile_text(text, tmp_path / "x.o")
    with pytest.raises(error, match=words):
        load_object(read_object(path))


FLAVOURS = """
extern struct task_struct *bpf_task_from_pid___two(int pid, long more) __ksym __weak;
extern struct task_struct *bpf_task_from_pid___one(int pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym;
long which;
SEC("syscall") int run(void *ctx)
{
	struct task_struct *task = 0;
	if (bpf_ksym_exists(bpf_task_from_pid___two)) { which = 2; task = bpf_task_from_pid___two(1, 2); }
	else if (bpf_ksym_exists(bpf_task_from_pid___one)) { which = 1; task = bpf_task_from_pid___one(1); }
	if (task) bpf_task_release(task);
	return 0;
}
"""


def flavoured(text: str, folder: Path) -> str:
    head = TEXT.split("extern const int no_such_number")[0]
    exists = "#define bpf_ksym_exists(sym) (!!(sym))\n"
    return compile_text(head + exists + text, folder / "x.o")


def test_flavours_of_functions(tmp_path: Path) -> None:
    with load_object(read_object(flavoured(FLAVOURS, tmp_path))).object as live:
        assert live.run("run") == 0
        assert live.maps[".bss"].lookup(bytes(4)) == [struct.pack("<q", 1)]


def test_a_function_of_another_type(tmp_path: Path) -> None:
    text = FLAVOURS.replace("long more) __ksym __weak", "long more) __ksym")
    with pytest.raises(FeatureError, match=r"bpf_task_from_pid___two\(int, long\); in this kernel it is"):
        read_object(flavoured(text, tmp_path))

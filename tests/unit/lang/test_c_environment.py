"""What the environment of a C text answers: standard names, a kernel's own meaning first, helpers, close names, a kernel without BTF."""

from __future__ import annotations

import pytest
from c_analysed import small_target

from sonde.debuginfo.ctype import Pointer, declare, sizeof, strip
from sonde.errors import FeatureError
from sonde.lang.c.environment import Environment
from sonde.record import replace


def without_btf() -> Environment:
    """An environment of a kernel that has no BTF."""

    def no_btf() -> object:
        raise FeatureError("no BTF", feature="btf")

    return Environment(replace(small_target(), btf=no_btf))


@pytest.mark.parametrize(
    ("name", "size", "signed"),
    [
        ("u8", 1, False), ("s16", 2, True), ("__u32", 4, False), ("u64", 8, False), ("size_t", 8, False), ("bool", 1, False),
        ("__be16", 2, False), ("pid_t", 4, True), ("dev_t", 4, False), ("umode_t", 2, False), ("uintptr_t", 8, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("environment", [Environment(small_target()), without_btf()], ids=["btf", "none"])
def test_standard_names(environment: Environment, name: str, size: int, signed: bool) -> None:
    found = environment.get_typedef(name)
    assert found is not None and sizeof(found) == size
    assert strip(found).signed == signed  # type: ignore[attr-defined]
    assert environment.is_type_name(name)


def test_the_kernel_s_meaning_goes_first() -> None:
    found = Environment(small_target()).get_typedef("pid_t")
    assert found is not None and declare(found.target) == "__kernel_pid_t"  # type: ignore[attr-defined]


def test_what_is_nowhere_defined() -> None:
    for environment in (Environment(small_target()), without_btf()):
        assert environment.get_typedef("no_such_t") is None
        assert environment.get_tag("struct", "no_such") is None
        assert environment.get_enumerator("NO_SUCH") is None
        assert environment.get_helper("bpf_no_such") is None
        assert not environment.is_type_name("bpf_ktime_get_ns")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("bpf_ktime_get_ns", "unsigned long long f(void)"),
        ("bpf_probe_read_kernel", "long f(void *, unsigned int, const void *)"),
        ("bpf_map_lookup_elem", "void *f(void *, const void *)"),
        ("bpf_get_prandom_u32", "unsigned int f(void)"),
        ("bpf_trace_printk", "long f(const char *, unsigned int, ...)"),
        ("bpf_tail_call", "void f(void *, void *, unsigned long long)"),
        ("bpf_get_current_task_btf", "struct task_struct *f(void)"),
        ("bpf_loop", "long f(unsigned long long, void *, void *, unsigned long long)"),
    ],
)
def test_helper_prototypes(name: str, wanted: str) -> None:
    found = Environment(small_target()).get_helper(name)
    assert found is not None and declare(found, "f") == wanted


def test_names_that_resemble() -> None:
    environment = Environment(small_target())
    assert environment.close_functions("bpf_get_curent_comm")[0] == "bpf_get_current_comm"
    assert environment.close_types("struct", "task_strct") == ["task_struct"]
    assert environment.close_types("typedef", "atomc_t") == ["atomic_t"]


def test_answers_are_kept() -> None:
    environment = Environment(small_target())
    first = environment.get_tag("struct", "task_struct")
    assert first is environment.get_tag("struct", "task_struct")
    tracepoint = environment.get_tag("struct", "tracepoint__syscalls__sys_enter_openat")
    assert tracepoint is environment.get_tag("struct", "tracepoint__syscalls__sys_enter_openat")
    assert isinstance(strip(environment.get_helper("bpf_map_lookup_elem").result), Pointer)  # type: ignore[union-attr]

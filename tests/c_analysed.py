"""C texts for tests of the front end: to tokens, trees and analyses, against a target with a small BTF of its own."""

from __future__ import annotations

from btf_builder import BtfBuilder
from fake_target import FakeFeatures

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.tracefs import TracepointFormat, parse_format
from sonde.errors import CompileError, ProbeError
from sonde.lang.c.analysis import Analysis
from sonde.lang.c.environment import Environment
from sonde.lang.c.parser import parse
from sonde.lang.c.tokens import tokenize
from sonde.lang.c.types_unit import analyse
from sonde.lang.source import Source
from sonde.spec.target import Target

OPENAT = """name: sys_enter_openat
ID: 600
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int dfd;\toffset:16;\tsize:8;\tsigned:0;
\tfield:const char * filename;\toffset:24;\tsize:8;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:32;\tsize:4;\tsigned:1;

print fmt: "dfd: %d", REC->dfd
"""


def kernel_btf() -> Btf:
    """A kernel with a few types: a task that points to its parent, a union inside, bit-fields, an enumeration, functions."""
    b = BtfBuilder()
    int_ = b.int("int", 4, signed=True)
    uint = b.int("unsigned int", 4)
    char = b.int("char", 1, signed=True)
    long = b.int("long unsigned int", 8)
    u32 = b.typedef("u32", b.typedef("__u32", uint))
    b.typedef("pid_t", b.typedef("__kernel_pid_t", int_))
    comm = b.array(char, 16, int_)
    atomic = b.struct("", 4, [("counter", int_, 0)])
    atomic_t = b.typedef("atomic_t", atomic)
    inner = b.struct("", 8, [("low", u32, 0), ("whole", long, 0)], union=True)
    task = 14
    parent = b.ptr(task)
    assert b.struct(
        "task_struct",
        64,
        [
            ("pid", int_, 0, 0), ("usage", atomic_t, 32, 0), ("comm", comm, 64, 0), ("real_parent", parent, 192, 0),
            ("", inner, 256, 0), ("flag_a", uint, 320, 1), ("flag_b", uint, 321, 31), ("forward", b._next_id + 1, 384, 0),
        ],
        flag=True,
    ) == task  # fmt: skip
    b.ptr(b._next_id + 1)
    b.fwd("unknown")
    b.enum("states", {"TASK_RUNNING": 0, "TASK_STOPPED": 4})
    b.enum("", {"TASK_COMM_LEN": 16})
    proto = b.func_proto(int_, [("task", parent), ("flags", u32)])
    b.func("do_something", proto)
    b.struct("pt_regs", 168, [("di", long, 896)])
    return Btf.from_bytes(b.build())


def _tracepoint(category: str, event: str) -> TracepointFormat:
    if (category, event) != ("syscalls", "sys_enter_openat"):
        raise ProbeError(f"there is no tracepoint {category}:{event}")
    return parse_format(OPENAT, category=category)


def small_target(arch: str = "x86_64", without: tuple[str, ...] = ()) -> Target:
    """A target that knows the types of `kernel_btf` and one tracepoint, and lacks the features `without`."""
    btf = kernel_btf()
    return Target(arch, "test", 4096, 2, FakeFeatures(without), lambda: btf, _tracepoint, lambda _: 0, lambda _: "")


def analysed(text: str, dialect: str = "bcc", arch: str = "x86_64") -> Analysis:
    """Analyse a text that needs no preprocessor."""
    source = Source("test.c", text)
    environment = Environment(small_target(arch))
    return analyse(parse(tokenize(source), environment.is_type_name), environment, dialect=dialect, main=source)


def errors(text: str, dialect: str = "bcc") -> list[str]:
    """Return the messages of all errors in a text; [] when it is right."""
    try:
        analysed(text, dialect)
    except CompileError as error:
        return [d.message for d in error.diagnostics]
    return []


def warnings(text: str, dialect: str = "bcc") -> list[str]:
    """Return the messages of all warnings."""
    return [d.message for d in analysed(text, dialect).warnings]

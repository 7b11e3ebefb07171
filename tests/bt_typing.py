"""Type checking of bpftrace scripts on a machine that does not exist: a small BTF, three tracepoints, no kernel."""

from __future__ import annotations

from btf_builder import BtfBuilder

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.tracefs import TracepointFormat, parse_format
from sonde.errors import CompileError, ProbeError
from sonde.lang.bpftrace import ast
from sonde.lang.bpftrace.analysis import AnalysedProbe, Analysis, Type
from sonde.lang.bpftrace.config import load_config
from sonde.lang.bpftrace.macros import expand_macros
from sonde.lang.bpftrace.options import Options
from sonde.lang.bpftrace.params import resolve_params
from sonde.lang.bpftrace.parser import parse
from sonde.lang.bpftrace.stype import type_name
from sonde.lang.bpftrace.types import analyse
from sonde.lang.source import Source
from sonde.spec.target import Target

_COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)
_FORMATS = {
    ("syscalls", "sys_enter_openat"): (
        "\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n"
        "\tfield:int dfd;\toffset:16;\tsize:8;\tsigned:0;\n"
        "\tfield:const char * filename;\toffset:24;\tsize:8;\tsigned:0;\n"
    ),
    ("sched", "sched_switch"): (
        "\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;\n"
        "\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;\n"
        "\tfield:void * skaddr;\toffset:32;\tsize:8;\tsigned:0;\n"
    ),
    ("sched", "sched_process_exec"): (
        "\tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;\n"
        "\tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;\n"
    ),
}


def build_btf() -> Btf:
    """The types that the tests use, laid out as on x86_64."""
    b = BtfBuilder()
    int_ = b.int("int", 4, True)
    char = b.int("char", 1, True)
    long_ = b.int("long unsigned int", 8)
    uint = b.int("unsigned int", 4)
    byte = b.int("unsigned char", 1)
    u32 = b.typedef("u32", uint)
    comm = b.array(char, 16)
    mac = b.array(byte, 6)
    numbers = b.array(int_, 4)
    pid_type = b.enum("pid_type", {"PIDTYPE_PID": 0, "PIDTYPE_TGID": 1})
    task = pid_type + 6  # its id, which its own members need before it exists
    to_task = b.ptr(task)
    mm = b.struct("mm_struct", 16, [("owner", to_task, 0), ("mm_users", u32, 64)])
    to_mm = b.ptr(mm)
    tagged = b.ptr(b.type_tag("user", char))
    assert tagged == task - 1
    made = b.struct(
        "task_struct",
        96,
        [
            ("pid", int_, 0),
            ("flags", uint, 32),
            ("comm", comm, 64),
            ("mm", to_mm, 192),
            ("parent", to_task, 256),
            ("real_parent", to_task, 320),
            ("group_leader", to_task, 384),
            ("args", tagged, 448),
            ("mac", mac, 512),
            ("numbers", numbers, 576),
            ("kind", pid_type, 704),
        ],
    )
    assert made == task
    file = b.struct("file", 16, [("task", to_task, 0), ("name", b.ptr(char), 64)])
    proto = b.func_proto(long_, [("file", b.ptr(file)), ("buf", tagged), ("count", long_)])
    b.func("vfs_read", proto)
    b.var("runqueues", mm)
    return Btf.from_bytes(b.build())


def _tracepoint(category: str, event: str) -> TracepointFormat:
    fields = _FORMATS.get((category, event))
    if fields is None:
        raise ProbeError(f"there is no tracepoint {category}:{event}")
    text = f'name: {event}\nID: 1\nformat:\n{_COMMON}{fields}\nprint fmt: ""\n'
    return parse_format(text, category=category, btf=BTF)


class NoFeatures:
    """A machine that says no to every question."""

    def have(self, name: str) -> bool:
        return False


BTF = build_btf()
TARGET = Target(
    "x86_64",
    "0",
    4096,
    4,
    NoFeatures(),
    lambda: BTF,
    _tracepoint,
    lambda name: 0xFFFFFFFF81000000 if name in ("vfs_read", "jiffies") else 0,
    lambda name: "",
)


def typed(text: str, *, unsafe: bool = False, pid: int = 0) -> Analysis:
    """Type a whole script; a text without a probe is the body of `begin`."""
    if "{" not in text or text.startswith("{"):
        text = f"begin {{ {text} }}"
    source = Source("stdin", text)
    program = resolve_params(expand_macros(parse(source)), (), {})
    return analyse(program, source, TARGET, load_config(program, {}), Options(unsafe=unsafe, pid=pid))


def variables(text: str, **options: bool) -> dict[str, str]:
    """The types of all variables of a script, by name."""
    return {name: type_name(t.ctype) for name, t in variable_types(text, **options).items()}


def variable_types(text: str, **options: bool) -> dict[str, Type]:
    """The types with their address spaces."""
    found: dict[str, Type] = {}
    for probe in typed(text, **options).probes:  # type: ignore[arg-type]
        for info in probe.variables.values():
            if info.type is not None:
                found[info.name] = info.type
    return found


def maps(text: str) -> dict[str, tuple[str, str]]:
    """Key and value types of all maps; "" is the key of a scalar map."""
    found = typed(text).maps
    return {m.name: (type_name(m.key) if m.key else "", type_name(m.value)) for m in found.values()}


def errors(text: str, **options: bool) -> list[str]:
    """The messages of all errors, without their places."""
    return [d.message for d in diagnostics(text, **options)]


def diagnostics(text: str, **options: bool):  # type: ignore[no-untyped-def]
    """The errors of a script; none when it is right."""
    try:
        typed(text, **options)  # type: ignore[arg-type]
    except CompileError as error:
        return list(error.diagnostics)
    return []


def warnings(text: str) -> list[str]:
    """The messages of all warnings."""
    return [d.message for d in typed(text).warnings]


def calls(text: str, **options: bool) -> dict[str, dict[str, object]]:
    """The parameters of each call of the first probe, by function."""
    return {c.name: c.params for c in typed(text, **options).probes[0].calls.values()}  # type: ignore[arg-type]


def find_type(probe: AnalysedProbe, kind: type[ast.Node]) -> Type:
    """The type of the first node of a class."""
    return next(t for node, t in probe.type_of.items() if isinstance(node, kind))

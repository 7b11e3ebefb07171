"""BCC's helper modules, the lines of trace_pipe, USDT arguments, tools by name."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rooms

from sonde.api import bcc
from sonde.api.bcc import disassembler, functions, perf, syscall, tcp, tool, utils
from sonde.api.bcc.kprobes import event_name, function_probe
from sonde.api.bcc.output import parse_line
from sonde.api.bcc.programs import split_module
from sonde.api.bcc.usdt import USDT, USDTException, _c_type, _operand
from sonde.bpf import isa
from sonde.bpf.isa import Insn
from sonde.debuginfo.usdt import parse_arg
from sonde.errors import UsageError


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (
            b"            bash-1234    [001] d...1 12345.678901: bpf_trace_printk: hello: world",
            (b"bash-1234"[:0] + b"bash", 1234, 1, b"d...1", 12345.678901, b"hello: world"),
        ),
        (b"           <...>-99      [000] d... 1.000001: : open", (b"<...>", 99, 0, b"d...", 1.000001, b"open")),
    ],
)
def test_trace_line(line: bytes, fields: tuple[object, ...]) -> None:
    assert parse_line(line) == fields


@pytest.mark.parametrize("line", [b"CPU:1 [LOST 5 EVENTS]", b"", b"# tracer: nop", b"a task without an end"])
def test_lines_that_are_no_event(line: bytes) -> None:
    assert parse_line(line) is None


def test_printb_writes_bytes_and_a_newline() -> None:
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw)
    utils.printb(b"\xff\n", file=text, nl=0)
    utils.printb(b"x", file=raw)
    assert raw.getvalue() == b"\xff\nx\n"


def test_arguments_as_text_and_bytes() -> None:
    arg = utils.ArgString(os.fsdecode(b"\xe4\xff"))
    assert (bytes(arg), str(arg)) == (b"\xe4\xff", os.fsdecode(b"\xe4\xff"))
    assert (utils.to_bytes("a"), utils.to_bytes(b"b"), utils.to_bytes(None), utils.to_str(b"c")) == (
        b"a",
        b"b",
        None,
        "c",
    )
    assert utils.to_bytes(arg) == b"\xe4\xff"


def test_cpus() -> None:
    assert set(utils.get_online_cpus()) <= set(utils.get_possible_cpus())


def test_language_of_this_process() -> None:
    assert utils.detect_language(["java", "python"], os.getpid()) == "python"
    assert utils.detect_language(["java"], os.getpid()) is None
    assert utils.detect_language(["python"], 1 << 30) is None


def test_strcmp_is_rewritten() -> None:
    done = utils.StrcmpRewrite.rewrite_expr('STRCMP("a b", arg1) && STRCMP("c", arg2)', False, False, ["arg2"], "", 3)
    assert done["expr"] == 'streq_3("a b", arg1) && streq_4("c", arg2)'
    assert done["probeid"] == 5
    text = done["streq_functions"]
    assert "streq_3(char const *ignored, uintptr_t str)" in text
    assert 'char needle[] = "a b";' in text
    assert text.count("bpf_probe_read_user(&haystack") == 1
    binary = utils.StrcmpRewrite.rewrite_expr('STRCMP("{1,2}", x)', True, True, [], "", 0)
    assert "char needle[] = {1,2};" in binary["streq_functions"]


def test_tcp_names() -> None:
    assert tcp.flags2str(0x12) == "SYN|ACK"
    assert (tcp.state2str(1), tcp.state2str(99), tcp.tcpstate[12]) == ("ESTABLISHED", "99", "NEW_SYN_RECV")


def test_syscall_names() -> None:
    number = next(n for n, name in syscall.syscalls.items() if name == b"openat")
    assert syscall.syscall_name(number) == b"openat"
    assert syscall.syscall_name(99999) == b"[unknown: 99999]"
    assert syscall.syscall_name(425) == b"io_uring_setup"


def test_perf_event_attr_has_the_kernels_layout() -> None:
    attr = perf.Perf.perf_event_attr()
    assert (attr.size, type(attr).sample_period.offset, type(attr).wakeup_events.offset) == (120, 16, 48)
    attr.freq = 1
    attr.precise_ip = 3
    assert int.from_bytes(bytes(attr)[40:48], "little") == 1 << 10 | 3 << 15
    assert type(attr).config2.offset == 64


def test_disassembly_numbers_slots_and_names_targets() -> None:
    code = isa.encode(
        [
            Insn(isa.LDDW, 1, isa.BPF_PSEUDO_MAP_FD, imm=7),
            Insn(isa.BPF_JMP | isa.BPF_JEQ | isa.BPF_K, 1, off=1, imm=5),
            Insn(isa.BPF_ALU64 | isa.BPF_MOV | isa.BPF_K, 0),
            Insn(isa.EXIT),
        ]
    )
    assert disassembler.disassemble_prog(b"f", code).splitlines() == [
        "Disassemble of BPF program b'f':",
        "   0: (18) r1 = <map at fd #7>",
        "   1:      (64-bit upper word)",
        "   2: (15) if r1 == 0x5 goto pc+1 <4>",
        "   3: (b7) r0 = 0",
        "   4: (95) exit",
    ]


def test_function_names_become_probes() -> None:
    probe = function_probe("kprobe", b"xfs:xfs_file_read+0x10", 0)
    assert (probe.module, probe.symbol, probe.offset) == ("xfs", "xfs_file_read", 16)
    assert event_name("kretprobe", b"a.b+0x1") == b"r_a_b_0x1"
    assert split_module("vmlinux____x64_sys_read") == ("__x64_sys_read", "")


@pytest.mark.parametrize(
    ("function", "call"),
    [(b"__x64_sys_openat", "openat"), (b"sys_read", "read"), (b"vfs_read", ""), (b"__arm64_sys_execve", "execve")],
)
def test_syscalls_of_functions(function: bytes, call: str) -> None:
    assert functions.syscall_name(function) == call


@pytest.mark.parametrize(
    ("text", "ctype", "operand"),
    [
        ("-4@%edi", "int32_t", "di"),
        ("8@-16(%rbp)", "uint64_t", "*(bp - 16)"),
        ("4@4(%rbx,%rcx,8)", "uint32_t", "*(bx + 4 + cx * 8)"),
        ("-1@$-5", "int8_t", "-5"),
    ],
)
def test_usdt_arguments(text: str, ctype: str, operand: str) -> None:
    arg = parse_arg(text, "x86_64")
    assert (_c_type(arg), _operand(arg)) == (ctype, operand)


def test_usdt_needs_a_target_that_exists() -> None:
    with pytest.raises(USDTException, match="either a pid or a binary path"):
        USDT()
    with pytest.raises(USDTException, match="failed to instrument path /nowhere"):
        USDT(path="/nowhere")
    with pytest.raises(USDTException, match="failed to instrument PID"):
        USDT(pid=1 << 30)
    context = USDT(path="/bin/true")
    with pytest.raises(USDTException, match="Failed to enable USDT probe 'x:y'"):
        context.enable_probe("x:y", "f")
    with pytest.raises(SystemExit):
        context.enable_probe_or_bail("x", "f")


def test_tools_are_found_and_missing_ones_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "mytool-bpfcc"
    script.write_text("#!/usr/bin/python3\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool.find_tool("mytool") == tool.find_tool("mytool-bpfcc") == str(script)
    assert tool.find_tool(str(script)) == str(script)
    with pytest.raises(UsageError, match="there is no tool nosuch"):
        tool.find_tool("nosuch")


def sonde(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    source = str(rooms.ROOT / "src")
    return subprocess.run(
        [sys.executable, "-m", "sonde", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


def test_a_tool_runs_with_our_bcc_its_arguments_and_its_status(tmp_path: Path) -> None:
    script = tmp_path / "tool.py"
    script.write_text(
        "#!/usr/bin/env python3\nfrom __future__ import print_function\nimport sys, bcc\nfrom bcc import BPF, USDT, PerfType\n"
        "from bcc.utils import printb\nfrom bcc.containers import filter_by_containers\nimport bcc.utils as utils\n"
        "from bcc.table import HashTable\nfrom bcc.syscall import syscalls\nfrom bcc.exec import run_cmd\nfrom bcc.libbcc import lib\n"
        "if __name__ == '__main__':\n    printb(b'%d' % PerfType.SOFTWARE)\n    print(sys.argv, BPF.__module__, utils.printb is printb)\n"
        "    sys.exit(3)\n"
    )
    done = sonde("bcc", str(script), "-x", "1")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == f"1\n['{script}', '-x', '1'] sonde.api.bcc.bpf True\n"


def test_a_shell_wrapper_reaches_our_bcc(tmp_path: Path) -> None:
    script = tmp_path / "wrapper"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import bcc; print(bcc.BPF.__module__)'\n")
    script.chmod(0o755)
    assert sonde("bcc", str(script)).stdout == "sonde.api.bcc.bpf\n"


def test_errors_of_a_tool_are_shown_without_a_traceback(tmp_path: Path) -> None:
    script = tmp_path / "tool.py"
    script.write_text("from bcc import USDT\nUSDT(path='/nowhere')\n")
    done = sonde("bcc", str(script))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ERROR: USDT failed to instrument path /nowhere")
    assert "Traceback" not in done.stderr


def test_path_makes_import_bcc_work_for_any_python() -> None:
    shim = sonde("bcc", "--path").stdout.strip()
    assert shim == bcc.shim_path()
    code = "from bcc import BPF, __version__; from bcc.utils import ArgString; print(BPF.XDP_DROP, __version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": shim})
    assert (done.stdout, done.stderr) == ("1 0.37.0\n", "")


def test_command_line_of_sonde_bcc() -> None:
    assert sonde("bcc").returncode == 2
    assert sonde("bcc", "--nonsense").returncode == 2
    assert "usage: sonde bcc" in sonde("bcc", "--help").stdout
    assert "there is no tool nosuch" in sonde("bcc", "nosuch").stderr


def test_constants_are_those_of_the_kernels_enumerations() -> None:
    from sonde.api.bcc.enums import BPFAttachType, BPFProgType, Constants
    from sonde.kernel.abi import ATTACH_TYPES, PROGRAM_TYPES

    for name, number in vars(BPFProgType).items():
        if name.isupper():
            assert PROGRAM_TYPES[number].upper() == name
            assert getattr(Constants, name, number) == number
    for name, number in vars(BPFAttachType).items():
        if name.isupper():
            assert ATTACH_TYPES[number].upper() == name


def test_importing_the_api_is_cheap() -> None:
    heavy = ["argparse", "dataclasses", "enum", "inspect", "json", "logging", "re", "subprocess", "typing"]
    code = f"import sys; from bcc import BPF; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": bcc.shim_path()}
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_filter_by_containers() -> None:
    from types import SimpleNamespace

    from sonde.api.bcc.containers import filter_by_containers

    plain = filter_by_containers(SimpleNamespace(cgroupmap=None, mntnsmap=None))
    assert "static inline int _cgroup_filter() { return 0; }" in plain
    assert "static inline int _mntns_filter() { return 0; }" in plain
    assert plain.count("container_should_be_filtered") == 1
    both = filter_by_containers(SimpleNamespace(cgroupmap="/sys/fs/bpf/cg", mntnsmap="/sys/fs/bpf/ns"))
    assert 'BPF_TABLE_PINNED("hash", u64, u64, cgroupset, 1024, "/sys/fs/bpf/cg");' in both
    assert 'mount_ns_set, 1024, "/sys/fs/bpf/ns");' in both
    assert "{{" not in both


def test_a_command_waits_until_it_may_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        "import sys, os, time; from sonde.api.bcc.commands import run_cmd, cmd_ready, cmd_exited; "
        f"pid = run_cmd(['touch', {str(mark)!r}]); time.sleep(0.2); print(os.path.exists({str(mark)!r}), cmd_exited()); "
        "cmd_ready(); deadline = time.time() + 10\n"
        "while not cmd_exited() and time.time() < deadline: time.sleep(0.01)\n"
        f"print(os.path.exists({str(mark)!r}), cmd_exited())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(rooms.ROOT / "src")},
    )
    assert (done.stdout, done.stderr) == ("False 0\nTrue 1\n", "")


def test_the_stand_in_for_libbcc() -> None:
    from sonde.api.bcc.libbcc import lib
    from sonde.errors import FeatureError

    assert lib.bpf_module_rw_engine_enabled() is True
    assert lib.bcc_free_memory() == bcc.BPF.free_bcc_memory() == 0
    assert lib.bcc_procutils_which_so(b"c", 0) == bcc.BPF.find_library("c")
    assert lib.bcc_procutils_which_so(b"no-such", 0) is None
    with pytest.raises(FeatureError, match="libbcc's function bpf_prog_load does not exist here"):
        lib.bpf_prog_load()


def test_libraries_of_a_process() -> None:
    from sonde.api.bcc import binaries
    from sonde.errors import ProbeError

    path = binaries.find_library("c", os.getpid())
    assert any(os.path.samefile(path, mapped) for mapped in binaries.mapped_files(os.getpid()))
    assert binaries.find_binary("c", os.getpid()) == path
    assert binaries.find_binary("/bin/sh") == "/bin/sh"
    assert binaries.find_binary("sh").endswith("/sh")
    assert binaries.through_process("/lib/x.so", os.getpid()) == "/lib/x.so"
    assert binaries.through_process("/lib/x.so", -1) == "/lib/x.so"
    with pytest.raises(ProbeError, match="there is no file /no/such for process 1"):
        binaries.find_binary("/no/such", 1)
    with pytest.raises(ProbeError, match="no program or library"):
        binaries.find_place(__file__, "f", None)
    with pytest.raises(ProbeError, match="in no part of"):
        binaries.find_place(os.path.realpath(path), "", 1 << 60)


def test_source_files_are_found_beside_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sonde.api.bcc.unit import find_header, read_source

    (tmp_path / "prog.c").write_bytes(b"int x;")
    (tmp_path / "prog.h").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "tool.py")])
    assert read_source(b"prog.c") == (b"int x;", str(tmp_path / "prog.c"))
    assert find_header(b"prog.h") == str(tmp_path / "prog.h")
    assert find_header(b"") == ""
    with pytest.raises(UsageError, match=r"Could not find file nosuch\.c"):
        read_source(b"nosuch.c")

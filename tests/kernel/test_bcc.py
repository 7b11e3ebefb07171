"""Class BPF on the running kernel, with programs from IR: what is attached fires, tables and events show it, and nothing is left."""

from __future__ import annotations

import ctypes as ct
import errno
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bcc_unit import UnitOfIr
from kernel.sdt_program import build_program

from sonde.api.bcc import BPF, USDT, PerfSWConfig, PerfType, functions, output, programs, quota
from sonde.debuginfo.ctype import CHAR, INT32, UINT32, UINT64, Array, Member, Struct
from sonde.errors import FeatureError, KernelError, ProbeError, SondeError, UsageError
from sonde.lang.c.options import Entry
from sonde.spec.object import MapSpec

pytestmark = pytest.mark.kernel

# Counts calls by process, in the table `counts`.
COUNT = """
func @{name}(%ctx: ptr.ctx) -> i64 KIND {{
entry:
  %key = alloca size=8 align=8
  %one = alloca size=8 align=8
  %ids = call.i64 @get_current_pid_tgid
  %pid = lshr.i64 %ids, 32
  store %key, %pid
  store %one, 1
  %m = map @counts
  %v = call.ptr.map @map_lookup_elem %m, %key
  %found = ne.i1 %v, 0:ptr.map
  branch %found, have(), none()
have():
  atomic.none @add %v, 1
  ret {result}
none():
  %r = call.i64 @map_update_elem %m, %key, %one, 1
  ret {result}
}}
"""
COUNTS = (MapSpec("counts", "hash", 8, 8, 1024), UINT64, UINT64)
EVENT = Struct(
    "struct", "event_t", 32, (Member("pid", UINT32, 0), Member("n", UINT64, 64), Member("comm", Array(CHAR, 16), 128))
)
# Sends struct event_t to `events`: process, a number, its name.
SEND = """
func @{name}(%ctx: ptr.ctx) -> i64 KIND {{
entry:
  %e = alloca size=32 align=8
  memset %e, 0 size=32
  %ids = call.i64 @get_current_pid_tgid
  %pid = lshr.i64 %ids, 32
  %p32 = trunc.i32 %pid
  %want = eq.i1 %p32, {pid}:i32
  branch %want, go(), no()
go():
  store %e, %p32
  store %e, 42 offset=8
  %c = ptradd %e, 16
  %r = call.i64 @get_current_comm %c, 16
  %m = map @events
  %r2 = {send}
  jump no()
no():
  ret 0
}}
"""
BY_PERF = "call.i64 @perf_event_output %ctx, %m, 4294967295, %e, 32"
BY_RING = "call.i64 @ringbuf_output %m, %e, 32, 0"


def count(name: str, result: int = 0) -> str:
    return COUNT.format(name=name, result=result)


def send(name: str, how: str) -> str:
    return SEND.format(name=name, send=how, pid=os.getpid())


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BPF]]:
    """Make BPF objects from IR; they are cleaned up, and no descriptor of theirs is left."""
    before = descriptors()
    made: list[BPF] = []

    def maker(unit: UnitOfIr, **options: Any) -> BPF:
        monkeypatch.setattr("sonde.api.bcc.bpf.open_unit", lambda *_: unit)
        made.append(BPF(text="int unused;", **options))
        return made[-1]

    yield maker
    for each in made:
        each.cleanup()
        each.cleanup()
    assert descriptors() == before
    assert quota._open == [0]


def descriptors() -> list[str]:
    """What BPF and perf descriptors this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if "bpf" in target or "perf" in target or "eventpoll" in target:
            found.append(target)
    return sorted(found)


def counts_of(bpf: BPF) -> dict[int, int]:
    return {k.value: v.value for k, v in bpf["counts"].items()}


# attaching ----------------------------------------------------------------------------------------------------------


def test_functions_attach_by_their_names(make: Callable[..., BPF]) -> None:
    unit = UnitOfIr({n: count(n) for n in ("tracepoint__syscalls__sys_enter_getppid", "helper")}, [COUNTS])
    b = make(unit)
    for _ in range(5):
        os.getppid()
    assert counts_of(b)[os.getpid()] == 5
    assert (b.num_open_tracepoints(), b.num_open_kprobes(), b.num_open_uprobes()) == (1, 0, 0)
    assert [name for name, _ in unit.compiled] == ["tracepoint__syscalls__sys_enter_getppid"]
    b.detach_tracepoint("syscalls:sys_enter_getppid")
    os.getppid()
    assert counts_of(b)[os.getpid()] == 5
    with pytest.raises(UsageError, match="is not attached"):
        b.detach_tracepoint(b"syscalls:sys_enter_getppid")


def test_tracepoints_by_pattern(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"f": count("f")}, [COUNTS]))
    assert b.attach_tracepoint(tp_re="syscalls:sys_enter_get(ppid|pgid)$", fn_name="f") is b
    os.getppid()
    os.getpgid(0)
    assert counts_of(b)[os.getpid()] == 2
    assert b.num_open_tracepoints() == 2
    with pytest.raises(ProbeError, match="no tracepoint syscalls:nosuch"):
        b.attach_tracepoint("syscalls:nosuch", fn_name="f")
    with pytest.raises(UsageError, match="is no tracepoint"):
        b.attach_tracepoint("nosuch", fn_name="f")


def test_raw_tracepoint(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"raw_tracepoint__sys_enter": count("raw_tracepoint__sys_enter")}, [COUNTS]))
    with pytest.raises(UsageError, match="has been attached"):
        b.attach_raw_tracepoint("sys_enter", "raw_tracepoint__sys_enter")
    os.getppid()
    assert counts_of(b)[os.getpid()] >= 1
    b.detach_raw_tracepoint(b"sys_enter")


def test_a_kprobe_on_a_system_call_falls_back_to_its_tracepoint(
    make: Callable[..., BPF], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(functions, "_kprobes", [False])
    monkeypatch.setenv("SONDE_BCC_VERBOSE", "1")
    unit = UnitOfIr({"enter": count("enter"), "leave": count("leave")}, [COUNTS])
    b = make(unit)
    function = b.get_syscall_fnname("getppid")
    b.attach_kprobe(event=function, fn_name="enter")
    b.attach_kretprobe(event=function, fn_name=b"leave")
    os.getppid()
    assert counts_of(b)[os.getpid()] == 2
    assert unit.compiled == [
        ("enter", Entry("tracepoint", context="sys_enter", event="getppid")),
        ("leave", Entry("tracepoint", context="sys_exit", event="getppid")),
    ]
    said = capsys.readouterr().err
    assert "this kernel has no kprobes; tracepoint:syscalls:sys_enter_getppid is tried instead" in said
    assert "enter: tracepoint:syscalls:sys_enter_getppid: perf_event link" in said
    assert b.num_open_kprobes() == 2
    b.detach_kretprobe(function)
    os.getppid()
    assert counts_of(b)[os.getpid()] == 3
    b.detach_kprobe(function, "enter")
    assert b.num_open_kprobes() == 0
    with pytest.raises(UsageError, match="is not attached"):
        b.detach_kprobe(function)


def test_functions_that_are_no_system_calls_cannot_be_had_without_kprobes(
    make: Callable[..., BPF], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "_kprobes", [False])
    b = make(UnitOfIr({"f": count("f")}, [COUNTS]))
    with pytest.raises(FeatureError, match="attach kprobe:vfs_read: this kernel has no kprobes"):
        b.attach_kprobe(event="vfs_read", fn_name="f")
    found = BPF.get_kprobe_functions(rb".*_(getppid|vfs_read|ksys_read)$")
    assert found == {b.get_syscall_fnname("getppid")}
    b.attach_kprobe(event_re=rb"^__(x64|arm64)_sys_(getppid|getpgid)$", fn_name="f")
    assert b.num_open_kprobes() == 2
    with pytest.raises(FeatureError, match="attach kprobe:vfs_read: this kernel has no kprobes"):
        b.attach_kprobe(event_re=rb"^vfs_(read)$", fn_name="f")
    b.attach_kprobe(event_re=rb"^no_such_function$", fn_name="f")
    assert b.num_open_kprobes() == 2


def test_a_function_that_no_system_call_leads_to_needs_no_probe(
    make: Callable[..., BPF], monkeypatch: pytest.MonkeyPatch
) -> None:
    """__x64_sys_stat is in the kernel beside __x64_sys_newstat, which the system call stat has been for long."""
    monkeypatch.setattr(functions, "_kprobes", [False])
    b = make(UnitOfIr({"f": count("f")}, [COUNTS]))
    function = b.get_syscall_fnname("stat")
    if b.ksymname(function) == -1 or functions.syscall_tracepoint(function):
        pytest.skip("this kernel has no such function")
    b.attach_kprobe(event=function, fn_name="f")
    assert b.num_open_kprobes() == 1
    b.detach_kprobe(function)
    with pytest.raises(FeatureError, match="no kprobes"):
        b.attach_kprobe(event=b.get_syscall_fnname("no_such_call"), fn_name="f")


def test_syscall_names(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({}, []))
    prefix = b.get_syscall_prefix()
    assert b.ksymname(prefix + b"bpf") > 0
    assert b.fix_syscall_fnname("sys_clone") == b.fix_syscall_fnname(b"__s390x_sys_clone") == prefix + b"clone"
    assert b.fix_syscall_fnname(b"vfs_read") == b"vfs_read"


def test_a_trampoline_that_is_refused_falls_back_to_a_kprobe(
    make: Callable[..., BPF], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither exists on a kernel without both: then the refusal of the trampoline is told."""
    if BPF.support_kfunc() or functions.have_kprobes():
        pytest.skip("this kernel has trampolines or kprobes: shown in the guests")
    monkeypatch.setattr(functions, "_kprobes", [True])
    unit = UnitOfIr({"kfunc__bpf_fentry_test1": count("kfunc__bpf_fentry_test1")}, [COUNTS])
    with pytest.raises(FeatureError, match="refuses tracing:trace_fentry programs"):
        make(unit)
    assert [entry.type for _, entry in unit.compiled] == ["tracing", "kprobe"]


def test_uprobes(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"f": count("f"), "g": count("g")}, [COUNTS]))
    b.attach_uprobe(name="c", sym="getppid", fn_name="f")
    b.attach_uretprobe(name="c", sym="getppid", fn_name="g", pid=os.getpid())
    os.getppid()
    assert counts_of(b)[os.getpid()] == 2
    assert b.num_open_uprobes() == 2
    b.detach_uprobe(b"c", b"getppid")
    os.getppid()
    assert counts_of(b)[os.getpid()] == 3
    b.detach_uretprobe("c", "getppid", pid=os.getpid())
    with pytest.raises(UsageError, match="is not attached"):
        b.detach_uprobe("c", "getppid")
    with pytest.raises(ProbeError, match=r"getppidx in .*libc"):
        b.attach_uprobe(name="c", sym="getppidx", fn_name="f")
    with pytest.raises(ProbeError, match="neither a library"):
        b.attach_uprobe(name="nosuch", sym="x", fn_name="f")


def test_uprobes_by_pattern_and_address(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"f": count("f")}, [COUNTS]))
    path = BPF.find_library("c")
    assert path and os.path.exists(path)
    ((_, address),) = {(n, a) for n, a in BPF.get_user_functions_and_addresses("c", b"^getppid$")}
    assert BPF.get_user_functions(path, "^getppid$") == {b"getppid"}
    assert BPF.get_user_addresses(path, rb"^getppid$") == {address}
    b.attach_uprobe(name=path, addr=address, fn_name="f")
    b.attach_uprobe(name=path, sym_re="^(getpgid|getsid)$", fn_name="f", pid=os.getpid())
    os.getppid()
    os.getpgid(0)
    os.getsid(0)
    assert counts_of(b)[os.getpid()] == 3
    assert b.num_open_uprobes() == 3


def test_quota(make: Callable[..., BPF], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCC_PROBE_LIMIT", "1")
    b = make(UnitOfIr({"f": count("f")}, [COUNTS]))
    b.attach_uprobe(name="c", sym="getppid", fn_name="f")
    with pytest.raises(UsageError, match="exceed global quota"):
        b.attach_uprobe(name="c", sym="getpgid", fn_name="f")
    assert BPF.get_probe_limit() == 1


def test_perf_event(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"f": count("f")}, [COUNTS]))
    b.attach_perf_event(PerfType.SOFTWARE, PerfSWConfig.CPU_CLOCK, fn_name="f", sample_freq=199, pid=os.getpid())
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert counts_of(b)[os.getpid()] > 5
    with pytest.raises(UsageError, match="not attached"):
        b.detach_perf_event(PerfType.SOFTWARE, PerfSWConfig.TASK_CLOCK)
    b.detach_perf_event(PerfType.SOFTWARE, PerfSWConfig.CPU_CLOCK)
    with pytest.raises(SondeError, match=r"no such counter|perf event"):
        b.attach_perf_event(PerfType.HARDWARE, 77, fn_name="f")


def test_perf_event_by_attribute(make: Callable[..., BPF]) -> None:
    from sonde.api.bcc import Perf

    b = make(UnitOfIr({"f": count("f")}, [COUNTS]))
    attr = Perf.perf_event_attr()
    attr.type, attr.config, attr.sample_period = PerfType.SOFTWARE, PerfSWConfig.PAGE_FAULTS, 1
    b.attach_perf_event_raw(attr, fn_name="f", pid=os.getpid(), cpu=-1)
    import mmap

    fresh = mmap.mmap(-1, 64 * mmap.PAGESIZE)
    fresh.write(bytes(64 * mmap.PAGESIZE))
    fresh.close()
    assert counts_of(b)[os.getpid()] >= 1


def test_perf_events_for_their_side_effects() -> None:
    from sonde.api.bcc import Perf

    before = set(os.listdir("/proc/self/fd"))
    try:
        Perf.perf_event_open(PerfSWConfig.DUMMY, pid=os.getpid(), ptype=PerfType.SOFTWARE, freq=9)
        opened = set(os.listdir("/proc/self/fd")) - before
        assert any(
            "perf_event" in os.readlink(f"/proc/self/fd/{fd}") for fd in opened if os.path.exists(f"/proc/self/fd/{fd}")
        )
        attr = Perf.perf_event_attr()
        attr.type = 99
        with pytest.raises(OSError, match=r"No such|Invalid"):
            Perf.perf_custom_event_open(attr, cpu=0)
    finally:
        for fd in set(os.listdir("/proc/self/fd")) - before:
            try:
                os.close(int(fd))
            except OSError:
                pass


def test_xdp_and_sockets_on_the_loopback(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"x": xdp_count("x", 2), "s": xdp_count("s", 0xFFFF)}, [TOTAL]))
    b.attach_xdp("lo", b.load_func("x", BPF.XDP), BPF.XDP_FLAGS_SKB_MODE)
    knock()
    assert b["total"][0].value >= 1
    BPF.remove_xdp("lo")
    before = b["total"][0].value
    knock()
    assert b["total"][0].value == before
    fn = b.load_func("s", BPF.SOCKET_FILTER)
    BPF.attach_raw_socket(fn, "lo")
    knock(b"a payload of ours")
    with socket.socket(fileno=fn.sock) as opened:
        seen = b""
        with pytest.raises(BlockingIOError):
            while True:
                seen += opened.recv(4096)
    assert b"a payload of ours" in seen
    with pytest.raises(ProbeError, match="no network device nosuch0"):
        b.attach_xdp("nosuch0", b.load_func("x", BPF.XDP))


def test_an_xdp_program_of_somebody_else_is_removed(make: Callable[..., BPF]) -> None:
    from sonde.kernel.attach.xdp import remove_program

    remove_program("lo")  # none there: no error, as with ip(8)
    with pytest.raises(ProbeError):
        BPF.remove_xdp("nosuch0")


TOTAL = (MapSpec("total", "array", 4, 8, 1), INT32, UINT64)


def xdp_count(name: str, result: int) -> str:
    return f"""
func @{name}(%ctx: ptr.ctx) -> i64 KIND {{
entry:
  %v = map_value @total
  atomic.none @add %v, 1
  ret {result}
}}
"""


def knock(payload: bytes = b"x") -> None:
    """Send a packet to ourselves."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as of:
        to.bind(("127.0.0.1", 0))
        to.settimeout(5)
        of.sendto(payload, to.getsockname())
        to.recv(100)


def test_cgroup_program(make: Callable[..., BPF]) -> None:
    root = next((p for p in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(p + "/cgroup.procs")), "")
    if not root:
        pytest.skip("no cgroup2 file system is mounted")
    folder = Path(root, f"sonde-test-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        b = make(UnitOfIr({"c": xdp_count("c", 1)}, [TOTAL]))
        fn = b.load_func("c", BPF.CGROUP_SKB)
        b.attach_func(fn, fd, 1)  # CGROUP_INET_EGRESS
        code = "import sys; open(sys.argv[1], 'w').write('0'); import socket; " + (
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"
        )
        subprocess.run([sys.executable, "-c", code, str(folder / "cgroup.procs")], check=True)
        seen = b["total"][0].value
        assert seen >= 1
        b.detach_func(fn, fd, 1)
        subprocess.run([sys.executable, "-c", code, str(folder / "cgroup.procs")], check=True)
        assert b["total"][0].value == seen
        with pytest.raises(SondeError):
            b.detach_func(fn, fd, 1)
        with pytest.raises(UsageError, match=r"must be of type BPF\.Function"):
            b.attach_func("c", fd, 1)
    finally:
        os.close(fd)
        for _ in range(50):
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.02)


def test_usdt(make: Callable[..., BPF], tmp_path: Path) -> None:
    path = build_program(str(tmp_path))
    context = USDT(path=path)
    assert sorted(p.short_name() for p in context.enumerate_probes()) == ["app:counted", "app:plain"]
    plain = next(p for p in context.enumerate_probes() if p.name == b"plain")
    location = plain.get_location(0)
    assert (plain.num_locations, plain.num_arguments, location.bin_path) == (1, 2, path.encode())
    assert str(location.get_argument(0)).startswith("4 signed   bytes @ ")
    context.enable_probe("plain", "f")
    context.enable_probe("app:counted", "g")
    assert context.get_probe_arg_ctype("app:counted", 0) == "int64_t"
    unit = UnitOfIr({"f": count("f"), "g": count("g")}, [COUNTS])
    b = make(unit, usdt_contexts=[context])
    subprocess.run([path, "ff"], check=False)
    assert sorted(counts_of(b).values()) == [4], "two plain probes, and two that a semaphore guards"
    assert [len(entry.usdt) for _, entry in unit.compiled] == [2, 1]
    assert b.num_open_uprobes() == 2
    assert "f: app:plain at " in context.get_text()
    assert [(p, f) for p, f, _, _ in context.enumerate_active_probes()] == [
        (path.encode(), b"f"),
        (path.encode(), b"g"),
    ]


# programs -----------------------------------------------------------------------------------------------------------


def test_functions_are_loaded_once_and_shown(make: Callable[..., BPF]) -> None:
    unit = UnitOfIr({"f": count("f"), "g": count("g")}, [COUNTS])
    b = make(unit)
    first = b.load_func("f", BPF.KPROBE)
    assert b.load_func(b"f", BPF.KPROBE) is first
    assert [fn.name for fn in b.load_funcs(BPF.KPROBE)] == [b"f", b"g"]
    assert sorted(b.funcs) == [b"f", b"g"]
    assert first.fd > 0
    assert len(unit.compiled) == 2
    code = b.dump_func("f")
    assert len(code) % 8 == 0
    text = b.disassemble_func("f")
    assert text.startswith("Disassemble of BPF program b'f':\n")
    assert f"<map at fd #{b['counts'].map_fd}>" in text
    assert ": (95) exit" in text
    with pytest.raises(UsageError, match="Unknown program nosuch"):
        b.load_func("nosuch", BPF.KPROBE)


def test_debug_shows_the_stages(make: Callable[..., BPF], capsys: pytest.CaptureFixture[str]) -> None:
    b = make(UnitOfIr({"f": count("f")}, [COUNTS]), debug=0x1 | 0x2 | 0x4 | 0x10 | 0x20)
    b.load_func("f", BPF.KPROBE)
    shown = capsys.readouterr().err
    assert shown.startswith("int unused;\n")
    assert "; IR of f\nfunc @f(" in shown
    assert "; bytecode of f (kprobe): " in shown
    assert ": (85) call bpf_get_current_pid_tgid#14" in shown
    assert "; counts" in shown, "a load of a map has the map's name"
    assert "; verifier's log of f\n" in shown
    assert "R1=ctx" in shown
    assert "; f is verified against no function of the kernel" in shown


def test_a_text_that_does_not_compile_leaves_nothing(make: Callable[..., BPF]) -> None:
    with pytest.raises(Exception, match=r"Failed to compile BPF module tracepoint__a__b\n.*cannot be compiled"):
        make(UnitOfIr({"tracepoint__a__b": ""}, [COUNTS]))
    with pytest.raises(ProbeError):
        make(UnitOfIr({"tracepoint__a__b": count("tracepoint__a__b")}, [COUNTS]))


def test_context_manager(make: Callable[..., BPF]) -> None:
    with make(UnitOfIr({"f": count("f")}, [COUNTS])) as b:
        b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="f")
    assert b.num_open_tracepoints() == 0
    assert b.object.closed


def test_tail_call_table(make: Callable[..., BPF]) -> None:
    progs = (MapSpec("progs", "prog_array", 4, 4, 4), INT32, UINT32)
    jump = """
func @jump(%ctx: ptr.ctx) -> i64 KIND {
entry:
  %m = map @progs
  tailcall %ctx, %m, 2
  ret 0
}
"""
    b = make(UnitOfIr({"jump": jump, "f": count("f")}, [COUNTS, progs]))
    b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="jump")
    os.getppid()
    assert counts_of(b) == {}
    b["progs"][2] = b.load_func("f", BPF.TRACEPOINT)
    os.getppid()
    assert counts_of(b) == {os.getpid(): 1}
    del b["progs"][2]
    os.getppid()
    assert counts_of(b) == {os.getpid(): 1}


# events -------------------------------------------------------------------------------------------------------------

EVENTS = (MapSpec("events", "perf_event_array", 4, 4, 0), INT32, UINT32)
RING = (MapSpec("events", "ringbuf", 0, 0, 1 << 14), None, None)


def test_perf_buffer_events_have_the_members_of_the_struct(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"f": send("f", BY_PERF)}, [EVENTS], {"events": EVENT}))
    b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="f")
    seen: list[Any] = []
    b["events"].open_perf_buffer(lambda cpu, data, size: seen.append((cpu, size, b["events"].event(data))))
    os.getppid()
    os.getppid()
    b.perf_buffer_poll(timeout=2000)
    b.perf_buffer_consume()
    assert len(seen) == 2
    cpu, size, event = seen[0]
    comm = Path("/proc/self/comm").read_bytes().strip()
    assert (event.pid, event.n, event.comm) == (os.getpid(), 42, comm)
    assert (cpu in range(os.cpu_count() or 1), size) == (True, 36)

    class Own(ct.Structure):
        _fields_ = [("pid", ct.c_uint), ("n", ct.c_ulonglong)]

    b["events"].open_perf_buffer(
        lambda cpu, data, size: seen.append(ct.cast(data, ct.POINTER(Own)).contents.n), page_cnt=4
    )
    os.getppid()
    b.kprobe_poll(2000)
    assert seen[2:] == [42]


def test_lost_samples_are_counted(make: Callable[..., BPF], capsys: pytest.CaptureFixture[str]) -> None:
    b = make(UnitOfIr({"f": send("f", BY_PERF)}, [EVENTS], {"events": EVENT}))
    b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="f")
    seen: list[int] = []
    lost: list[int] = []
    b["events"].open_perf_buffer(lambda cpu, data, size: seen.append(cpu), page_cnt=1, lost_cb=lost.append)
    for _ in range(500):
        os.getppid()
    b.perf_buffer_consume()
    os.getppid()  # the kernel tells of the lost ones with the next record
    b.perf_buffer_consume()
    assert sum(lost) + len(seen) == 501
    assert sum(lost) > 100
    assert b["events"].lost == sum(lost)
    b["events"].open_perf_buffer(lambda cpu, data, size: None, page_cnt=1)
    for _ in range(500):
        os.getppid()
    b.perf_buffer_consume()
    os.getppid()
    b.perf_buffer_consume()
    assert re.search(r"^Possibly lost \d+ samples$", capsys.readouterr().err, re.M)
    with pytest.raises(UsageError, match="power of two"):
        b["events"].open_perf_buffer(print, page_cnt=3)


def test_wakeup_events_delay_the_poll_but_not_consume(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"f": send("f", BY_PERF)}, [EVENTS], {"events": EVENT}))
    b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="f")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    try:
        seen: list[int] = []
        b["events"].open_perf_buffer(lambda cpu, data, size: seen.append(size), wakeup_events=1000)
        os.getppid()
        b.perf_buffer_consume()
        assert len(seen) == 1
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


@pytest.mark.parametrize("kind", ["perf", "ring"])
def test_polls_keep_their_time(make: Callable[..., BPF], kind: str) -> None:
    """With nothing to read, and while events come without end from another thread."""
    ring = kind == "ring"
    unit = UnitOfIr({"f": send("f", BY_RING if ring else BY_PERF)}, [RING if ring else EVENTS], {"events": EVENT})
    b = make(unit)
    poll = b.ring_buffer_poll if ring else b.perf_buffer_poll
    if ring:
        b["events"].open_ring_buffer(lambda ctx, data, size: None)
    else:
        b["events"].open_perf_buffer(lambda cpu, data, size: None)
    start = time.monotonic()
    poll(150)
    assert 0.14 < time.monotonic() - start < 2
    b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="f")
    import threading

    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            os.getppid()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        start = time.monotonic()
        for _ in range(5):
            poll(50)
        assert time.monotonic() - start < 5
    finally:
        stop.set()
        thread.join()


def test_ring_buffer(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"f": send("f", BY_RING)}, [RING], {"events": EVENT}))
    with pytest.raises(UsageError, match="No ring buffers to poll"):
        b.ring_buffer_poll()
    b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="f")
    seen: list[Any] = []
    b["events"].open_ring_buffer(
        lambda ctx, data, size: seen.append((ctx, size, b["events"].event(data).n)), ctx="mine"
    )
    for _ in range(20):
        os.getppid()
    b.ring_buffer_poll(1000)
    assert seen == [("mine", 32, 42)] * 20
    os.getppid()
    b.ring_buffer_consume()
    assert len(seen) == 21


def test_what_a_callback_raises_goes_through_and_nothing_is_read_twice(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"f": send("f", BY_PERF)}, [EVENTS], {"events": EVENT}))
    b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="f")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    seen: list[int] = []

    def callback(cpu: int, data: int, size: int) -> None:
        seen.append(b["events"].event(data).n)
        if len(seen) == 1:
            raise RuntimeError("the first one")

    try:
        b["events"].open_perf_buffer(callback)
        for _ in range(3):
            os.getppid()
        with pytest.raises(RuntimeError, match="the first one"):
            b.perf_buffer_poll(1000)
        b.perf_buffer_poll(1000)
        assert seen == [42, 42, 42]
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def test_events_without_a_single_type_are_explained(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({"f": send("f", BY_RING)}, [RING]))
    with pytest.raises(UsageError, match="what programs send to events has no single C type"):
        b["events"].event(0)


def test_counters_in_a_perf_event_array(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({}, [(MapSpec("clock", "perf_event_array", 4, 4, 0), INT32, UINT32)]))
    b["clock"].open_perf_event(PerfType.SOFTWARE, PerfSWConfig.CPU_CLOCK)
    assert len(b["clock"]._counters) == len(os.sched_getaffinity(0))
    del b["clock"][0]
    assert 0 not in b["clock"]._counters
    with pytest.raises(SondeError):
        b["clock"].open_perf_event(PerfType.HARDWARE, 999)


def test_trace_pipe(make: Callable[..., BPF], capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(chr(c) for c in b"hello %d\n\0")
    data = text.encode().ljust(16, b"\0")
    words = [int.from_bytes(data[i : i + 8], "little") for i in (0, 8)]
    printk = f"""
func @f(%ctx: ptr.ctx) -> i64 KIND {{
entry:
  %s = alloca size=16 align=8
  %ids = call.i64 @get_current_pid_tgid
  %pid = lshr.i64 %ids, 32
  %want = eq.i1 %pid, {os.getpid()}
  branch %want, go(), no()
go():
  store %s, {words[0]}
  store %s, {words[1]} offset=8
  %r = call.i64 @trace_printk %s, 10, 77
  jump no()
no():
  ret 0
}}
"""
    b = make(UnitOfIr({"f": printk}, []))
    b.trace_open(nonblocking=True)
    while b.trace_readline(nonblocking=True):
        pass
    b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="f")
    fields = read_ours(b, lambda: b.trace_fields(nonblocking=True), lambda f: f[1] == os.getpid())
    task, _, cpu, flags, when, message = fields
    assert message == b"hello 77"
    assert task in (Path("/proc/self/comm").read_bytes().strip(), b"<...>")
    assert 0 <= cpu < (os.cpu_count() or 1)
    assert isinstance(flags, bytes)
    assert abs(when - time.clock_gettime(time.CLOCK_BOOTTIME)) < 3600
    line = read_ours(b, lambda: b.trace_readline(nonblocking=True), lambda text: b"-%d " % os.getpid() in text)
    assert line.endswith(b": hello 77")


def read_ours(b: BPF, read: Callable[[], Any], ours: Callable[[Any], bool]) -> Any:
    """Make a line and read it: others print, too, and whoever reads trace_pipe takes lines from all other readers."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        os.getppid()
        for found in iter(read, None):
            if found == (None,) * 6:
                break
            if ours(found):
                return found
    raise AssertionError("our line has not come")


def test_monotonic_time_is_the_clock_of_programs() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now = BPF.monotonic_time()
    assert isinstance(now, float)
    assert before <= now <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 1000


def test_output_parses_only_lines() -> None:
    assert output.parse_line(b"x" * 16 + b" nonsense") is None


# tables on real maps ------------------------------------------------------------------------------------------------


def test_batches(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({}, [COUNTS, (MapSpec("lru", "lru_hash", 4, 8, 64), UINT32, UINT64)]))
    for name, entries in (("counts", 1000), ("lru", 40)):
        t = b[name]
        keys = (t.Key * entries)(*range(entries))
        t.items_update_batch(keys, (t.Leaf * entries)(*range(0, 2 * entries, 2)))
        expected = {i: 2 * i for i in range(entries)}
        assert {k.value: v.value for k, v in t.items_lookup_batch()} == expected
        assert {k.value: v.value for k, v in t.items()} == expected
        t.items_delete_batch((t.Key * 3)(5, 5000000, 7))
        assert len(t) == entries - 2
        assert sorted(k.value for k in t) == sorted(set(range(entries)) - {5, 7})
        taken = {k.value: v.value for k, v in t.items_lookup_and_delete_batch()}
        assert taken == {i: v for i, v in expected.items() if i not in (5, 7)}
        assert len(t) == 0
        t[1] = 1
        t.items_delete_batch()
        assert t.items() == []
        t[2] = 2
        t.clear()
        assert len(t) == 0


def test_walking_while_deleting(make: Callable[..., BPF]) -> None:
    t = make(UnitOfIr({}, [COUNTS]))["counts"]
    for i in range(100):
        t[i] = i
    for key in t.keys():  # noqa: SIM118
        del t[key]
    assert len(t) == 0
    t[1], t[2] = 1, 2
    key, found = None, []
    while True:
        try:
            key = t.next(key)
        except StopIteration:
            break
        found.append(key.value)
    assert sorted(found) == [1, 2]


@pytest.mark.parametrize(("kind", "order"), [("queue", [1, 2, 3]), ("stack", [3, 2, 1])])
def test_queue_and_stack(make: Callable[..., BPF], kind: str, order: list[int]) -> None:
    t = make(UnitOfIr({}, [(MapSpec("q", kind, 0, 8, 3), None, UINT64)]))["q"]
    for i in (1, 2, 3):
        t.push(t.Leaf(i))
    with pytest.raises(KernelError) as refused:
        t.push(t.Leaf(4))
    assert refused.value.errno == errno.E2BIG
    assert t.peek().value == order[0]
    assert t.pop().value == order[0]
    assert [v.value for v in t.values()] == order[1:]
    for method in (t.pop, t.peek):
        with pytest.raises(KeyError):
            method()
    assert t.leaf_scanf(t.leaf_sprintf(t.Leaf(7))).value == 7


def test_lpm_trie(make: Callable[..., BPF]) -> None:
    key = Struct("struct", "key_v4", 8, (Member("prefixlen", UINT32, 0), Member("data", Array(UINT32, 1), 32)))
    t = make(UnitOfIr({}, [(MapSpec("trie", "lpm_trie", 8, 8, 16, 1), key, UINT64)]))["trie"]
    to = int.from_bytes(bytes([10, 0, 0, 0]), "little")
    t[t.Key(8, (ct.c_uint * 1)(to))] = 5
    inside = int.from_bytes(bytes([10, 1, 2, 3]), "little")
    assert t[t.Key(32, (ct.c_uint * 1)(inside))].value == 5
    assert [k.prefixlen for k in t] == [8]
    with pytest.raises(NotImplementedError):
        len(t)


def test_per_cpu_tables_on_real_maps(make: Callable[..., BPF]) -> None:
    maps = [
        (MapSpec("h", "percpu_hash", 4, 4, 8), UINT32, UINT32),
        (MapSpec("a", "percpu_array", 4, 8, 8), INT32, UINT64),
    ]
    b = make(UnitOfIr({}, maps))
    for name in ("h", "a"):
        t = b.get_table(name, reducer=lambda x, y: x + y)
        n = t.total_cpu
        t[3] = list(range(1, n + 1))
        assert t[3] == t.sum(3).value == n * (n + 1) // 2
        assert t.max(3).value == n
        assert t.average(3) == (n + 1) / 2
        assert list(b[name][3]) == list(range(1, n + 1))


def test_map_in_map(make: Callable[..., BPF]) -> None:
    template = MapSpec("inner", "hash", 4, 8, 8)
    b = make(
        UnitOfIr(
            {},
            [
                (template, UINT32, UINT64),
                (MapSpec("outer", "array_of_maps", 4, 4, 4, inner=template), INT32, UINT32),
                (MapSpec("named", "hash_of_maps", 4, 4, 4, inner=template), UINT32, UINT32),
            ],
        )
    )
    b["outer"][1] = b["inner"]
    b["named"][7] = ct.c_int(b["inner"].get_fd())
    assert b["outer"][1].value == b["named"][7].value == b["inner"].map_id
    del b["outer"][1]
    assert b["outer"].items() == []


def test_devices_cpus_and_cgroups(make: Callable[..., BPF]) -> None:
    maps = [
        (MapSpec("dev", "devmap", 4, 4, 4), INT32, UINT32),
        (MapSpec("cpu", "cpumap", 4, 4, 2), INT32, UINT32),
        (MapSpec("cg", "cgroup_array", 4, 4, 4), INT32, UINT32),
        (MapSpec("xsk", "xskmap", 4, 4, 4), INT32, UINT32),
    ]
    b = make(UnitOfIr({}, maps))
    b["dev"][0] = b["dev"].Leaf(socket.if_nametoindex("lo"))
    assert b["dev"][0].value == socket.if_nametoindex("lo")
    b["cpu"][0] = 64
    assert [(k.value, v.value) for k, v in b["cpu"].items()] == [(0, 64)]
    root = next((p for p in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(p + "/cgroup.procs")), "")
    if root:
        b["cg"][0] = root
    with pytest.raises(UsageError, match="a descriptor or the path"):
        b["cg"][0] = 1.5
    assert len(b["xsk"]) == 4


def test_stack_traces(make: Callable[..., BPF]) -> None:
    stack = Struct("struct", "bpf_stacktrace", 1016, (Member("ip", Array(UINT64, 127), 0),))
    maps = [
        (MapSpec("stacks", "stack_trace", 4, 1016, 64), INT32, stack),
        (MapSpec("ids", "hash", 8, 8, 64), UINT64, UINT64),
    ]
    text = """
func @f(%ctx: ptr.ctx) -> i64 KIND {
entry:
  %key = alloca size=8 align=8
  %value = alloca size=8 align=8
  %ids = call.i64 @get_current_pid_tgid
  %pid = lshr.i64 %ids, 32
  store %key, %pid
  %m = map @stacks
  %id = call.i64 @get_stackid %ctx, %m, 0
  store %value, %id
  %to = map @ids
  %r = call.i64 @map_update_elem %to, %key, %value, 0
  ret 0
}
"""
    b = make(UnitOfIr({"f": text}, maps))
    b.attach_raw_tracepoint("sys_enter", "f")
    os.getppid()
    b.detach_raw_tracepoint("sys_enter")
    ident = b["ids"][os.getpid()].value
    frames = list(b["stacks"].walk(ident, BPF.ksym))
    assert any(b"syscall" in name for name in frames), frames
    assert len(b["stacks"]) >= 1


def test_names_of_addresses(make: Callable[..., BPF]) -> None:
    address = BPF.ksymname(b"vfs_read")
    assert address > 0
    assert BPF.ksym(address) == b"vfs_read"
    assert BPF.ksym(address + 4, show_module=True, show_offset=True) == b"vfs_read+0x4 [kernel]"
    assert BPF.ksymname("no_such_symbol_here") == -1
    assert BPF.ksym(16) == b"[unknown]"
    libc = ct.CDLL(None)
    where = ct.cast(libc.getppid, ct.c_void_p).value
    assert where
    text = BPF.sym(where + 1, os.getpid(), show_module=True, show_offset=True)
    assert re.fullmatch(rb"(__)?getppid\+0x1 \[libc[.-].*\]", text)
    assert BPF.sym(8, os.getpid(), show_offset=True) == b"[unknown]"
    cache = BPF._sym_cache(os.getpid())
    path = BPF.find_library("c")
    assert cache.resolve_name(path, "getppid") == where
    assert cache.resolve_name(path, "no_such") == -1


def test_build_id_stacks_are_named() -> None:
    from sonde.api.bcc.symbols import _modules
    from sonde.debuginfo.elf import Elf

    class Item(ct.Structure):
        _fields_ = [("status", ct.c_uint), ("build_id", ct.c_ubyte * 20), ("offset", ct.c_ulonglong)]

    path = BPF.find_library("c")
    assert path
    with Elf.open(path.decode()) as elf:
        ident = bytes.fromhex(elf.build_id())
        symbol = elf.get_function("getppid")
        assert symbol
        item = Item(1, (ct.c_ubyte * 20)(*ident), elf.get_offset(symbol.vaddr))
    assert BPF.sym(item, -1) == b"[unknown]"
    BPF.add_module(path.decode())
    try:
        assert BPF.sym(item, -1, show_module=True).startswith((b"getppid [libc", b"__getppid [libc"))
    finally:
        _modules.pop(ident).close()


def test_facts_of_the_kernel() -> None:
    assert BPF.kernel_struct_has_field(b"task_struct", b"pid") == 1
    assert BPF.kernel_struct_has_field("task_struct", "no_such_member") == 0
    assert BPF.kernel_struct_has_field("no_such_struct", "x") == -1
    assert BPF.kernel_enum_has_val("bpf_map_type", "BPF_MAP_TYPE_HASH") == 1
    assert BPF.kernel_enum_has_val("bpf_map_type", "NO_SUCH") == 0
    assert BPF.support_raw_tracepoint() is True
    assert BPF.support_raw_tracepoint_in_module() is True
    assert all(isinstance(answer, bool) for answer in (BPF.support_kfunc(), BPF.support_lsm(), BPF.support_fmod_ret()))
    assert BPF.tracepoint_exists("sched", b"sched_switch")
    assert not BPF.tracepoint_exists("sched", "no_such")
    (found,) = BPF.get_tracepoints(rb"sched:sched_sw.*h$")
    assert (found, found.decode("utf-8", "replace")) == ("sched:sched_switch",) * 2
    assert BPF.find_exe(b"sh") in (b"/bin/sh", b"/usr/bin/sh")
    assert BPF.find_exe("no-such-program") is None
    assert BPF.find_library("no-such-library") is None
    assert (
        BPF.generate_auto_includes(["struct sk_buff *", "bio"])
        == "#include <linux/blkdev.h>\n#include <linux/netdevice.h>\n"
    )


def test_pinned_tables(make: Callable[..., BPF], tmp_path: Path) -> None:
    done = subprocess.run(["mount", "-t", "bpf", "bpf", str(tmp_path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a BPF file system: {done.stderr.strip()}")
    path = str(tmp_path / "shared")
    pinned = MapSpec("shared", "hash", 4, 8, 16, pinning=path)
    try:
        first = make(UnitOfIr({}, [(pinned, UINT32, UINT64)]))
        first["shared"][1] = 5
        second = make(UnitOfIr({}, [(pinned, UINT32, UINT64)]))
        assert second["shared"][1].value == 5
        other = MapSpec("shared", "hash", 8, 8, 16, pinning=path)
        with pytest.raises(KernelError, match="open the pinned map shared"):
            make(UnitOfIr({}, [(other, UINT64, UINT64)]))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_public_tables(make: Callable[..., BPF]) -> None:
    spec = MapSpec("shared", "hash", 4, 8, 16)
    with pytest.raises(UsageError, match="no program of this process has a public table shared"):
        make(UnitOfIr({}, [(spec, UINT32, UINT64)], extern=["shared"]))
    owner = make(UnitOfIr({}, [(spec, UINT32, UINT64)], public=["shared"]))
    other = make(UnitOfIr({}, [(spec, UINT32, UINT64)], extern=["shared"]))
    owner["shared"][1] = 5
    assert other["shared"][1].value == 5
    other.cleanup()
    assert owner["shared"][1].value == 5
    owner.cleanup()
    assert programs._shared == {}


def test_layout_of_a_table_as_text(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({}, [(MapSpec("t", "hash", 32, 8, 16), EVENT, UINT64)]))
    table = b["t"]
    assert b.decode_table("t", sizeinfo=True).splitlines() == [
        f"Layout of BPF map t (type HASH, FD {table.map_fd}, ID {table.map_id}):",
        "  struct {",
        "    [0 +4] unsigned int pid;",
        "    [8 +8] unsigned long n;",
        "    [16 +16] char[16] comm;",
        "  } key;",
        "  unsigned long value;",
    ]


def test_tables_behave_as_a_dictionary_of_the_object(make: Callable[..., BPF]) -> None:
    b = make(UnitOfIr({}, [COUNTS]))
    assert (len(b), bool(b), list(b)) == (0, True, [])
    assert b["counts"] is b["counts"]
    assert list(b) == ["counts"]
    own = b.get_table("counts", keytype=ct.c_longlong, leaftype=ct.c_double)
    b["counts"] = own
    assert b["counts"].Leaf is ct.c_double
    del b["counts"]
    assert len(b) == 0
    with pytest.raises(KeyError):
        b["nosuch"]


CAPABLE = """
import os, sys
sys.path[:0] = sys.argv[1:3]
from kernel import bcc_class_in_guest as t
b, _ = t.make({"f": t.count("f"), "g": t.count("g", 1)})
b.attach_raw_tracepoint("sys_enter", "f")
b.attach_uprobe(name="c", sym="getpgid", fn_name="g")
os.getpgid(0)
entered, called = t.totals(b)
print(entered > 0, called, open("/proc/self/status").read().split("CapEff:")[1].split()[0])
b.cleanup()
"""


def test_two_capabilities_are_enough() -> None:
    """CAP_BPF and CAP_PERFMON, and no other privilege: uid 65534."""
    import rooms

    folders = [str(rooms.ROOT / "src"), str(rooms.ROOT / "tests")]
    caps = "-all,+cap_38,+cap_39"
    command = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        f"--inh-caps={caps}",
        f"--ambient-caps={caps}",
    ]
    python = "/usr/bin/python3"  # the test's own may lie where nobody else can read
    probe = subprocess.run([*command, python, "-c", f"open({__file__!r}).close()"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"that cannot be tried here: {probe.stderr.strip()}")
    done = subprocess.run([*command, python, "-c", CAPABLE, *folders], capture_output=True, text=True, cwd="/")
    assert (done.stdout, done.stderr) == ("True 1 000000c000000000\n", "")

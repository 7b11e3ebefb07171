"""Checks of class BPF that need kprobes, trampolines or security hooks: each is a function, run inside of a guest.

As in_guest.py: started with the name of a check; prints what it found; "SKIP: …" when the kernel lacks what the check is about.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from bcc_unit import UnitOfIr

import sonde.api.bcc.bpf as bpf_module
from sonde.api.bcc import BPF, functions, quota
from sonde.debuginfo.ctype import INT32, UINT64
from sonde.errors import SondeError
from sonde.spec.object import MapSpec

TOTAL = (MapSpec("total", "array", 4, 8, 2), INT32, UINT64)
PACKETS = (MapSpec("packets", "array", 4, 8, 1), INT32, UINT64)


class Skip(Exception):
    """The kernel lacks what the check is about."""


def count(name: str, index: int = 0, result: int = 0) -> str:
    """A function that counts in element `index` of the table `total` what this process does."""
    return f"""
func @{name}(%ctx: ptr.ctx) -> i64 KIND {{
entry:
  %key = alloca size=4 align=4
  %ids = call.i64 @get_current_pid_tgid
  %pid = lshr.i64 %ids, 32
  %want = eq.i1 %pid, {os.getpid()}
  branch %want, go(), no()
go():
  store %key, {index}:i32
  %m = map @total
  %v = call.ptr.map @map_lookup_elem %m, %key
  %found = ne.i1 %v, 0:ptr.map
  branch %found, add(), no()
add():
  atomic.none @add %v, 1
  jump no()
no():
  ret {result}
}}
"""


def make(texts: dict[str, Any], **options: Any) -> tuple[BPF, UnitOfIr]:
    """Make a BPF object of IR texts."""
    unit = UnitOfIr(texts, [TOTAL, PACKETS])
    bpf_module.open_unit = lambda *_: unit  # type: ignore[assignment]
    return BPF(text="int unused;", **options), unit


def totals(b: BPF) -> list[int]:
    return [leaf.value for leaf in b["total"].values()]


def kprobes() -> None:
    """A kprobe goes to the function itself where the kernel has kprobes."""
    if not functions.have_kprobes():
        raise Skip("kprobes")
    b, unit = make({"kprobe__sys_getppid": count("kprobe__sys_getppid"), "leave": count("leave", 1)})
    with b:
        b.attach_kretprobe(event=b.get_syscall_fnname("getppid"), fn_name="leave", maxactive=20)
        for _ in range(3):
            os.getppid()
        assert totals(b) == [3, 3], totals(b)
        assert [entry.type for _, entry in unit.compiled] == ["kprobe", "kprobe"]
        assert b.num_open_kprobes() == 2
        b.detach_kprobe(b.get_syscall_fnname("getppid"))
        os.getppid()
        assert totals(b) == [3, 4], totals(b)
        try:
            b.attach_kprobe(event="no_such_function_here", fn_name="leave")
        except SondeError as error:
            print(error)
        else:
            raise AssertionError("a function that does not exist was attached to")
    assert quota._open == [0]


def kprobes_by_pattern() -> None:
    """All functions that match are attached, by one link where the kernel has such; a kprobe may be inside of a function."""
    if not functions.have_kprobes():
        raise Skip("kprobes")
    b, _ = make({"f": count("f")})
    with b:
        pattern = rb"^__x64_sys_(getppid|getpgid|getsid)$"
        assert len(BPF.get_kprobe_functions(pattern)) == 3
        b.attach_kprobe(event_re=pattern, fn_name=b"f")
        assert b.num_open_kprobes() == 3
        print({link.how for links in b.kprobe_fds.values() for link in links.values()})
        os.getppid()
        os.getpgid(0)
        assert totals(b)[0] == 2, totals(b)
        b.detach_kprobe("__x64_sys_getppid")
        assert b.num_open_kprobes() == 2
        b.attach_kprobe(event="__x64_sys_getppid", event_off=0, fn_name="f")
        assert not BPF.get_kprobe_functions(b"no_such_function")


def trampolines() -> None:
    """KFUNC_PROBE and KRETFUNC_PROBE functions go to trampolines where the kernel has them, else to kprobes."""
    texts = {n: count(n, i) for i, n in enumerate(("kfunc__vmlinux__vfs_read", "kretfunc__vfs_read"))}
    b, unit = make(texts)
    with b:
        read_once()
        first = totals(b)
        assert min(first) >= 1, first
        kinds = [entry.type for _, entry in unit.compiled]
        print(BPF.support_kfunc(), kinds, [link.how for link in b.kfunc_entry_fds.values()])
        assert kinds == (["tracing", "tracing"] if BPF.support_kfunc() else ["tracing", "kprobe", "tracing", "kprobe"])
        b.detach_kfunc("vmlinux__vfs_read")
        b.detach_kretfunc("kretfunc__vfs_read")
        before = totals(b)
        read_once()
        assert totals(b) == before


def trampoline_without_types() -> None:
    """A function of a module that is not named, whose types the kernel's BTF has not, is reached by a kprobe; one that is nowhere is refused."""
    from sonde.kernel.btf import kernel_btf

    if not functions.have_kprobes() or not BPF.get_kprobe_functions(rb"^ovl_open$"):
        raise Skip("kprobes, or a root that is an overlay")
    assert not kernel_btf().get_func_id("ovl_open")
    b, unit = make({"kfunc__ovl_open": count("kfunc__ovl_open")})
    with b:
        before = totals(b)[0]  # what this process imported was opened too
        for _ in range(3):
            os.close(os.open("/etc/passwd", os.O_RDONLY))
        assert totals(b)[0] == before + 3, totals(b)
        assert unit.compiled[-1][1].type == "kprobe"
    try:
        make({"kfunc__nowhere": count("kfunc__nowhere")})
    except SondeError as error:
        assert "this kernel has no function nowhere that can be probed" in str(error), error
    else:
        raise AssertionError("a function that does not exist was attached to")


def read_once() -> None:
    """Make a call of vfs_read."""
    with open("/dev/zero", "rb", buffering=0) as file:
        file.read(8)


def modify_return() -> None:
    """A KMOD_RET function decides what a function returns."""
    if not BPF.support_fmod_ret():
        raise Skip("fmod_ret")
    name = "kmod_ret__security_task_getpgid"
    b, _ = make({name: count(name, 0, -13)})
    with b:
        b.attach_fmod_ret("security_task_getpgid")
        try:
            os.getpgid(os.getpid())
        except PermissionError:
            pass
        else:
            raise AssertionError("the program's answer did not count")
        assert totals(b)[0] == 1
        b.detach_fmod_ret(name)
        os.getpgid(os.getpid())


def lsm() -> None:
    """An LSM_PROBE function is asked at its hook."""
    if not BPF.support_lsm():
        raise Skip("BPF LSM")
    b, _ = make({"lsm__file_mprotect": count("lsm__file_mprotect")})
    with b:
        import ctypes
        import mmap

        memory = mmap.mmap(-1, mmap.PAGESIZE)
        where = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        ctypes.CDLL(None).mprotect(ctypes.c_void_p(where), mmap.PAGESIZE, 1)
        assert totals(b)[0] >= 1
        b.detach_lsm("file_mprotect")


def xdp() -> None:
    """An XDP function sits on a device by a link, in the mode that is asked for."""
    import socket

    b, _ = make({"x": "\nfunc @x(%ctx: ptr.ctx) -> i64 KIND {\nentry:\n  %v = map_value @packets\n"
                      "  atomic.none @add %v, 1\n  ret 2\n}\n"})  # fmt: skip
    os.system("ip link set lo up 2>/dev/null || ifconfig lo up")
    with b:
        b.attach_xdp("lo", b.load_func("x", BPF.XDP), BPF.XDP_FLAGS_SKB_MODE)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            to.bind(("127.0.0.1", 0))
            to.settimeout(20)
            to.sendto(b"x", to.getsockname())
            to.recv(10)
        assert b["packets"][0].value >= 1
        BPF.remove_xdp("lo")


def features() -> None:
    """What the class says of the kernel is what attaching finds."""
    print({name: getattr(BPF, name)() for name in ("support_kfunc", "support_lsm", "support_fmod_ret",
                                                   "support_raw_tracepoint")})  # fmt: skip
    assert BPF.support_raw_tracepoint()
    assert BPF.kernel_struct_has_field("task_struct", "pid") == 1


CHECKS = (kprobes, kprobes_by_pattern, trampolines, trampoline_without_types, modify_return, lsm, xdp, features)


def main() -> int:
    check = next(c for c in CHECKS if c.__name__ == sys.argv[1])
    try:
        check()
    except Skip as missing:
        print(f"SKIP: {missing}")
    except SondeError as error:
        print(error.render(), file=sys.stderr)
        raise
    return 0

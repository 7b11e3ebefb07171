"""Objects compiled with the types of other kernels, run on this one: they must find what an object compiled here finds.

Also runs in guests: `main` takes BTF files, and tells by its status whether all results agree.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from sonde.debuginfo.btf import Btf
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.lang.bpftrace.compile import compile_script
from sonde.lang.bpftrace.options import Options
from sonde.lang.source import Source
from sonde.output.file import Sink
from sonde.output.text import TextPrinter
from sonde.record import replace
from sonde.runtime.child import Child
from sonde.runtime.session import Session, SessionOptions
from sonde.spec.object import ObjectSpec

# What a process can tell about itself beside what the kernel's structs say: members, nested ones, bit-fields, arrays, pointers.
OWN_STATE = """begin {
  $t = curtask;
  printf("ids %d %d %d\\n", $t.pid, $t.tgid, $t.real_parent.tgid);
  printf("name %s %s\\n", $t.comm, $t.group_leader.comm);
  printf("reset %d\\n", $t.sched_reset_on_fork);
  printf("umask %d uid %d\\n", $t.fs.umask, $t.cred.uid.val);
  printf("files %ld\\n", $t.signal.rlim[7].rlim_cur);
  $i = 7; printf("again %ld\\n", $t.signal.rlim[$i].rlim_cur);
  printf("code %ld %ld\\n", $t.mm.start_code, $t.mm.arg_start);
  $s = (struct socket *)$t.files.fdt.fd[DESCRIPTOR].private_data;
  $k = $s->sk;
  printf("socket %d %d %d\\n", $s->type, $k->__sk_common.skc_family, $k->__sk_common.skc_num);
  printf("reuse %d %d %d\\n", $k->__sk_common.skc_reuse, $k->__sk_common.skc_reuseport, $k->__sk_common.skc_ipv6only);
  printf("protocol %d\\n", $s->sk.sk_protocol);
  printf("sizes %d %d %d\\n", sizeof(struct task_struct), offsetof(struct task_struct, comm), sizeof(struct sock));
  printf("enum %d\\n", TCP_LISTEN);
  exit();
}"""
FUNCTIONS = {
    "kprobe": """kprobe:vfs_read /pid == cpid/ {
  $f = (struct file *)arg0;
  @[$f->f_inode->i_ino, $f->f_mode, str($f->f_path.dentry->d_name.name, 64), $f->f_path.mnt->mnt_flags] = count();
}""",
    "fentry": """fentry:vfs_read /pid == cpid/ {
  $f = args.file;
  @[$f->f_inode->i_ino, $f->f_mode, str($f->f_path.dentry->d_name.name, 64), $f->f_inode->i_sb->s_blocksize] = count();
}""",
}


@contextmanager
def known_state() -> Iterator[tuple[str, dict[str, str]]]:
    """Bring this process into a state that it knows; give the script that asks the kernel for it, and what it must say."""
    old = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("::", 0))
        umask = os.umask(0)
        os.umask(umask)
        import resource

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        with open("/proc/self/stat") as file:
            stat = file.read().rpartition(")")[2].split()
        with open("/proc/self/comm") as file:
            comm = file.read().strip()
        expected = {
            "name": f"{comm} {comm}",
            "reset": "1",
            "umask": f"{umask} uid {os.getuid()}",
            "files": str(files),
            "again": str(files),
            "code": f"{stat[23]} {stat[45]}",
            "socket": f"1 10 {listener.getsockname()[1]}",
            "reuse": "0 1 1",
            "protocol": str(int(socket.IPPROTO_TCP)),
            "enum": "10",
        }
        yield OWN_STATE.replace("DESCRIPTOR", str(listener.fileno())), expected
    os.sched_setscheduler(0, old, os.sched_param(0))


def compile_for(text: str, types: str, pid: int = 0) -> ObjectSpec:
    """Compile a script as relocatable, with the types of a BTF file; with those of this kernel, and for it only, when there is none."""
    target = live_target()
    if types:
        btf = Btf.open(types)
        target = replace(target, btf=lambda: btf, kernel_id=types)
    return compile_script(Source("script", text), target, Options(relocatable=bool(types), child_pid=pid))


def run_for(text: str, types: str, command: str = "") -> str:
    """Run a script that was compiled with these types to its end; return what it printed."""
    child = Child(command) if command else None
    try:
        spec = compile_for(text, types, child.pid if child else 0)
        assert bool(types) == any(r.kind == "core" for p in spec.programs for r in p.relocs)
        with tempfile.TemporaryFile() as out:
            printer = TextPrinter(Sink(out.fileno()), quiet=True)
            Session(KernelEngine(), spec, printer, SessionOptions(signals=False), child=child).run()
            printer.close()
            out.seek(0)
            return "\n".join(sorted(line for line in out.read().decode().splitlines() if line))
    finally:
        if child is not None:
            child.close()


def check_own_state(types: str) -> None:
    """What the kernel says about this process is what the process knows."""
    with known_state() as (text, expected):
        here = run_for(text, "")
        assert run_for(text, types) == here, f"{types}\n{run_for(text, types)}\nhere\n{here}"
        said = dict(line.split(" ", 1) for line in here.splitlines())
        assert said.items() >= expected.items(), f"{said}\n{expected}"


def check_function(kind: str, types: str) -> None:
    """What a probe on a function finds is what one compiled here finds."""
    here = run_for(FUNCTIONS[kind], "", "cat /etc/passwd")
    assert "passwd" in here
    there = run_for(FUNCTIONS[kind], types, "cat /etc/passwd")
    assert there == here, f"{types}\n{there}\nhere\n{here}"


def main() -> int:
    """Run all checks for each BTF file in the arguments."""
    for types in sys.argv[1:]:
        check_own_state(types)
        for kind in FUNCTIONS:
            check_function(kind, types)
        print(f"agrees: {types}")
    return 0

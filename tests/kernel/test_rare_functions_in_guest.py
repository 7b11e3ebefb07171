"""What only other kernels allow: tracing of BPF programs, packets to files, paths, writing to a process, override().

The running kernel may have no fentry, and its lockdown may forbid to write; in a guest all of it runs.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.sdt_program import build_program
from vm.guest import Guest, Result

ROOT = Path(__file__).resolve().parents[2]
ENV = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
TRACE = (sys.executable, "-m", "sonde", "trace")
SEND = """
import fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x49))  # SIOCSIFFLAGS: up, running
s.sendto(b"hello-sonde", ("127.0.0.1", 9))
"""
LINKTYPE_ETHERNET = 1


def run(guest: Guest, *words: str) -> Result:
    """Run a command, which must not fail, and return what it printed."""
    result = guest.run(list(words), timeout_s=120, env=ENV, cwd="/")
    said = f"{result.out}\n{result.err}"
    assert "Traceback" not in result.err, said
    lacking = re.search(r"ERROR: .*this kernel.* has no |which .* does not have", result.err)
    if result.status and lacking:
        pytest.skip(f"Linux {guest.kernel.release}: {lacking[0]}")
    assert result.status == 0, said
    return result


@pytest.fixture(scope="module")
def folder() -> Iterator[str]:
    """A folder that guests see."""
    with tempfile.TemporaryDirectory(prefix="sonde-", dir="/var/tmp") as path:
        yield path


@pytest.fixture(scope="module")
def program(folder: str) -> str:
    return build_program(folder)


@pytest.fixture(scope="module")
def sender(folder: str) -> str:
    """A command that sends a packet to this machine itself."""
    path = Path(folder, "send.py")
    path.write_text(SEND)
    return f"{sys.executable} {path}"


def test_bpf_program(guest: Guest) -> None:
    """Entry of a BPF program: its context is the kernel's own struct behind it. Entry of a function in it."""
    script = (
        "fentry:bpf:packets { @len[(int64)args.ctx->data_end - (int64)args.ctx->data] = count(); @p[probe] = count() } "
        "fentry:bpf:*:tw* { @n[args.n] = count(); }"
    )
    out = run(guest, sys.executable, "-m", "kernel.bpf_target", *TRACE, "-e", script).out
    assert "[128, 128, 200]" in out.splitlines()
    for wanted in (
        r"@len\[64\]: 2", r"@len\[100\]: 1", r"@p\[fentry:bpf:\d+:packets\]: 3", r"@n\[64\]: 2", r"@n\[100\]: 1",
    ):  # fmt: skip
        assert re.search(f"^{wanted}$", out, re.M), out


def test_result_of_a_bpf_program(guest: Guest) -> None:
    script = "fexit:bpf:packets { @whole[retval] = count() } fexit:bpf:twice { @part[args.n, retval] = count() }"
    out = run(guest, sys.executable, "-m", "kernel.bpf_target", *TRACE, "-e", script).out
    for wanted in ("@whole[128]: 2", "@whole[200]: 1", "@part[64, 128]: 2", "@part[100, 200]: 1"):
        assert wanted in out.splitlines(), out


def test_list_of_bpf_programs(guest: Guest) -> None:
    command = f"{sys.executable} -m sonde list -v 'fexit:bpf:*'; echo __BPFTRACE_NOTIFY_PROBES_ATTACHED; sleep 9"
    out = run(guest, sys.executable, "-m", "kernel.bpf_target", "sh", "-c", f"trap 'exit 0' INT; {command}").out
    assert re.search(
        r"^fexit:bpf:(\d+):packets\n    struct xdp_buff \* ctx\n    int retval\nfexit:bpf:\1:twice\n    long n\n    long retval$",
        out, re.M,
    ), out  # fmt: skip


def test_path(guest: Guest) -> None:
    script = 'fentry:security_file_open /pid == cpid/ { printf("<%s>\\n", path(args.file->f_path)) }'
    assert "</etc/passwd>" in run(guest, *TRACE, "-e", script, "-c", "cat /etc/passwd").out.splitlines()


def test_socket_cookie(guest: Guest, sender: str) -> None:
    """One socket has one cookie, which is no 0."""
    script = "fentry:udp_sendmsg /pid == cpid/ { $c = socket_cookie(args.sk); @[$c > 0, $c == socket_cookie(args.sk)] = count() }"
    assert "@[true, true]: 1" in run(guest, *TRACE, "-e", script, "-c", sender).out.splitlines()


def test_skboutput(guest: Guest, sender: str) -> None:
    """The packet is in the file, whole, with its real length."""
    path = "/run/sonde-test.pcap"
    script = f'fentry:ip_rcv {{ $r = skboutput("{path}", args.skb, args.skb->len, 0); @[$r] = count() }}'
    out = run(guest, *TRACE, "--unsafe", "-e", script, "-c", sender).out
    assert re.search(r"^@\[0\]: [1-9]$", out, re.M), out
    data = bytes.fromhex(run(guest, "od", "-An", "-v", "-tx1", path).out)
    magic, link = int.from_bytes(data[:4], "little"), int.from_bytes(data[20:24], "little")
    assert (magic, link) == (0xA1B2C3D4, LINKTYPE_ETHERNET)
    captured, length = (int.from_bytes(data[at : at + 4], "little") for at in (32, 36))
    packet = data[40 : 40 + captured]
    assert captured == length == 20 + 8 + len("hello-sonde")
    assert packet[0] == 0x45 and packet.endswith(b"hello-sonde")


def test_write_user(guest: Guest, program: str) -> None:
    """The second call of the function finds what was written at the first."""
    script = f'uprobe:{program}:first {{ printf("%s\\n", str(arg1)); print(write_user(arg1, "new", 4)); }}'
    out = run(guest, *TRACE, "--unsafe", "-e", script, "-c", f"{program} ff").out
    assert out.split() == ["some-text", "0", "new", "0"]


def test_override(guest: Guest) -> None:
    """Where the kernel was built with error injection it works; where not, what is missing is named."""
    words = [*TRACE, "--unsafe", "-e", "kprobe:__x64_sys_getppid /pid == cpid/ { override(77) }"]
    command = f"{sys.executable} -c 'import os; print(os.getppid())'"
    result = guest.run([*words, "-c", command], timeout_s=120, env=ENV, cwd="/")
    if result.status:
        assert "override() needs the kernel's helper bpf_override_return, which" in result.err
    else:
        assert "77" in result.out.splitlines()

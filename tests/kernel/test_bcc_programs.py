"""BCC programs as people publish them (tests/bcc_programs), unmodified through `sonde bcc`, each around a workload whose numbers are known.

On the running kernel where it has what they need, else in a guest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.program_run import Ran, run_program, sonde_bcc
from vm.guest import Guest
from vm.modules import load_modules

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "bcc_programs"
PATHS = [str(ROOT / "src"), str(ROOT / "tests")]


@pytest.fixture(autouse=True)
def sonde_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(PATHS))


def program(name: str, *arguments: str) -> list[str]:
    return sonde_bcc(str(PROGRAMS / name), *arguments)


def run_in_guest(guest: Guest, command: list[str], workload: list[str], expect: str = "") -> Ran:
    """Run a program around its workload in a guest; it must end well and say nothing on stderr."""
    source = "import json, sys; from kernel.program_run import run_program; print(json.dumps(run_program(*json.loads(sys.argv[1]), **json.loads(sys.argv[2]))))"
    options = {"expect": expect, "limit_s": 90, "settle_s": 1}
    done = guest.python(
        source,
        path=PATHS,
        args=[json.dumps([command, workload]), json.dumps(options)],
        env={"PYTHONPATH": os.pathsep.join(PATHS)},
        timeout_s=200,
    )
    assert done.status == 0, done.out + done.err
    return check(Ran(*json.loads(done.out)))


def check(ran: Ran) -> Ran:
    """A program must end well on Ctrl-C, and say nothing on stderr."""
    assert (ran.status, ran.err) == (0, ""), f"{ran.status}\n{ran.err}\n{ran.out[-3000:]}"
    return ran


def named(folder: Path, name: str, text: str, *arguments: str) -> list[str]:
    """Return a command that runs Python text in a process which is known by its name."""
    script = folder / f"{name}.py"
    script.write_text(f"import ctypes\nctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0)\n{text}")
    return [sys.executable, "-S", str(script), *arguments]


# hypercalls ---------------------------------------------------------------------------------------------------------

CALLS = ["1:0x11"] * 5 + ["77:0xabc"] * 3  # KVM_HC_VAPIC_POLL_IRQ, and a number that KVM does not know
VMMCALL, HLT = 0x81, 0x78  # exit codes of AMD's SVM


def test_hypercalls(guest: Guest) -> None:
    load_modules(guest, "kvm-amd")
    workload = [sys.executable, "-m", "kernel.kvm_guest", *CALLS]
    ran = run_in_guest(guest, program("hypercalls.py"), workload, r"(?s)(nr 77 .*){3}")
    seen = re.findall(r"^(\S+) +(\d+) +reason (\S+) nr (\d+) +a0 (\S+) a1 (\S+) ([\d.]+) us$", ran.out, re.M)
    assert [(nr, a0, a1) for *_, nr, a0, a1, _ in seen] == [("1", "0x11", "0x0")] * 5 + [("77", "0xabc", "0x0")] * 3
    assert {(comm[:6], reason) for comm, _, reason, *_ in seen} == {("python", hex(VMMCALL))}
    assert len({pid for _, pid, *_ in seen}) == 1
    assert all(float(us) > 0 for *_, us in seen)
    exits = dict(re.findall(r"exits for reason (\S+): (\d+)", ran.out))
    assert exits[hex(VMMCALL)] == "8", exits
    assert exits[hex(HLT)] == "1", exits


# pages that were read ahead -----------------------------------------------------------------------------------------

READ_SLOWLY = """
import os, sys, time
file = os.open(sys.argv[1], os.O_RDONLY)
for part in range(4):
    data = os.read(file, 32 * 4096)
    assert data == bytes([part + 1]) * (32 * 4096), part
    time.sleep(0.15)
"""


def test_age_of_pages_read_ahead(guest: Guest, tmp_path: Path) -> None:
    """128 pages of a file that the guest has never seen are read in four steps; 64 more lie behind them."""
    path = tmp_path / f"pages-{guest.kernel.series}"
    path.write_bytes(b"".join(bytes([part + 1]) * (32 * 4096) for part in range(6)))
    workload = named(tmp_path, "sonde-reader", READ_SLOWLY, str(path))
    ran = run_in_guest(guest, program("readahead_age.py", "sonde-reader"), workload)
    read, used, unused = (int(n) for n in re.findall(r"(?:ahead|used|unused): (\d+)", ran.out))
    assert (used, read) == (128, used + unused), ran.out
    assert 0 <= unused <= 64, ran.out
    rows = re.findall(r"^ +(\d+) -> (\d+) +: (\d+) ", ran.out, re.M)
    assert sum(int(count) for *_, count in rows) == used, ran.out
    assert any(int(low) >= 64 and int(count) for low, _, count in rows), f"no page waited for a pause:\n{ran.out}"


# the latency of opening files -----------------------------------------------------------------------------------------

OPENS = """
import os, sys, time
for name, wanted in (("/etc/hostname", 0), ("/etc/passwd", 0), ("/no-such-file-of-a-test", 2)):
    for _ in range(2):
        try:
            os.close(os.open(name, os.O_RDONLY))
        except OSError as error:
            assert error.errno == wanted
"""


def check_opens(ran: Ran, comm: str) -> None:
    seen = re.findall(r"^(\S+) +(\d+) +(-?\d+) +([\d.]+) us (\S*)$", ran.out, re.M)
    wanted = ["/etc/hostname"] * 2 + ["/etc/passwd"] * 2 + ["/no-such-file-of-a-test"] * 2
    ours = [(name, int(ret)) for c, _, ret, _, name in seen if c == comm and name in wanted]
    assert [name for name, _ in ours] == wanted, ran.out
    assert [ret >= 0 or ret for _, ret in ours] == [True] * 4 + [-2] * 2, ran.out
    assert all(float(us) > 0 for *_, us, _ in seen)
    assert "unfinished: 0" in ran.out


@pytest.mark.kernel
def test_open_latency_here(tmp_path: Path) -> None:
    ran = check(
        run_program(
            program("open_latency.py", "sonde-opens"),
            named(tmp_path, "sonde-opens", OPENS),
            expect="(?s)(no-such-file.*){2}",
        )
    )
    check_opens(ran, "sonde-opens")


def test_open_latency_by_kprobes(guest: Guest, tmp_path: Path) -> None:
    command = program("open_latency.py", "sonde-opens")
    ran = run_in_guest(guest, command, named(tmp_path, "sonde-opens", OPENS), "(?s)(no-such-file.*){2}")
    assert "Tracing by do_sys_open" in ran.out
    check_opens(ran, "sonde-opens")


# USDT -----------------------------------------------------------------------------------------------------------------

STORE = r"""
#include <stdint.h>
#include <stdio.h>
#include <sys/sdt.h>
static void snapshot(uint8_t shard, uint64_t keys, int32_t lag) { DTRACE_PROBE3(store, snapshot_taken, shard, keys, lag); }
int main(void) {
  int count;
  while (scanf("%d", &count) == 1) {
    for (int i = 0; i < count; i++) snapshot(i % 3 == 2 ? 200 : i % 3, 5000000000u + i, -i);
    puts("done");
    fflush(stdout);
  }
  return 0;
}
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A running store, which takes as many snapshots as it is told."""
    path = build(tmp_path, "store", STORE, "-O1")
    process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.communicate(timeout=10)


def build(folder: Path, name: str, text: str, *flags: str) -> str:
    """Compile a program; skips where that cannot be done."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    path = str(folder / name)
    done = subprocess.run(["gcc", "-g", *flags, "-x", "c", "-", "-o", path], input=text, text=True, capture_output=True)
    if "sys/sdt.h" in done.stderr:
        pytest.skip("needs sys/sdt.h (Debian package systemtap-sdt-dev)")
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.kernel
def test_snapshots_by_shard(store: subprocess.Popen[str]) -> None:
    command = program("shard_snapshots.py", str(store.pid))
    ask = f"echo 10 > /proc/{store.pid}/fd/0; sleep 0.3"
    ran = check(run_program(command, ["sh", "-c", ask]))
    rows = [tuple(map(int, line.split())) for line in ran.out.splitlines() if line[:1].isdigit()]
    wanted = []
    for shard, numbers in ((0, (0, 3, 6, 9)), (1, (1, 4, 7)), (200, (2, 5, 8))):
        keys = sum(5000000000 + i for i in numbers)
        wanted.append((shard, len(numbers), keys, -sum(numbers), -max(numbers)))
    assert rows == wanted, ran.out


# XDP ------------------------------------------------------------------------------------------------------------------

SEND = """
import socket, sys
to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
to.bind(("10.77.0.2", 4004))
for port, text in ((9001, b"dropped"), (9002, b"start shard 7"), (9001, b""), (9002, b"A" * 40), (9003, b"passed"), (9001, b"x")):
    to.sendto(text, ("10.77.0.1", port))
"""
RECEIVE = """
import socket, subprocess, sys
here = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
for port, s in zip((9001, 9002, 9003), here):
    s.bind(("10.77.0.1", port))
    s.settimeout(0.5)
subprocess.run(sys.argv[1:], check=True)
got = []
for s in here:
    try:
        while True:
            got.append(s.recv(100))
    except TimeoutError:
        got.append(b"-")
assert got == [b"-", b"start shard 7", b"A" * 40, b"-", b"passed", b"-"], got
"""


@pytest.fixture
def veth() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a pair of devices between them: 10.77.0.1 on `xa`, 10.77.0.2 on `xb`."""
    if not shutil.which("ip") or os.geteuid():
        pytest.skip("needs ip (Debian package iproute2) and root")
    names = [f"sonde-{os.getpid()}-{side}" for side in "ab"]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        link = ["ip", "link", "add", "xa", "netns", names[0], "type", "veth", "peer", "name", "xb", "netns", names[1]]
        subprocess.run(link, check=True)
        for name, device, address in zip(names, ("xa", "xb"), ("10.77.0.1", "10.77.0.2")):
            subprocess.run(["ip", "-n", name, "address", "add", address + "/24", "dev", device], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", device, "up"], check=True)
        yield names[0], names[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name])


@pytest.mark.kernel
def test_udp_commands(veth: tuple[str, str]) -> None:
    here, there = (["ip", "netns", "exec", name] for name in veth)
    workload = [*here, sys.executable, "-c", RECEIVE, *there, sys.executable, "-c", SEND]
    ran = check(run_program([*here, *program("udp_commands.py", "xa", "9001", "9002")], workload))
    assert ran.out.splitlines()[2:] == [
        "dropped 3, commands 2, passed 1",
        "command 0 from 10.77.0.2:4004, 13 bytes: start shard 7",
        "command 1 from 10.77.0.2:4004, 40 bytes: " + "A" * 32,
    ]
    left = subprocess.run([*here, "ip", "-d", "link", "show", "xa"], capture_output=True, text=True, check=True).stdout
    assert "xdp" not in left, left


# argdist --------------------------------------------------------------------------------------------------------------

ORDER_H = (
    "struct item { char kind; long price; };\nstruct order { int id; struct item *item; unsigned short amount; };\n"
)
ORDERS = (
    ORDER_H
    + r"""
#include <stdio.h>
__attribute__((noinline)) long ship(struct order *order, const char *to) { return order->amount + order->item->price + to[0]; }
int main(void) {
  struct item items[2] = {{'a', 10}, {'b', 7000000000}};
  int count;
  while (scanf("%d", &count) == 1) {
    long sum = 0;
    for (int i = 0; i < count; i++) {
      struct order o = {i, &items[i % 5 == 0], i % 2 ? 300 : 4};
      sum += ship(&o, i % 4 ? "north" : "south");
    }
    printf("%ld\n", sum);
    fflush(stdout);
  }
  return 0;
}
"""
)


@pytest.mark.kernel
@pytest.mark.oracle
def test_argdist_on_a_struct_argument(tmp_path: Path) -> None:
    """Debian's argdist, unmodified, counts members of a struct, one of them through a pointer, which a header of the user's describes."""
    if not os.path.exists("/usr/sbin/argdist-bpfcc"):
        pytest.skip("argdist-bpfcc is not installed (Debian package bpfcc-tools)")
    (tmp_path / "order.h").write_text(ORDER_H)
    path = build(tmp_path, "orders", ORDERS, "-O1")
    function = f"p:{path}:ship(struct order *order, const char *to)"
    counted = [f"{function}:u16,long:order->amount,order->item->price", f"{function}:char*:to"]
    command = sonde_bcc(
        "argdist",
        "-i",
        "1",
        "-n",
        "6",
        "-I",
        str(tmp_path / "order.h"),
        *(word for each in counted for word in ("-C", each)),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tool:
        assert tool.stdout is not None
        first = tool.stdout.readline()  # the time of the first interval: all is attached
        subprocess.run([path], input="20", text=True, check=True, capture_output=True)
        out, err = tool.communicate(timeout=60)
    out = first + out
    assert (tool.returncode, err) == (0, ""), err + out
    for count, words in (
        (2, "order->amount = 4, order->item->price = 7000000000"),
        (8, "order->amount = 4, order->item->price = 10"),
        (2, "order->amount = 300, order->item->price = 7000000000"),
        (8, "order->amount = 300, order->item->price = 10"),
        (5, "to = b'south'"),
        (15, "to = b'north'"),
    ):
        assert re.search(rf"^\s+{count}\s+{re.escape(words)}$", out, re.M), out

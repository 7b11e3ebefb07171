"""The code of system calls in a stopped aarch64 process, run in QEMU to its end, as a thread does when sonde is killed: the calls are made, and nothing else has changed.

Not run: the same with a tracer, which QEMU's user mode does not have.
"""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import pytest
from a64_moved import CODE_AT, FAR, PAGE, Moved, page_of, random_state, run_all
from a64_runner import find_qemu

from sonde.errors import TargetError
from sonde.user.a64.calls import assemble_calls
from sonde.user.calls import Call, Result
from sonde.user.ptrace import MACHINES, Registers

NOP = 0xD503201F
MASK = 1 << 33
CALLS = [
    Call("memfd_create", (b"sonde-test:1:2\0", 1)),
    Call("ftruncate", (Result(0), 8192)),
    Call("mmap", (0, 8192, 1, 1, Result(0), 0)),
    Call("madvise", (Result(2), 4096, 4)),
    Call("munmap", (Result(2), 8192)),
    Call("close", (Result(0),)),
    Call(5012, (1, 2, 3)),
]


def registers_of(case: Moved, pc: int) -> Registers:
    """The registers of a thread that has those of a case."""
    found = Registers(MACHINES["aarch64"])
    values = struct.unpack_from("<33Q", random_state(case))
    for number in range(31):
        found[f"x{number}"] = values[number]
    found.sp, found["pstate"], found.pc = values[31], values[32], pc
    return found


def test_the_code_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu, assembler = find_qemu(), shutil.which("aarch64-linux-gnu-as")
    if qemu is None or assembler is None:
        pytest.skip(
            "needs qemu-aarch64 and an assembler (Debian packages qemu-user-static, binutils-aarch64-linux-gnu)"
        )
    cases = []
    for number in range(20):
        old, new = page_of(number) + CODE_AT, FAR + PAGE * number + 64
        case = Moved(NOP.to_bytes(4, "little"), old, new, b"", [old + 4], seed=number)
        case.moved = assemble_calls(CALLS, registers_of(case, old + 4), MASK).at(new)
        cases.append(case)
    log = tmp_path / "log"
    monkeypatch.setenv("QEMU_STRACE", "1")
    monkeypatch.setenv("QEMU_LOG_FILENAME", str(log))
    results = run_all(cases, qemu, assembler, tmp_path)
    assert [result for result in results if result != "same"] == []
    lines = [line.partition(" ")[2] for line in log.read_text().splitlines()]
    made = [line for line in lines if not line.startswith(("write", "exit"))]
    assert len(made) == len(cases) * (len(CALLS) + 1)
    for case, at in zip(cases, range(0, len(made), len(CALLS) + 1)):
        check_calls(case, made[at : at + len(CALLS) + 1])


def check_calls(case: Moved, lines: list[str]) -> None:
    """What QEMU has told of the calls that one case has made, line for line."""
    named, sized, mapped, advised, unmapped, closed, unknown, masked = lines
    name = re.fullmatch(r"memfd_create\((\d+),1,.*\) = (\d+)", named)
    assert name is not None, named
    at, descriptor = int(name[1]) - case.new, name[2]
    assert case.moved[at : at + 15] == b"sonde-test:1:2\0"
    assert re.fullmatch(rf"ftruncate\({descriptor},8192\) = 0", sized), sized
    memory = re.fullmatch(rf"mmap\(NULL,8192,PROT_READ,MAP_SHARED,{descriptor},0\)\s*= (0x[0-9a-f]+)", mapped)
    assert memory is not None, mapped
    assert re.fullmatch(rf"madvise\({memory[1]},4096,MADV_DONTNEED\) = 0", advised), advised
    assert re.fullmatch(rf"munmap\({memory[1]},8192\) = 0", unmapped), unmapped
    assert re.fullmatch(rf"close\({descriptor}\) = 0", closed), closed
    assert "5012" in unknown, unknown
    mask = re.match(r"rt_sigprocmask\(SIG_SETMASK,(0x[0-9a-f]+),NULL.*= 0", masked)
    assert mask is not None, masked
    at = int(mask[1], 16) - case.new
    assert case.moved[at : at + 8] == MASK.to_bytes(8, "little")


def test_too_far_from_where_the_thread_goes_on() -> None:
    registers = Registers(MACHINES["aarch64"])
    registers.pc = 0x20000000
    code = assemble_calls(CALLS, registers, 0)
    assert len(code.at(0x20000000 + (1 << 26))) == len(code)
    with pytest.raises(TargetError, match="too far for a jump"):
        code.at(0x20000000 + (1 << 27) + 4096)

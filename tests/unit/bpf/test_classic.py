"""Classic filters: text as tcpdump prints it, both ways; what is refused; what runs, and the same as eBPF."""

from __future__ import annotations

from random import Random

import pytest
from classic_programs import make_filter, make_packet
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.bpf.classic import (
    Filter,
    assemble,
    check,
    check_seccomp,
    decode,
    encode,
    format_c,
    format_numbers,
    format_text,
    run,
    run_seccomp,
    to_ebpf,
)
from sonde.bpf.classic.code import OPERATIONS
from sonde.bpf.interp import Machine, Program
from sonde.bpf.verifier import verify
from sonde.errors import CompileError, FormatError

IP_UDP_53 = """
    ldh [12]
    jne #0x800, drop
    ldb [23]
    jneq #17, drop
    ldxb 4*([14]&0xf)
    ldh [x + 16]
    jeq #53, keep, drop
keep: ret #262144
drop: ret #0
"""
# What `tcpdump -d` prints for these instructions.
LISTING = """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2\tjf 8
(002) ldb      [23]
(003) jeq      #0x11            jt 4\tjf 8
(004) ldxb     4*([14]&0xf)
(005) ldh      [x + 16]
(006) jeq      #0x35            jt 7\tjf 8
(007) ret      #262144
(008) ret      #0"""


def packet(protocol: int = 17, port: int = 53, kind: int = 0x800) -> bytes:
    ip = bytes([0x46, 0, 0, 48, 0, 0, 0, 0, 64, protocol]) + bytes(14)
    return bytes(12) + kind.to_bytes(2, "big") + ip + (4000).to_bytes(2, "big") + port.to_bytes(2, "big") + bytes(8)


def test_text_both_ways() -> None:
    program = assemble(IP_UDP_53)
    assert format_text(program) == LISTING
    assert assemble(LISTING) == program
    assert assemble(format_numbers(program)) == program
    assert format_c(program).splitlines()[1] == "{ 0x15, 0, 6, 0x00000800 },"
    assert format_numbers(program).splitlines()[:3] == ["9", "40 0 0 12", "21 0 6 2048"]
    assert decode(encode(program)) == program


def test_a_filter_keeps_what_it_should() -> None:
    program = assemble(IP_UDP_53)
    check(program)
    assert run(program, packet()) == 262144
    assert [run(program, packet(*case)) for case in ((6,), (17, 54), (17, 53, 0x86DD))] == [0, 0, 0]
    assert run(program, packet()[:30]) == 0  # cut off before the port


def test_ancillary_data_have_names() -> None:
    program = assemble("ld #cpu\nret a")
    assert program[0] == Filter(0x20, k=0xFFFFF024)
    assert run(program, b"", data={"cpu": 3}) == 3
    assert run(assemble("ld #vlan_tci\nret a"), b"", data={"vlan_tag": 7}) == 7
    assert run(assemble("ld #len\nret a"), b"abc") == 3
    assert run(assemble("ldb [-1048576]\nret a"), b"\1\2\3", network=2) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ret #0\nldh [12]", "the last one must be a ret"), ("ld M[16]\nret a", r"no M\[16\]"), ("ld M[2]\nret a", "not written"),
        ("jeq #1, a, b\na: st M[1]\nb: ld M[1]\nret a", "not written on every way"), ("ja 5\nret #0", "beyond the end"),
        ("div #0\nret a", "division"), ("lsh #32\nret a", "shift by 32"), ("", "1 to 4096"),
    ],
)  # fmt: skip
def test_what_the_kernel_refuses(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        check(assemble(text))
    with pytest.raises(FormatError, match="unknown code"):
        check([Filter(0xFF), Filter(6)])


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("ldh [12]\nldq [12]\nret #0", "no operation 'ldq'", 2), ("jeq #1, her\nhere: ret #0", "no label 'her'", 1),
        ("ld [x + ]\nret #0", "takes no operand", 1), ("ld #cup\nret a", "no data called #cup", 1), ("a: ret #0\na: ret #1", "twice", 2),
        ("jeq #1\nret #0", "needs a number or x", 1), ("ld #0x100000000\nret a", "32 bits", 1), ("ret #0\n!!", "no instruction", 2),
    ],
)  # fmt: skip
def test_wrong_text_is_pointed_at(text: str, message: str, line: int) -> None:
    with pytest.raises(CompileError) as caught:
        assemble(text)
    assert any(message in d.message and d.span is not None and d.span.line == line for d in caught.value.diagnostics)


def test_every_operation_has_a_text_that_reads_back() -> None:
    for code in OPERATIONS:
        jump = code & 7 == 5 and code & 0xF0
        insn = Filter(code, *((0, 1) if jump else (0, 0)), 2 if OPERATIONS[code][1] not in ("", "x", "#pktlen") else 0)
        program = [insn, Filter(6), Filter(6), Filter(6)]
        assert assemble(format_text(program)) == program, OPERATIONS[code]


def seccomp_data(number: int, arch: int = 0xC000003E, *args: int) -> bytes:
    words = [*args, *([0] * (6 - len(args)))]
    return (
        number.to_bytes(4, "little")
        + arch.to_bytes(4, "little")
        + bytes(8)
        + b"".join(a.to_bytes(8, "little") for a in words)
    )


def test_filters_of_system_calls() -> None:
    program = assemble("ld [0]\njeq #39, kill\nret #0x7fff0000\nkill: ret #0x80000000")
    check_seccomp(program)
    assert run_seccomp(program, seccomp_data(39)) == 0x80000000
    assert run_seccomp(program, seccomp_data(1)) == 0x7FFF0000
    for text in ("ldh [0]\nret a", "ld [2]\nret a", "ld [64]\nret a", "ldx #len\nld [x + 0]\nret a"):
        with pytest.raises(FormatError):
            check_seccomp(assemble(text))


def ebpf_result(program: list[Filter], data: bytes) -> int:
    machine = Machine()
    machine.packet_data = data
    context = bytearray(192)
    context[0:4] = len(data).to_bytes(4, "little")
    return machine.run(Program(to_ebpf(program)), machine.memory.add(context)) & 0xFFFFFFFF


def test_random_filters_mean_the_same_as_ebpf() -> None:
    for seed in range(300):
        random = Random(seed)
        program = make_filter(random)
        check(program)
        assert verify(to_ebpf(program), "socket_filter").safe, seed
        for _ in range(3):
            data = make_packet(random)
            assert ebpf_result(program, data) == run(program, data), f"seed {seed}\n{format_text(program)}"


def test_far_jumps_and_both_ways() -> None:
    body = "\n".join(["add #1"] * 200)
    program = assemble(f"ldb [0]\njset #1, odd, even\neven: {body}\nret a\nodd: ret #7")
    for first in (1, 2):
        assert ebpf_result(program, bytes([first])) == run(program, bytes([first]))


@settings(deadline=None)
@given(st.text(alphabet="ldhbxret#0123456789[]()+,.: \njeqsMa&*\\", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        check(assemble(text))
    except (CompileError, FormatError):
        pass


@given(st.binary(max_size=80))
def test_any_bytes_are_a_filter_or_refused(data: bytes) -> None:
    try:
        program = decode(data)
        format_text(program)
        check(program)
    except FormatError:
        return
    run(program, b"0123456789")

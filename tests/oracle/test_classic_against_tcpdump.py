"""What tcpdump compiles: its three texts are ours, letter for letter, and its filters keep here what they keep there."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from sonde.bpf.classic import assemble, check, encode, format_c, format_numbers, format_text
from sonde.bpf.classic.code import Filter

pytestmark = pytest.mark.oracle

EXPRESSIONS = [
    "", "ip", "tcp port 80", "not host 10.0.0.1 and udp", "ip6 and tcp portrange 1-1000", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "vlan 5 and arp", "ether host 02:00:00:00:00:01", "ip[2:2] > 576", "len > 100", "icmp[icmptype] == icmp-echo", "ip proto 47",
    "tcp[12] & 0xf0 >> 2 == 20", "ip[0] * 3 - 2 = udp[1] / 7", "ip[8] % 3 = 1 or ip[8] ^ 255 = 3", "greater 200 and less 500",
]  # fmt: skip


# For a capture in progress the filter asks the kernel about the packet: tcpdump shows ancillary data by name.
LIVE = ["vlan 5", "inbound", "outbound", "ifindex 3", "vlan and vlan 7 and ip", "not vlan"]


def tcpdump(option: str, expression: str, *where: str) -> str:
    command = shutil.which("tcpdump")
    if command is None:
        pytest.skip("needs tcpdump")
    done = subprocess.run([command, *(where or ("-y", "EN10MB")), option, expression], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_texts(expression: str) -> None:
    program = assemble(tcpdump("-ddd", expression))
    check(program)
    assert format_text(program) == tcpdump("-d", expression).rstrip("\n")
    assert format_c(program) == tcpdump("-dd", expression).rstrip("\n")
    assert format_numbers(program) == tcpdump("-ddd", expression).rstrip("\n")
    again = assemble(format_text(program))  # the text says nothing of fields that an operation does not use
    assert format_text(again) == format_text(program)
    assert len(encode(program)) == 8 * len(program)
    assert all(isinstance(insn, Filter) for insn in program)


@pytest.mark.parametrize("expression", LIVE)
def test_texts_with_ancillary_data(expression: str) -> None:
    try:
        program = assemble(tcpdump("-ddd", expression, "-i", "lo"))
    except AssertionError as error:
        if "permission" in str(error):
            pytest.skip("needs CAP_NET_RAW")
        raise
    check(program)
    text = tcpdump("-d", expression, "-i", "lo").rstrip("\n")
    assert format_text(program) == text
    assert format_text(assemble(text)) == text
    assert [insn.k for insn in assemble(text)] == [insn.k for insn in program]

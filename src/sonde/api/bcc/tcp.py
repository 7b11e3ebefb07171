"""BCC's `tcp`: TCP states and header flags by name (net/tcp_states.h, net/tcp.h)."""

from __future__ import annotations

_STATES = (
    "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
    "LISTEN", "CLOSING", "NEW_SYN_RECV",
)  # fmt: skip
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")

tcpstate = dict(enumerate(_STATES, 1))
TCPHDR_FIN, TCPHDR_SYN, TCPHDR_RST, TCPHDR_PSH = 1, 2, 4, 8
TCPHDR_ACK, TCPHDR_URG, TCPHDR_ECE, TCPHDR_CWR = 16, 32, 64, 128


def state2str(state: int) -> str:
    """Return the name of a TCP state, or its number where it has none."""
    return tcpstate.get(state, str(state))


def flags2str(flags: int) -> str:
    """Return the flags of a TCP header as in "SYN|ACK"."""
    return "|".join(name for bit, name in enumerate(_FLAGS) if flags >> bit & 1)

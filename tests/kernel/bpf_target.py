"""A BPF program for others to trace: two functions with BTF, loaded but attached nowhere, run by BPF_PROG_TEST_RUN.

`int packets(struct xdp_md *ctx)` returns `twice(length of the packet)`, modulo 2^32; `long twice(long n)`.
"""

from __future__ import annotations

from struct import pack

from btf_builder import BtfBuilder

from sonde.bpf.asm import assemble
from sonde.bpf.isa import encode
from sonde.kernel import abi, syscall
from sonde.kernel.btf import load_btf
from sonde.kernel.descriptor import close_fd
from sonde.kernel.programs import LoadRequest
from sonde.kernel.syscall import address
from sonde.spec.object import ProgramSpec

TEXT = """
    r2 = *(u32 *)(r1 + 0)
    r1 = *(u32 *)(r1 + 4)
    r1 -= r2
    call twice
    exit
twice:
    r0 = r1
    r0 += r1
    exit
"""
TWICE_PC = 5


def load_target() -> int:
    """Load the program; return its descriptor."""
    btf = BtfBuilder()
    number, wide, word = btf.int("int", 4, True), btf.int("long", 8, True), btf.int("unsigned int", 4)
    context = btf.struct("xdp_md", 8, [("data", word, 0), ("data_end", word, 32)])
    packets = btf.func("packets", btf.func_proto(number, [("ctx", btf.ptr(context))]))
    twice = btf.func("twice", btf.func_proto(wide, [("n", wide)]), linkage=0)
    own_btf = load_btf(btf.build())
    code = bytearray(encode(assemble(TEXT)))
    info = pack("=IIII", 0, packets, TWICE_PC, twice)
    try:
        return LoadRequest(ProgramSpec("packets", "xdp", bytes(code)), code, own_btf=own_btf, func_info=info).load()
    finally:
        close_fd(own_btf)


def run_target(fd: int, length: int) -> int:
    """Run it on a packet of so many bytes; return what it returned."""
    packet = bytearray(length)
    attr = bytearray(abi.PROG_TEST_RUN.pack(fd, 0, length, 0, address(packet), 0, 1, 0, 0, 0, 0, 0, 0, 0, 0))
    result = syscall.bpf(abi.BPF_PROG_TEST_RUN, attr)
    assert result >= 0, result
    return int.from_bytes(attr[abi.TEST_RUN_RETVAL_OFFSET : abi.TEST_RUN_RETVAL_OFFSET + 4], "little")


def main(words: list[str]) -> int:
    """`python -m kernel.bpf_target COMMAND…`: start the command, and when it says that it is ready run the target; stop it then."""
    import os
    import signal
    import subprocess
    import sys

    fd = load_target()
    env = {**os.environ, "__BPFTRACE_NOTIFY_PROBES_ATTACHED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) as tracer:
        assert tracer.stdout is not None
        for line in tracer.stdout:
            if "__BPFTRACE_NOTIFY_PROBES_ATTACHED" in line:
                print([run_target(fd, length) for length in (64, 64, 100)], flush=True)
                tracer.send_signal(signal.SIGINT)
            else:
                sys.stdout.write(line)
    close_fd(fd)
    return tracer.returncode


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))

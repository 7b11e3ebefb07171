"""Classic filters against the kernel: random ones on a socket keep as many bytes as here; system calls are refused as the filter says."""

from __future__ import annotations

import os
import socket
from random import Random

import pytest
from classic_programs import make_filter, make_packet

from sonde.bpf.classic import assemble, format_text, run
from sonde.errors import KernelError
from sonde.kernel.filters import attach_filter, detach_filter, restrict_calls


def test_random_filters_keep_what_the_kernel_keeps() -> None:
    """A datagram of a socket pair is cut to what the filter returns, and dropped at 0. Needs no privilege."""
    for seed in range(400):
        random = Random(seed)
        program = make_filter(random)
        sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with sender, receiver:
            receiver.setblocking(False)
            attach_filter(receiver, program)
            for _ in range(3):
                data = make_packet(random)
                sender.send(data)
                expected = data[: run(program, data)]
                try:
                    got = receiver.recv(100)
                except BlockingIOError:
                    got = b""
                assert got == expected, f"seed {seed}\n{format_text(program)}"
            detach_filter(receiver)
            sender.send(b"all")
            assert receiver.recv(100) == b"all"
            with pytest.raises(KernelError, match="detach the filter"):
                detach_filter(receiver)


def test_system_calls_are_refused() -> None:
    errno_ret = 0x00050000
    numbers = {"x86_64": (110, 0xC000003E), "aarch64": (173, 0xC00000B7)}  # getppid, architecture
    number, arch = numbers.get(os.uname().machine, (0, 0))
    if not number:
        pytest.skip(f"needs the system call numbers of {os.uname().machine}")
    program = assemble(
        f"ld [4]\njne #{arch}, allow\nld [0]\njeq #{number}, refuse, allow\nrefuse: ret #{errno_ret | 95}\nallow: ret #0x7fff0000"
    )
    child = os.fork()
    if not child:  # the filter stays for ever: only a child may have it
        try:
            import ctypes

            restrict_calls(program)
            libc = ctypes.CDLL(None, use_errno=True)
            result, errno = libc.syscall(number), ctypes.get_errno()
            os._exit(0 if (result, errno) == (-1, 95) and os.getpid() > 0 else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

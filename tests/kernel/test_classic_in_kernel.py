"""Classic filters against the kernel: random ones on a socket keep as many bytes as here; system calls are refused as the filter says."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from ctypes import CDLL, addressof, c_char, c_long, c_void_p
from random import Random
from struct import pack

import pytest
from classic_programs import make_filter, make_packet

from sonde.bpf.classic import Filter, assemble, check, check_seccomp, encode, format_text, run, to_ebpf
from sonde.bpf.classic.code import OPERATIONS
from sonde.bpf.isa import encode as encode_ebpf
from sonde.errors import FormatError, KernelError
from sonde.kernel.filters import attach_filter, detach_filter, restrict_calls

COUNT = int(os.environ.get("SONDE_FUZZ_PROGRAMS", "150"))


def test_random_filters_keep_what_the_kernel_keeps() -> None:
    """A datagram of a socket pair is cut to what the filter returns, and dropped at 0. Needs no privilege."""
    for seed in range(2 * COUNT):
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


def refused_here(check_filter: Callable[[Sequence[Filter]], None], program: list[Filter]) -> bool:
    try:
        check_filter(program)
    except FormatError:
        return True
    return False


def one_anywhere(random: Random) -> list[Filter]:
    """A filter with an instruction of any code and any operand in front."""
    code = random.choice(sorted(OPERATIONS)) if random.random() < 0.6 else random.randrange(1 << random.choice((8, 16)))
    k = random.choice(
        (
            0,
            1,
            15,
            16,
            31,
            32,
            60,
            63,
            64,
            4096,
            0x7FFFFFFF,
            0xFFEFFFFF,
            0xFFF00000,
            0xFFFFF03C,
            0xFFFFF000 + random.randrange(80),
            0xFFFFFFFF,
        )
    )
    first = Filter(code, random.choice((0, 1, 2, 3, 255)), random.choice((0, 1, 2, 3)), k)
    return [
        *([Filter(2, k=random.randrange(16))] if random.random() < 0.5 else []),
        first,
        Filter(6),
        Filter(6, k=0x7FFF0000),
    ]


def test_the_kernel_refuses_what_is_refused_here() -> None:
    """Any instruction, valid or not, on a socket: the same verdict, without a check of ours in between."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    taken = 0
    with sender, receiver:
        for seed in range(40 * COUNT):
            program = one_anywhere(Random(seed))
            memory = bytearray(encode(program))
            address = addressof(c_char.from_buffer(memory))
            try:
                receiver.setsockopt(1, 26, pack("=H6xQ", len(program), address))
                refused = False
                taken += 1
            except OSError as error:
                assert error.errno == 22
                refused = True
            assert refused_here(check, program) == refused, f"seed {seed}: {program}"
    assert 7 * COUNT < taken < 33 * COUNT


def test_seccomp_refuses_what_is_refused_here() -> None:
    """The same for filters of system calls, in children, which a filter may end."""
    libc = CDLL(None, use_errno=True)
    numbers = {"x86_64": 317, "aarch64": 277}
    seccomp = numbers.get(os.uname().machine)
    if seccomp is None:
        pytest.skip(f"needs the number of seccomp on {os.uname().machine}")
    taken = 0
    for start in range(0, 10 * COUNT, 50):
        programs = [one_anywhere(Random(seed)) for seed in range(start, start + 50)]
        # Each child tries one after the other; what was accepted stays, so it begins by letting everything pass.
        allowed = [
            [Filter(6, k=0x7FFF0000), *program[:-2], Filter(6, k=0x7FFF0000)] if not jumps(program) else program[-1:]
            for program in programs
        ]
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            libc.prctl(38, 1, 0, 0, 0)
            for program in allowed:
                memory = bytearray(encode(program))
                header = bytearray(pack("=H6xQ", len(program), addressof(c_char.from_buffer(memory))))
                result = libc.syscall(
                    c_long(seccomp), c_long(1), c_long(0), c_void_p(addressof(c_char.from_buffer(header)))
                )
                os.write(writing, b"y" if result == 0 else b"n")
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            verdicts = pipe.read()
        os.waitpid(child, 0)
        for seed, program, verdict in zip(range(start, start + 50), allowed, verdicts):
            assert refused_here(check_seccomp, program) == (verdict == ord("n")), f"seed {seed}: {program}"
            taken += verdict == ord("y")
        assert len(verdicts) == 50
    assert COUNT < taken < 9 * COUNT


def jumps(program: list[Filter]) -> bool:
    """Whether there is a jump, whose targets would be others with something in front or behind."""
    return any(insn.code & 7 == 5 for insn in program)


def kept(receiver: socket.socket, sender: socket.socket, size: int) -> int:
    """Send zeros; return how many bytes the filter kept."""
    sender.send(bytes(size))
    try:
        return len(receiver.recv(size + 1))
    except BlockingIOError:
        return 0


def test_ancillary_data_are_the_kernels() -> None:
    """What a filter on a socket of the loopback device sees: its numbers, brought down to a number of bytes."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        sender.connect(receiver.getsockname())
        cpu = max(os.sched_getaffinity(0))
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})
        try:
            facts = {
                "proto": 0x800, "type": 0, "ifidx": socket.if_nametoindex("lo"), "mark": 0, "queue": 0, "hatype": 772, "cpu": cpu,
                "vlan_tci": 0, "vlan_avail": 0,
            }  # fmt: skip
            full = {
                "proto": "protocol",
                "type": "pkttype",
                "ifidx": "ifindex",
                "vlan_tci": "vlan_tag",
                "vlan_avail": "vlan_tag_present",
            }
            for name, value in facts.items():
                program = assemble(f"ld #{name}\nsub #{value}\nadd #28\nret a")
                attach_filter(receiver, program)
                assert kept(receiver, sender, 100) == 20, name  # 28 with the header of UDP
                assert run(program, bytes(100), data={full.get(name, name): value}) == 28
            attach_filter(receiver, assemble("ldx #5\nld #12\nld #xor_x\nadd #19\nret a"))
            assert kept(receiver, sender, 100) == (5 ^ 12) + 19 - 8
            random = assemble("ld #rand\nand #63\nadd #8\nret a")
            attach_filter(receiver, random)
            assert len({kept(receiver, sender, 100) for _ in range(40)}) > 5
        finally:
            os.sched_setaffinity(0, before)


def test_netlink_attributes_are_found_as_the_kernel_finds_them() -> None:
    random, sizes = Random(7), set()
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setblocking(False)
        for _ in range(400):
            data = attributes(random, 3)
            data = data[: random.randrange(4, len(data) + 1)] if random.random() < 0.3 else data
            name = random.choice(("nla", "nlan"))
            program = assemble(
                f"ldx #{random.randrange(1, 5)}\nld #{random.choice((0, 0, 4, 8, len(data)))}\nld #{name}\nadd #1\nret a"
            )
            attach_filter(receiver, program)
            sender.send(data)
            try:
                got = len(receiver.recv(1000))
            except BlockingIOError:
                got = 0
            assert got == min(run(program, data), len(data)), (data.hex(), format_text(program))
            sizes.add(got)
    assert len(sizes) > 5


def attributes(random: Random, depth: int) -> bytes:
    """Netlink attributes, some with others inside."""
    found = b""
    for _ in range(random.randrange(1, 5)):
        inside = (
            attributes(random, depth - 1) if depth and random.random() < 0.4 else random.randbytes(random.randrange(9))
        )
        kind = random.randrange(1, 5) | random.choice((0, 0, 0x8000))
        found += pack("=HH", 4 + len(inside), kind) + inside + bytes(-len(inside) % 4)
    return found


@pytest.mark.kernel
def test_translated_filters_keep_what_the_classic_ones_keep() -> None:
    """The translation, loaded as a program of type socket_filter and attached in place of the classic filter."""
    from sonde.kernel.engine import KernelEngine
    from sonde.spec.object import ObjectSpec, ProgramSpec

    for seed in range(60):
        random = Random(seed)
        program = make_filter(random)
        spec = ProgramSpec("translated", "socket_filter", encode_ebpf(to_ebpf(program)))
        sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with sender, receiver, KernelEngine().load(ObjectSpec((spec,), ())) as loaded:
            receiver.setblocking(False)
            receiver.setsockopt(1, 50, loaded.programs["translated"].fd_as())  # SO_ATTACH_BPF
            for _ in range(3):
                data = make_packet(random)
                sender.send(data)
                try:
                    got = receiver.recv(100)
                except BlockingIOError:
                    got = b""
                assert got == data[: run(program, data)], f"seed {seed}\n{format_text(program)}"

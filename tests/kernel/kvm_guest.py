"""A KVM guest of a few bytes that makes hypercalls: real mode, one virtual CPU, one page; run by ctypes and ioctl alone.

Source: Documentation/virt/kvm/api.rst, struct kvm_regs and struct kvm_sregs of arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import sys

KVM_CREATE_VM, KVM_GET_VCPU_MMAP_SIZE, KVM_CREATE_VCPU, KVM_RUN = 0xAE01, 0xAE04, 0xAE41, 0xAE80
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_GET_SREGS, KVM_SET_SREGS, KVM_SET_REGS = 0x8138AE83, 0x4138AE84, 0x4090AE82
EXIT_HLT = 5
CODE_ADDR = 0x1000


def code(calls: list[tuple[int, int]]) -> bytes:
    """Return the guest's program: a hypercall for each (number, first argument), then hlt."""
    program = b""
    for number, argument in calls:
        program += b"\x66\xb8" + struct.pack("<I", number)  # mov eax, number
        program += b"\x66\xbb" + struct.pack("<I", argument)  # mov ebx, argument
        program += b"\x0f\x01\xd9"  # vmmcall
    return program + b"\xf4"


def run(calls: list[tuple[int, int]]) -> int:
    """Run a guest that makes these hypercalls; return the reason for which it came back (5: hlt)."""
    return run_code(code(calls))


def run_code(program: bytes) -> int:
    """Run a guest of 16-bit code; return the reason for which it came back (5: hlt)."""
    kvm = os.open("/dev/kvm", os.O_RDWR)
    vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory[: len(program)] = program
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, CODE_ADDR, len(memory), address))
    cpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
    state = mmap.mmap(cpu, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
    special = bytearray(312)
    fcntl.ioctl(cpu, KVM_GET_SREGS, special)
    struct.pack_into("<Q", special, 0, 0)  # cs.base
    struct.pack_into("<H", special, 12, 0)  # cs.selector
    fcntl.ioctl(cpu, KVM_SET_SREGS, bytes(special))
    registers = [0] * 18
    registers[16], registers[17] = CODE_ADDR, 2  # rip, rflags
    fcntl.ioctl(cpu, KVM_SET_REGS, struct.pack("<18Q", *registers))
    fcntl.ioctl(cpu, KVM_RUN, 0)
    return int(struct.unpack_from("<I", state, 8)[0])


if __name__ == "__main__":
    pairs = [word.split(":") for word in sys.argv[1:]]
    reason = run([(int(number), int(argument, 0)) for number, argument in pairs])
    sys.exit(0 if reason == EXIT_HLT else f"the guest came back for reason {reason}")

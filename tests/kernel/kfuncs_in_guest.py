"""Kernel functions of a module, called from a program: runs in guests. Arguments: files of modules, in the order to load them.

An XDP program asks the connection tracker for a connection that does not exist.
"""

from __future__ import annotations

import ctypes
import lzma
import os
import sys

from sonde.bpf.asm import assemble
from sonde.bpf.isa import encode
from sonde.errors import FeatureError
from sonde.kernel import abi, syscall
from sonde.kernel.engine import KernelEngine
from sonde.kernel.syscall import address
from sonde.spec.object import ObjectSpec, ProgramSpec, Reloc

SYS_INIT_MODULE = 175
PROGRAM = """
*(u64 *)(r10 -16) = 0
*(u64 *)(r10 -8) = 0
*(u64 *)(r10 -32) = -1
*(u64 *)(r10 -24) = 6
*(u32 *)(r10 -28) = 0
r2 = r10
r2 += -16
r3 = 12
r4 = r10
r4 += -32
r5 = 12
call kfunc#0
if r0 != 0 goto found
r0 = *(u32 *)(r10 -28)
w0 = -w0
exit
found:
r1 = r0
call kfunc#0
r0 = 0
exit
"""


def insert_module(path: str) -> None:
    """Load a module, which may be compressed; one that is there already is as good."""
    with open(path, "rb") as file:
        image = file.read()
    if path.endswith(".xz"):
        image = lzma.decompress(image)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SYS_INIT_MODULE, image, ctypes.c_ulong(len(image)), b"") and ctypes.get_errno() != 17:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def main() -> int:
    insns = assemble(PROGRAM)
    pcs = [pc for pc, insn in enumerate(insns) if insn.opcode == 0x85]
    relocs = tuple(Reloc(pc, "kfunc", name) for pc, name in zip(pcs, ("bpf_xdp_ct_lookup", "bpf_ct_release")))
    spec = ObjectSpec((ProgramSpec("ct", "xdp", encode(insns), relocs, attach_type="xdp"),))
    try:
        KernelEngine().load(spec).close()
        print("a function of a module that is not loaded was found")
        return 1
    except FeatureError as error:
        print(error.render())
    for path in sys.argv[1:]:
        insert_module(path)
    with KernelEngine().load(spec) as loaded:
        packet = bytearray(64)
        fd = loaded.programs["ct"].fd_as()
        attr = bytearray(abi.PROG_TEST_RUN.pack(fd, 0, len(packet), 0, address(packet), 0, 1, 0, 0, 0, 0, 0, 0, 0, 0))
        result = syscall.bpf(abi.BPF_PROG_TEST_RUN, attr)
        code = int.from_bytes(attr[abi.TEST_RUN_RETVAL_OFFSET : abi.TEST_RUN_RETVAL_OFFSET + 4], "little")
        print(f"result {result}, program {code}")
        return int(result != 0 or code != 2)  # ENOENT


if __name__ == "__main__":
    sys.exit(main())

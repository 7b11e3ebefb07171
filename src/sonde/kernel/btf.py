"""BTF objects in the kernel: the kernel's own, those of its modules, and those that are loaded with programs."""

from __future__ import annotations

import os
from struct import pack

from ..errors import FeatureError, ProbeError, SondeError
from . import abi, syscall
from .descriptor import bpf_new, close_fd
from .refusal import refusal
from .syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..debuginfo.btf import Btf

VMLINUX_PATH = "/sys/kernel/btf/vmlinux"
_kernel_btf: Btf | None = None
_kernel_id = ""
_NOTES_PATH = "/sys/kernel/notes"
_GNU_BUILD_ID = b"\3\0\0\0GNU\0"  # type and name of the note
_NOTES_BYTES = 1 << 16
_INFO_BYTES = 32  # struct bpf_btf_info: btf, btf_size, id, name, name_len, kernel_btf


def kernel_btf() -> Btf:
    """Return the BTF of the running kernel; opened once in a process. Raises FeatureError where there is none."""
    global _kernel_btf
    if _kernel_btf is None:
        from ..debuginfo.btf import Btf

        _kernel_btf = Btf.open()
    return _kernel_btf


def kernel_id() -> str:
    """Return what tells this build of the kernel, and so its types, from any other. Costs two system calls and a short read, once.

    Release, version, size of the BTF, and the build ID where the kernel has one.
    """
    global _kernel_id
    if not _kernel_id:
        machine = os.uname()
        try:
            size_bytes = os.stat(VMLINUX_PATH).st_size
        except OSError:
            size_bytes = 0
        _kernel_id = f"{machine.release} {machine.version} {size_bytes} {_build_id()}"
    return _kernel_id


def _build_id() -> str:
    try:
        with open(_NOTES_PATH, "rb", buffering=0) as file:
            notes = file.read(_NOTES_BYTES)
    except OSError:
        return ""
    at = notes.find(_GNU_BUILD_ID)
    size = int.from_bytes(notes[at - 4 : at], "little") if at >= 4 else 0
    return notes[at + 8 : at + 8 + size].hex() if at >= 0 else ""


def iter_module_btf() -> Iterator[Btf]:
    """Open the BTF of each kernel module in turn; one that is corrupt, or gone again, is left out."""
    from ..debuginfo.btf import Btf

    folder = os.path.dirname(VMLINUX_PATH)
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if name != os.path.basename(VMLINUX_PATH):
            try:
                yield Btf.open(os.path.join(folder, name), base=kernel_btf())
            except SondeError:
                continue


def module_btf(module: str) -> Btf:
    """Return the BTF of a kernel module. Raises FeatureError where it has none."""
    from ..debuginfo.btf import Btf

    return Btf.open(f"/sys/kernel/btf/{module}", base=kernel_btf())


def is_kernel(module: str) -> bool:
    """Tell whether `module` names the kernel itself."""
    return module in ("", "vmlinux", "kernel")


def attach_target(kind: str, name: str, module: str = "") -> tuple[int, int]:
    """Find what a tracing program of attach type `kind` is verified against.

    `module` is the kernel ("" or "vmlinux"), a module of it, or "bpf:ID" for a function of a BPF program. Returns (BTF id,
    descriptor of the module's BTF object or of the BPF program, or 0); the caller closes the descriptor. Raises ProbeError
    when the BTF does not have it, FeatureError without BTF.
    """
    if module.startswith("bpf:"):
        return _bpf_target(int(module[4:]), name)
    prefix = {"trace_iter": "bpf_iter_", "trace_raw_tp": "btf_trace_", "lsm_mac": "bpf_lsm_"}.get(kind, "")
    full = name if name.startswith(prefix) else prefix + name
    types = kernel_btf() if is_kernel(module) else module_btf(module)
    ident = types.get_type_id(full, "typedef") if kind == "trace_raw_tp" else types.get_func_id(full)
    if not ident:
        where = "the kernel" if is_kernel(module) else f"module {module}"
        raise ProbeError(f"the BTF of {where} has no {_words(kind)} {name}", hint=_where_to_look(kind))
    return ident, 0 if is_kernel(module) else open_module_btf(module)


def _bpf_target(ident: int, name: str) -> tuple[int, int]:
    from .bpfprograms import describe_program, open_program

    program = describe_program(ident)
    if program is None or name not in program.functions:
        raise ProbeError(
            f"BPF program {ident} has no function {name}", hint="sonde list 'fentry:bpf:*' shows what there is"
        )
    return program.btf.get_func_id(name), open_program(ident)


def _words(kind: str) -> str:
    return {"trace_iter": "iterator", "trace_raw_tp": "raw tracepoint", "lsm_mac": "LSM hook"}.get(kind, "function")


def _where_to_look(kind: str) -> str:
    if kind == "lsm_mac":
        return "the hooks are the members of struct security_hook_heads"
    listed = {"trace_iter": "iter", "trace_raw_tp": "rawtracepoint"}.get(kind)
    return f"sonde list '{listed or 'fentry'}:*' shows what there is" + (
        "" if listed else "; a function that is inlined is not"
    )


def load_btf(blob: bytes) -> int:
    """Load a BTF blob and return its descriptor. Raises KernelError, with the kernel's complaint as hint."""

    def pack_plain() -> bytearray:
        return bytearray(abi.BTF_LOAD.pack(address(blob), 0, len(blob), 0, 0))

    fd = bpf_new(abi.BPF_BTF_LOAD, pack_plain)
    if fd >= 0:
        return fd
    log = bytearray(1 << 16)
    result = syscall.bpf(
        abi.BPF_BTF_LOAD, bytearray(abi.BTF_LOAD.pack(address(blob), address(log), len(blob), len(log), 1))
    )
    if result >= 0:
        return result
    lines = log.rstrip(b"\0").decode(errors="replace").splitlines()
    raise refusal("load the BTF of a program", -fd, hint=lines[-1] if lines else "")


def open_module_btf(module: str) -> int:
    """Return a descriptor of the BTF object of a kernel module. Raises FeatureError when it has none."""
    ident = 0
    while True:
        attr = bytearray(abi.GET_ID.pack(ident, 0, 0))
        if syscall.bpf(abi.BPF_BTF_GET_NEXT_ID, attr) < 0:
            raise FeatureError(f"the kernel has no BTF of module {module}", feature="btf", hint=f"modprobe {module}")
        ident = int.from_bytes(attr[4:8], "little")
        fd = syscall.bpf(abi.BPF_BTF_GET_FD_BY_ID, bytearray(abi.GET_ID.pack(ident, 0, 0)))
        if fd < 0:
            continue  # it went away in between
        if _btf_name(fd) == module:
            return fd
        close_fd(fd)


def _btf_name(fd: int) -> str:
    name = bytearray(64)
    info = bytearray(pack("=QIIQII", 0, 0, 0, address(name), len(name), 0))
    attr = bytearray(abi.OBJ_INFO.pack(fd, _INFO_BYTES, address(info)))
    if syscall.bpf(abi.BPF_OBJ_GET_INFO_BY_FD, attr) < 0:
        return ""
    return name.split(b"\0", 1)[0].decode(errors="replace")

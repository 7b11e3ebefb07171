"""BPF programs that are loaded: their ids, the functions in them, and their BTF, which is what fentry can attach to.

Formats: struct bpf_prog_info, struct bpf_btf_info and struct bpf_func_info of include/uapi/linux/bpf.h.
"""

from __future__ import annotations

from ..errors import ProbeError
from ..spec.target import BpfProgram
from . import abi, syscall
from .descriptor import close_fd
from .syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..debuginfo.btf import Btf

_INFO_BYTES = 152  # of struct bpf_prog_info: up to nr_line_info
_NAME, _BTF_ID, _FUNC_INFO_BYTES, _FUNC_INFO, _FUNC_COUNT = 64, 128, 132, 136, 144  # offsets in it
_BTF_INFO_BYTES = 16  # of struct bpf_btf_info: btf, btf_size, id
_BTF_BYTES = 1 << 24  # more than this is no BTF


def loaded_programs() -> list[BpfProgram]:
    """Return the loaded programs that have BTF, by id. Needs CAP_SYS_ADMIN or CAP_BPF; without it the list is empty."""
    return [program for ident in _iter_ids() if (program := describe_program(ident)) is not None]


def _iter_ids() -> Iterator[int]:
    ident = 0
    while True:
        attr = bytearray(abi.GET_ID.pack(ident, 0, 0))
        if syscall.bpf(abi.BPF_PROG_GET_NEXT_ID, attr) < 0:
            return
        ident = int.from_bytes(attr[4:8], "little")
        yield ident


def open_program(ident: int) -> int:
    """Return a descriptor of the loaded program with this id. Raises ProbeError when there is none."""
    fd = syscall.bpf(abi.BPF_PROG_GET_FD_BY_ID, bytearray(abi.GET_ID.pack(ident, 0, 0)))
    if fd < 0:
        raise ProbeError(f"there is no BPF program with the id {ident}", hint="sonde list 'fentry:bpf:*' shows them")
    return fd


def describe_program(ident: int) -> BpfProgram | None:
    """Return what is to be known of a program; None without BTF, or when it has gone away."""
    try:
        fd = open_program(ident)
    except ProbeError:
        return None
    try:
        info = _read_info(fd)
        size, count = _word(info, _FUNC_INFO_BYTES), _word(info, _FUNC_COUNT)
        btf = _open_btf(_word(info, _BTF_ID)) if count else None
        if btf is None or size < 8:
            return None
        functions = bytearray(size * count)
        info = _read_info(fd, functions, size, count)
        count = min(count, _word(info, _FUNC_COUNT))
    finally:
        close_fd(fd)
    idents = [_word(functions, at * size + 4) for at in range(count)]
    names = tuple(btf.get_name(each) for each in idents)
    kind = abi.PROGRAM_TYPES[_word(info, 0)] if _word(info, 0) < len(abi.PROGRAM_TYPES) else ""
    return BpfProgram(ident, info[_NAME : _NAME + 16].split(b"\0", 1)[0].decode(errors="replace"), kind, names, btf)


def _read_info(fd: int, functions: bytearray | None = None, size: int = 0, count: int = 0) -> bytearray:
    info = bytearray(_INFO_BYTES)
    if functions:
        info[_FUNC_INFO_BYTES : _FUNC_INFO_BYTES + 4] = size.to_bytes(4, "little")
        info[_FUNC_INFO : _FUNC_INFO + 8] = address(functions).to_bytes(8, "little")
        info[_FUNC_COUNT : _FUNC_COUNT + 4] = count.to_bytes(4, "little")
    attr = bytearray(abi.OBJ_INFO.pack(fd, len(info), address(info)))
    if syscall.bpf(abi.BPF_OBJ_GET_INFO_BY_FD, attr) < 0:
        return bytearray(_INFO_BYTES)
    return info


def _open_btf(ident: int) -> Btf | None:
    """Read a BTF object of the kernel's; None when it has none of this id."""
    from ..debuginfo.btf import Btf

    fd = syscall.bpf(abi.BPF_BTF_GET_FD_BY_ID, bytearray(abi.GET_ID.pack(ident, 0, 0))) if ident else -1
    if fd < 0:
        return None
    try:
        size = _word(_read_btf_info(fd, bytearray()), 8)
        if not 0 < size <= _BTF_BYTES:
            return None
        data = bytearray(size)
        _read_btf_info(fd, data)
        return Btf.from_bytes(bytes(data))
    finally:
        close_fd(fd)


def _read_btf_info(fd: int, data: bytearray) -> bytearray:
    info = bytearray(_BTF_INFO_BYTES)
    if data:
        info[0:8] = address(data).to_bytes(8, "little")
        info[8:12] = len(data).to_bytes(4, "little")
    attr = bytearray(abi.OBJ_INFO.pack(fd, len(info), address(info)))
    if syscall.bpf(abi.BPF_OBJ_GET_INFO_BY_FD, attr) < 0:
        return bytearray(_BTF_INFO_BYTES)
    return info


def _word(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")

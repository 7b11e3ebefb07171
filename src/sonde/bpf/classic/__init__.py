"""Classic BPF: the filter machine of packet sockets and seccomp. Text both ways, checks, an interpreter, and the translation to eBPF.

program = assemble("ldh [12]\njeq #0x800, ip, drop\nip: ret #-1\ndrop: ret #0")
check(program);  run(program, packet);  to_ebpf(program)
"""

from __future__ import annotations

_EXPORTS = {
    "Filter": "code", "decode": "code", "encode": "code", "format_c": "code", "format_numbers": "code", "format_text": "code",
    "assemble": "asm", "check": "rules", "check_seccomp": "rules", "run": "interp", "run_seccomp": "interp", "to_ebpf": "translate",
}  # fmt: skip
__all__ = [*_EXPORTS]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .asm import assemble as assemble
    from .code import Filter as Filter
    from .code import decode as decode
    from .code import encode as encode
    from .code import format_c as format_c
    from .code import format_numbers as format_numbers
    from .code import format_text as format_text
    from .interp import run as run
    from .interp import run_seccomp as run_seccomp
    from .rules import check as check
    from .rules import check_seccomp as check_seccomp
    from .translate import to_ebpf as to_ebpf


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)

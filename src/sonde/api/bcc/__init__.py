"""The `bcc` API: what `from bcc import …` finds when the shim directory is on the path. Names are imported on first use."""

from __future__ import annotations

import os

_EXPORTS = {
    "BPF": "bpf",
    "USDT": "usdt",
    "USDTException": "usdt",
    "SymbolCache": "symbols",
    "Perf": "perf",
    "ArgString": "utils",
    "StrcmpRewrite": "utils",
    "printb": "utils",
    "get_online_cpus": "utils",
    "get_possible_cpus": "utils",
    "detect_language": "utils",
    "_assert_is_bytes": "utils",
    "Table": "tables",
    "PerfEventArray": "tables.buffers",
    "RingBuf": "tables.buffers",
    "BPFProgType": "enums",
    "BPFAttachType": "enums",
    "PerfType": "enums",
    "PerfHWConfig": "enums",
    "PerfSWConfig": "enums",
    "PerfEventSampleFormat": "enums",
    "XDPAction": "enums",
    "XDPFlags": "enums",
    "DEBUG_LLVM_IR": "enums",
    "DEBUG_BPF": "enums",
    "DEBUG_PREPROCESSOR": "enums",
    "DEBUG_SOURCE": "enums",
    "DEBUG_BPF_REGISTER_STATE": "enums",
    "DEBUG_BTF": "enums",
    "disassemble_prog": "disassembler",
    "decode_map": "disassembler",
}
# The names that a script sees through the shim; `from bcc import *` brings these.
__all__ = [name for name in _EXPORTS if not name.startswith("_")]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def shim_path() -> str:
    """Return the directory to be put on PYTHONPATH, so that `import bcc` finds this."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim")

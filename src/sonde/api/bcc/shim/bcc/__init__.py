"""`import bcc` for scripts that were written for BCC, once this file's parent directory is on the path. All of it is `sonde.api.bcc`."""

import sys

if "sonde" not in sys.modules:  # the sonde that this file is part of, wherever it lies, and nothing else from there
    sys.path.insert(0, __file__.rsplit("/sonde/api/", 1)[0])
    try:
        import sonde  # noqa: F401
    finally:
        del sys.path[0]

from sonde.api import bcc as _api
from sonde.api.bcc.version import __version__ as __version__

__all__ = _api.__all__


_MODULES = ("disassembler", "libbcc", "perf", "table", "usdt", "utils")  # which `import bcc` makes known, too


def __getattr__(name: str) -> object:
    if name in _MODULES:
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    return getattr(_api, name)

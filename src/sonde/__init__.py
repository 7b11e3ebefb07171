"""sonde: dynamic tracing for Linux, in Python.

The public names below are imported on first use, so that `import sonde` costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

_EXPORTS = {
    "compile": "api.trace",
    "trace": "api.trace",
    "explain": "api.trace",
    "format_script": "api.trace",
    "live_target": "api.trace",
    "TraceOptions": "api.trace",
    "list_probes": "api.listing",
    "iter_features": "api.features",
    "verify": "api.verify",
    "build": "api.build",
    "read_object": "api.objects",
    "load_object": "api.objects",
    "SondeError": "errors",
    "CompileError": "errors",
}

__all__ = [*_EXPORTS]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .api.build import build as build
    from .api.features import iter_features as iter_features
    from .api.listing import list_probes as list_probes
    from .api.objects import load_object as load_object
    from .api.objects import read_object as read_object
    from .api.trace import TraceOptions as TraceOptions
    from .api.trace import compile as compile
    from .api.trace import explain as explain
    from .api.trace import format_script as format_script
    from .api.trace import live_target as live_target
    from .api.trace import trace as trace
    from .api.verify import verify as verify
    from .errors import CompileError as CompileError
    from .errors import SondeError as SondeError


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'sonde' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value

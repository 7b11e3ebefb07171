"""C++ names as people write them, through the C++ runtime library of this machine where it has one.

A traced C++ program brings libstdc++ or libc++abi with it, so the function that the ABI requires (__cxa_demangle) is
nearly always at hand. Without it names stay as they are.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LIBRARIES = ("libstdc++.so.6", "libc++abi.so.1")
_cached: list[Callable[[str], str]] = []


def demangle(name: str) -> str:
    """Return the readable form of a mangled C++ name ("ns::f(int)"), or `name` itself."""
    if not name.startswith("_Z"):
        return name
    if not _cached:
        _cached.append(_load())
    return _cached[0](name)


def have_demangler() -> bool:
    """Tell whether this machine has a library that demangles."""
    return demangle("_Z1fv") == "f()"


def _load() -> Callable[[str], str]:
    import ctypes

    for library in _LIBRARIES:
        try:
            return _bind(ctypes.CDLL(library).__cxa_demangle, ctypes.CDLL(None).free)
        except (OSError, AttributeError):
            continue
    return lambda name: name


def _bind(function: Any, free: Any) -> Callable[[str], str]:
    import ctypes

    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    free.restype = None
    free.argtypes = [ctypes.c_void_p]

    def call(name: str) -> str:
        result = function(name.encode("utf-8", "surrogateescape"), None, None, None)
        if not result:
            return name
        text = ctypes.string_at(result).decode("utf-8", "replace")
        free(result)
        return text

    return call

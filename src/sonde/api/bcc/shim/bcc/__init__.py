"""`import bcc` for scripts that were written for BCC, once this file's parent directory is on the path. All of it is `sonde.api.bcc`."""

import sys

try:
    from sonde.api import bcc as _api
except ImportError:  # sonde runs from a checkout or another environment: take it from where this file lies
    sys.path.append(__file__.rsplit("/sonde/api/", 1)[0])
    from sonde.api import bcc as _api

from sonde.api.bcc.version import __version__ as __version__

__all__ = _api.__all__


def __getattr__(name: str) -> object:
    return getattr(_api, name)

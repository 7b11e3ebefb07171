"""`python -m sonde`."""

from __future__ import annotations

from .cli import start

start()

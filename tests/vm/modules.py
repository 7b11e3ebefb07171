"""Loads modules of a guest's own kernel into it, with what they depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .initramfs import module_closure

if TYPE_CHECKING:
    from .guest import Guest

LOAD = """
for path in "$@"; do
  name=$(basename "$path" | sed 's/[.]ko.*//' | tr - _)
  if [ -d "/sys/module/$name" ]; then continue; fi
  case $path in *.xz) xz -dc "$path";; *.zst) zstd -dc "$path";; *) cat "$path";; esac > /tmp/module.ko
  busybox insmod /tmp/module.ko || exit 1
done
"""


def load_modules(guest: Guest, *names: str) -> None:
    """Load these modules where they are neither built in nor loaded. Raises AssertionError with what the guest said."""
    paths = [str(path) for path in module_closure(guest.kernel, names)]
    done = guest.run(["sh", "-c", LOAD, "load", *paths])
    assert done.status == 0, f"loading {', '.join(names)}: {done.out}{done.err}\n{guest.console()}"

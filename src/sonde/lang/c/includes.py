"""`#include`: the name of a header to a virtual header or the text of a file; and the options that name both.

Virtual headers go first: no file of the kernel's, libc's or libbpf's is ever needed. Then come the directory of the file that asks
(for `"own.h"`) and the directories of `-I`.
"""

from __future__ import annotations

from ...record import Record
from ..source import Source
from .headers import find_header, is_system_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .headers import Header

MAX_BYTES = 32 << 20


class Flags(Record):
    """What the options of a C compiler say to the preprocessor. `changes` are lines of `#define` and `#undef`, in order."""

    changes: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()


def parse_flags(flags: Sequence[str]) -> Flags:
    """Read -D -U -I -isystem -iquote -include, with the value in the same word or in the next; others say nothing to the preprocessor."""
    found: dict[str, list[str]] = {"-D": [], "-I": [], "-include": []}
    words = iter(flags)
    for word in words:
        option = next((o for o in _OPTIONS if word.startswith(o)), "")
        if not option:
            continue
        value = word[len(option) :] or next(words, "")
        if option == "-D":
            name, equals, body = value.partition("=")
            value = f"#define {name} {body if equals else 1}"
        elif option == "-U":
            value = f"#undef {value}"
        found[_OPTIONS[option]].append(value)
    return Flags(*(tuple(found[o]) for o in ("-D", "-I", "-include")))


_OPTIONS = {
    "-include": "-include",
    "-isystem": "-I",
    "-iquote": "-I",
    "-D": "-D",
    "-U": "-D",
    "-I": "-I",
}


class Includes:
    """Finds headers. `directories` are those of -I."""

    def __init__(self, directories: Sequence[str]) -> None:
        self.directories = directories
        self._texts: dict[str, Source] = {}

    def find(self, name: str, directory: str | None) -> Header | str | None:
        """Return the virtual header or the path that a name stands for. `directory` is the asking file's for `"own.h"`, else None."""
        header = find_header(name)
        if header is not None:
            return header
        if directory is not None:
            path = _join(directory, name)
            if _is_file(path):
                return path
        system = is_system_header(name)
        for candidate in self.directories:
            path = _join(candidate, name)
            if _is_file(path) and not (system is not None and _is_kernel_tree(candidate)):
                return path
        return system

    def read(self, path: str) -> Source:
        """Return the text of a file. Raises OSError, and ValueError where it is too large for a program's text."""
        source = self._texts.get(path)
        if source is None:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ValueError(f"the file has more than {MAX_BYTES >> 20} MiB")
            text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
            source = self._texts[path] = Source(path, text)
        return source


def _join(directory: str, name: str) -> str:
    return (
        name if name.startswith("/") or not directory else f"{directory.rstrip('/') or '/'}/{name}".replace("//", "/")
    )


def _is_file(path: str) -> bool:
    """Tell whether there is a regular file: opening a pipe or a device might never end."""
    import os
    import stat

    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _is_kernel_tree(directory: str) -> bool:
    """Tell whether a directory holds the kernel's own headers, which the virtual ones stand for."""
    return any(_is_file(_join(directory, f"{folder}linux/types.h")) for folder in ("", "uapi/"))

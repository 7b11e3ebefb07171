"""BCC's `utils`: bytes to standard output, arguments as bytes, STRCMP() in the expressions of trace and argdist, CPUs, languages."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FILESYSTEMENCODING = sys.getfilesystemencoding()


def to_bytes(text: Any) -> Any:
    """Return a str as bytes in the file system's encoding; bytes and None as they are."""
    if text is None or isinstance(text, bytes):
        return text
    return bytes(text) if isinstance(text, (bytearray, ArgString)) else os.fsencode(text)


def to_str(text: Any) -> str:
    """Return bytes as str in the file system's encoding; "" for None."""
    return os.fsdecode(to_bytes(text)) if text else ""


_assert_is_bytes = to_bytes  # the name that scripts may know


def printb(s: bytes, file: Any = None, nl: int = 1) -> None:
    """Write bytes to `file` (standard output) as they are, a newline after them unless `nl` is 0, and flush."""
    file = sys.stdout if file is None else file
    raw = getattr(file, "buffer", file)
    raw.write(s + b"\n" if nl else s)
    file.flush()


class ArgString:
    """A command line argument, as str or as the bytes that it was: `bytes(arg)` compares with what the kernel says."""

    def __init__(self, arg: str) -> None:
        self.s = arg

    def __bytes__(self) -> bytes:
        return self.s.encode(FILESYSTEMENCODING, "surrogateescape")

    def __str__(self) -> str:
        return self.s


def get_online_cpus() -> list[int]:
    """Return the numbers of the CPUs that are online."""
    from ...kernel.cpus import online_cpus

    return online_cpus()


def get_possible_cpus() -> list[int]:
    """Return the numbers of the CPUs that there may ever be."""
    from ...kernel.cpus import parse_cpu_list

    with open("/sys/devices/system/cpu/possible") as file:
        return parse_cpu_list(file.read())


# What a process that runs the interpreter or virtual machine of a language has in the name of its program or maps.
_LANGUAGES = ("java", "node", "perl", "php", "python", "ruby", "tcl")


def detect_language(candidates: Sequence[str], pid: int) -> str | None:
    """Return the language that process `pid` interprets, if it is one of `candidates`; None for another, or none."""
    found = _language_of(pid)
    return found if found in candidates else None


def _language_of(pid: int) -> str:
    program = _read(f"/proc/{pid}/comm").strip()
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        pass
    for language in _LANGUAGES:
        if language in program:
            return language
    libraries = _read(f"/proc/{pid}/maps")
    for language in _LANGUAGES:
        if f"/lib{language}" in libraries:
            return language
    return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


_STREQ = """
static inline bool {name}(char const *ignored, uintptr_t str) {{
        char needle[] = {string};
        char haystack[sizeof(needle)];
        {read}(&haystack, sizeof(haystack), (void *)str);
        for (int i = 0; i < sizeof(needle) - 1; ++i) {{
                if (needle[i] != haystack[i]) {{
                        return false;
                }}
        }}
        return true;
}}
        """


class StrcmpRewrite:
    """STRCMP("text", expression) in the expressions of trace.py and argdist.py, as a function of C."""

    @staticmethod
    def rewrite_expr(
        expr: str, bin_cmp: bool, is_user: bool, probe_user_list: Any, streq_functions: str, probeid: int
    ) -> dict[str, Any]:
        """Replace each STRCMP in `expr` by a function of its own, whose text is added to `streq_functions`.

        Returns "expr", "streq_functions" and the next "probeid". `bin_cmp` takes the text without its quotes: it is an array of numbers
        then. What is compared lies in user memory if `is_user`, or if it stands in `probe_user_list`.
        """
        import re

        pattern = r'STRCMP\("([^"]+)",(.+?)\)' if bin_cmp else r'STRCMP\(("[^"]+"),(.+?)\)'
        for match in list(re.finditer(pattern, expr)):
            user = is_user or match.group(2).strip() in probe_user_list
            name = f"streq_{probeid}"
            read = "bpf_probe_read_user" if user else "bpf_probe_read"
            streq_functions += _STREQ.format(name=name, string=match.group(1), read=read)
            probeid += 1
            expr = expr.replace("STRCMP", name, 1)
        return {"expr": expr, "streq_functions": streq_functions, "probeid": probeid}

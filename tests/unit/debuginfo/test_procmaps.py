"""/proc/PID/maps: every form of line, and garbage."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.debuginfo.procmaps import Mapping, find_mapping, parse_maps, read_maps
from sonde.errors import FormatError, TargetError

TEXT = """\
55d0c0a00000-55d0c0a01000 r--p 00000000 fe:00 26723                      /usr/bin/my program
55d0c0a01000-55d0c0a02000 r-xp 00001000 fe:00 26723                      /usr/bin/my program
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 r-xp 00002000 fe:00 99                         /tmp/x.so (deleted)
7f0000001000-7f0000002000 rw-p 00000000 00:00 0 
7f0000003000-7f0000004000 r--s 00000000 00:05 7                          /dev/shm/a\\012b
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""  # noqa: W291


def test_every_form_of_line() -> None:
    maps = parse_maps(TEXT)
    assert [m.path for m in maps] == [
        "/usr/bin/my program", "/usr/bin/my program", "[heap]", "/tmp/x.so", "", "/dev/shm/a\nb", "[vdso]", "[vsyscall]"]  # fmt: skip
    assert maps[1] == Mapping(0x55D0C0A01000, 0x55D0C0A02000, "r-xp", 0x1000, "fe:00", 26723, "/usr/bin/my program")
    assert [m.executable for m in maps] == [False, True, False, True, False, False, True, True]
    assert [m.deleted for m in maps].index(True) == 3
    assert [m.is_file for m in maps] == [True, True, False, True, False, True, False, False]


@pytest.mark.parametrize(
    ("address", "path"),
    [(0x55D0C0A00000, "/usr/bin/my program"), (0x55D0C0A01FFF, "/usr/bin/my program"), (0x7F0000000010, "/tmp/x.so"),
     (0x7FFD00000000, "[vdso]"), (0, None), (0x55D0C0A02000, None), (1 << 64, None)],
)  # fmt: skip
def test_finding_an_address(address: int, path: str | None) -> None:
    found = find_mapping(parse_maps(TEXT), address)
    assert (found and found.path) == path


def test_own_maps() -> None:
    assert any(m.path == "[vdso]" for m in read_maps(os.getpid()))


def test_a_process_that_is_gone() -> None:
    with pytest.raises(TargetError, match="no process"):
        read_maps(2**22 + 1)


@pytest.mark.parametrize(
    "line",
    ["x", "1-2", "zz-11 r-xp 0 0:0 0", "1-2 rx 0 0:0 0", "2-1 r-xp 0 0:0 0", "1-2 r-xp 0 00 0", "1-2 r-xp -5 0:0 0",
     "1-2 r-xp 0 0:0 x", "-1-2 r-xp 0 0:0 0"],
)  # fmt: skip
def test_garbage_is_a_format_error(line: str) -> None:
    with pytest.raises(FormatError, match="line 9"):
        parse_maps(TEXT + line + "\n")


@given(st.text(max_size=200) | st.text(alphabet="0123456789abcdef- rwxp:/\n", max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(FormatError):
        parse_maps(text)

"""Colours of messages: which lines, and when."""

from __future__ import annotations

import os

import pytest

from sonde.output.colour import paint

TEXT = "a b.bt:3:1-9: ERROR: no\nx: ERROR: yes\n~~~\nHINT: do\nfile:1-4: WARNING: w"
PAINTED = "\033[31ma b.bt:3:1-9: ERROR: no\033[0m\nx: ERROR: yes\n~~~\nHINT: do\n\033[33mfile:1-4: WARNING: w\033[0m"


def test_on_a_terminal_only_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    terminal, other = os.openpty()
    try:
        for value, wanted in (
            ("auto", (TEXT, PAINTED)),
            ("nonsense", (TEXT, PAINTED)),
            ("never", (TEXT, TEXT)),
            ("always", (PAINTED, PAINTED)),
        ):
            monkeypatch.setenv("BPFTRACE_COLOR", value)
            assert (paint(TEXT, writer), paint(TEXT, other)) == wanted
        monkeypatch.delenv("BPFTRACE_COLOR")
        assert (paint(TEXT, writer), paint(TEXT, other), paint(TEXT, 9999)) == (TEXT, PAINTED, TEXT)
    finally:
        for fd in (reader, writer, terminal, other):
            os.close(fd)


@pytest.mark.parametrize("text", ["", "INFO: x", "Attached 1 probe", "print ERROR: x", ": ERROR: x", "a:1b: ERROR: x"])
def test_other_lines_stay_as_they_are(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFTRACE_COLOR", "always")
    assert paint(text, 2) == text

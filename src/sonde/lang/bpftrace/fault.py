"""Fault: a syntax error on its way from a scanner to the parser, which turns it into a Diagnostic and recovers."""

from __future__ import annotations


class Fault(Exception):
    """A syntax error at text[start:end]. Never leaves this package."""

    def __init__(self, message: str, start: int, end: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.start = start
        self.end = end
        self.hint = hint

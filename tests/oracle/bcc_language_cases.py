"""The BCC tools for interpreters side by side with BCC itself, with programs that have the same USDT probes (`standin`)."""

from __future__ import annotations

from oracle.bcc_cases import USER, Case
from oracle.bcc_tools import FIRE

# The tool divides by its interval, and ends after the first.
TIMES = "for i in 1 2 3 4 5 6 7 8 9 10; do kill -USR1 {app}; sleep 0.1; done; sleep 8"


def calls(language: str, app: str = "") -> tuple[Case, ...]:
    """The three tools that every language with calls has."""
    app = app or language
    return (
        Case(f"{language}calls", "{app}", FIRE, r"^(.*known_method +\d+)$", app=app, apart=USER),
        Case(f"{language}flow", "{app}", FIRE, r"((?:->|<-) .*)$", least=10, app=app, apart=USER),
        Case(f"{language}stat", "-C 10 1", TIMES, r"^\d+ +\S+ +(\d+ .*)$", app=app, apart=USER),
    )


LANGUAGE_CASES = (
    *calls("java"),
    Case("javagc", "{app}", FIRE, r"^\d+\.\d+ +\d+\.\d\d +(.*)$", app="java", apart=USER),
    Case("javaobjnew", "{app}", FIRE, r"^(b'KnownClass' .*)$", app="java", apart=USER),
    Case("javathreads", "{app}", FIRE, r"^\S+ +(.*known-thread.*)$", app="java", apart=USER),
    Case("nodegc", "{app}", FIRE, r"^\d+\.\d+ +\d+\.\d\d +(.*)$", app="node", apart=USER),
    Case("nodestat", "-C 10 1", TIMES, r"^\d+ +\S+ +(\d+ .*)$", app="node", apart=USER),
    *calls("perl"),
    *calls("php"),
    *calls("python"),
    Case("pythongc", "{app}", FIRE, r"^\d+\.\d+ +\d+\.\d\d +(.*)$", app="python", apart=USER),
    *calls("ruby"),
    Case("rubygc", "{app}", FIRE, r"^\d+\.\d+ +\d+\.\d\d +(.*)$", app="ruby", apart=USER),
    Case("rubyobjnew", "{app}", FIRE, r"^(b'.*)$", app="ruby", apart=USER),
    *calls("tcl", "tclsh"),
    Case("tclobjnew", "{app}", FIRE, r"^(b'.*)$", app="tclsh", apart=USER),
)

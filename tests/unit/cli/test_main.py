"""The command line's frame: names, subcommands, exit statuses, errors. Nothing here needs a privilege."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sonde import __version__
from sonde.cli.main import run
from sonde.cli.options import parse
from sonde.cli.script import SCRIPT_OPTIONS, trace_options
from sonde.errors import UsageError


def test_started_as_bpftrace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonde.cli.bpftrace.set_comm", lambda name: None)
    assert run("/usr/local/bin/bpftrace", ["--version"]) == 0
    assert capsys.readouterr().out == "bpftrace v0.27.1\n"
    assert run("sonde", ["bpftrace", "-V"]) == 0
    assert capsys.readouterr().out == "bpftrace v0.27.1\n"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sonde", ["version"]) == 0
    assert capsys.readouterr().out == f"sonde {__version__}\n"
    assert run("sonde", ["--help"]) == 0
    assert "trace" in capsys.readouterr().out
    assert run("sonde", ["trace", "--help"]) == 0
    assert "--explain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "words", "status", "text"),
    [
        ("sonde", ["trase"], 2, "did you mean trace?"),
        ("sonde", ["trace"], 2, "no program"),
        ("sonde", ["trace", "--fromat"], 2, "unknown option --fromat"),
        ("sonde", ["trace", "-e", "BEGIN {}", "-f", "xml"], 2, "format must be one of text, json"),
        ("sonde", ["trace", "-e", "BEGIN {}", "-p", "x"], 2, "-p needs a process id"),
        ("sonde", ["trace", "-e", "BEGIN {}", "-p", "1", "-c", "ls"], 2, "exclude each other"),
        ("sonde", ["trace", "/no/such/script.bt"], 2, "cannot read the script"),
        ("bpftrace", ["--nothing"], 1, "unknown option"),
        ("bpftrace", ["--include", "nothere.h", "-e", "BEGIN {}"], 1, 'there is no header "nothere.h"'),
        ("bpftrace", [], 1, "no program"),
    ],
)
def test_wrong_usage(
    program: str, words: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sonde.cli.bpftrace.set_comm", lambda name: None)
    assert run(program, words) == status
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.out == ""


def test_format_needs_no_privilege(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sonde.cli.bpftrace.set_comm", lambda name: None)
    script = tmp_path / "x.bt"
    script.write_text('BEGIN{printf("x\\n");exit()}')
    assert run("bpftrace", ["--fmt", str(script)]) == 0
    assert 'printf("x\\n");' in capsys.readouterr().out
    target = tmp_path / "out.bt"
    assert run("bpftrace", ["--fmt", "-o", str(target), str(script)]) == 0
    assert "printf" in target.read_text()
    assert sorted(os.listdir(tmp_path)) == ["out.bt", "x.bt"]


def test_words_after_the_dashes_are_parameters() -> None:
    arguments = parse(SCRIPT_OPTIONS, ["-e", "x", "one", "--", "--limit=3", "--fast", "two"])
    options = trace_options(arguments, arguments.positionals)
    assert options.params == ("one", "two")
    assert options.named == (("limit", "3"), ("fast", None))


def test_pid_range() -> None:
    with pytest.raises(UsageError):
        trace_options(parse(SCRIPT_OPTIONS, ["-p", "0"]), ())

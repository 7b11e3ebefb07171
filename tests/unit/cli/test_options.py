"""The option parser: long, short, clustered, permuted; and what it says when a line is wrong."""

from __future__ import annotations

import pytest

from sonde.cli.options import Option, format_help, parse
from sonde.errors import UsageError

TABLE = (
    Option("program", ("-e",), "the program", "PROGRAM"),
    Option("verbose", ("-v", "--verbose"), "talk"),
    Option("output", ("-o", "--output"), "where to", "FILE"),
    Option("hidden", ("--secret",), "not shown", hidden=True),
)


def test_forms_of_values() -> None:
    assert parse(TABLE, ["-e", "x"]).get("program") == "x"
    assert parse(TABLE, ["-ex"]).get("program") == "x"
    assert parse(TABLE, ["--output=f"]).get("output") == "f"
    assert parse(TABLE, ["--output", "f"]).get("output") == "f"
    assert parse(TABLE, ["--output="]).get("output") == ""


def test_clusters_and_counts() -> None:
    arguments = parse(TABLE, ["-vve", "prog", "-v"])
    assert (arguments.have("verbose"), arguments.get("program")) == (3, "prog")


def test_permutation_and_rest() -> None:
    arguments = parse(TABLE, ["script", "-v", "1", "-", "--", "--name=x", "-v"])
    assert arguments.positionals == ("script", "1", "-")
    assert arguments.rest == ("--name=x", "-v")
    assert arguments.have("verbose") == 1


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--verbos"], "unknown option --verbos", "did you mean --verbose?"),
        (["-x"], "unknown option -x", ""),
        (["-e"], "option -e needs a value: -e PROGRAM", ""),
        (["--verbose=1"], "option --verbose takes no value", ""),
    ],
)
def test_errors(words: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(TABLE, words)
    assert caught.value.message == message
    if hint:
        assert caught.value.hint == hint


def test_help_names_every_option_but_hidden_ones() -> None:
    text = format_help("tool [option...]", TABLE)
    assert "-o, --output FILE" in text
    assert "--secret" not in text
